"""Which peers may be asked at all (pure).

**Passive ejection.**  A peer that refuses, stays silent or resets before its greeting is
*out* at once: the session went to another, so the client noticed nothing, and no other
session should wait for the same.  It stays out for :attr:`Recovery.first` seconds, twice
as long after each further failure, up to :attr:`Recovery.longest`.

**Re-admission** takes a sign of life and a proof: the peer's hello has been heard since
(the process is there), the time is over, and one probe, a connection of our own with a
LOCAL header, has been greeted.  A peer that starts anew (another incarnation) need not
wait for its time.  One that has then served well for :attr:`Recovery.forget` seconds
starts again with the first back-off.

**What it says of itself.**  A peer that says in hello that it drains, that its spool is
not well, that its scanners are down or that it is overloaded gets no new session, at once
and without any counting.

**Load** (``adaptive``).  :class:`Moderation` turns the load that a peer reports into the
part of its weight that it gets.  Three things keep it from swinging: the load is smoothed;
nothing changes within a band (more load than :attr:`Band.high` gives less, less than
:attr:`Band.low` gives more, in between all stays); and each change is one small step, no
oftener than every :attr:`Band.pause` seconds, so that its effect is seen before the next.

Times are monotonic seconds, and arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..cluster.values import Fitness

__all__ = ["Band", "Moderation", "PeerHealth", "Recovery", "State", "unfit_words"]

_WORDS = {
    Fitness.DRAINING: "draining",
    Fitness.SPOOL: "its spool is not well",
    Fitness.OVERLOADED: "overloaded",
    Fitness.SCANNERS: "its scanners are down",
}


def unfit_words(fitness: Fitness) -> str:
    """Return why a node takes no new session, in words; "" where it does."""
    return ", ".join(words for flag, words in _WORDS.items() if fitness & flag)


class State(Enum):
    """Whether a peer gets sessions."""

    IN = "in"
    OUT = "out"
    PROBED = "being probed"


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds: the first back-off, the longest, and good service after which it is forgotten."""

    first: float = 1.0
    longest: float = 60.0
    forget: float = 300.0


class PeerHealth:
    """What is known of one peer."""

    __slots__ = (
        "_back_off", "_heard", "_recovery", "_since", "_until", "ejections", "fitness",
        "last_failure", "state",
    )  # fmt: skip

    def __init__(self, now: float, recovery: Recovery) -> None:
        self._recovery = recovery
        self.state = State.IN
        self._since = now
        self._until = now
        self._heard = now
        self._back_off = 0.0
        self.fitness = Fitness.FIT
        #: How often it was put out, and why last.
        self.ejections = 0
        self.last_failure = ""

    @property
    def may_serve(self) -> bool:
        """Whether it gets new sessions."""
        return self.state is State.IN and not self.fitness

    @property
    def until(self) -> float:
        """When it may be probed at the earliest; only where it is out."""
        return self._until

    def failed(self, now: float, why: str) -> bool:
        """A session, or the probe, was not taken.  Return whether it is out since now.

        Sessions that were on their way when it went out say nothing new.
        """
        self.last_failure = why
        if self.state is State.OUT:
            return False
        fresh = self.state is State.IN
        if fresh and now - self._since >= self._recovery.forget:
            self._back_off = 0.0
        self._back_off = min(max(2 * self._back_off, self._recovery.first), self._recovery.longest)
        self.state = State.OUT
        self._since = now
        self._until = now + self._back_off
        self.ejections += fresh
        return fresh

    def heard(self, now: float, fitness: Fitness, anew: bool = False) -> None:
        """A hello came from it; ``anew``: the first of a new incarnation."""
        self._heard = now
        self.fitness = fitness
        if anew and self.state is State.OUT:
            self._until = now

    def wants_probe(self, now: float) -> bool:
        """Say whether to probe it now; call :meth:`probing` if so."""
        return self.state is State.OUT and now >= self._until and self._heard > self._since

    def probing(self) -> None:
        """A probe is under way."""
        self.state = State.PROBED

    def greeted(self, now: float) -> bool:
        """It greeted a session or the probe.  Return whether it is in again since now.

        A session that was on its way when it went out, and was greeted after all, does not
        bring it back: the probe does.
        """
        if self.state is not State.PROBED:
            return False
        self.state = State.IN
        self._since = now
        return True


@dataclass(frozen=True, slots=True)
class Band:
    """Loads from 0 to 1, between which nothing changes, and how it changes beyond.

    ``smoothing`` is the time constant of the mean, ``pause`` the least time between two
    changes, both in seconds; ``least`` is the least part of the weight that is left.
    """

    low: float = 0.6
    high: float = 0.85
    step: float = 0.1
    least: float = 0.1
    pause: float = 2.0
    smoothing: float = 3.0


class Moderation:
    """The part of its weight that one peer gets for its load."""

    __slots__ = ("_band", "_changed", "_stamp", "factor", "load")

    def __init__(self, now: float, band: Band) -> None:
        self._band = band
        self._stamp = self._changed = now
        #: The smoothed load, and the part of the weight, 0 to 1.
        self.load = 0.0
        self.factor = 1.0

    def report(self, now: float, load: float) -> bool:
        """Take a load that the peer reports; return whether the factor changed."""
        band = self._band
        passed = max(0.0, now - self._stamp)
        self._stamp = now
        self.load += (min(1.0, max(0.0, load)) - self.load) * passed / (passed + band.smoothing)
        if now - self._changed < band.pause:
            return False
        if self.load > band.high:
            factor = max(band.least, self.factor - band.step)
        elif self.load < band.low:
            factor = min(1.0, self.factor + band.step)
        else:
            return False
        if factor == self.factor:
            return False
        self.factor = factor
        self._changed = now
        return True
