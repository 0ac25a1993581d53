"""Proves that the collector leaves alone what the start made, and still finds cycles."""

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.collector import tame


class Knot:
    """An object that keeps itself."""

    def __init__(self):
        self.myself = self


class TameTests(SynchronousTestCase):
    """:func:`tame`; the test puts the collector back as it was."""

    def setUp(self):
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)

    def test_frozen(self):
        """What is there is never looked at again, and runs become rarer."""
        before = gc.get_threshold()
        tame()
        self.assertGreater(gc.get_freeze_count(), 1000)
        self.assertGreater(gc.get_threshold()[0], before[0])
        self.assertTrue(gc.isenabled())

    def test_garbage_first(self):
        """Garbage of the start is not frozen with the rest."""
        gone = weakref.ref(Knot())
        tame()
        self.assertIsNone(gone())

    def test_cycles_are_found(self):
        """The collector still runs by itself."""
        tame()
        gone = weakref.ref(Knot())
        kept = [[] for _ in range(gc.get_threshold()[0] + 1000)]
        self.assertIsNone(gone())
        self.assertTrue(kept)
