"""What is different between the databases, as one Protocol.

:class:`.sqlite.Sqlite` and :class:`.postgresql.Postgresql` keep it; :mod:`.store` writes and
:mod:`.reading` reads through it.  Everything here blocks, and is called in the threads of
:mod:`.service` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Engine, Select, Table
from sqlalchemy.exc import SQLAlchemyError

#: SQLite's codes for a file that nothing can be done with: SQLITE_CORRUPT, SQLITE_NOTADB.
_RUINED = frozenset({11, 26})

__all__ = ["Database", "Insert", "Trouble", "reason_of"]


#: Inserts rows, in the order of the table's columns.
Insert = Callable[[Connection, Sequence[tuple[Any, ...]]], None]


class Trouble(Exception):
    """The database cannot do something now; the text is one line for people."""


class Database(Protocol):
    """One kind of database, at one place."""

    #: How a value is written in a statement, as the driver wants it.
    mark: str

    def engine(self) -> Engine:
        """Return an engine that keeps no connections; LocalFault where there is no driver."""

    def connect(self, engine: Engine) -> Connection:
        """Return a connection; :class:`Trouble` or SQLAlchemyError where there is none."""

    def check(self, connection: Connection) -> None:
        """Raise :class:`Trouble` where what is connected to is not the history any more."""

    def limit(self, connection: Connection, seconds: float) -> None:
        """Have what is asked in the transaction that has begun end after ``seconds``."""

    def insert(self, table: Table) -> Insert:
        """Return what inserts rows into ``table``, leaving alone those that are there."""

    def interrupt(self, connection: Connection) -> None:
        """Have what waits on ``connection`` in another thread fail soon.  Quick."""

    def is_about_data(self, error: SQLAlchemyError) -> bool:
        """Say whether what was written is at fault, and not the database."""

    def size(self, connection: Connection) -> int:
        """Return the octets that the history takes, what can be used again left out."""

    def reclaim(self, connection: Connection) -> bool:
        """Give some free space back to the disk; return whether there is more to give."""

    def forget_subjects(self, connection: Connection, before: int) -> None:
        """Take messages below id ``before``, which are about to go, out of the index."""

    def hindrance(self, connection: Connection) -> str:
        """Return why searches are slow here, or ""."""

    def contains(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Return the condition that ``part`` is in ``column``, whatever the case."""

    def includes(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Return the condition that ``part`` is in ``column``, letter by letter."""

    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """Return the condition that ``column`` is one of ``ids``."""

    def names(self, part: str, limit: int) -> Select[Any]:
        """Return the question for the ids of names with ``part``, ``limit`` at most."""

    def subjects(self, connection: Connection, part: str) -> Select[Any] | None:
        """Return the question for messages with ``part`` in their subjects: one column, id.

        None where no index helps.  What it finds is to be looked at once more.
        """

    def is_late(self, error: SQLAlchemyError) -> bool:
        """Say whether a question was ended because it took too long."""


def reason_of(error: BaseException) -> str:
    """Return an error of the driver in one line."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _RUINED:
        return f"{text}: move the file away and a new one is made"
    return text
