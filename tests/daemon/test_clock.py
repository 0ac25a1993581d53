"""Proves that the reactor takes no time from a clock that can be set, and who notices."""

import random
import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.clock import SetBack, use_monotonic_time
from mailsecure.world import World


class SleepingReactor(ReactorBase):
    """A reactor without sockets, that never waits."""

    def installWaker(self):
        """Nobody wakes it."""

    def doIteration(self, delay):
        """Nothing happens outside."""


class MonotonicTimeTests(SynchronousTestCase):
    """:func:`use_monotonic_time` on a reactor of the test's own."""

    def setUp(self):
        self.now = 5000.0
        self.patch(time, "monotonic", lambda: self.now)
        self.reactor = SleepingReactor()
        use_monotonic_time(self.reactor)

    def test_seconds(self):
        """The reactor's time is that of CLOCK_MONOTONIC."""
        self.assertEqual(self.reactor.seconds(), 5000.0)
        self.assertGreater(time.time(), 1e9)

    def test_delayed_calls(self):
        """A delayed call comes by that clock, wherever the wall clock goes."""
        called = []
        self.reactor.callLater(60, called.append, "late")
        self.patch(time, "time", lambda: 4e9)
        self.reactor.runUntilCurrent()
        self.assertEqual(called, [])
        self.now += 59
        self.reactor.runUntilCurrent()
        self.assertEqual(called, [])
        self.now += 1
        self.reactor.runUntilCurrent()
        self.assertEqual(called, ["late"])

    def test_too_late(self):
        """A reactor that has already measured with the other clock is not mixed up."""
        self.reactor.callLater(60, lambda: None)
        self.assertRaises(AssertionError, use_monotonic_time, self.reactor)


class SetBackTests(SynchronousTestCase):
    """:class:`SetBack` between two clocks in our hands."""

    def setUp(self):
        self.clock = Clock()
        self.ahead = 1795348800.0
        self.noticed = []
        world = World(
            self.clock,
            self.clock,
            lambda: self.clock.seconds() + self.ahead,
            random.Random(1),
            None,
        )
        self.watch = SetBack(world, self.noticed.append)
        self.clock.advance(100)
        self.watch.start()

    def test_quiet(self):
        """Two clocks that go alike, or drift apart a little, are nothing."""
        for _ in range(100):
            self.ahead -= 0.01
            self.clock.advance(5)
        self.assertEqual(self.noticed, [])

    def test_back(self):
        """Set back, it is noticed once, with by how much."""
        self.clock.advance(5)
        self.ahead -= 3600
        self.clock.advance(5)
        self.assertEqual([round(each) for each in self.noticed], [3600])
        self.clock.pump([5] * 10)
        self.assertEqual(len(self.noticed), 1)
        self.ahead -= 60
        self.clock.advance(5)
        self.assertEqual(len(self.noticed), 2)

    def test_forward(self):
        """Set forward is nothing; but back from there is."""
        self.ahead += 3600
        self.clock.advance(5)
        self.assertEqual(self.noticed, [])
        self.ahead -= 3600
        self.clock.advance(5)
        self.assertEqual(len(self.noticed), 1)

    def test_end(self):
        """Nobody watches after the end."""
        self.watch.stop()
        self.ahead -= 3600
        self.clock.advance(50)
        self.assertEqual((self.noticed, self.clock.getDelayedCalls()), ([], []))
