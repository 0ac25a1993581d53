"""A circuit breaker: who failed several times in a row is left alone for a while (pure).

A scanner that is away costs every message its whole deadline, and a scanner that comes back
under the load of all who waited falls again.  So after ``failures`` failures in a row the
breaker opens for ``pause`` seconds; then one visitor is let in, the *trial*, and the others
are still turned away.  The trial decides: well again, or twice the pause, up to five
minutes.

A *probe* (a ping) that succeeds proves less than a message that was judged: it lets
messages in again, but the next failure opens the breaker at once, and the pause goes on
doubling until a message succeeds.

:class:`mailsecure.scan.engines.guard.EngineCheck` has one for each engine.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["LONGEST_PAUSE", "Breaker", "State"]

#: Seconds.
LONGEST_PAUSE = 300.0


class State(Enum):
    """WELL: everybody may enter; DOWN: nobody; TRYING: the trial has, and nobody else may."""

    WELL = "well"
    DOWN = "down"
    TRYING = "trying"


class Breaker:
    """One scanner's.  ``now`` is monotonic seconds everywhere.

    Each visit begins with :meth:`enter`, whose ticket comes back in one of
    :meth:`succeeded`, :meth:`probed`, :meth:`failed` and :meth:`left`.
    """

    def __init__(self, failures: int, pause: float) -> None:
        self._failures = failures
        self._shortest = min(pause, LONGEST_PAUSE)
        self._pause = self._shortest
        self._row = 0
        self._trial = 0
        self.state = State.WELL
        #: When the next trial may begin; only of use while DOWN.
        self.until = 0.0

    def would_enter(self, now: float) -> bool:
        """Say whether :meth:`enter` would give a ticket."""
        return self.state is State.WELL or (self.state is State.DOWN and now >= self.until)

    def enter(self, now: float) -> int | None:
        """Return a ticket, or None: leave it alone."""
        if not self.would_enter(now):
            return None
        if self.state is State.WELL:
            return 0
        self.state = State.TRYING
        self._trial += 1
        return self._trial

    def succeeded(self, ticket: int) -> None:
        """A message was judged, which proves that the scanner works, whoever the visitor was."""
        self.state = State.WELL
        self._row = 0
        self._pause = self._shortest

    def probed(self, ticket: int) -> None:
        """A ping was answered."""
        if self._tries(ticket):
            self.state = State.WELL
            self._row = self._failures - 1

    def failed(self, ticket: int, now: float) -> None:
        """The visit failed.  Those that began before the breaker opened change nothing more."""
        if self.state is State.WELL:
            self._row += 1
            if self._row >= self._failures:
                self._open(now)
        elif self._tries(ticket):
            self._open(now)

    def left(self, ticket: int, now: float) -> None:
        """The visit ended without proving anything; the next may try at once."""
        if self._tries(ticket):
            self.state = State.DOWN
            self.until = now

    def _tries(self, ticket: int) -> bool:
        return self.state is State.TRYING and ticket == self._trial

    def _open(self, now: float) -> None:
        self.state = State.DOWN
        self.until = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
