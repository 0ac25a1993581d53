"""How late the reactor is: what a heartbeat feels when something holds up the thread.

A call is due every :data:`INTERVAL`; how much later it comes is the lateness.  It is a
metric, and above :data:`TOO_LATE` a log line, at most one a minute.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

__all__ = ["Lateness"]

_log = Logger(namespace="main")

INTERVAL = 0.25
TOO_LATE = 0.25
_LOG_EVERY = 60.0


class Lateness:
    """Measures the reactor while it runs."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._due = 0.0
        self._logged = -_LOG_EVERY
        #: Seconds: of the last heartbeat, and the largest since the start.
        self.last = 0.0
        self.worst = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock.seconds() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._beat)

    def stop(self) -> None:
        """End."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _beat(self) -> None:
        now = self._clock.seconds()
        self.last = max(0.0, now - self._due)
        self.worst = max(self.worst, self.last)
        if self.last > TOO_LATE and now - self._logged >= _LOG_EVERY:
            self._logged = now
            _log.warn("the reactor was held up for {seconds} s", seconds=round(self.last, 3))
        self.start()
