"""Wakes destinations when something of theirs is due: one heap, one delayed call.

Times are Unix seconds, because the queue's are; the wall clock may be set while we wait,
so it is looked at again every :data:`LONGEST` seconds at least.  A destination that is
given an earlier time keeps its old entry in the heap, which then finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .queueing import NEVER, Destination

__all__ = ["Alarms"]

LONGEST = 30.0


class Alarms:
    """``ring`` is called with each destination whose time has come."""

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        ring: Callable[[Destination], None],
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._ring = ring
        self._heap: list[tuple[float, int, Destination]] = []
        self._ties = count()
        self._call: IDelayedCall | None = None
        self._call_at = NEVER

    def set(self, destination: Destination, when: float) -> None:
        """Wake ``destination`` at ``when``, unless it is to be woken earlier."""
        if when < destination.alarm:
            destination.alarm = when
            heappush(self._heap, (when, next(self._ties), destination))
            if when < self._call_at:
                self._arm()

    def stop(self) -> None:
        """Wake nobody any more."""
        for _, _, destination in self._heap:
            destination.alarm = NEVER
        self._heap.clear()
        self._disarm()

    def _disarm(self) -> None:
        if self._call is not None:
            self._call.cancel()
        self._call = None
        self._call_at = NEVER

    def _arm(self) -> None:
        """Set the call for the first in the heap, which is not empty."""
        self._disarm()
        self._call_at = self._heap[0][0]
        wait = min(max(self._call_at - self._wall(), 0.0), LONGEST)
        self._call = self._clock.callLater(wait, self._go_off)

    def _go_off(self) -> None:
        self._call = None
        self._call_at = NEVER
        now = self._wall()
        while self._heap and self._heap[0][0] <= now:
            when, _, destination = heappop(self._heap)
            if when == destination.alarm:
                destination.alarm = NEVER
                self._ring(destination)
        if self._heap and self._call is None:
            self._arm()
