"""Finds what a postmaster looks for among millions, the newest first.

A search is conditions that all must hold; each condition is about one or several *places*
(the sender is looked for in the reverse-path and in the From field).  What is found always
passes all conditions as the database evaluates them; the art is where to begin:

*Gather*: some condition holds for few rows (at most :data:`MOST_ROWS`), by an index: names
that contain the part, then the rows of these names; trigrams of subjects.  All of them are
looked at.  The condition with the fewest begins.

*Stream*: few names, but many rows of each (a large sender): the newest rows of each name are
merged, and looked at until enough are found.

*Walk*: the conditions hold for so many that an index is no help (a part of a large domain), or
the time that is asked for has few rows.  Then rows are looked at from the newest back, some ten
thousand at a time: what is frequent is found soon.

Whatever it is, time is bounded; a search that runs out of it says how far it came.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.exc import SQLAlchemyError

from .api import Search
from .database import Database
from .places import Place, Stream, within
from .schema import TICK_BITS
from .wanted import Looked, Wanted

__all__ = ["Found", "Searcher"]

#: Rows that are gathered.
MOST_ROWS = 200_000
#: Rows of a time that are rather read than looked for.
MOST_IN_SPAN = 20_000
#: So few that no other condition needs to be weighed.
_FEW = 500
#: Rows looked at in one step of a walk.
_STRIDE = 20_000
_LAST = (1 << 63) - 1


@dataclass
class Found:
    """Ids, the newest first; below ``stopped`` nothing was looked at (0: all was)."""

    ids: list[int] = field(default_factory=list)
    stopped: int = 0


class Searcher:
    """One search, on one connection, until ``deadline`` (of ``time.monotonic``)."""

    def __init__(
        self, database: Database, connection: Connection, search: Search, deadline: float
    ) -> None:
        self._database = database
        self._connection = connection
        self._search = search
        self._deadline = deadline
        self._since = int(search.since * 1_000_000) << TICK_BITS
        until = int(search.until * 1_000_000) << TICK_BITS if search.until else _LAST
        #: The id below which it looks.
        self.until = min(until, _LAST)
        self._wanted = Wanted(database, connection, search)

    def messages(self) -> Found:
        """Return messages that match."""
        return self._found(self._wanted.messages())

    def refusals(self) -> Found:
        """Return refused connections and commands that match."""
        return self._found(self._wanted.refusals())

    def sessions(self) -> Found:
        """Return sessions in which nothing happened, where somebody asks for a client."""
        return self._found(self._wanted.sessions())

    def _found(self, looked: Looked | None) -> Found:
        return Found() if looked is None else self._find(*looked)

    # -- where to begin

    def _find(
        self, table: Table, places: Sequence[Sequence[Place]], more: list[ColumnElement[bool]]
    ) -> Found:
        conditions = [or_(*[place.condition() for place in each]) for each in places] + more
        best, fewest = None, MOST_ROWS + 1
        for each in places:
            rows = self._weigh(each)
            if rows < fewest:
                best, fewest = each, rows
            if fewest <= _FEW:
                break
        if fewest > _FEW and self._span(table, min(fewest, MOST_IN_SPAN)):
            return self._walk(table, conditions)
        if best is not None:
            return self._gather(table, best, conditions) if fewest else Found()
        for each in places:
            streams = [place.streams() for place in each]
            if all(stream is not None for stream in streams):
                merged = [one for stream in streams for one in stream or ()]
                return self._stream(table, merged, conditions)
        return self._walk(table, conditions)

    def _span(self, table: Table, limit: int) -> bool:
        """Say whether the time that is asked for has fewer rows than ``limit``."""
        if self._since <= 0 and self.until == _LAST:
            return False
        some = select(table.c.id).where(within(table.c.id, self._since, self.until)).limit(limit)
        count = select(func.count()).select_from(some.subquery())
        return self._connection.execute(count).scalar_one() < limit

    def _weigh(self, places: Iterable[Place]) -> int:
        """Return how many rows these places have; more than MOST_ROWS where too many."""
        total = 0
        for place in places:
            rows = place.rows(self._since, self.until)
            if rows is None:
                return MOST_ROWS + 1
            some = rows.limit(MOST_ROWS + 1 - total).subquery()
            total += self._connection.execute(select(func.count()).select_from(some)).scalar_one()
            if total > MOST_ROWS:
                break
        return total

    def _gather(
        self, table: Table, places: Sequence[Place], conditions: Sequence[ColumnElement[bool]]
    ) -> Found:
        parts = [place.rows(self._since, self.until) for place in places]
        ids = union_all(*[select(part.subquery().c.id) for part in parts if part is not None])
        wanted = (
            select(table.c.id)
            .where(
                table.c.id.in_(select(ids.subquery().c.id)),
                within(table.c.id, self._since, self.until),
                *conditions,
            )
            .order_by(table.c.id.desc())
            .limit(self._search.limit)
        )
        return Found(list(self._connection.execute(wanted).scalars()))

    def _stream(
        self,
        table: Table,
        streams: Sequence[Stream],
        conditions: Sequence[ColumnElement[bool]],
    ) -> Found:
        found, until, batch = Found(), self.until, max(100, self._search.limit)
        while True:
            candidates: set[int] = set()
            whole_from = self._since
            for stream in streams:
                ids = self._connection.execute(stream(self._since, until).limit(batch)).scalars()
                newest = [each for each in ids if each < until]
                candidates.update(newest)
                if len(newest) == batch:
                    whole_from = max(whole_from, newest[-1])
            known = [each for each in candidates if each >= whole_from]
            if known:
                wanted = select(table.c.id).where(self._database.among(table.c.id, known))
                wanted = wanted.where(*conditions).order_by(table.c.id.desc())
                found.ids += self._connection.execute(wanted).scalars()
            if len(found.ids) >= self._search.limit or whole_from <= self._since:
                del found.ids[self._search.limit :]
                return found
            until, batch = whole_from, min(batch * 4, _STRIDE)
            if time.monotonic() > self._deadline:
                found.stopped = until
                return found

    def _walk(self, table: Table, conditions: Sequence[ColumnElement[bool]]) -> Found:
        found, until, id = Found(), self.until, table.c.id
        while until > self._since:
            stride = select(id).where(within(id, self._since, until)).order_by(id.desc())
            last = self._connection.execute(stride.offset(_STRIDE).limit(1)).scalar()
            since = self._since if last is None else last
            wanted = select(id).where(within(id, since, until), *conditions)
            wanted = wanted.order_by(id.desc()).limit(self._search.limit - len(found.ids))
            try:
                found.ids += self._connection.execute(wanted).scalars()
            except SQLAlchemyError as error:
                if not self._database.is_late(error):
                    raise
                found.stopped = until
                return found
            if last is None or len(found.ids) >= self._search.limit:
                return found
            until = since
            if time.monotonic() > self._deadline:
                found.stopped = until
                return found
        return found
