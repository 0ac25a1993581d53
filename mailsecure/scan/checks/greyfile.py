"""What greylisting remembers, on disk: ``greylist.db`` in the state directory.

A table of SQLite, written in batches in a thread (:mod:`.greylist`).  It is a memory, not a
queue: losing the last seconds in a crash makes a few strangers wait once more, so nobody waits
for the disk here (synchronous=NORMAL).  A file that is no database, or a broken one, is set
aside under another name and begun anew; what is remembered in the process is written again.

Every method blocks; one call at a time.  OSError and sqlite3.Error are :class:`LocalFault`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...errors import LocalFault
from .greylisting import LONGEST_KEY, MAX_NETWORKS, MAX_PASSED, MAX_WAITING
from .tables import NETWORK, TRIPLE, Known

__all__ = ["FileBroken", "GreyFile"]

FILE_NAME = "greylist.db"
#: The layout below; another one is not ours.
_VERSION = 1
_LAYOUT = f"""
CREATE TABLE IF NOT EXISTS known (
    kind TEXT NOT NULL, key TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS known_last ON known (last);
PRAGMA user_version = {_VERSION};
"""
#: Of each kind, whether it passed, how many are kept.
_KEEP = ((TRIPLE, 0, MAX_WAITING), (TRIPLE, 1, MAX_PASSED), (NETWORK, 1, MAX_NETWORKS))
_TOO_MANY = """
DELETE FROM known WHERE kind = :kind AND (times > 0) = :passed AND last < (
    SELECT last FROM known WHERE kind = :kind AND (times > 0) = :passed
    ORDER BY last DESC LIMIT 1 OFFSET :most)
"""
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class FileBroken(LocalFault):
    """The file is no database, or a broken one."""


class GreyFile:
    """The file in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._database: sqlite3.Connection | None = None

    def open(self) -> list[Known]:
        """Open or create the file; return what it holds, the longest unused first.

        Raises FileBroken, or LocalFault if there can be no file.
        """
        with self._faults():
            database = self._database = sqlite3.connect(
                self.path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise FileBroken(f"{self.path} is of layout {version}, not {_VERSION}")
            database.executescript(_LAYOUT)
            (checked,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if checked != "ok":
                raise FileBroken(f"{self.path}: {checked}")
            return [
                row
                for found in database.execute(
                    "SELECT kind, key, first, last, times FROM known ORDER BY last"
                )
                if (row := _row(found)) is not None
            ]

    def write(self, rows: Sequence[Known]) -> None:
        """Write ``rows`` over what there is; raises as :meth:`open`."""
        with self._faults(), self._transaction() as database:
            database.executemany("REPLACE INTO known VALUES (?, ?, ?, ?, ?)", rows)

    def tidy(self, waiting_since: float, known_since: float) -> None:
        """Remove what is out of date: last seen before then (Unix seconds); and what is too much.

        Raises as :meth:`open`.
        """
        with self._faults(), self._transaction() as database:
            database.execute("DELETE FROM known WHERE times = 0 AND last < ?", (waiting_since,))
            database.execute("DELETE FROM known WHERE times > 0 AND last < ?", (known_since,))
            for kind, passed, most in _KEEP:
                bounds = {"kind": kind, "passed": passed, "most": most - 1}
                database.execute(_TOO_MANY, bounds)

    def close(self) -> None:
        """Close the file; nothing is raised."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def set_aside(self) -> Path:
        """Give the file another name, in place of what was set aside before; return that."""
        self.close()
        aside = self.path.with_name(f"{FILE_NAME}.broken")
        try:
            self.path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise LocalFault(f"cannot set {self.path} aside: {error.strerror}") from None
        return aside

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._database
        if database is None:
            raise LocalFault(f"{self.path} is not open")
        with database:
            database.execute("BEGIN IMMEDIATE")
            yield database

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind = FileBroken if code in _BROKEN else LocalFault
            raise kind(f"{self.path}: {error}") from None


def _row(found: tuple[object, ...]) -> Known | None:
    """Return what was written, None for what was not by us."""
    kind, key, *numbers = found
    if kind not in (TRIPLE, NETWORK) or not isinstance(key, str) or len(key) > LONGEST_KEY:
        return None
    first, last, times = (each if isinstance(each, int) else -1 for each in numbers)
    return Known(str(kind), key, first, last, times) if min(first, last, times) >= 0 else None
