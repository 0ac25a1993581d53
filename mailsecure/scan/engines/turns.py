"""So many at once; the others wait for their turn, in order, and not without bound."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from twisted.internet.defer import Deferred

from ...errors import LocalFault

__all__ = ["Crowded", "Turns"]


class Crowded(LocalFault):
    """No turn: too many wait, or there is nothing to wait for."""


class Turns:
    """An asynchronous context: within it are at most ``limit``; ``queue`` more may wait.

    Cancelling who waits takes it out of the queue.
    """

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = limit
        self._most = queue
        self._queue: deque[Deferred[None]] = deque()
        self._calling = False
        self.busy = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def dismiss(self, fault: Exception) -> None:
        """Have all who wait now fail with ``fault``."""
        queue, self._queue = self._queue, deque()
        for each in queue:
            each.errback(fault)

    async def __aenter__(self) -> None:
        """Wait for a turn; raises :class:`Crowded`."""
        if self.busy < self._limit and not self._queue:
            self.busy += 1
            return
        if len(self._queue) >= self._most:
            raise Crowded(f"{self._most} messages wait for it already")
        turn: Deferred[None] = Deferred(self._cancelled)
        self._queue.append(turn)
        await turn

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the turn to the next."""
        self.busy -= 1
        if self._calling:
            # The one that was called is through already: the loop below goes on, instead
            # of one call within the other for everybody who waits.
            return
        self._calling = True
        while self._queue and self.busy < self._limit:
            self.busy += 1
            self._queue.popleft().callback(None)
        self._calling = False

    def _cancelled(self, turn: Deferred[None]) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
