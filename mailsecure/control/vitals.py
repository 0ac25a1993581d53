"""How the process itself is: rates, the reactor's lateness, memory, descriptors.

:class:`Vitals` is one service that takes all samples; ``status`` and ``metrics`` read
it.  Lateness is how much later than asked a delayed call came: the time for which the
reactor's thread was busy with something else, so the figure that says whether anything
blocks.  Much of it is a line in the log too, at most once a minute.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..background import Periodic
from ..counters import Counters
from ..world import World
from .rates import Peaks, Rates

__all__ = ["Vitals", "memory_octets", "open_descriptors"]

_log = Logger(namespace="main")

_SAMPLE_INTERVAL = 5.0
_LATENESS_INTERVAL = 0.25
#: Lateness that a postmaster should know of, and how often.
_LATE = 0.25
_TELL_INTERVAL = 60.0


class Vitals(Service):
    """Samples ``counters`` and the reactor while it runs."""

    name = "vitals"

    def __init__(self, world: World, counters: Counters) -> None:
        self._clock = world.clock
        self._counters = counters
        self._rates = Rates()
        self._peaks = Peaks()
        self._sampling = Periodic(self._clock, _SAMPLE_INTERVAL, "sampling", self._sample)
        self._call: IDelayedCall | None = None
        self._expected = 0.0
        self._tell_from = 0.0
        #: Unix time of the start.
        self.started = 0.0
        self._wall = world.wall

    def startService(self) -> None:
        """Take the first sample and go on."""
        super().startService()
        self.started = self._wall()
        self._sample()
        self._sampling.start()
        self._expect()

    def stopService(self) -> None:
        """Take no more samples."""
        super().stopService()
        self._sampling.stop()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def rates(self) -> dict[str, tuple[float, ...]]:
        """Return the counts a second over 1, 5 and 15 minutes, by counter."""
        return self._rates.rates(self._clock.seconds(), self._counters.values())

    def lateness(self) -> float:
        """Return by how many seconds the reactor was late at worst in the last minute."""
        return self._peaks.highest(self._clock.seconds())

    def _sample(self) -> None:
        self._rates.sample(self._clock.seconds(), self._counters.values())

    def _expect(self) -> None:
        self._expected = self._clock.seconds() + _LATENESS_INTERVAL
        self._call = self._clock.callLater(_LATENESS_INTERVAL, self._came)

    def _came(self) -> None:
        now = self._clock.seconds()
        late = max(0.0, now - self._expected)
        self._peaks.note(now, late)
        if late > _LATE and now >= self._tell_from:
            self._tell_from = now + _TELL_INTERVAL
            _log.warn(
                "the reactor was late by {seconds} s: it was kept from its work", seconds=late
            )
        self._expect()


def memory_octets() -> int:
    """Return the resident set of this process."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    # Linux 6.2 and later say so in one call; before, the directory's size is 0.
    descriptors = Path("/proc/self/fd")
    return descriptors.stat().st_size or sum(1 for _ in descriptors.iterdir())
