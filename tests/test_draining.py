"""Proves in which order a node is taken out of work, and put back."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure import draining
from mailsecure.draining import HEARD, HEIR, OPENING, OPENING_AT_STOP, Drain, State
from mailsecure.errors import LocalFault

HANDOVER = 2.0


class FakeGateway:
    """Has as many sessions as it is told."""

    def __init__(self, said):
        self.said = said
        self.sessions = self.told = 0
        self.resting = False
        self.dismissed = Deferred()
        self.dismissed.callback(None)

    def count_sessions(self):
        return self.sessions

    def count_unfinished(self):
        return self.sessions - self.told

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
        self.said, self.shown = [], []
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
        self.advance(HEARD + OPENING + 0.2)
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
        self.advance(OPENING + HANDOVER + 0.1)
        self.assertIn("parts", self.said)
        self.advance(1)
        self.assertEqual(self.said[-3:], ["lets in", "rests", "dismisses"])
        self.assertIs(drain.state, State.DRAINED)

    def test_who_was_told(self):
        """Who was told goodbye is not waited for any more."""
        self.cluster.leads = False
        drain = self.drain()
        self.gateway.sessions = 2
        drain.begin(60)
        self.advance(1)
        self.gateway.told = 1
        self.advance(1)
        self.assertIs(drain.state, State.DRAINING)
        self.gateway.told = 2
        self.advance(0.1)
        self.assertIs(drain.state, State.DRAINED)

    def test_without_a_balancer(self):
        """Where the Master has all sessions, connections are held back at once."""
        drain = self.drain(balancer=False)
        self.gateway.sessions = 1
        drain.begin(60)
        self.advance(HEARD + OPENING)
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
        self.advance(HEARD + OPENING + HEIR - 0.2)
        self.assertIs(drain.state, State.HANDING_OVER)
        self.advance(0.5)
        # Clients have nobody else: it serves them.
        self.assertIs(drain.state, State.DRAINED)
        self.assertFalse(self.gateway.resting)
        self.assertTrue(drain.report()["master"])
        self.assertNotIn("dismisses", self.said)

    def test_slave(self):
        """Who is no Master holds nobody back."""
        self.cluster.leads = False
        drain = self.drain()
        drain.begin(60)
        self.gateway.sessions = 1
        self.advance(HEARD + 0.1)
        self.assertEqual(self.said, ["hello", "stands back", "rests"])
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
        for leads in (True, False):
            self.setUp()
            self.cluster.leads = leads
            drain = self.drain()
            self.gateway.sessions = 1
            drain.begin(600)
            self.advance(1)
            drain.begin(2)
            self.assertEqual(self.said.count("hello"), 1)
            self.assertEqual(drain.report()["left"], 2)
            self.advance(1.5)
            self.assertIs(drain.state, State.DRAINING)
            self.advance(0.6 + OPENING + HANDOVER + 0.5)
            self.assertIs(drain.state, State.DRAINED)

    def test_the_others_fail_meanwhile(self):
        """Where it comes to the handing over and nobody is there, it is called off."""
        drain = self.drain()
        self.gateway.sessions = 1
        drain.begin(60)
        self.advance(5)
        self.cluster.heir = False
        self.gateway.sessions = 0
        self.advance(0.1)
        self.assertIs(drain.state, State.WORKING)
        self.assertNotIn("holds back", self.said)
        self.assertFalse(self.balancer.draining)
        why = "nobody else could be Master of mail, web: this node stays at work"
        self.assertEqual(drain.report()["why"], why)
        self.assertFalse(self.clock.getDelayedCalls())
        self.cluster.heir = True
        drain.begin(60)
        self.assertEqual(drain.report()["why"], "")

    def test_what_is_shown(self):
        """Each state is shown when it begins, and who works is accepting mail."""
        drain = self.drain()
        drain.watch(self.shown.append)
        self.assertEqual(drain.activity, "accepting mail")
        drain.begin(1)
        self.advance(5)
        drain.end()
        self.assertEqual(
            self.shown, ["draining", "handing over", "draining", "drained", "accepting mail"]
        )

    def leave(self, drain):
        return Deferred.fromCoroutine(drain.leave(30))

    def test_leave(self):
        """At a stop who directs does so until its own sessions are over, then hands over."""
        drain = self.drain()
        self.gateway.sessions, self.balancer.sessions = 1, 1
        left = self.leave(drain)
        self.assertEqual((self.said, drain.state), (["hello"], State.DRAINING))
        self.assertTrue(drain.draining and self.balancer.draining)
        self.advance(1)
        self.assertEqual(self.said, ["hello"])
        self.gateway.sessions = 0
        self.advance(0.1)
        self.assertEqual((self.said[1:], drain.state), (["holds back"], State.HANDING_OVER))
        self.advance(OPENING_AT_STOP + HANDOVER - 0.2)
        self.assertNoResult(left)
        self.advance(0.3)
        self.successResultOf(left)
        # Nobody comes in any more: the stop is next.
        self.assertNotIn("lets in", self.said)

    def test_leave_with_sessions_that_stay(self):
        """They are told goodbye while the address is still here."""
        self.gateway.sessions = 1
        left = self.leave(self.drain())
        self.advance(HANDOVER + 0.1)
        self.assertEqual(self.said, ["hello", "dismisses", "holds back"])
        self.advance(1)
        self.successResultOf(left)

    def test_leave_without_a_balancer(self):
        """The sessions are waited for as long as a handover may take, and told goodbye."""
        self.gateway.sessions = 1
        left = self.leave(self.drain(balancer=False))
        self.assertEqual(self.said, ["hello", "holds back"])
        self.advance(OPENING_AT_STOP + HANDOVER - 0.1)
        self.assertNoResult(left)
        self.advance(0.3)
        self.assertEqual(self.said[2:], ["parts"])
        self.successResultOf(left)

    def test_leave_at_once(self):
        """Without sessions, a cluster, or somebody who could follow, a stop waits for nothing."""
        self.successResultOf(self.leave(self.drain()))
        self.gateway.sessions = 1
        self.successResultOf(self.leave(self.drain(cluster=False)))
        self.cluster.heir = False
        self.successResultOf(self.leave(self.drain()))
        self.assertEqual(self.said, [])

    def test_leave_as_a_slave(self):
        """Who is no Master lets the sessions that it was given end."""
        self.cluster.leads = False
        drain = self.drain(balancer=False)
        self.gateway.sessions = 1
        left = self.leave(drain)
        self.assertEqual(self.said, ["hello"])
        self.gateway.sessions = 0
        self.advance(0.1)
        self.successResultOf(left)

    def test_leave_while_draining(self):
        """A stop ends a drain that is under way, and lets nobody in again."""
        for moment in (0.1, 1):
            self.setUp()
            drain = self.drain(balancer=False)
            self.gateway.sessions = 1
            drain.begin(600)
            self.advance(moment)
            left = self.leave(drain)
            self.advance(0.1)
            self.gateway.sessions = 0
            self.advance(1)
            self.successResultOf(left)
            self.assertNotIn("dismisses", self.said)
            self.assertNotIn("lets in", self.said)
            self.assertFalse(self.clock.getDelayedCalls())
