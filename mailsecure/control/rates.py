"""How fast counters rise, over the last one, five and fifteen minutes (pure).

:class:`Rates` is shown all counters every few seconds and remembers them for fifteen
minutes: some 180 samples.  A rate is the difference to the sample that is as old as the
window, divided by the time between; while the node is younger than the window, the
window is its age.  :class:`Peaks` remembers the highest value of the last minute, for
the reactor's lateness.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping

__all__ = ["WINDOWS", "Peaks", "Rates"]

#: The windows of a rate, in seconds.
WINDOWS = (60.0, 300.0, 900.0)


class Rates:
    """The samples of the last fifteen minutes."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._samples: deque[dict[str, int]] = deque()

    def sample(self, now: float, values: Mapping[str, int]) -> None:
        """Remember ``values`` as they are at ``now`` (monotonic, never falling)."""
        self._times.append(now)
        self._samples.append(dict(values))
        while len(self._times) > 2 and self._times[1] <= now - WINDOWS[-1]:
            self._times.popleft()
            self._samples.popleft()

    def rates(self, now: float, values: Mapping[str, int]) -> dict[str, tuple[float, ...]]:
        """Return, by name, the counts a second over each of :data:`WINDOWS`."""
        befores = [self._before(now - window) for window in WINDOWS]
        return {
            name: tuple(
                (value - sample.get(name, 0)) / (now - when) if now > when else 0.0
                for when, sample in befores
            )
            for name, value in values.items()
        }

    def _before(self, when: float) -> tuple[float, dict[str, int]]:
        """Return the last sample that is not younger than ``when``, or the first."""
        if not self._times:
            return float("inf"), {}
        index = max(0, bisect_right(self._times, when) - 1)
        return self._times[index], self._samples[index]


class Peaks:
    """The highest value noted within the last ``span`` seconds, in twelve slots."""

    def __init__(self, span: float = 60.0) -> None:
        self._width = span / 12
        self._slots: deque[tuple[int, float]] = deque(maxlen=13)

    def note(self, now: float, value: float) -> None:
        """Take one value."""
        slot = int(now / self._width)
        if self._slots and self._slots[-1][0] == slot:
            value = max(value, self._slots.pop()[1])
        self._slots.append((slot, value))

    def highest(self, now: float) -> float:
        """Return the highest value of the span; 0 if there is none."""
        oldest = int(now / self._width) - 12
        return max((value for slot, value in self._slots if slot >= oldest), default=0.0)
