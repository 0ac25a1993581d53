"""Proves which answers of a network mean that a process is dead."""

from twisted.internet import error
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.verify import ATTEMPTS, DEADLINE, Verdict, Verification
from mailsecure.world import World


class Verifying(SynchronousTestCase):
    """A network of words: the test answers each attempt."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        world = World(self.reactor, self.reactor, None, None, None)
        self.verdicts = []
        self.verification = Verification(
            world, ("192.0.2.2", 5025), "192.0.2.1", self.verdicts.append
        )

    @property
    def attempts(self):
        return self.reactor.tcpClients

    def refuse(self, number, kind=error.ConnectionRefusedError):
        connector = self.reactor.connectors[number]
        self.attempts[number][2].clientConnectionFailed(connector, Failure(kind()))

    def accept(self, number):
        protocol = self.attempts[number][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())
        return protocol

    def close(self, protocol):
        protocol.connectionLost(Failure(error.ConnectionDone()))

    def assertVerdict(self, *verdicts):
        """Told once, and nothing is left over."""
        self.assertEqual(self.verdicts, list(verdicts))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refused(self):
        """A refusal is a death, at once; asked from our address."""
        self.verification.start()
        host, port, _, timeout, source = self.attempts[0]
        self.assertEqual((host, port, source), ("192.0.2.2", 5025, ("192.0.2.1", 0)))
        self.assertLessEqual(timeout, DEADLINE)
        self.refuse(0)
        self.assertVerdict(Verdict.GONE)
        self.assertEqual(len(self.attempts), 1)

    def test_stands(self):
        """Connected, and that is all: a process, awake or not."""
        self.verification.start()
        self.accept(0)
        self.reactor.pump([0.01] * 40)
        self.assertEqual((self.verdicts, len(self.attempts)), ([], 1))
        self.reactor.advance(DEADLINE)
        self.assertVerdict(Verdict.THERE)

    def test_silence(self):
        """No answer at all; other attempts do not wait for it."""
        self.verification.start()
        self.reactor.pump([0.001] * 499)
        self.assertEqual((self.verdicts, len(self.attempts)), ([], len(ATTEMPTS)))
        self.reactor.advance(DEADLINE)
        self.assertVerdict(Verdict.UNKNOWN)

    def test_lost_syn(self):
        """The first SYN is lost, the second refused."""
        self.verification.start()
        self.reactor.advance(0.001)
        self.refuse(1)
        self.assertVerdict(Verdict.GONE)
        self.refuse(0)
        self.assertVerdict(Verdict.GONE)

    def test_dying(self):
        """Accepted and closed, since the listening socket was the last: refused next time."""
        self.verification.start()
        self.close(self.accept(0))
        self.assertEqual((self.verdicts, len(self.attempts)), ([], 2))
        self.refuse(1)
        self.assertVerdict(Verdict.GONE)

    def test_dying_slowly(self):
        """The same with more patience."""
        self.verification.start()
        for number in range(4):
            self.close(self.accept(number))
        self.assertEqual((self.verdicts, len(self.attempts)), ([], 4))
        self.reactor.advance(0.001)
        self.refuse(4)
        self.assertVerdict(Verdict.GONE)

    def test_turned_away(self):
        """Accepted and closed for ever: somebody is there, or not; bounded attempts."""
        self.verification.start()
        answered = 0
        for _ in range(600):
            while answered < len(self.attempts):
                self.close(self.accept(answered))
                answered += 1
            self.reactor.advance(0.001)
        self.assertVerdict(Verdict.UNKNOWN)
        self.assertLess(answered, 15)

    def test_other_failures(self):
        """Unreachable is not refused."""
        self.verification.start()
        self.refuse(0, error.TimeoutError)
        self.assertEqual(self.verdicts, [])
        self.reactor.advance(DEADLINE)
        self.assertVerdict(Verdict.UNKNOWN)

    def test_cancelled(self):
        """Nothing is told, nothing left."""
        self.verification.start()
        self.accept(0)
        self.verification.cancel()
        self.refuse(0)
        self.assertVerdict()
        self.assertTrue(self.reactor.connectors[0]._disconnected)
