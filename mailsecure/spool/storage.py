"""The writing side of the spool: its files, and every statement that changes them.

Blocking; :class:`Storage` is used by one writer thread, which :mod:`.sqlite` owns.  The
reading side is :mod:`.reading`; what concerns the quarantine alone is in :mod:`.held`.
(Longer than others: the order of its steps is what durability rests on, and stands here
in one piece.)

**The commit path.**  A group of operations is one transaction: first the large bodies go
to their segment and are made durable with one fdatasync, then the rows are written and
committed with ``synchronous=FULL``, which syncs the WAL once.  The order matters: a row
never points at octets that might not be there.

**Faults.**  No room (ENOSPC, EDQUOT, SQLITE_FULL) rolls the group back whole and raises
SpoolFull.  Any other failure of the disk raises SpoolBroken: then nobody knows what a
second fsync would tell (the kernel may have dropped the pages and forgotten the error),
so the caller must close this object and open another.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from ..config.model import SpoolSettings
from .api import (
    Body,
    Filter,
    Freed,
    NewMessage,
    Settlement,
    SpoolBroken,
)
from .body import disk_fault
from .database import ROWS, SLICE, conditions, connect, database_fault
from .held import delete_held, release_held
from .ids import MessageId
from .packing import PackedBody
from .schema import accept_work, done_work, message_row, quarantine_work, schema_from
from .segments import QUARANTINE, QUEUE, Segments

__all__ = ["Storage"]

_CHECKPOINT_PAGES = 4000
_WAL_LIMIT = 64 << 20
_REFUSED = "refused"
_RESERVE = "reserve"
_RESERVE_OCTETS = 8 << 20


#: Rows of ``work`` in one statement; as many statements as that are kept prepared.
_MOST_WORK = 64
_WORK = [
    "INSERT INTO work VALUES " + ",".join(["(?,?,?,?,?,?,?,?,?,?,?)"] * rows)
    for rows in range(_MOST_WORK + 1)
]


class _Many:
    """A statement over many rows, some dozens in one step.

    Each step of SQLite gives the interpreter's lock up and waits to get it back from the
    reactor's thread; row by row that waiting costs more than the rows.
    """

    def __init__(self, before: str, each: str, between: str = ",", after: str = "") -> None:
        self._statements = [
            (size, before + between.join([each] * size) + after) for size in (64, 16, 4, 1)
        ]

    def run(self, database: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute it for all ``rows``."""
        at = 0
        for size, statement in self._statements:
            while len(rows) - at >= size:
                values = [value for row in rows[at : at + size] for value in row]
                database.execute(statement, values)
                at += size


# What stands once in a statement of many rows (before, after) and for each row.
_DELETE_RECIPIENT = _Many("DELETE FROM recipient WHERE ", "message = ? AND idx = ?", " OR ")
_DELETE_MESSAGE = _Many(
    "DELETE FROM message WHERE id IN (",
    "?",
    ",",
    ") AND quarantined IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM recipient WHERE recipient.message = message.id)",
)
_LEAVE_ALONE = _Many(
    "UPDATE quarantine SET alone = 1 WHERE message IN (",
    "?",
    ",",
    ") AND alone = 0"
    " AND NOT EXISTS (SELECT 1 FROM recipient WHERE recipient.message = quarantine.message)",
)
_RETRY_RECIPIENT = (
    "UPDATE recipient SET due = ?, reply = ?, attempts = attempts + ? WHERE message = ? AND idx = ?"
)
_WARN_RECIPIENT = "UPDATE recipient SET warned = 1 WHERE message = ? AND idx = ?"


