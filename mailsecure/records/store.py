"""The writing side of the history: one connection, used by one thread.  Blocking.

A batch of events is one transaction of few and large statements: some hundred rows each.
Each call into a driver gives the interpreter's lock up and has to win it back from the
reactor's thread, so calls are what costs, for the reactor too.

Names are looked up in memory; those that are not there are made, or met again, in one
statement.  What is in memory holds for a day: then each name that is met is marked with the
new day, which is how retention knows whom nobody has met.

Every row has a key of its own and is left alone where it is there already, so a batch may be
written twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from .database import Database, Trouble, reason_of
from .migrations import NotUpgraded, migrate
from .rows import LONGEST_NAME, Numbered, clean, names_of, rows_of
from .schema import (
    TICK_BITS,
    attempt,
    deed,
    message,
    name,
    recipient,
    refusal,
    session,
)

__all__ = ["BadEvents", "Measures", "Store"]

_DAY = 86400
#: Names in memory; beyond it all are looked up anew.
_MOST_NAMES = 100_000
#: Names of one statement, the largest first.
_SIZES = (256, 64, 16, 4, 1)
#: Events whose rows are made at once: the reactor waits for the interpreter meanwhile.
_AT_ONCE = 600
#: Messages (or rows of another table) that one step of retention removes.
SLICE = 1000
#: A name that nobody met is kept for two days: another node may have it in memory.
_NAME_DAYS = 2


class BadEvents(Exception):
    """What was to be written cannot be; the database is well."""


@dataclass(frozen=True, slots=True)
class Measures:
    """How large the history is, and since when (Unix time; 0: it is empty)."""

    octets: int
    oldest: float
    hindrance: str


@contextmanager
def closing_on_error(connection: Connection) -> Iterator[None]:
    """Close ``connection`` if what is done with it fails."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


