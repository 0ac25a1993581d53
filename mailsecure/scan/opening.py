"""A message is taken apart once, however many checks ask.

:func:`anatomy_of` gives what ``Content.anatomy`` is.  The first who asks has the job done
(:mod:`.jobs.mail`); who asks meanwhile or later gets the same result, or the same error.
A check that is late and gives up does not take it away from the others; when all have given
up, the process is killed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..config.model import Config
from ..spool.values import Body
from ..units import format_octets
from .anatomy import Anatomy, from_json
from .api import Unscannable, Workers
from .content.limits import limits_for

__all__ = ["anatomy_of"]

JOB = "jobs.mail:take_apart"


def anatomy_of(workers: Workers, config: Config, body: Body) -> Callable[[], Awaitable[Anatomy]]:
    """Return what returns the anatomy of ``body``.

    It raises :class:`~.api.Unscannable`, also for a message above ``[scan] max_scan_size``,
    :class:`~.api.WorkerFault`, and what reading the body raises.
    """
    return _Asked(workers, config, body).ask


class _Asked:
    """One message: nobody has asked, some wait, or it is known."""

    def __init__(self, workers: Workers, config: Config, body: Body) -> None:
        self._workers = workers
        self._config = config
        self._body = body
        self._work: Deferred[Anatomy] | None = None
        self._outcome: Anatomy | Failure | None = None
        self._waiting: list[Deferred[Anatomy]] = []

    async def ask(self) -> Anatomy:
        """Return the anatomy once it is there."""
        waiting: Deferred[Anatomy] = Deferred(self._gave_up)
        self._waiting.append(waiting)
        if self._outcome is not None:
            self._tell()
        elif self._work is None:
            work = self._work = Deferred.fromCoroutine(self._take_apart())
            work.addBoth(self._ended)
        return await waiting

    async def _take_apart(self) -> Anatomy:
        scan = self._config.scan
        if self._body.octets > scan.max_scan_size:
            most = format_octets(scan.max_scan_size)
            raise Unscannable(f"a message of more than {most} is not scanned")
        arguments = limits_for(scan, self._config.attachments)
        return from_json(await self._workers.run(JOB, arguments, self._body))

    def _ended(self, outcome: Anatomy | Failure) -> None:
        if self._waiting:
            self._outcome = outcome
            self._tell()

    def _tell(self) -> None:
        told, self._waiting = self._waiting, []
        for waiting in told:
            if isinstance(self._outcome, Failure):
                # Each its own: a Failure that is raised somewhere is changed by it.
                waiting.errback(self._outcome.value)
            elif self._outcome is not None:
                waiting.callback(self._outcome)

    def _gave_up(self, waiting: Deferred[Anatomy]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        work = self._work
        if not self._waiting and self._outcome is None and work is not None:
            # Who asks now begins anew.
            self._work = None
            work.cancel()
