"""As many workers as there should be, whatever happens to them.

:class:`Staff` has the forking process (:mod:`.forker`) fork a worker for each that is
missing.  The place of one that was killed, or died of a job, is filled at once.  Where the
forking process cannot be started, or ends, or a worker dies without a job, it tries again
after a pause that doubles, so that trouble never becomes a busy loop.  The pool is told who
comes and who goes (:class:`Employer`).
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ...world import World
from .forker import Forker
from .tasks import Worker

__all__ = ["Employer", "Staff"]

_log = Logger(namespace="scan")

#: Seconds before trying again what failed; it doubles, up to the most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0


class Employer(Protocol):
    """Who is told of workers."""

    def make_worker(self, number: int) -> Worker:
        """Return a worker that is not there yet."""

    def came(self, worker: Worker) -> None:
        """It is there, and idle."""

    def died(self, worker: Worker, how: str) -> None:
        """It died by itself; ``how`` as a signal's name or an exit status."""

    def lost(self, worker: Worker) -> None:
        """It went with the process that forks them all."""


class Staff:
    """The workers of one pool."""

    def __init__(
        self,
        world: World,
        employer: Employer,
        wanted: int,
        package: str,
        memory: int,
    ) -> None:
        """``memory`` is what a worker may take, in octets."""
        self._world = world
        self._employer = employer
        self._package = package
        self._memory = memory
        #: How many there should be.
        self.wanted = wanted
        #: Those that are there, or about to be.
        self.workers: dict[int, Worker] = {}
        #: Those that are killed and have not died yet.
        self._leaving: set[int] = set()
        #: What this kernel does not keep workers from (:mod:`.forking`); empty until it is known.
        self.lacks: list[str] = []
        self._forker: Forker | None = None
        self._ready = False
        self._running = False
        self._stopped: Deferred[None] | None = None
        self._numbers = 0
        self._pause = 0.0
        self._again: IDelayedCall | None = None

    def start(self) -> None:
        """Start to fill the places."""
        self._running = True
        self._refill()

    def stop(self) -> Deferred[None] | None:
        """End all; returns None where nobody is there to wait for."""
        self._running = self._ready = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        for worker in list(self.workers.values()):
            self._forget(worker)
        if self._forker is None:
            return None
        self._stopped = Deferred()
        self._forker.end()
        return self._stopped

    def praise(self) -> None:
        """All is well: after the next trouble the pause is the shortest again."""
        self._pause = 0.0

    def dismiss(self, worker: Worker) -> None:
        """Kill a worker and fill its place.  Nothing is told of it."""
        self._forget(worker)
        self._leaving.add(worker.number)
        if self._forker is not None:
            self._forker.kill(worker.number)
        self._refill()

    def _forget(self, worker: Worker) -> None:
        del self.workers[worker.number]
        worker.link.close()

    # -- see .forker.Hearer

    def forking(self, lacks: list[str]) -> None:
        """See :class:`.forker.Hearer`."""
        self.lacks = lacks
        self._ready = self._running
        self._refill()

    def born(self, number: int, process: int) -> None:
        """See :class:`.forker.Hearer`."""
        worker = self.workers.get(number)
        if worker is not None:
            worker.process = process
            self._employer.came(worker)

    def died(self, number: int, how: str) -> None:
        """See :class:`.forker.Hearer`."""
        self._leaving.discard(number)
        worker = self.workers.get(number)
        if worker is not None:
            how = how or "by itself"
            _log.warn("worker {number} died: {reason}", number=number, reason=how)
            if worker.task is None:
                self._slow_down()
            self._forget(worker)
            self._employer.died(worker, how)
        self._refill()

    def ended(self, how: str) -> None:
        """See :class:`.forker.Hearer`."""
        self._forker, self._ready = None, False
        self._leaving.clear()
        if self._stopped is not None:
            stopped, self._stopped = self._stopped, None
            stopped.callback(None)
            return
        reason = how or "by itself"
        _log.error("the process that forks workers ended: {reason}", reason=reason)
        self._slow_down()
        for worker in list(self.workers.values()):
            self._forget(worker)
            self._employer.lost(worker)

    # -- as many as there should be

    def _slow_down(self) -> None:
        if self._again is None:
            self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
            self._again = self._world.clock.callLater(self._pause, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        self._refill()

    def _refill(self) -> None:
        if not self._running or self._again is not None:
            return
        try:
            if self._forker is None:
                self._start_forker()
            elif self._ready:
                # Those that leave have their memory still: there are never twice as many.
                while len(self.workers) < self.wanted and len(self._leaving) < self.wanted:
                    self._fork(self._forker)
        except OSError as fault:
            _log.error("workers cannot be started: {reason}", reason=fault.strerror)
            self._slow_down()

    def _start_forker(self) -> None:
        forker = Forker(self._world, self, self._package)
        forker.start()
        self._forker = forker

    def _fork(self, forker: Forker) -> None:
        self._numbers += 1
        worker = self._employer.make_worker(self._numbers)
        with worker.link.open() as theirs:
            self.workers[worker.number] = worker
            forker.fork(worker.number, theirs, self._memory)
