"""How a database of any earlier version becomes one of this version.

:func:`migrate` is called by :mod:`..store` each time it connects, in the writer's thread.
Alembic runs what is in ``versions`` (:mod:`.upgrading`), and is imported only where there is
something to run: it is a tenth of the daemon's start.  Each step works on SQLite and on
PostgreSQL, in one transaction, and is never changed once released.  Several nodes may start
at once on the same PostgreSQL: an advisory lock lets one go first.
"""

from __future__ import annotations

from importlib import import_module

from sqlalchemy import Connection, inspect, text

__all__ = ["LATEST", "VERSION_TABLE", "NotUpgraded", "migrate"]

LATEST = "0003"
#: Where alembic keeps the version, in the database.
VERSION_TABLE = "records_version"
_LOCK = 7_236_452_010


class NotUpgraded(Exception):
    """The database is of a later version than this one, or of none that is known."""


def migrate(connection: Connection, revision: str = LATEST) -> None:
    """Bring the database of ``connection``, which is in a transaction, up to ``revision``.

    Raises :class:`NotUpgraded`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    version = _version(connection)
    if version != revision:
        if version > LATEST:
            raise NotUpgraded(f"its tables ({version}) are of a later mailsecure than this")
        import_module(f"{__name__}.upgrading").upgrade(connection, revision)


def _version(connection: Connection) -> str:
    """Return the version of the tables that are there, "" where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    return str(connection.execute(query).scalar() or "")
