"""Connections to one next hop: few, busy, and handed on while they are warm.

At most ``concurrency`` connections are open at once.  Who needs one takes the one that
was used last (its TCP window is widest, and the others may grow old and go), or opens a
new one, or waits; those who wait are served in the order they came.  An idle connection
is kept ``reuse`` seconds; after ``reuse_count`` messages, or as many as the server's
MAILMAX allows, it is closed.

A next hop may take fewer connections than we would like and greet one too many with 421.
That is no reason to leave it alone, as long as others of ours are at work there: the
number is lowered to those for :data:`RELENT` seconds, and the job waits for one of them.
Only when none is left do those who wait learn that the next hop is down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import RemoteFault
from ..smtp.sending import CouldNotOpen, SmtpConnection

__all__ = ["ConnectionPool", "PoolLimits"]

#: For how long a next hop that refused one more connection is not asked for it again.
RELENT = 60.0

Opener = Callable[[], Coroutine[Deferred[Any], Any, SmtpConnection]]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections, for how many seconds idle, for how many messages each."""

    concurrency: int
    reuse: float
    reuse_count: int


class ConnectionPool:
    """The connections to one next hop; ``opener`` makes one more."""

    def __init__(self, clock: IReactorTime, limits: PoolLimits, opener: Opener) -> None:
        self._clock = clock
        self._limits = limits
        self._opener = opener
        #: (since when it is idle, connection), the one used last at the end.
        self._idle: deque[tuple[float, SmtpConnection]] = deque()
        # A job is woken with a connection, with None to open one itself, or with a failure.
        self._waiting: deque[Deferred[SmtpConnection | None]] = deque()
        self._open = 0
        self._opening = 0
        self._lowered = (0, 0.0)
        self._timer: IDelayedCall | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are open or being opened."""
        return self._open + self._opening

    @property
    def unused(self) -> bool:
        """True where nothing would be lost with this pool."""
        return not (self._open or self._opening or self._waiting)

    def take_idle(self) -> SmtpConnection | None:
        """Return an open connection that waits for work, or None."""
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.usable:
                return connection
        return None

    async def acquire(self, fresh: bool = False) -> SmtpConnection:
        """Return a connection; :meth:`release` it.  Raises :class:`CouldNotOpen`.

        ``fresh`` asks for one that was not used before.
        """
        connection = None if fresh else self.take_idle()
        while connection is None:
            if fresh and self.connections >= self._limit() and (old := self.take_idle()):
                self._retire(old)
            if self.connections < self._limit():
                try:
                    return await self._open_one()
                except CouldNotOpen:
                    if not self.connections:
                        raise
                    self._lowered = (self.connections, self._clock.seconds() + RELENT)
            waiting: Deferred[SmtpConnection | None] = Deferred(self._cancelled)
            self._waiting.append(waiting)
            connection = await waiting
        return connection

    def release(self, connection: SmtpConnection) -> None:
        """Give a connection back, whatever state it is in."""
        if not connection.usable:
            return
        most = connection.capabilities.mail_max or self._limits.reuse_count
        if self._closed or connection.messages >= min(most, self._limits.reuse_count):
            self._retire(connection)
        elif self._waiting:
            self._waiting.popleft().callback(connection)
        else:
            self._idle.append((self._clock.seconds(), connection))
            if self._timer is None:
                self._timer = self._clock.callLater(self._limits.reuse, self._sweep)

    async def close(self) -> None:
        """Close idle connections; busy ones close when they are released."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (connection := self.take_idle()) is not None:
            self._retire(connection)

    # -- within

    def _limit(self) -> int:
        lowered, until = self._lowered
        if lowered and self._clock.seconds() < until:
            return lowered
        return self._limits.concurrency

    async def _open_one(self) -> SmtpConnection:
        self._opening += 1
        try:
            connection = await self._opener()
        except CouldNotOpen as fault:
            self._opening -= 1
            if not self.connections:
                self._fail_waiting(fault)
            raise
        except BaseException:
            # Cancelled, or a fault of ours: somebody else may try.
            self._opening -= 1
            self._wake()
            raise
        self._opening -= 1
        self._open += 1
        connection.lost = self._lost
        return connection

    def _retire(self, connection: SmtpConnection) -> None:
        connection.lost = None
        connection.leave()
        self._lost(connection)

    def _lost(self, connection: SmtpConnection) -> None:
        self._open -= 1
        self._wake()

    def _wake(self) -> None:
        if self._waiting and self.connections < self._limit():
            self._waiting.popleft().callback(None)

    def _fail_waiting(self, fault: RemoteFault) -> None:
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            one.errback(fault)

    def _cancelled(self, waiting: Deferred[SmtpConnection | None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _sweep(self) -> None:
        """Say goodbye to those that were idle too long."""
        self._timer = None
        now = self._clock.seconds()
        while self._idle:
            left = self._idle[0][0] + self._limits.reuse - now
            if left > 0:
                self._timer = self._clock.callLater(left, self._sweep)
                return
            connection = self._idle.popleft()[1]
            if connection.usable:
                self._retire(connection)
