"""Proves that the reactor takes no time from a clock that can be set."""

import time

from twisted.internet.base import ReactorBase
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.clock import use_monotonic_time


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
