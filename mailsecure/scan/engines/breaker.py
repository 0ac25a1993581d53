"""A circuit breaker: a scanner that is unwell is left alone for a while (pure).

A scanner that is away costs every message its whole deadline, and a scanner that comes back
under the load of all who waited falls again.  So after ``failures`` failures in a row the
breaker opens, and no message is let in for ``pause`` seconds.

What counts as a failure decides who can do harm with it.  While the breaker is open mail may
go on unscanned (``on_failure = accept``) or wait, everybody's mail; whoever can open it by
what he sends has that in his hands.  So a message that was not judged is only a *doubt*: the
scanner may be unwell, or the message such that nobody could judge it.  Doubts never open the
breaker.  A *probe* (a ping) settles them: answered, they are gone; unanswered, they count as
failures together with it.  By themselves count a probe that is not answered, and a
connection that could not be had: a message has no part in either.

When the pause is over a probe is the *trial*, and nobody's message.  Unanswered, there is
another pause of the same length.  Answered, messages are let in again on probation: an
answered ping proves less than a message that was judged, so until one is, the next failure
opens the breaker at once, for twice as long, up to five minutes.

:class:`mailsecure.scan.engines.health.Health` has one for each engine.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["LONGEST_PAUSE", "Breaker", "State"]

#: Seconds.
LONGEST_PAUSE = 300.0


class State(Enum):
    """WELL: messages may go there; DOWN: nobody may; TRYING: the trial is under way."""

    WELL = "well"
    DOWN = "down"
    TRYING = "trying"


class Breaker:
    """One scanner's.  ``now`` is monotonic seconds everywhere.

    Probes come one at a time.  One that begins while the breaker is open asks for the trial
    before (:meth:`try_out`).
    """

    def __init__(self, failures: int, pause: float) -> None:
        self._failures = failures
        self._shortest = min(pause, LONGEST_PAUSE)
        #: How long this pause is, and how long the next would be.
        self._pause = self._next = self._shortest
        self._row = 0
        #: Messages that were not judged since somebody heard of the scanner.
        self.doubts = 0
        self.state = State.WELL
        #: When the next trial may begin; only of use while DOWN.
        self.until = 0.0

    @property
    def lets_in(self) -> bool:
        """True where messages may go to the scanner."""
        return self.state is State.WELL

    # -- messages

    def succeeded(self) -> None:
        """A message was judged, which proves that the scanner works, whenever it began."""
        self.state = State.WELL
        self._row = self.doubts = 0
        self._next = self._shortest

    def doubted(self) -> None:
        """A message was not judged, and it may be the message's fault."""
        self.doubts += self.lets_in

    def failed(self, now: float) -> None:
        """The scanner failed, whatever the message was.

        Failures of those that began before the breaker opened change nothing more.
        """
        if not self.lets_in:
            return
        self._row += 1 + self.doubts
        self.doubts = 0
        if self._row >= self._failures:
            self._pause = self._next
            self._next = min(2 * self._pause, LONGEST_PAUSE)
            self._open(now)

    # -- probes

    def try_out(self, now: float) -> bool:
        """Begin the trial, if it is time; False: leave it alone."""
        if self.state is not State.DOWN or now < self.until:
            return False
        self.state = State.TRYING
        return True

    def answered(self) -> None:
        """The probe was answered."""
        self.doubts = 0
        if self.state is State.TRYING:
            self.state = State.WELL
            self._row = self._failures - 1

    def unanswered(self, now: float) -> None:
        """It was not, or with nonsense."""
        if self.state is State.TRYING:
            self._open(now)
        else:
            self.failed(now)

    def left(self, now: float) -> None:
        """The probe ended without proving anything; the next may begin at once."""
        if self.state is State.TRYING:
            self.state = State.DOWN
            self.until = now

    def _open(self, now: float) -> None:
        self.state = State.DOWN
        self.until = now + self._pause
