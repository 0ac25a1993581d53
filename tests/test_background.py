"""Proves that work nobody waits for survives its failures and tells of them."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.background import Periodic, background


class Broken(Exception):
    """What goes wrong in these tests."""


class BackgroundTests(SynchronousTestCase):
    """:func:`background`."""

    def test_result(self):
        """The work is done, and its result is nobody's."""
        done = []

        async def work():
            done.append("work")
            return "something"

        self.assertIsNone(self.successResultOf(background("the work", work())))
        self.assertEqual(done, ["work"])

    def test_waits(self):
        """It ends when the work ends."""
        gate = Deferred()

        async def work():
            await gate

        ended = background("the work", work())
        self.assertNoResult(ended)
        gate.callback(None)
        self.assertIsNone(self.successResultOf(ended))

    def test_failure(self):
        """A failure is logged, and is no failure of who started it."""

        async def work():
            raise Broken("here")

        self.assertIsNone(self.successResultOf(background("the work", work())))
        (failure,) = self.flushLoggedErrors(Broken)
        self.assertEqual(failure.getErrorMessage(), "here")

    def test_cancelled(self):
        """Who cancels it knows; nothing is logged."""
        seen = []

        async def work():
            try:
                await Deferred()
            except CancelledError:
                seen.append("cancelled")
                raise

        ended = background("the work", work())
        ended.cancel()
        self.assertIsNone(self.successResultOf(ended))
        self.assertEqual(seen, ["cancelled"])


class PeriodicTests(SynchronousTestCase):
    """:class:`Periodic` under a clock in our hands."""

    def setUp(self):
        self.clock = Clock()
        self.times = []
        self.periodic = Periodic(self.clock, 5, "the round", self.work)

    def work(self):
        self.times.append(self.clock.seconds())

    def test_each_interval(self):
        """The first call comes after one interval, then one comes each interval."""
        self.periodic.start()
        self.assertEqual(self.times, [])
        self.clock.pump([5, 5, 5])
        self.assertEqual(self.times, [5, 10, 15])

    def test_no_burst(self):
        """A reactor that was late makes up for nothing."""
        self.periodic.start()
        self.clock.advance(23)
        self.assertEqual(self.times, [23])
        self.clock.advance(4.9)
        self.assertEqual(self.times, [23])
        self.clock.advance(0.1)
        self.assertEqual(self.times, [23, 28])

    def test_survives(self):
        """An exception is logged, and the next call comes all the same."""

        def broken():
            self.work()
            raise Broken

        Periodic(self.clock, 5, "the round", broken).start()
        self.clock.pump([5, 5])
        self.assertEqual(self.times, [5, 10])
        self.assertEqual(len(self.flushLoggedErrors(Broken)), 2)

    def test_start_twice(self):
        """Started again, it is still one."""
        self.periodic.start()
        self.periodic.start()
        self.clock.advance(5)
        self.assertEqual(self.times, [5])

    def test_stop(self):
        """After the end nothing comes; it can end twice, and begin again."""
        self.periodic.start()
        self.periodic.stop()
        self.periodic.stop()
        self.clock.advance(50)
        self.assertEqual((self.times, self.clock.getDelayedCalls()), ([], []))
        self.periodic.start()
        self.clock.advance(5)
        self.assertEqual(self.times, [55])

    def test_stop_from_within(self):
        """The work may end it."""

        def work():
            periodic.stop()

        periodic = Periodic(self.clock, 5, "the round", work)
        periodic.start()
        self.clock.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
