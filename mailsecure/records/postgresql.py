"""The history in PostgreSQL, through psycopg 3.

Several nodes may write to one database; each row says which.  Every statement has a time
limit and every connection notices a silent peer within seconds, so that the writer's thread
always comes back; where even that fails, :meth:`Postgresql.interrupt` ends the wait.
``synchronous_commit`` is off, for the same reason for which SQLite's commits are not synced:
the last half second of history is not worth a wait.

Parts of texts are found with pg_trgm's GIN indexes.  Where nobody may make that extension
ILIKE reads the tables, and :meth:`Postgresql.hindrance` says so.

Deleted rows leave space that PostgreSQL uses again but does not give back: see
:meth:`Postgresql.size`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    any_,
    bindparam,
    create_engine,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, dialect, insert
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ..errors import LocalFault
from .database import Insert
from .schema import METADATA, message, name, note

__all__ = ["Postgresql"]

#: Limits in seconds: to connect, for a statement of the writer, for a silent peer.
_CONNECT, _STATEMENT, _SILENCE = 5, 15, 10
_SIZES = (
    "SELECT relname, pg_total_relation_size(relid), n_live_tup FROM pg_stat_user_tables"
    " WHERE schemaname = current_schema() AND relname IN ({})"
).format(", ".join(f"'{each}'" for each in METADATA.tables))
_DIALECT = dialect()
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_DENSITY = "octets a row"
#: A table of fewer rows says nothing about how large one is.
_ENOUGH_ROWS = 10_000


class Postgresql:
    """The database that ``url`` names.  See :class:`.database.Database`."""

    mark = "%s"

    def __init__(self, url: str, password_file: Path | None) -> None:
        self._url = url
        self._password_file = password_file

    def engine(self) -> Engine:
        """Return the engine; LocalFault where psycopg or the password's file is missing."""
        arguments: dict[str, Any] = {
            "connect_timeout": _CONNECT,
            "keepalives_idle": _SILENCE,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": _SILENCE * 1000,
            "application_name": "mailsecure",
        }
        if self._password_file is not None:
            try:
                arguments["password"] = self._password_file.read_text("utf-8").strip()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "is not text"
                raise LocalFault(
                    f"[records] password_file {self._password_file}: {reason}"
                ) from None
        try:
            url = make_url(self._url).set(drivername="postgresql+psycopg")
            return create_engine(url, connect_args=arguments, poolclass=NullPool)
        except ModuleNotFoundError:
            raise LocalFault(
                "[records] database is PostgreSQL, and its driver is not installed:"
                " pip install 'mailsecure[postgresql]'"
            ) from None
        except (SQLAlchemyError, ValueError) as error:
            raise LocalFault(f"[records] database: {error}") from None

    def connect(self, engine: Engine) -> Connection:
        """Connect, and set the limits."""
        connection = engine.connect()
        try:
            with connection.begin():
                connection.exec_driver_sql(f"SET statement_timeout = {_STATEMENT * 1000}")
                connection.exec_driver_sql(f"SET lock_timeout = {_SILENCE * 1000}")
                connection.exec_driver_sql("SET synchronous_commit = off")
                connection.exec_driver_sql("SET standard_conforming_strings = on")
        except BaseException:
            connection.close()
            raise
        return connection

    def check(self, connection: Connection) -> None:
        """Nothing: a server that is another one has ended the connection."""

    def insert(self, table: Table) -> Insert:
        """All rows as one parameter, in JSON: making it takes the interpreter a fifth of the
        time of a parameter for each value.
        """
        columns = table.columns.values()
        values = [
            f"(v ->> {n})::{column.type.compile(_DIALECT)}" for n, column in enumerate(columns)
        ]
        statement = (
            f'INSERT INTO "{table.name}" ({",".join(column.name for column in columns)})'
            f" SELECT {', '.join(values)} FROM jsonb_array_elements(%s::jsonb) AS v"
            " ON CONFLICT DO NOTHING"
        )

        def insert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
            if rows:
                connection.exec_driver_sql(statement, (_encode(rows),))

        return insert

    def limit(self, connection: Connection, seconds: float) -> None:
        """Each statement may take so long; the server ends it."""
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")

    def interrupt(self, connection: Connection) -> None:
        """Shut the socket: a server that was stopped in its tracks acknowledges and is silent.

        Its own time limits do not run then, nor does any of TCP.
        """
        driver: Any = connection.connection.driver_connection
        with suppress(OSError), socket.socket(fileno=os.dup(driver.fileno())) as shut:
            shut.shutdown(socket.SHUT_RDWR)

    def is_about_data(self, error: SQLAlchemyError) -> bool:
        """Say whether a row was at fault."""
        if isinstance(error, DataError | IntegrityError):
            return True
        return isinstance(getattr(error, "orig", None), UnicodeError | OverflowError)

    def size(self, connection: Connection) -> int:
        """Return the octets of our tables and indexes, as if nothing had been deleted.

        PostgreSQL keeps the space of deleted rows for new ones and does not say how much of
        it there is.  So we remember how few octets a row of each table ever took, and take
        that times the rows that are there.
        """
        known = connection.execute(select(note.c.value).where(note.c.name == _DENSITY)).scalar()
        density: dict[str, float] = json.loads(known or "{}")
        before, total = dict(density), 0.0
        for table, octets, rows in connection.exec_driver_sql(_SIZES):
            if rows >= _ENOUGH_ROWS:
                density[table] = min(density.get(table, octets), octets / rows)
            total += min(octets, rows * density.get(table, octets))
        if density != before:
            value = json.dumps(density)
            new = insert(note).values(name=_DENSITY, value=value)
            connection.execute(
                new.on_conflict_do_update(index_elements=["name"], set_={"value": value})
            )
        return int(total)

    def reclaim(self, connection: Connection) -> bool:
        """Nothing: PostgreSQL's own autovacuum does it."""
        return False

    def forget_subjects(self, connection: Connection, before: int) -> None:
        """Nothing: the index is the table's own."""

    def hindrance(self, connection: Connection) -> str:
        """Say so where the trigrams are missing."""
        found = connection.execute(
            text(
                "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema()"
                " AND indexname IN ('name_text', 'subject_text')"
            )
        ).scalar_one()
        return "" if found == 2 else "the extension pg_trgm is missing: searches are slow"

    # -- questions

    def contains(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """ILIKE, which the indexes know."""
        literally = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return column.ilike(f"%{literally}%", escape="\\")

    def includes(self, column: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Not ILIKE, which would pass over the case."""
        return func.strpos(column, part) > 0

    def among(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        """One parameter, however many there are."""
        values = bindparam(None, list(ids), type_=ARRAY(BigInteger), unique=True)
        return column == any_(values)

    def names(self, part: str, limit: int) -> Select[Any]:
        """Ask the index."""
        return select(name.c.id).where(self.contains(name.c.text, part)).limit(limit)

    def subjects(self, connection: Connection, part: str) -> Select[Any] | None:
        """Ask the index; it has nothing for less than a trigram."""
        if len(part) < 3 or self.hindrance(connection):
            return None
        return select(message.c.id).where(self.contains(message.c.subject, part))

    def is_late(self, error: SQLAlchemyError) -> bool:
        """The server cancelled it."""
        return getattr(getattr(error, "orig", None), "sqlstate", "") == "57014"
