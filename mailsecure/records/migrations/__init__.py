"""How a database of any earlier version becomes one of this version.

:func:`migrate` is called by :mod:`..store` each time it connects, in the writer's thread.
Alembic runs what is in ``versions``; each step works on SQLite and on PostgreSQL, in one
transaction, and is never changed once released.  Several nodes may start at once on the
same PostgreSQL: an advisory lock lets one go first.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

__all__ = ["LATEST", "migrate"]

LATEST = "0002"
_LOCK = 7_236_452_010


def migrate(connection: Connection, revision: str = LATEST) -> None:
    """Bring the database of ``connection``, which is in a transaction, up to ``revision``.

    Raises alembic's CommandError for a database of a later version than this one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def head() -> str:
    """Return the last revision that is there."""
    return ScriptDirectory(str(Path(__file__).parent)).get_current_head() or ""
