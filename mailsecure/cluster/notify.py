"""The ``notify`` commands: run on each change of role, one after another, in bounded time.

A command gets four arguments after its own: the group, the old role, the new role and the
reason.  It runs beside the daemon, which never waits for it: the address has moved by the
time it starts.  Commands run in the order of the changes, because a late "backup" after a
"master" would leave a machine's other services in the wrong state.  One that takes longer
than :data:`LIMIT` seconds is killed.

Its output is thrown away: what it has to say belongs into a log of its own.
"""

from __future__ import annotations

import os
import shlex
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..world import World

__all__ = ["LIMIT", "Notices"]

_log = Logger(namespace="cluster")

LIMIT = 30.0
#: Changes that may wait; with more, the oldest are left out, and that is told.
MOST_WAITING = 32


class Notices:
    """Runs the commands that are put to it; see the module's text."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: deque[tuple[str, ...]] = deque()
        self._running: _Run | None = None

    def put(self, command: str, arguments: Sequence[str]) -> None:
        """Run ``command`` (words as a shell would split them) with ``arguments``, in turn."""
        if not command:
            return
        if len(self._waiting) >= MOST_WAITING:
            left_out = self._waiting.popleft()
            _log.warn("too many changes of role: {command} was not run", command=left_out)
        self._waiting.append((*shlex.split(command), *arguments))
        self._next()

    async def finish(self, limit: float) -> None:
        """Wait until all commands ended, ``limit`` seconds at most; then kill and forget."""
        while self._running is not None:
            before, done = self._world.clock.seconds(), Deferred[None]()
            self._running.ended.append(done)
            late = self._world.clock.callLater(max(0.0, limit), self._give_up)
            await done
            if late.active():
                late.cancel()
            limit -= self._world.clock.seconds() - before

    def _give_up(self) -> None:
        self._waiting.clear()
        if self._running is not None:
            self._running.kill()

    def _next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        words = self._waiting.popleft()
        run = self._running = _Run(self._world, words, self._over)
        try:
            self._world.reactor.spawnProcess(run, words[0], words, _environment())
        except OSError as error:
            _log.error("cannot run {command}: {reason}", command=words[0], reason=error.strerror)
            self._over()

    def _over(self) -> None:
        run, self._running = self._running, None
        if run is not None:
            for each in run.ended:
                each.callback(None)
        self._next()


def _environment() -> dict[str, str]:
    """Return our environment without what only concerns us and systemd."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    }


class _Run(ProcessProtocol):
    """One command that runs."""

    def __init__(self, world: World, words: tuple[str, ...], over: Any) -> None:
        self._clock = world.clock
        self._words = words
        self._over = over
        self._late: IDelayedCall | None = None
        #: Who waits for the end.
        self.ended: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """It runs."""
        self._late = self._clock.callLater(LIMIT, self._too_late)

    def _too_late(self) -> None:
        _log.warn(
            "{command} was killed: it took longer than {seconds} s",
            command=self._words[0],
            seconds=LIMIT,
        )
        self.kill()

    def kill(self) -> None:
        """End it."""
        transport = self.transport
        if transport is not None:
            with suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")

    def processExited(self, reason: Failure) -> None:
        """It ended; what it may have left behind is not waited for."""
        if self._late is not None and self._late.active():
            self._late.cancel()
        if not reason.check(ProcessDone):
            _log.warn(
                "{command} failed: {reason}",
                command=" ".join(self._words),
                reason=reason.getErrorMessage(),
            )
        self._over()
