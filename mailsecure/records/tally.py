"""What the writer is told to keep, and how it goes: two values that threads share."""

from __future__ import annotations

from dataclasses import dataclass

from .store import Measures

__all__ = ["Keeping", "Tally"]

_EMPTY = Measures(0, 0.0, "")


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much is kept: seconds, and octets."""

    retention: float
    max_size: int


@dataclass(slots=True)
class Tally:
    """How it goes; written in the writer's thread, read in any."""

    #: Events that came out of the queue, and what became of them.
    taken: int = 0
    written: int = 0
    lost: int = 0
    #: Unix time since which the database is away; 0 while it is there.
    away_since: float = 0.0
    last_error: str = ""
    measures: Measures = _EMPTY
