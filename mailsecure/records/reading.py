"""The reading side of the history: one connection, used by one thread.  Blocking.

Each question has :data:`LIMIT` seconds; a search that runs out of them returns what it has
(:mod:`.searching`), another question fails with :class:`.api.RecordsAway`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from .api import RecordsAway, Search
from .database import Database, Trouble, reason_of
from .loading import Loader
from .schema import TICK_BITS, message, refusal
from .searching import Found, Searcher

__all__ = ["Reader"]

_T = TypeVar("_T")

LIMIT = 20.0
#: What a later part of a search has, however long the earlier ones took.
_LEAST = 2.0
#: Found messages that are loaded at once; recipients and attempts of an answer, of which each
#: takes a kilobyte: beyond it the answer ends, and says where.
_AT_ONCE = 100
MOST_LOADED = 100_000
#: What is counted of messages and refusals, by what.
_COUNTED: tuple[tuple[str, Column[Any]], ...] = (
    ("messages", message.c.action),
    ("refusals", refusal.c.stage),
)
#: Messages of a session that are shown with it.
_MOST_OF_SESSION = 1000


class Reader:
    """Asks ``database``, connecting when first asked, and anew after any trouble."""

    def __init__(self, database: Database, engine: Engine) -> None:
        self._database = database
        self._engine = engine
        self._connection: Connection | None = None

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()

    def interrupt(self) -> None:
        """Called in another thread, while this one hangs."""
        connection = self._connection
        if connection is not None and not connection.closed:
            self._database.interrupt(connection)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect(self._engine)
        self._database.check(self._connection)
        return self._connection

    def _asked(self, question: Callable[[], _T]) -> _T:
        """Ask; a connection that an earlier question left may be dead by now: ask again."""
        stale = self._connection is not None
        try:
            return question()
        except (SQLAlchemyError, Trouble) as error:
            self.close()
            if stale and not (isinstance(error, SQLAlchemyError) and self._database.is_late(error)):
                return self._asked(question)
            raise RecordsAway(f"the history cannot be read: {reason_of(error)}") from error

    def trace(self, search: Search) -> list[dict[str, Any]]:
        """Return what matches, the newest first.  See :class:`.api.History`."""
        return self._asked(lambda: self._trace(search))

    def _trace(self, search: Search) -> list[dict[str, Any]]:
        connection = self._connected()
        chosen, since = self._chosen(connection, search)
        items: list[dict[str, Any]] = []
        size = 0
        for at in range(0, len(chosen), _AT_ONCE):
            if size > MOST_LOADED:
                since = (chosen[at - 1][0] >> TICK_BITS) / 1_000_000
                break
            some = self._loaded(connection, chosen[at : at + _AT_ONCE])
            size += sum(
                len(each.get(key, ())) for each in some for key in ("recipients", "attempts")
            )
            items += some
        # A refusal has its id when it is written, half a second later than a message.
        items.sort(key=lambda item: float(item["time"]), reverse=True)
        if since:
            items.append({"kind": "unfinished", "time": since})
        return items

    def _loaded(
        self, connection: Connection, chosen: Sequence[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        """Return what :meth:`_chosen` found, whole."""
        with connection.begin():
            self._database.limit(connection, LIMIT)
            loader = Loader(self._database, connection)
            loads = (loader.messages, loader.refusals, loader.sessions)
            loaded = [
                load([id for id, of in chosen if of == kind]) for kind, load in enumerate(loads)
            ]
        return [loaded[kind][id] for id, kind in chosen if id in loaded[kind]]

    def _chosen(
        self, connection: Connection, search: Search
    ) -> tuple[list[tuple[int, int]], float]:
        """Return ids with their kinds (0 message, 1 refusal, 2 session), the newest first.

        And the Unix time before which not all was looked at, 0 where it was.
        """
        deadline = time.monotonic() + LIMIT
        searcher = Searcher(self._database, connection, search, deadline)
        found: list[Found] = []
        for look in (searcher.messages, searcher.refusals, searcher.sessions):
            # Each by itself: a question that was cut off ends its transaction.
            try:
                with connection.begin():
                    left = max(_LEAST, deadline - time.monotonic())
                    self._database.limit(connection, left)
                    found.append(look())
            except SQLAlchemyError as error:
                if not self._database.is_late(error):
                    raise
                found.append(Found([], searcher.until))
        newest = sorted(((id, kind) for kind in (0, 1, 2) for id in found[kind].ids), reverse=True)
        chosen = newest[: search.limit]
        stopped = max(each.stopped for each in found)
        # One kind may reach further back than another did.
        if stopped and (len(chosen) < search.limit or chosen[-1][0] < stopped):
            return chosen, min((stopped >> TICK_BITS) / 1_000_000, search.until or time.time())
        return chosen, 0.0

    def count(self, search: Search) -> dict[str, Any]:
        """Return how many match.  See :class:`.api.History`."""
        return self._asked(lambda: self._count(search))

    def _count(self, search: Search) -> dict[str, Any]:
        connection = self._connected()
        chosen, since = self._chosen(connection, search)
        if len(chosen) == search.limit and not since:
            since = (chosen[-1][0] >> TICK_BITS) / 1_000_000
        counts: dict[str, Any] = {"sessions": sum(kind == 2 for _, kind in chosen)}
        with connection.begin():
            self._database.limit(connection, LIMIT)
            for kind, (word, column) in enumerate(_COUNTED):
                ids = [id for id, of in chosen if of == kind]
                some = select(column, func.count()).group_by(column)
                of = self._database.among(column.table.c.id, ids)
                rows = connection.execute(some.where(of)).all() if ids else []
                counts[word] = {row[0]: row[1] for row in rows}
        return counts | {"unfinished": since}

    def message(self, id: int) -> dict[str, Any] | None:
        """Return a message; or a session with ``refusals`` and ``messages``; or None."""
        return self._asked(lambda: self._message(id))

    def _message(self, id: int) -> dict[str, Any] | None:
        connection = self._connected()
        with connection.begin():
            self._database.limit(connection, LIMIT)
            loader = Loader(self._database, connection)
            found = loader.messages([id]).get(id)
            if found is not None:
                return found
            refusals = loader.refusals_of(id)
            messages = loader.messages_of(id, _MOST_OF_SESSION)
            session = loader.sessions([id]).get(id)
            if session is None and not refusals and not messages:
                return None
            whole = list(loader.messages(messages).values())
            return {"kind": "session", "id": id, "session": session} | {
                "refusals": refusals,
                "messages": whole,
            }
