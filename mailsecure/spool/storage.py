"""The spool's files, and every statement that touches them.  Blocking.

:class:`Storage` is used by one writer thread, :class:`Reader` by one reader thread
(a second connection, so that a long listing never holds up a commit; WAL gives it a
snapshot).  :mod:`.sqlite` owns both threads.

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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from ..config.model import SpoolSettings
from ..errors import LocalFault
from .api import (
    Backlog,
    Filter,
    Listing,
    NewMessage,
    QueuedMessage,
    RecipientState,
    Settlement,
    SpoolBroken,
    SpoolFull,
)
from .body import FileBody, MemoryBody, disk_fault
from .ids import MessageId
from .schema import (
    SCHEMA,
    VERSION,
    accept_work,
    done_work,
    envelope_of,
    message_row,
    recipient_of,
)
from .segments import Segments

__all__ = ["Reader", "Storage"]

#: How many recipients one administrative statement changes before others get a turn.
SLICE = 2000
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
    ") AND NOT EXISTS (SELECT 1 FROM recipient WHERE recipient.message = message.id)",
)
_RETRY_RECIPIENT = (
    "UPDATE recipient SET due = ?, reply = ?, attempts = attempts + ? WHERE message = ? AND idx = ?"
)
_ROWS = "FROM recipient r JOIN message m ON m.id = r.message"
_WARN_RECIPIENT = "UPDATE recipient SET warned = 1 WHERE message = ? AND idx = ?"


def database_fault(error: sqlite3.Error) -> LocalFault:
    """Return the fault that a database error means."""
    code = getattr(error, "sqlite_errorcode", 0) or 0
    why = f"the spool's database: {error}"
    return SpoolFull(why) if code & 0xFF == sqlite3.SQLITE_FULL else SpoolBroken(why)


def _do_work(database: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    database.execute(_WORK[len(rows)], list(chain.from_iterable(rows)))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


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
            database = self._database = _connect(self.database_path)
            if new:
                database.execute("PRAGMA page_size = 8192")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            database.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            self._check_version(database)
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

    def _check_version(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"BEGIN;{SCHEMA};PRAGMA user_version = {VERSION};COMMIT;")
        elif version != VERSION:
            raise SpoolBroken(
                f"{self.database_path} has version {version}; this mailsecure knows {VERSION}"
            )

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
                    f"SELECT r.message, r.idx {_ROWS} WHERE {where} LIMIT {SLICE}", values
                )
            )
            _DELETE_RECIPIENT.run(database, found)
            _DELETE_MESSAGE.run(database, [(id,) for id in {id for id, _ in found}])

        self._transaction(run)
        self._reclaim()
        return len(found)

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
        rows = [accept_work(self._place(new), new) for new in arriving]
        self._segments.sync()
        rows += [done_work(each.id, each.done) for each in settlements]
        return rows

    def _place(self, new: NewMessage) -> tuple[Any, ...]:
        """Put the body where its size belongs; return the message's row."""
        if new.body.octets <= self._inline_size:
            return message_row(new, b"".join(new.body.pieces()), None, None)
        segment, offset = self._segments.append(new.body)
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
        _DELETE_MESSAGE.run(database, [(each.id,) for each in settlements if each.done])
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
            if row[0] != self._segments.active
        ]
        for number in empty:
            self._segments.remove(number)
        if empty:
            database.executemany("DELETE FROM segment WHERE number = ?", [(n,) for n in empty])


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
        f"(message, idx) IN (SELECT r.message, r.idx {_ROWS}"
        f" WHERE {where} AND {more} LIMIT {SLICE})",
        values,
    )


