"""What an engine did, counted for the status and the metrics."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Any

__all__ = ["Tally"]

#: Durations of which the median is told.
REMEMBERED = 101


class Tally:
    """Messages that were judged, that something was found in, and that could not be judged."""

    def __init__(self) -> None:
        self.scanned = 0
        self.found = 0
        self.failures = 0
        self._durations: deque[float] = deque(maxlen=REMEMBERED)

    def judged(self, seconds: float) -> None:
        """Count a message that was judged within ``seconds``."""
        self.scanned += 1
        self._durations.append(seconds)

    def report(self) -> dict[str, Any]:
        """Return all of it; ``median`` and ``last`` are seconds, null without any."""
        durations = self._durations
        return {
            "scanned": self.scanned,
            "found": self.found,
            "failures": self.failures,
            "median": median(durations) if durations else None,
            "last": durations[-1] if durations else None,
        }