def _do_work(database: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    database.execute(_WORK[len(rows)], list(chain.from_iterable(rows)))


def _end_messages(database: sqlite3.Connection, rows: list[tuple[int]]) -> None:
    """Remove messages for which nobody waits any more; some stay in the quarantine."""
    _DELETE_MESSAGE.run(database, rows)
    _LEAVE_ALONE.run(database, rows)


class Storage:
    """The writing side: one open spool directory.  See the module's text."""

    def __init__(self, directory: Path, settings: SpoolSettings) -> None:
        self._directory = directory
        self._inline_size = settings.inline_size
        self._segments = Segments(directory / "segments", settings.segment_size)
        self._lock = -1
        self._database: sqlite3.Connection | None = None

    @property
    def database_path(self) -> Path:
        """Where the database is."""
        return self._directory / "spool.db"

    def open(self) -> None:
        """Lock the directory, open or create the database, clear leftovers away."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._take_lock()
            new = not self.database_path.exists()
            database = self._database = connect(self.database_path)
            if new:
                database.execute("PRAGMA page_size = 8192")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            database.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            self._bring_up_to_date(database)
            self._forget_refused(database)
            live = {row[0] for row in database.execute("SELECT number FROM segment WHERE live > 0")}
            self._segments.open(live)
        except OSError as error:
            raise disk_fault(error, f"cannot open the spool {self._directory}") from error
        except sqlite3.Error as error:
            raise database_fault(error) from error

    def _take_lock(self) -> None:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise SpoolBroken(
                f"the spool {self._directory} is in use by process {other or 'unknown'}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        self._lock = descriptor

    def _bring_up_to_date(self, database: sqlite3.Connection) -> None:
        """Make the tables, or those that an older version did not have."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        try:
            statements = schema_from(version)
        except SpoolBroken as fault:
            raise SpoolBroken(f"cannot use {self.database_path}: {fault}") from None
        if statements:
            database.executescript(f"BEGIN IMMEDIATE;{statements}COMMIT;")

    # -- what was refused, and room for results

    def note_refused(self, accepts: Sequence[NewMessage]) -> None:
        """Remember, across :meth:`close` and a crash, that these were answered with 4xx.

        A commit whose fsync failed may stand in the WAL all the same, and would be found
        there by the next :meth:`open`; but the client was told to send it again.
        """
        if not accepts:
            return
        with suppress(OSError), (self._directory / _REFUSED).open("a") as stream:
            stream.write("".join(f"{each.id}\n" for each in accepts))

    def _forget_refused(self, database: sqlite3.Connection) -> None:
        path = self._directory / _REFUSED
        try:
            lines = path.read_text("ascii").splitlines()
        except FileNotFoundError:
            return
        rows = [(int(line),) for line in lines if line.isdigit()]
        database.execute("BEGIN IMMEDIATE")
        database.executemany("DELETE FROM quarantined WHERE message = ?", rows)
        database.executemany("DELETE FROM recipient WHERE message = ?", rows)
        database.executemany("DELETE FROM message WHERE id = ?", rows)
        database.execute("COMMIT")
        path.unlink()

    def keep_reserve(self) -> None:
        """Hold some room back, for results when the disk is full to the last octet."""
        path = self._directory / _RESERVE
        if path.exists():
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _RESERVE_OCTETS)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)

    def spend_reserve(self) -> bool:
        """Give the reserve up; return whether there was one."""
        path = self._directory / _RESERVE
        found = path.exists()
        path.unlink(missing_ok=True)
        return found

    def close(self) -> None:
        """Close everything; what was not committed is not there."""
        if self._database is not None:
            database, self._database = self._database, None
            with suppress(sqlite3.Error):
                # A disk at fault cannot be closed well; what counts was committed before.
                database.close()
        try:
            self._segments.close()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    # -- groups

    def commit(self, accepts: Sequence[NewMessage], settlements: Sequence[Settlement]) -> None:
        """Make a group durable.  SpoolFull: nothing of it is; SpoolBroken: close me."""
        plain = len(accepts) + len(settlements) <= _MOST_WORK and not any(
            each.retry or each.warned or each.notice for each in settlements
        )
        try:
            if plain:
                self._commit_at_once(self._rows(accepts, settlements))
            else:
                self._transaction(lambda database: self._write(database, accepts, settlements))
            if settlements:
                self._reclaim()
        except OSError as error:
            raise disk_fault(error, "cannot write to the spool") from error

    def _commit_at_once(self, rows: list[tuple[Any, ...]]) -> None:
        """One statement, one transaction (see :mod:`.schema`)."""
        if self._database is None:
            raise SpoolBroken("the spool is closed")
        try:
            _do_work(self._database, rows)
        except sqlite3.Error as error:
            raise database_fault(error) from error

    def change(self, statement: str, values: Sequence[Any]) -> int:
        """Run one administrative statement; return how many rows it changed."""
        changed = 0

        def run(database: sqlite3.Connection) -> None:
            nonlocal changed
            changed = database.execute(statement, values).rowcount

        self._transaction(run)
        return changed

    def delete(self, filter: Filter) -> int:
        """Remove a slice of matching recipients, and messages that lost their last one."""
        where, values = conditions(filter)
        found: list[tuple[int, int]] = []

        def run(database: sqlite3.Connection) -> None:
            found.extend(
                database.execute(
                    f"SELECT r.message, r.idx {ROWS} WHERE {where} LIMIT {SLICE}", values
                )
            )
            _DELETE_RECIPIENT.run(database, found)
            _end_messages(database, [(id,) for id in {id for id, _ in found}])

        self._transaction(run)
        self._reclaim()
        return len(found)

    def release_quarantined(
        self, ids: Sequence[MessageId], now: float, recipients: tuple[str, ...]
    ) -> list[Freed]:
        """See :meth:`.api.Spool.release_quarantined`."""
        freed: list[Freed] = []
        self._transaction(
            lambda database: freed.extend(release_held(database, ids, now, recipients))
        )
        return freed

    def delete_quarantined(
        self, ids: Sequence[MessageId], recipients: tuple[str, ...]
    ) -> list[Freed]:
        """See :meth:`.api.Spool.delete_quarantined`."""
        freed: list[Freed] = []
        self._transaction(lambda database: freed.extend(delete_held(database, ids, recipients)))
        self._reclaim()
        return freed

    def _transaction(self, work: Callable[[sqlite3.Connection], None]) -> None:
        database = self._database
        if database is None:
            raise SpoolBroken("the spool is closed")
        try:
            database.execute("BEGIN IMMEDIATE")
            work(database)
            database.execute("COMMIT")
        except BaseException as error:
            if database.in_transaction:
                try:
                    database.execute("ROLLBACK")
                except sqlite3.Error as worse:
                    raise SpoolBroken(f"the spool's database: {worse}") from error
            if isinstance(error, sqlite3.Error):
                raise database_fault(error) from error
            raise

    def _write(
        self,
        database: sqlite3.Connection,
        accepts: Sequence[NewMessage],
        settlements: Sequence[Settlement],
    ) -> None:
        """Within a transaction: whatever it takes."""
        self._insert(database, accepts)
        self._insert(database, self._settle(database, settlements))

    def _insert(self, database: sqlite3.Connection, arriving: Sequence[NewMessage]) -> None:
        rows = self._rows(arriving, ())
        for at in range(0, len(rows), _MOST_WORK):
            _do_work(database, rows[at : at + _MOST_WORK])

    def _rows(
        self, arriving: Sequence[NewMessage], settlements: Sequence[Settlement]
    ) -> list[tuple[Any, ...]]:
        """Return rows of ``work``; what is too large for a row is durable already."""
        rows = [self._arriving(new) for new in arriving]
        self._segments.sync()
        rows += [done_work(each.id, each.done) for each in settlements]
        return rows

    def _arriving(self, new: NewMessage) -> tuple[Any, ...]:
        """Put the body where it belongs; return the row of ``work``."""
        quarantine = new.quarantine
        if quarantine is None or not quarantine.recipients:
            return accept_work(self._place(new, new.body, QUEUE), new)
        body = new.body
        if isinstance(body, PackedBody):
            row = self._place(new, body.stored, QUARANTINE)
            return quarantine_work(row, new, quarantine, body.stored.octets)
        return quarantine_work(self._place(new, body, QUARANTINE), new, quarantine, None)

    def _place(self, new: NewMessage, body: Body, series: str) -> tuple[Any, ...]:
        """Put ``body`` where its size belongs; return the message's row."""
        if body.octets <= self._inline_size:
            return message_row(new, b"".join(body.pieces()), None, None)
        segment, offset = self._segments.append(body, series)
        return message_row(new, None, segment, offset)

    def _settle(
        self, database: sqlite3.Connection, settlements: Sequence[Settlement]
    ) -> list[NewMessage]:
        """Apply settlements; return the notices that are to enter with them."""
        if not settlements:
            return []
        done = [(each.id, idx) for each in settlements for idx in each.done]
        retry = [
            (due, reply, int(counts), each.id, idx)
            for each in settlements
            for idx, (due, reply, counts) in each.retry.items()
        ]
        warned = [(each.id, idx) for each in settlements for idx in each.warned]
        notices = []
        told: set[tuple[MessageId, int, int]] = set()
        for each in settlements:
            concerned = {(each.id, idx, 1) for idx in each.done}
            concerned |= {(each.id, idx, 0) for idx in each.warned}
            if each.notice is not None and self._is_news(database, concerned - told):
                notices.append(each.notice)
            told |= concerned
        _DELETE_RECIPIENT.run(database, done)
        if retry:
            database.executemany(_RETRY_RECIPIENT, retry)
        if warned:
            database.executemany(_WARN_RECIPIENT, warned)
        _end_messages(database, [(each.id,) for each in settlements if each.done])
        return notices

    @staticmethod
    def _is_news(database: sqlite3.Connection, concerned: set[tuple[MessageId, int, int]]) -> bool:
        """A notice enters once: with the first settlement that changes something.

        ``concerned`` has (message, index, 1 for done or 0 for warned).  A settlement may
        come again when its first answer was lost with the disk.
        """
        return any(
            database.execute(
                "SELECT 1 FROM recipient WHERE message = ? AND idx = ? AND warned <= ?", recipient
            ).fetchone()
            for recipient in concerned
        )

    def _reclaim(self) -> None:
        """Remove the segments that no row refers to any more."""
        database = self._database
        if database is None or not self._segments.used:
            return
        empty = [
            row[0]
            for row in database.execute("SELECT number FROM segment WHERE live = 0")
            if row[0] not in self._segments.active
        ]
        for number in empty:
            self._segments.remove(number)
        if empty:
            database.executemany("DELETE FROM segment WHERE number = ?", [(n,) for n in empty])
