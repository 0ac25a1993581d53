"""Proves in which order a node is taken out of work, and put back."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure import draining
from mailsecure.draining import BACKLOG, HEARD, HEIR, Drain, State
from mailsecure.errors import LocalFault

HANDOVER = 2.0


class FakeGateway:
    """Has as many sessions as it is told."""

    def __init__(self, said):
        self.said = said
        self.sessions = 0
        self.resting = False
        self.dismissed = Deferred()
        self.dismissed.callback(None)

    def count_sessions(self):
        return self.sessions

    def listeners(self):
        return ["listener"]

    def rest(self, resting):
        if resting != self.resting:
            self.said.append("rests" if resting else "works")
        self.resting = resting

    def part(self):
        self.said.append("parts")
        self.sessions = 0

    async def dismiss(self, limit):
        self.said.append("dismisses")
        await self.dismissed
        self.sessions = 0


class FakeCluster:
    """Is Master until it is drained, if there is an heir."""

    def __init__(self, said):
        self.said = said
        self.leads = True
        self.holding = True
        self.heir = True

    def nobody_else(self):
        return [] if self.heir or not self.leads else ["mail", "web"]

    def speak(self):
        self.said.append("hello")

    def drain(self, draining):
        self.said.append("stands back" if draining else "comes forward")
        self.leads = self.holding = False


class FakeBalancer:
    """Directs as many sessions as it is told."""

    def __init__(self):
        self.draining = False
        self.sessions = 0


class DrainTests(SynchronousTestCase):
    """:class:`Drain` over fakes."""

    def setUp(self):
        self.clock = Clock()
        self.said = []
        self.gateway, self.cluster = FakeGateway(self.said), FakeCluster(self.said)
        self.balancer = FakeBalancer()
        self.patch(draining, "hold_back", lambda _: self.said.append("holds back"))
        self.patch(draining, "let_in", lambda _: self.said.append("lets in"))

    def drain(self, cluster=True, balancer=True):
        return Drain(
            self.clock,
            self.gateway,
            self.cluster if cluster else None,
            self.balancer if balancer else None,
            lambda: HANDOVER,
        )

    def advance(self, seconds):
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)

    def test_master(self):
        """It directs until its own sessions are over, then hands over, then rests."""
        drain = self.drain()
        self.gateway.sessions, self.balancer.sessions = 2, 5
        drain.begin(60)
        self.assertEqual((drain.state, self.said), (State.DRAINING, ["hello"]))
        self.assertTrue(self.balancer.draining)
        self.advance(10)
        self.assertEqual(self.said, ["hello"])
        self.gateway.sessions = 0
        self.advance(0.1)
        self.assertEqual((drain.state, self.said[1:]), (State.HANDING_OVER, ["holds back"]))
        self.assertEqual(drain.report()["directed"], 5)
        self.assertTrue(49 < drain.report()["left"] < 50)
        self.balancer.sessions = 0
        self.advance(0.2)
        self.assertEqual(self.said[2:], ["stands back", "lets in", "rests", "dismisses"])
        self.assertIs(drain.state, State.DRAINED)
        self.assertEqual(drain.report()["left"], 0)

    def test_undrain(self):
        """Everything is as before; to say it twice does nothing."""
        drain = self.drain()
        drain.begin(1)
        self.advance(HEARD + BACKLOG + 0.2)
        self.assertIs(drain.state, State.DRAINED)
        self.said.clear()
        self.assertTrue(drain.end())
        self.assertEqual(self.said, ["lets in", "works", "comes forward", "hello"])
        self.assertFalse(self.balancer.draining or drain.draining)
        self.assertFalse(drain.end())
        self.assertFalse(self.clock.getDelayedCalls())

    def test_undrain_meanwhile(self):
        """At whatever moment it is taken back, nothing of it happens afterwards."""
        for moment in (0.05, 1.0, 2.5, 4.5, 5.5):
            self.setUp()
            drain = self.drain()
            self.gateway.sessions, self.balancer.sessions = 1, 1
            self.gateway.dismissed = Deferred()
            drain.begin(2)
            self.advance(moment)
            self.assertIsNot(drain.state, State.DRAINED)
            drain.end()
            self.gateway.dismissed.callback(None)
            self.said.clear()
            self.advance(20)
            self.assertIs(drain.state, State.WORKING)
            self.assertEqual([word for word in self.said if word != "lets in"], [], moment)
            self.assertFalse(self.clock.getDelayedCalls())

    def test_sessions_that_stay(self):
        """Nothing waits longer than it was told: then they hear goodbye."""
        drain = self.drain()
        self.gateway.sessions = self.balancer.sessions = 1
        drain.begin(5)
        self.advance(HEARD + 5)
        self.assertIs(drain.state, State.HANDING_OVER)
        self.advance(BACKLOG + HANDOVER + 0.1)
        self.assertIn("parts", self.said)
        self.advance(1)
        self.assertEqual(self.said[-3:], ["lets in", "rests", "dismisses"])
        self.assertIs(drain.state, State.DRAINED)

    def test_without_a_balancer(self):
        """Where the Master has all sessions, connections are held back at once."""
        drain = self.drain(balancer=False)
        self.gateway.sessions = 1
        drain.begin(60)
        self.advance(HEARD + BACKLOG)
        self.assertEqual(self.said, ["hello", "holds back"])
        self.gateway.sessions = 0
        self.advance(0.2)
        self.assertIs(drain.state, State.DRAINED)
        self.assertNotIn("parts", self.said)

    def test_no_heir_comes(self):
        """The addresses are not waited for without end."""
        drain = self.drain()
        self.cluster.drain = lambda draining: None
        drain.begin(1)
        self.advance(HEARD + BACKLOG + HEIR - 0.2)
        self.assertIs(drain.state, State.HANDING_OVER)
        self.advance(0.5)
        # Clients have nobody else: it serves them.
        self.assertIs(drain.state, State.DRAINED)
        self.assertFalse(self.gateway.resting)

    def test_slave(self):
        """Who is no Master holds nobody back."""
        self.cluster.leads = False
        drain = self.drain()
        drain.begin(60)
        self.gateway.sessions = 1
        self.advance(HEARD + 0.1)
        self.assertEqual(self.said, ["hello", "rests"])
        self.assertIs(drain.state, State.DRAINING)
        self.gateway.sessions = 0
        self.advance(0.1)
        self.assertIs(drain.state, State.DRAINED)

    def test_alone(self):
        """A node in no cluster refuses new sessions until it works again."""
        drain = self.drain(cluster=False, balancer=False)
        drain.begin(60)
        self.assertEqual(self.said, ["rests", "dismisses"])
        self.assertIs(drain.state, State.DRAINED)
        self.assertTrue(drain.end())
        self.assertFalse(self.gateway.resting)

    def test_nobody_else(self):
        """A group that nobody else could take is not given up."""
        self.cluster.heir = False
        drain = self.drain()
        fault = self.assertRaises(LocalFault, drain.begin, 60)
        self.assertEqual(
            str(fault), "nobody else could be Master of mail, web: this node stays at work"
        )
        self.assertIs(drain.state, State.WORKING)
        self.assertEqual(self.said, [])

    def test_the_address_comes_back(self):
        """Who is the last one left serves, though it drains."""
        drain = self.drain()
        drain.begin(1)
        self.advance(1)
        self.assertTrue(self.gateway.resting)
        self.cluster.leads = True
        self.advance(1)
        self.assertFalse(self.gateway.resting)
        self.cluster.leads = False
        self.advance(1)
        self.assertTrue(self.gateway.resting)

    def test_another_deadline(self):
        """To drain while it drains sets the time anew, and begins nothing."""
        drain = self.drain()
        self.gateway.sessions = 1
        drain.begin(600)
        self.advance(1)
        drain.begin(2)
        self.assertEqual(self.said, ["hello"])
        self.assertEqual(drain.report()["left"], 2)

    def test_leave(self):
        """At a stop the Master waits for sessions, for as long as a handover may take."""
        drain = self.drain()
        self.balancer.sessions = 1
        left = Deferred.fromCoroutine(drain.leave())
        self.assertEqual(self.said, ["hello", "holds back"])
        self.assertTrue(drain.draining)
        self.advance(HANDOVER - 0.1)
        self.assertNoResult(left)
        self.advance(0.2)
        self.successResultOf(left)

    def test_leave_at_once(self):
        """Without sessions, or without a cluster, a stop waits for nothing."""
        self.successResultOf(Deferred.fromCoroutine(self.drain().leave()))
        self.gateway.sessions = 1
        self.successResultOf(Deferred.fromCoroutine(self.drain(cluster=False).leave()))
        self.assertEqual(self.said, [])

    def test_leave_as_a_slave(self):
        """Who is no Master lets the sessions that it was given end."""
        self.cluster.leads = False
        drain = self.drain(balancer=False)
        self.gateway.sessions = 1
        left = Deferred.fromCoroutine(drain.leave())
        self.assertEqual(self.said, ["hello"])
        self.gateway.sessions = 0
        self.advance(0.1)
        self.successResultOf(left)

    def test_leave_while_draining(self):
        """A stop ends a drain that is under way."""
        drain = self.drain()
        self.gateway.sessions = 1
        drain.begin(600)
        self.advance(1)
        left = Deferred.fromCoroutine(drain.leave())
        self.gateway.sessions = 0
        self.advance(1)
        self.successResultOf(left)
        self.assertNotIn("dismisses", self.said)
        self.assertFalse(self.clock.getDelayedCalls())
