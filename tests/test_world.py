"""Proves that the world outside cannot be changed, and that blocking work leaves the reactor."""

import random
import threading
from dataclasses import FrozenInstanceError

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from mailsecure.world import World


class WorldTests(TestCase):
    """:class:`World` around the real reactor."""

    def setUp(self):
        self.world = World(reactor, reactor, lambda: 0.0, random.Random(1), None)

    def test_frozen(self):
        """Nobody exchanges a part of it."""
        with self.assertRaises(FrozenInstanceError):
            self.world.wall = lambda: 1.0

    @inlineCallbacks
    def test_in_thread(self):
        """A blocking call runs elsewhere; its result comes back here."""

        def blocking(left, right):
            return left + right, threading.current_thread()

        total, thread = yield self.world.in_thread(blocking, 3, 4)
        self.assertEqual(total, 7)
        self.assertIsNot(thread, threading.current_thread())

    @inlineCallbacks
    def test_failure(self):
        """So does what it raises."""
        with self.assertRaises(ZeroDivisionError):
            yield self.world.in_thread(lambda: 1 / 0)
