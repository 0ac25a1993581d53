"""A real pool of processes for a test, with a watch on the reactor."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.config.load import parse_config
from mailsecure.scan.workers.pool import WorkerPool
from mailsecure.testing.resolver import FakeResolver
from mailsecure.world import World

__all__ = ["PooledTestCase", "Watch", "reactor"]

reactor: Any = _reactor


class PooledTestCase(TestCase):
    """Has a pool; ``ini`` are its options, ``package`` where its jobs are."""

    timeout = 120
    ini = "[scan]\nworkers = 2\n"
    package = "mailsecure.scan"

    def setUp(self) -> Deferred[None]:
        self.world = World(reactor, reactor, lambda: 0.0, random.Random(1), FakeResolver())
        self.config = parse_config(self.ini, "test.ini")
        self.pool = WorkerPool(self.world, self.config.scan, self.package)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.pool.stop()))
        return Deferred.fromCoroutine(self.pool.start())

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until ``true`` says so, for ten seconds."""
        for _ in range(1000):
            if true():
                return
            await deferLater(reactor, 0.01, int)
        raise AssertionError(f"not within 10 s: {what}")


class Watch:
    """Looks at the reactor every 5 ms: how long did it do something else?

    ``busy`` is the most processor time that passed between two looks, in seconds: what
    the reactor's thread did itself.  ``late`` is the most real time; other processes of
    this machine have their part in that.
    """

    def __init__(self) -> None:
        self.busy = self.late = 0.0
        self._call: Any = None

    def start(self) -> None:
        """Begin."""
        self._then = (time.thread_time(), time.monotonic())
        self._call = reactor.callLater(0.005, self._look)

    def stop(self) -> None:
        """End."""
        self._call.cancel()

    def _look(self) -> None:
        now = (time.thread_time(), time.monotonic())
        self.busy = max(self.busy, now[0] - self._then[0])
        self.late = max(self.late, now[1] - self._then[1])
        self._then = now
        self._call = reactor.callLater(0.005, self._look)
