"""Where a condition of a search may hold, and how rows are found there.

:mod:`.searching` puts a search together from these.  Each place gives the condition itself,
for any row; the rows that an index finds; and those by streams, the newest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    false,
    or_,
    select,
    union_all,
)

from .database import Database
from .schema import TICK_BITS, message, name, recipient, session

__all__ = [
    "MOST_STREAMS",
    "Exact",
    "Greeted",
    "Named",
    "Place",
    "Recipients",
    "Stream",
    "Subject",
    "within",
]

#: Names whose rows are merged.
MOST_STREAMS = 200
#: A day in ids.
_DAY = 86_400_000_000 << TICK_BITS
#: Returns the question for ids from ``since`` to below ``until``, the newest first.
Stream = Callable[[int, int], Select[Any]]


class Place(Protocol):
    """Where a condition may hold."""

    def condition(self) -> ColumnElement[bool]:
        """Return the condition on a row of the source's table."""

    def rows(self, since: int, until: int) -> Select[Any] | None:
        """Return the question for ids by an index, or None."""

    def streams(self) -> Sequence[Stream] | None:
        """Return questions for ids, the newest first, by ``since`` and ``until``; or None."""


@dataclass
class Named:
    """A column of ids of names; ``key`` is the column with the ids that are looked for."""

    database: Database
    column: ColumnElement[int]
    key: ColumnElement[int]
    part: str
    #: The names with ``part``; None: too many.
    ids: Sequence[int] | None
    #: What else holds for every row that is meant, and makes an index of a part of use.
    also: ColumnElement[bool] | None = None

    def condition(self) -> ColumnElement[bool]:
        """One of the names; or, where they are too many, look at each row's name."""
        if self.ids is not None:
            return self.database.among(self.column, self.ids) if self.ids else false()
        holds = self.database.contains(name.c.text, self.part)
        return exists().where(name.c.id == self.column, holds)

    def rows(self, since: int, until: int) -> Select[Any] | None:
        """All rows of the names."""
        if self.ids is None:
            return None
        chosen = self.database.among(self.column, self.ids) if self.ids else false()
        used = self._used() if 0 not in self.ids else []
        return select(self.key.label("id")).where(chosen, *used, within(self.key, since, until))

    def _used(self) -> list[ColumnElement[bool]]:
        return [self.column != 0] if self.also is None else [self.also]

    def streams(self) -> Sequence[Stream] | None:
        """One for each name."""
        if self.ids is None or len(self.ids) > MOST_STREAMS:
            return None
        return [self._stream(each) for each in self.ids]

    def _stream(self, id: int) -> Stream:
        key, column = self.key, self.column

        def newest(since: int, until: int) -> Select[Any]:
            used = self._used() if id else []
            wanted = select(key.label("id")).where(column == id, *used, within(key, since, until))
            return wanted.order_by(key.desc())

        return newest


class Recipients(Named):
    """The recipients of a message."""

    def condition(self) -> ColumnElement[bool]:
        """Any of them."""
        holds = super().condition()
        return exists().where(recipient.c.message == message.c.id, holds)


@dataclass
class Greeted:
    """What the client of a session called itself; ``link`` is the column with its id.

    The session is written when it is over, so what is in one that lasts is not found yet.
    """

    database: Database
    link: ColumnElement[int]
    key: ColumnElement[int]
    part: str
    #: The names with ``part``; None: too many.
    ids: Sequence[int] | None

    def condition(self) -> ColumnElement[bool]:
        """One of the names, or the text of a session of before."""
        columns = session.alias("greeted").c
        named: ColumnElement[bool] = false()
        if self.ids is None:
            holds = self.database.contains(name.c.text, self.part)
            named = exists().where(name.c.id == columns.greeting, holds)
        elif self.ids:
            named = self.database.among(columns.greeting, self.ids)
        written = and_(columns.helo != "", self.database.contains(columns.helo, self.part))
        return exists().where(columns.id == self.link, or_(named, written))

    def rows(self, since: int, until: int) -> Select[Any] | None:
        """What is in all sessions of the names."""
        if self.ids is None:
            return None
        columns = session.alias("greeted").c
        named = self.database.among(columns.greeting, self.ids) if self.ids else false()
        written = and_(
            self.database.contains(columns.helo, self.part),
            # There is no index of these texts; a session is over long before a day is.
            within(columns.id, since - _DAY, until),
        )
        sessions = union_all(
            select(columns.id).where(columns.greeting != 0, named),
            select(columns.id).where(columns.helo != "", written),
        )
        chosen = self.link.in_(select(sessions.subquery().c.id))
        return select(self.key.label("id")).where(chosen, within(self.key, since, until))

    def streams(self) -> Sequence[Stream] | None:
        """None: a frequent one is soon found by looking at the newest."""
        return None


@dataclass
class Subject:
    database: Database
    connection: Connection
    part: str

    def condition(self) -> ColumnElement[bool]:
        return and_(message.c.subject != "", self.database.contains(message.c.subject, self.part))

    def rows(self, since: int, until: int) -> Select[Any] | None:
        """What the index of subjects finds."""
        found = self.database.subjects(self.connection, self.part)
        if found is None:
            return None
        ids = found.subquery().c.id
        return select(ids).where(within(ids, since, until))

    def streams(self) -> Sequence[Stream] | None:
        """None: the index is in the order of writing, which after an outage is not time's."""
        return None


@dataclass
class Exact:
    """A condition that an index answers at once."""

    holds: ColumnElement[bool]
    key: ColumnElement[int]

    def condition(self) -> ColumnElement[bool]:
        return self.holds

    def rows(self, since: int, until: int) -> Select[Any] | None:
        return select(self.key.label("id")).where(self.holds, within(self.key, since, until))

    def streams(self) -> Sequence[Stream] | None:
        def newest(since: int, until: int) -> Select[Any]:
            return (
                select(self.key.label("id"))
                .where(self.holds, within(self.key, since, until))
                .order_by(self.key.desc())
            )

        return [newest]


def within(key: ColumnElement[int], since: int, until: int) -> ColumnElement[bool]:
    return and_(key >= since, key < until)
