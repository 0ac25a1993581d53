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
    and_,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.exc import SQLAlchemyError

from .api import Search
from .database import Database
from .places import Exact, Named, Place, Recipients, Stream, Subject, within
from .rows import message_key, parse_session
from .schema import TICK_BITS, message, recipient, refusal, session

__all__ = ["Found", "Searcher"]

#: Rows that are gathered; names that are looked up.
MOST_ROWS = 200_000
MOST_NAMES = 20_000
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
        self._known: dict[str, Sequence[int] | None] = {}

    # -- what is looked for

    def messages(self) -> Found:
        """Return messages that match."""
        search = self._search
        if search.action == "refused":
            return Found()
        places: list[list[Place]] = []
        if search.id:
            places.append(self._by_id(message, message.c.session))
        if search.sender:
            places.append(self._senders(search.sender))
        if search.recipient:
            places.append([self._recipients(search.recipient)])
        if search.client:
            places.append([self._named(message.c.client, message.c.id, search.client)])
        if search.subject:
            places.append([Subject(self._database, self._connection, search.subject)])
        if search.text:
            places.append(self._anything(search.text))
        if search.action:
            # The index of actions is without the usual one.
            unusual = message.c.action == search.action
            if search.action != "accept":
                places.append([Exact(and_(unusual, message.c.action != "accept"), message.c.id)])
            else:
                return self._find(message, places, [unusual])
        return self._find(message, places, [])

    def refusals(self) -> Found:
        """Return refused connections and commands that match."""
        search = self._search
        if search.action not in ("", "refused") or search.subject:
            return Found()
        id, places = refusal.c.id, list[list[Place]]()
        if search.id:
            places.append(self._by_id(refusal, refusal.c.session))
        if search.sender:
            places.append([self._named(refusal.c.sender, id, search.sender)])
        if search.recipient:
            places.append([self._named(refusal.c.recipient, id, search.recipient)])
        if search.client:
            places.append([self._named(refusal.c.client, id, search.client)])
        if search.text:
            columns = (refusal.c.sender, refusal.c.recipient, refusal.c.client)
            anywhere: list[Place] = [self._named(each, id, search.text) for each in columns]
            if session_number := parse_session(search.text.upper()):
                anywhere.append(Exact(refusal.c.session == session_number, id))
            places.append(anywhere)
        return self._find(refusal, places, [])

    def sessions(self) -> Found:
        """Return sessions in which nothing happened, where somebody asks for a client."""
        search = self._search
        others = (search.sender, search.recipient, search.subject, search.action)
        if any(others) or not (search.client or search.text or search.id):
            return Found()
        idle = and_(session.c.messages == 0, session.c.refused == 0)
        id, places = session.c.id, list[list[Place]]()
        for part in filter(None, (search.client, search.text)):
            names = self._names(part)
            places.append([Named(self._database, session.c.client, id, part, names, idle)])
        if search.id:
            places.append([Exact(self._id_range(id), id)])
        return self._find(session, places, [idle])

    def _id_range(self, column: ColumnElement[int]) -> ColumnElement[bool]:
        first, last = self._search.id, self._search.last_id
        return column.between(first, last) if last else column == first

    def _by_id(self, table: Table, of_session: ColumnElement[int]) -> list[Place]:
        id = table.c.id
        places: list[Place] = [Exact(self._id_range(of_session), id)]
        if table is message:
            places.append(Exact(self._id_range(id), id))
        return places

    def _named(self, column: ColumnElement[int], key: ColumnElement[int], part: str) -> Named:
        return Named(self._database, column, key, part, self._names(part))

    def _senders(self, part: str) -> list[Place]:
        # A row without an author of its own has 0 there, as one without reverse-path has.
        columns = [message.c.sender] if part == "<>" else [message.c.sender, message.c.author]
        return [self._named(each, message.c.id, part) for each in columns]

    def _recipients(self, part: str) -> Place:
        key = recipient.c.message
        return Recipients(self._database, recipient.c.name, key, part, self._names(part))

    def _anything(self, text: str) -> list[Place]:
        places = self._senders(text)
        places.append(self._recipients(text))
        places.append(self._named(message.c.client, message.c.id, text))
        places.append(Subject(self._database, self._connection, text))
        if "@" in text:
            bare = text.strip().strip("<>")
            same = and_(
                message.c.message_key == message_key(text),
                self._database.contains(message.c.message_id, bare),
            )
            places.append(Exact(same, message.c.id))
        if number := parse_session(text.upper()):
            places.append(Exact(message.c.id == number, message.c.id))
            places.append(Exact(message.c.session == number, message.c.id))
        return places

    def _names(self, part: str) -> Sequence[int] | None:
        """Return the ids of names with ``part``; None: too many to name them all."""
        if part == "<>":
            return (0,)
        if part not in self._known:
            question = self._database.names(part, MOST_NAMES + 1)
            ids = self._connection.execute(question).scalars().all()
            self._known[part] = None if len(ids) > MOST_NAMES else ids
        return self._known[part]

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
