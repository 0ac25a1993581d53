"""The reactor on monotonic time (design decision 2), and a watch on the other clock.

Twisted's reactor takes its time from the wall clock.  When that is set back an hour,
every timeout waits an hour longer and a Master falls silent; set forward, all of them
fire at once.  The reactor asks ``self.seconds`` for everything, so one attribute is
enough, as long as it is set before the first delayed call is made.

The queue's times are in Unix time all the same, because they must mean something after
a reboot.  When the wall clock is set back an hour, what was due in a minute would be due
in an hour and a minute.  :class:`SetBack` notices, so that :mod:`mailsecure.life` can
have everything tried at once instead.  Set forward, attempts come early, which does no
harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..background import Periodic
from ..world import World

__all__ = ["SetBack", "use_monotonic_time"]

#: Seconds between two looks, and how far the clock must fall back to be noticed.
LOOK_INTERVAL = 5.0
NOTICEABLE = 20.0


def use_monotonic_time(reactor: Any) -> None:
    """Make ``reactor`` measure with ``CLOCK_MONOTONIC``; call it first of all."""
    if reactor.getDelayedCalls():
        raise AssertionError("the reactor has been asked for the time already")
    reactor.seconds = time.monotonic


class SetBack:
    """Calls ``noticed(seconds)`` soon after the wall clock was set back by so much."""

    def __init__(self, world: World, noticed: Callable[[float], object]) -> None:
        self._world = world
        self._noticed = noticed
        self._ahead = 0.0
        self._periodic = Periodic(world.clock, LOOK_INTERVAL, "the watch on the clock", self._look)

    def start(self) -> None:
        """Begin to watch."""
        self._ahead = self._difference()
        self._periodic.start()

    def stop(self) -> None:
        """Watch no more."""
        self._periodic.stop()

    def _difference(self) -> float:
        return self._world.wall() - self._world.clock.seconds()

    def _look(self) -> None:
        before, self._ahead = self._ahead, self._difference()
        if before - self._ahead > NOTICEABLE:
            self._noticed(before - self._ahead)
