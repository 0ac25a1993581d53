"""The reactor on monotonic time (design decision 2).

Twisted's reactor takes its time from the wall clock.  When that is set back an hour,
every timeout waits an hour longer and a Master falls silent; set forward, all of them
fire at once.  The reactor asks ``self.seconds`` for everything, so one attribute is
enough, as long as it is set before the first delayed call is made.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_monotonic_time"]


def use_monotonic_time(reactor: Any) -> None:
    """Make ``reactor`` measure with ``CLOCK_MONOTONIC``; call it first of all."""
    if reactor.getDelayedCalls():
        raise AssertionError("the reactor has been asked for the time already")
    reactor.seconds = time.monotonic
