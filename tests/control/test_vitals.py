"""Proves that a late reactor is measured, and told in the log without flooding it."""

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.vitals import Vitals
from mailsecure.counters import Counters

from .fakes import NOON, world


class LatenessTests(SynchronousTestCase):
    """:class:`Vitals` on a clock that jumps, as a reactor's does while it is kept."""

    def setUp(self):
        self.clock = Clock()
        self.vitals = Vitals(world(self.clock, lambda: NOON), Counters())
        self.vitals.startService()

    def kept(self, *seconds):
        """Let time pass in jumps; return the lateness that was told."""
        with capturedLogs() as events:
            self.clock.pump(seconds)
        return [round(event["seconds"], 3) for event in events if "seconds" in event]

    def test_on_time(self):
        """A reactor that is on time, or nearly, is worth no line."""
        self.assertEqual(self.kept(*[0.25] * 40, *[0.375] * 40), [])
        self.assertAlmostEqual(self.vitals.lateness(), 0.125)

    def test_late(self):
        """Half a second is told with its length, and remembered for a minute."""
        self.assertEqual(self.kept(0.25, 0.75), [0.5])
        self.assertAlmostEqual(self.vitals.lateness(), 0.5)

    def test_bounded(self):
        """A reactor that is always late is told once a minute."""
        self.assertEqual(len(self.kept(*[1.25] * 96)), 2)

    def test_stopped(self):
        """Nothing is measured after the end."""
        self.vitals.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.kept(100), [])