class Store:
    """An open database.  Errors of the database are :class:`.database.Trouble`.

    ``node`` is this node's name; without ``subjects`` none is written.
    """

    def __init__(self, database: Database, engine: Engine, node: str, subjects: bool) -> None:
        self._database = database
        self._engine = engine
        self._node = node
        #: May be changed, in any thread.
        self.subjects = subjects
        self._connection: Connection | None = None
        self._names: dict[str, int] = {}
        self._day = 0
        tables = (session, refusal, message, recipient, attempt, deed)
        self._inserts = {table.name: database.insert(table) for table in tables}

    # -- life

    def open(self) -> None:
        """Connect, and bring the tables up to date."""
        try:
            connection = self._database.connect(self._engine)
            with closing_on_error(connection), connection.begin():
                migrate(connection)
            # Not before: nothing may interrupt a migration, which takes its time.
            self._connection = connection
        except (SQLAlchemyError, NotUpgraded) as error:
            self.close()
            raise Trouble(reason_of(error)) from error

    def close(self) -> None:
        """Close, whatever state it is in."""
        connection, self._connection = self._connection, None
        self._names.clear()
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError:
                connection.invalidate()

    def interrupt(self) -> None:
        """Called in another thread, while this one hangs."""
        connection = self._connection
        if connection is not None and not connection.closed:
            self._database.interrupt(connection)

    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise Trouble("the database is closed")
        return self._connection

    # -- writing

    def write(self, batch: Sequence[Numbered], now: float) -> None:
        """Write events in one transaction.  :class:`BadEvents`: one of them cannot be."""
        connection = self._open_connection()
        try:
            self._database.check(connection)
            with connection.begin():
                self._know(connection, batch, int(now // _DAY))
                for at in range(0, len(batch), _AT_ONCE):
                    self._insert(connection, batch[at : at + _AT_ONCE])
        except SQLAlchemyError as error:
            # Names that were made in this transaction are not there.
            self._names.clear()
            if self._database.is_about_data(error):
                raise BadEvents(reason_of(error)) from error
            raise Trouble(reason_of(error)) from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # An event that is not what its type says; nothing of the batch is written.
            self._names.clear()
            raise BadEvents(f"{type(error).__name__}: {error}") from error

    def _insert(self, connection: Connection, some: Sequence[Numbered]) -> None:
        rows = rows_of(some, self._names, self._names[self._node], self.subjects)
        inserts = self._inserts
        inserts["session"](connection, rows.sessions)
        inserts["refusal"](connection, rows.refusals)
        inserts["message"](connection, rows.messages)
        inserts["recipient"](connection, rows.recipients)
        inserts["attempt"](connection, rows.attempts)
        inserts["deed"](connection, rows.deeds)

    def _know(self, connection: Connection, batch: Iterable[Numbered], day: int) -> None:
        """Have an id for each name of ``batch``."""
        names = self._names
        if day != self._day or len(names) > _MOST_NAMES or not names:
            names.clear()
            names[""] = 0
            self._day = day
        missing = {text for _, event in batch for text in names_of(event) if text not in names}
        if self._node not in names:
            missing.add(self._node)
        if not missing:
            return
        cleaned = {text: clean(text, LONGEST_NAME) for text in missing}
        # Sorted, or two nodes that write the same names would wait for each other for ever.
        wanted = sorted({kept for kept in cleaned.values() if kept not in names})
        made: dict[str, int] = {}
        mark = self._database.mark
        at = 0
        for size in _SIZES:
            while len(wanted) - at >= size:
                values = ",".join([f"({mark},{mark})"] * size)
                statement = (
                    f"INSERT INTO name (text, day) VALUES {values}"
                    " ON CONFLICT (text) DO UPDATE SET day = excluded.day RETURNING text, id"
                )
                given = [value for text in wanted[at : at + size] for value in (text, day)]
                found = connection.exec_driver_sql(statement, tuple(given)).fetchall()
                made.update((text, id) for text, id in found)
                at += size
        for text, kept in cleaned.items():
            names[text] = made[kept] if kept in made else names[kept]

    # -- retention

    def prune(self, before: float) -> bool:
        """Remove a slice of what is older than Unix time ``before``; True: there is more."""
        bound = int(before * 1_000_000) << TICK_BITS
        connection = self._open_connection()
        try:
            with connection.begin():
                more = self._prune_messages(connection, bound)
                for table in (session, refusal):
                    more |= self._prune_table(connection, table, table.c.id, bound)
                more |= self._prune_names(connection, int(before // _DAY))
            return more
        except SQLAlchemyError as error:
            raise Trouble(reason_of(error)) from error

    def _prune_messages(self, connection: Connection, bound: int) -> bool:
        """Remove the oldest messages with all that is theirs."""
        last = self._slice_end(connection, message.c.id, bound)
        end = bound if last is None else last
        self._database.forget_subjects(connection, end)
        connection.execute(delete(message).where(message.c.id < end))
        more = last is not None
        for table in (recipient, attempt, deed):
            more |= self._prune_table(connection, table, table.c.message, end)
        return more

    @staticmethod
    def _slice_end(connection: Connection, key: Any, bound: int) -> int | None:
        """Return the key at which a slice ends; None where all below ``bound`` is in it."""
        found: int | None = connection.execute(
            select(key).where(key < bound).order_by(key).offset(SLICE).limit(1)
        ).scalar()
        return found

    def _prune_table(self, connection: Connection, table: Table, key: Any, bound: int) -> bool:
        last = self._slice_end(connection, key, bound)
        connection.execute(delete(table).where(key < (bound if last is None else last)))
        return last is not None

    def _prune_names(self, connection: Connection, day: int) -> bool:
        """Forget names that nobody met since ``day``."""
        day = min(day, self._day - _NAME_DAYS)
        old = select(name.c.id).where(name.c.day < day).limit(SLICE)
        # The day once more: a name of which another node's transaction, for which we waited,
        # says that it was met today, is looked at anew, and the list of ids is not.
        gone = connection.execute(delete(name).where(name.c.id.in_(old), name.c.day < day))
        return gone.rowcount >= SLICE

    def reclaim(self) -> bool:
        """Give some free space back; return whether there is more to give."""
        connection = self._open_connection()
        try:
            with connection.begin():
                return self._database.reclaim(connection)
        except SQLAlchemyError as error:
            raise Trouble(reason_of(error)) from error

    def measure(self) -> Measures:
        """Return how large the history is."""
        connection = self._open_connection()
        try:
            self._database.check(connection)
            with connection.begin():
                oldest = [
                    connection.execute(select(func.min(table.c.id))).scalar()
                    for table in (message, session, refusal)
                ]
                first = min((each for each in oldest if each is not None), default=0)
                return Measures(
                    self._database.size(connection),
                    (first >> TICK_BITS) / 1_000_000,
                    self._database.hindrance(connection),
                )
        except SQLAlchemyError as error:
            raise Trouble(reason_of(error)) from error
