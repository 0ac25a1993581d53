"""The history in SQLite: a file of its own beside the spool's.

WAL, so that a long search never holds up the writer, and ``synchronous = NORMAL``: a commit
is not synced, a checkpoint is.  The death of the process then loses nothing that was
committed; the loss of power may lose the last seconds of *history* and never damages it.
That is enough here, because no mail depends on it; the spool does otherwise.

``auto_vacuum = INCREMENTAL`` (it has to be chosen when the file is made) lets retention give
space back in small steps.

Parts of texts are found with FTS5's trigrams, without positions (``detail=none``): a search
asks for the rows that hold all trigrams of the part, and each is then looked at with LIKE.
LIKE knows the case of ASCII only; for other texts a function of ours is asked.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from errno import EACCES, EISDIR
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    bindparam,
    column,
    create_engine,
    event,
    func,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from .database import Insert, Trouble
from .schema import name

__all__ = ["Sqlite"]

_PAGE = 4096
_CACHE_KIB = 32768
_CHECKPOINT_PAGES = 4000
_WAL_LIMIT = 64 << 20
#: How long a statement waits for another process that has locked the file, in seconds.
_BUSY = 3.0
#: Rows of one statement, the largest first.
_SIZES = (256, 64, 16, 4, 1)
#: Pages that one step gives back.
_RECLAIMED = 500
_INTERRUPTED = 9
#: Instructions of SQLite's machine between two looks at the clock: about a millisecond.
_INSTRUCTIONS = 20_000
#: Trigrams of a part that are asked for; more narrow no further.
_MOST_TRIGRAMS = 24

_name_text = table("name_text", column("rowid", BigInteger), column("text"))
_subject_text = table("subject_text", column("rowid", BigInteger), column("subject"))
_subject_row = table("subject_row", column("n", BigInteger), column("message", BigInteger))


class _File(sqlite3.Connection):
    """Knows which file it was opened on."""

    place: tuple[int, int] = 0, 0


def _place_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


class Sqlite:
    """The file at ``path``, made when first connected.  See :class:`.database.Database`."""

    mark = "?"

    def __init__(self, path: Path) -> None:
        self._path = path

    def engine(self) -> Engine:
        """Return the engine."""
        engine = create_engine(
            "sqlite://", creator=self._open, poolclass=NullPool, isolation_level=None
        )
        event.listen(engine, "begin", _begin)
        return engine

    def _open(self) -> _File:
        # Nobody else may read who wrote to whom; SQLite's other files get the same mode.  Only
        # where there is no file yet: POSIX gives up all locks that a process has on a file when
        # it closes any descriptor of it, our other connection's too.  Then whoever else closes
        # the database takes himself for the last, and removes the WAL that we write to.
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self._path, flags, 0o600))
        except FileExistsError:
            # SQLite would say of both that it is unable to open it.
            if self._path.is_dir():
                raise IsADirectoryError(EISDIR, os.strerror(EISDIR)) from None
            if not os.access(self._path, os.R_OK | os.W_OK):
                raise PermissionError(EACCES, os.strerror(EACCES)) from None
        connection = sqlite3.connect(
            self._path,
            _BUSY,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=200,
            factory=_File,
        )
        try:
            connection.place = _place_of(self._path)
            connection.execute(f"PRAGMA page_size = {_PAGE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            connection.create_function("holds", 2, _holds, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect(self, engine: Engine) -> Connection:
        """Connect; a file that cannot be opened is :class:`.database.Trouble`."""
        try:
            return engine.connect()
        except OSError as error:
            raise Trouble(f"{self._path}: {error.strerror}") from None

    def check(self, connection: Connection) -> None:
        """Somebody may have removed the file, or put another there: it would be in vain."""
        driver: Any = connection.connection.driver_connection
        if _place_of(self._path) != driver.place:
            raise Trouble(f"{self._path.name} was removed or replaced")

    def limit(self, connection: Connection, seconds: float) -> None:
        """Look at the clock now and then."""
        driver: Any = connection.connection.driver_connection
        end = time.monotonic() + seconds
        driver.set_progress_handler(lambda: time.monotonic() > end, _INSTRUCTIONS)

    def insert(self, table: Table) -> Insert:
        """Statements of some hundred rows: each has its price, for the reactor too."""
        columns = [column.name for column in table.columns]
        row = f"({','.join('?' * len(columns))})"
        head = f'INSERT INTO "{table.name}" ({",".join(columns)}) VALUES '
        statements = [
            (size, head + ",".join([row] * size) + " ON CONFLICT DO NOTHING") for size in _SIZES
        ]

        def insert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
            at = 0
            for size, statement in statements:
                while len(rows) - at >= size:
                    values = tuple(chain.from_iterable(rows[at : at + size]))
                    connection.exec_driver_sql(statement, values)
                    at += size

        return insert

    def interrupt(self, connection: Connection) -> None:
        """End the statement."""
        driver: Any = connection.connection.driver_connection
        driver.interrupt()

    def is_about_data(self, error: SQLAlchemyError) -> bool:
        """Say whether a row was at fault."""
        cause = getattr(error, "orig", None)
        if isinstance(cause, sqlite3.ProgrammingError | sqlite3.InterfaceError):
            return "binding" in str(cause)
        return isinstance(cause, sqlite3.IntegrityError | sqlite3.DataError)

    def size(self, connection: Connection) -> int:
        """Return the octets of used pages, and of the WAL."""
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        return int(pages - free) * _PAGE

    def reclaim(self, connection: Connection) -> bool:
        """Give a few pages back where a tenth of the file is free."""
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        if free * 10 < pages:
            return False
        # A row without columns for each page, of which SQLAlchemy knows nothing.
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA incremental_vacuum({_RECLAIMED})").fetchall()
        return bool(free > _RECLAIMED)

    def forget_subjects(self, connection: Connection, before: int) -> None:
        """FTS5 forgets a text only if it is told that text."""
        bound = {"before": before}
        connection.execute(
            text(
                "INSERT INTO subject_text (subject_text, rowid, subject)"
                " SELECT 'delete', s.n, m.subject FROM message m"
                " JOIN subject_row s ON s.message = m.id WHERE m.id < :before"
            ),
            bound,
        )
        connection.execute(text("DELETE FROM subject_row WHERE message < :before"), bound)

    def hindrance(self, connection: Connection) -> str:
        """Nothing: FTS5 was there when the tables were made."""
        return ""

    # -- questions

    def contains(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """LIKE, which knows the case of ASCII; else our function."""
        if part.isascii():
            return column.like(f"%{_literally(part)}%", escape="\\")
        return func.holds(column, part.casefold(), type_=Boolean)

    def includes(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Not LIKE, which would pass over the case."""
        return func.instr(column, part) > 0

    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """One parameter, however many there are."""
        if len(ids) == 1:
            return column == ids[0]
        values = func.json_each(bindparam(None, json.dumps(ids), unique=True)).table_valued("value")
        return column.in_(select(values.c.value))

    def names(self, part: str, limit: int) -> Select[Any]:
        """Ask FTS5; a part of less than three characters is looked for in all."""
        found = select(name.c.id).where(self.contains(name.c.text, part)).limit(limit)
        trigrams = _trigrams(part)
        if trigrams:
            hits = select(_name_text.c.rowid).where(_matches("name_text", trigrams))
            found = found.where(name.c.id.in_(hits))
        return found

    def subjects(self, connection: Connection, part: str) -> Select[Any] | None:
        """Ask FTS5."""
        trigrams = _trigrams(part)
        if not trigrams:
            return None
        # Not a join: SQLite would rather read all subjects and ask FTS5 about each.
        number = _subject_text.c.rowid
        id = select(_subject_row.c.message).where(_subject_row.c.n == number).scalar_subquery()
        return (
            select(id.label("id"))
            .select_from(_subject_text)
            .where(_matches("subject_text", trigrams))
        )

    def is_late(self, error: SQLAlchemyError) -> bool:
        """Our own handler interrupted it."""
        return getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) == _INTERRUPTED


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _holds(value: str | None, part: str) -> bool:
    return value is not None and part in value.casefold()


def _trigrams(part: str) -> list[str]:
    """Return trigrams of ``part`` that FTS5 is asked for; none for a short one.

    Every second one: the others hardly narrow it further, and each takes its time.
    """
    clean = part.replace("\0", "")
    places = range(len(clean) - 2)
    step = max(2, -(-len(places) // _MOST_TRIGRAMS))
    return list(dict.fromkeys(clean[at : at + 3] for at in (*places[::step], *places[-1:])))


def _matches(table: str, trigrams: Sequence[str]) -> ColumnElement[bool]:
    question = " AND ".join('"' + each.replace('"', '""') + '"' for each in trigrams)
    return literal_column(table).op("MATCH", return_type=Boolean())(question)


def _literally(part: str) -> str:
    return part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
