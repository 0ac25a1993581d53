"""What the control room needs of the others, as small Protocols.

``assemble`` gives the real things; tests give fakes.  The spool's side is
:class:`mailsecure.spool.api.Spool`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from ..spool.api import Filter, Spool

__all__ = ["Desk", "Destination", "Scheduler"]


class Destination(Protocol):
    """One destination in delivery's hands; only what ``status`` shows."""

    @property
    def domain(self) -> str:
        """The domain, as :class:`~mailsecure.spool.api.Backlog` names it."""

    @property
    def in_flight(self) -> int:
        """Messages being delivered now."""

    @property
    def next_attempt(self) -> float:
        """Unix time before which nothing is tried; 0 if it is not held back."""

    @property
    def last_error(self) -> str:
        """The last answer that was not a delivery; "" if there was none."""


class Scheduler(Protocol):
    """The part of delivery's scheduler that a postmaster commands."""

    def flush(self, filter: Filter) -> Deferred[int]:
        """Try matching recipients now, whatever held them back.  Returns how many."""

    def bounce(self, filter: Filter, reason: str) -> Deferred[int]:
        """Give matching recipients up and notify the senders.  Returns how many."""

    def wake(self) -> None:
        """Look at the spool again soon: recipients became due."""

    def snapshot(self) -> Iterable[Destination]:
        """The destinations known now, in no particular order."""


@dataclass(frozen=True, slots=True)
class Desk:
    """All that a request may touch.

    ``status`` returns what ``mailsecure status`` shows; ``reload`` reads the ini again
    and returns what there is to say, line by line, or raises
    :class:`~mailsecure.errors.ConfigProblems` and has changed nothing.
    """

    spool: Spool
    scheduler: Scheduler
    status: Callable[[], Awaitable[dict[str, Any]]]
    reload: Callable[[], Awaitable[Sequence[str]]]
