"""What the rooms above see of the history.

Who tells something calls :meth:`Recorder.tell`, which never blocks, never fails and never
waits; who asks something awaits a method of :class:`History`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import LocalFault
from .values import Event

__all__ = ["History", "NullRecorder", "Recorder", "RecordsAway", "Search", "TooWide"]


class RecordsAway(LocalFault):
    """The database cannot be asked now."""


class TooWide(LocalFault):
    """A search names more than can be looked for."""


class Recorder(Protocol):
    """Takes what happens."""

    def tell(self, event: Event) -> None:
        """Note an event.  In the reactor's thread; costs microseconds."""


class NullRecorder:
    """Where no history is kept."""

    def tell(self, event: Event) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Search:
    """What ``mailsecure trace`` looks for; an empty field matches all.

    ``sender``, ``recipient``, ``subject`` and ``client`` are any part, whatever the case;
    ``text`` is any part of any of these, or a whole Message-ID, or a whole id.  ``sender``
    looks at the reverse-path and the From field; ``<>`` is the null reverse-path.  ``client``
    may also be a network.  ``helo`` is any part of what the client called itself, ``reply``
    of what it was told or of what the next hop said; ``symbol`` is how a symbol's name begins.
    ``id`` is that of a message or of a session; with ``last_id``, any from ``id`` to
    ``last_id``.  ``since`` and ``until`` are Unix seconds, ``until`` 0 for now.  ``action`` is
    one of accept … discard, or ``refused`` for what was not even a message; ``stage`` is where
    that was: connect, command, mail, rcpt or data.
    """

    text: str = ""
    sender: str = ""
    recipient: str = ""
    subject: str = ""
    client: str = ""
    id: int = 0
    last_id: int = 0
    since: float = 0.0
    until: float = 0.0
    action: str = ""
    helo: str = ""
    symbol: str = ""
    reply: str = ""
    stage: str = ""
    limit: int = 50


class History(Protocol):
    """Answers questions; each may take a while, and raises :class:`RecordsAway`."""

    async def trace(self, search: Search) -> Sequence[dict[str, Any]]:
        """Return what matches, the newest first, each whole: see :mod:`.loading`.

        Where time ran out, or it became too much for the memory, the last is
        ``{"kind": "unfinished", "time": since when}``.
        """

    async def count(self, search: Search) -> dict[str, Any]:
        """Return how many match, of the newest ``search.limit``.

        ``messages`` by action, ``refusals`` by stage, ``sessions`` without either, and
        ``unfinished``: Unix seconds before which nothing was counted, 0 where all was.
        """

    async def message(self, id: int) -> dict[str, Any] | None:
        """Return a message, or a session with its refusals; None where neither is known."""

    async def report(self) -> dict[str, Any]:
        """Return how the history is: events written, waiting, lost, size, why it is away."""
