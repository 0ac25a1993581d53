"""What the writing and the reading side of the spool's database share.

Connections, what an error means, and the conditions that a filter makes.  Used by
:mod:`.storage`, :mod:`.reading` and :mod:`.held`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from ..errors import LocalFault
from .api import Filter, RecipientState, SpoolBroken, SpoolFull

__all__ = ["ROWS", "SLICE", "chosen", "conditions", "connect", "database_fault"]

#: How many recipients one administrative statement changes before others get a turn.
SLICE = 2000
ROWS = "FROM recipient r JOIN message m ON m.id = r.message"


def database_fault(error: sqlite3.Error) -> LocalFault:
    """Return the fault that a database error means."""
    code = getattr(error, "sqlite_errorcode", 0) or 0
    why = f"the spool's database: {error}"
    return SpoolFull(why) if code & 0xFF == sqlite3.SQLITE_FULL else SpoolBroken(why)


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection for the thread that uses it; it syncs at every commit."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    # SQLite's own lower() knows ASCII alone.
    connection.create_function("holds", 2, _holds, deterministic=True)
    return connection


def _holds(text: str, part: str) -> bool:
    return part in text.casefold()


def conditions(filter: Filter) -> tuple[str, list[Any]]:
    """Return the WHERE clause over ``recipient r JOIN message m`` for ``filter``."""
    terms = ["1"]
    values: list[Any] = []
    if filter.id is not None:
        terms.append("r.message = ?")
        values.append(filter.id)
    for column, text in (("m.reverse_path", filter.sender), ("r.mailbox", filter.recipient)):
        if text.startswith("@"):
            terms.append(f"substr({column}, -length(?)) = ? COLLATE NOCASE")
            values += [text, text]
        elif text:
            terms.append(f"{column} = ? COLLATE NOCASE")
            values.append("" if text == "<>" else text)
    if filter.destination:
        terms.append("r.domain = ?")
        values.append(filter.destination.lower())
    if filter.state is not None:
        terms.append("r.held = ?")
        values.append(int(filter.state is RecipientState.HELD))
    return " AND ".join(terms), values


def chosen(filter: Filter, more: str) -> tuple[str, list[Any]]:
    """Return a condition on rows of ``recipient``: a slice of those that match."""
    where, values = conditions(filter)
    return (
        f"(message, idx) IN (SELECT r.message, r.idx {ROWS}"
        f" WHERE {where} AND {more} LIMIT {SLICE})",
        values,
    )