class Reader:
    """The reading side: one more connection, one thread."""

    def __init__(self, path: Path, segments: Path, settings: SpoolSettings) -> None:
        self._path = path
        self._segments = Segments(segments, settings.segment_size)
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Connect.  The database is there already."""
        self._database = _connect(self._path)
        self._database.execute("PRAGMA query_only = 1")

    def close(self) -> None:
        """Disconnect."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _query(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self._database is None:
            raise SpoolBroken("the spool is closed")
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise database_fault(error) from error

    def due(
        self, domain: str, now: float, limit: int, skip: frozenset[MessageId]
    ) -> list[QueuedMessage]:
        """See :meth:`.api.Spool.due`."""
        ids: dict[int, None] = {}
        rows = self._query(
            "SELECT message FROM recipient WHERE held = 0 AND domain = ? AND due <= ? ORDER BY due",
            domain,
            now,
        )
        for (message,) in rows:
            if message not in skip:
                ids[message] = None
                if len(ids) >= limit:
                    break
        rows.close()
        found = [
            self._message(
                MessageId(number), domain, "domain = ? AND held = 0 AND due <= ?", domain, now
            )
            for number in ids
        ]
        return [message for message in found if message is not None]

    def content(self, id: MessageId) -> QueuedMessage | None:
        """See :meth:`.api.Spool.content`."""
        return self._message(id, "", "1")

    def _message(
        self, id: MessageId, domain: str, which: str, *values: Any
    ) -> QueuedMessage | None:
        row = self._query(
            "SELECT arrived, octets, reverse_path, facts, body, segment, offset"
            " FROM message WHERE id = ?",
            id,
        ).fetchone()
        if row is None:
            return None
        arrived, octets, reverse_path, facts, inline, segment, offset = row
        recipients = [
            recipient_of(each)
            for each in self._query(
                "SELECT idx, mailbox, domain, notify, orcpt, attempts, reply, warned"
                f" FROM recipient WHERE message = ? AND {which} ORDER BY idx",
                id,
                *values,
            )
        ]
        if not recipients:
            return None
        envelope, arrival = envelope_of(
            reverse_path, facts, tuple(each.recipient for each in recipients)
        )
        body: MemoryBody | FileBody
        if segment is None:
            body = MemoryBody([inline])
        else:
            body = FileBody(b"", octets, offset, path=self._segments.path(segment))
        return QueuedMessage(id, envelope, arrival, arrived, body, domain, recipients)

    def backlog(self) -> list[Backlog]:
        """See :meth:`.api.Spool.backlog`."""
        return [
            Backlog(*row)
            for row in self._query(
                "SELECT domain, count(*), min(due) FROM recipient"
                " INDEXED BY recipient_due WHERE held = 0 GROUP BY domain"
            )
        ]

    def find(self, filter: Filter, limit: int, after: MessageId | None) -> list[Listing]:
        """See :meth:`.api.Spool.find`."""
        where, values = conditions(filter)
        ids = [
            MessageId(row[0])
            for row in self._query(
                f"SELECT DISTINCT r.message {_ROWS} WHERE {where} AND r.message > ?"
                " ORDER BY r.message LIMIT ?",
                *values,
                -1 if after is None else after,
                limit,
            )
        ]
        listings = (self._listing(id, where, values) for id in ids)
        return [listing for listing in listings if listing is not None]

    def _listing(self, id: MessageId, where: str, values: Iterable[Any]) -> Listing | None:
        rows = self._query(
            "SELECT m.reverse_path, m.arrived, m.octets, m.facts,"
            " r.mailbox, r.held, r.attempts, r.due, r.reply"
            f" {_ROWS} WHERE {where} AND m.id = ? ORDER BY r.idx",
            *values,
            id,
        ).fetchall()
        if not rows:
            return None
        reverse_path, arrived, octets, facts = rows[0][:4]
        _, arrival = envelope_of(reverse_path, facts, ())
        states = (RecipientState.QUEUED, RecipientState.HELD)
        return Listing(
            id,
            reverse_path,
            arrived,
            octets,
            arrival.client,
            tuple((row[4], states[row[5]], *row[6:9]) for row in rows),
        )

    def totals(self) -> tuple[int, int, int]:
        """See :meth:`.api.Spool.totals`."""
        messages, octets = self._query("SELECT messages, octets FROM total").fetchone()
        (recipients,) = self._query("SELECT count(*) FROM recipient").fetchone()
        return messages, recipients, octets
