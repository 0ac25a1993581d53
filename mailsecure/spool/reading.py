"""The reading side of the spool: questions, and the rows that become values.  Blocking.

:class:`Reader` is a connection of its own, so that a long listing never holds up a commit;
WAL gives it a snapshot.  :mod:`.sqlite` has two of them, each with its thread: one for the
queue, whose answers delivery waits for, and one for searches in the quarantine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config.model import SpoolSettings
from .api import (
    Backlog,
    Body,
    Filter,
    Listing,
    QuarantinedMessage,
    QuarantineFilter,
    QuarantineListing,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    SpoolBroken,
)
from .body import FileBody, MemoryBody
from .database import ROWS, conditions, connect, database_fault
from .held import held_recipients, search, whom
from .ids import MessageId
from .packing import PackedBody
from .schema import envelope_of, quarantine_of, recipient_of
from .segments import Segments

__all__ = ["Reader"]


class Reader:
    """The reading side: one more connection, one thread."""

    def __init__(self, path: Path, segments: Path, settings: SpoolSettings) -> None:
        self._path = path
        self._segments = Segments(segments, settings.segment_size)
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Connect.  The database is there already."""
        self._database = connect(self._path)
        self._database.execute("PRAGMA query_only = 1")

    def close(self) -> None:
        """Disconnect."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def interrupt(self) -> None:
        """Have a question that is being answered fail.  From any thread."""
        if self._database is not None:
            self._database.interrupt()

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
        recipients = [
            recipient_of(each)
            for each in self._query(
                "SELECT idx, mailbox, domain, notify, orcpt, attempts, reply, warned"
                f" FROM recipient WHERE message = ? AND {which} ORDER BY idx",
                id,
                *values,
            )
        ]
        return self._whole(id, domain, recipients)

    def _whole(
        self, id: MessageId, domain: str, recipients: list[QueuedRecipient]
    ) -> QueuedMessage | None:
        """Return a message with these recipients; None without any, or if it is gone."""
        row = self._query(
            "SELECT arrived, octets, reverse_path, facts, body, segment, offset, packed"
            " FROM message WHERE id = ?",
            id,
        ).fetchone()
        if row is None or not recipients:
            return None
        arrived, octets, reverse_path, facts, *place = row
        envelope, arrival = envelope_of(
            reverse_path, facts, tuple(each.recipient for each in recipients)
        )
        body = self._body(octets, *place)
        return QueuedMessage(id, envelope, arrival, arrived, body, domain, recipients)

    def _body(
        self,
        octets: int,
        inline: bytes,
        segment: int | None,
        offset: int,
        packed: int | None,
    ) -> Body:
        stored: Body
        if segment is None:
            stored = MemoryBody([inline])
        else:
            length = octets if packed is None else packed
            stored = FileBody(b"", length, offset, path=self._segments.path(segment))
        return stored if packed is None else PackedBody(stored, octets)

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
                f"SELECT DISTINCT r.message {ROWS} WHERE {where} AND r.message > ?"
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
            f" {ROWS} WHERE {where} AND m.id = ? ORDER BY r.idx",
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
        messages, octets = self._query(
            "SELECT t.messages - q.alone, t.octets - q.alone_octets"
            " FROM total t, quarantine_total q"
        ).fetchone()
        (recipients,) = self._query("SELECT count(*) FROM recipient").fetchone()
        return messages, recipients, octets

    # -- the quarantine

    def quarantined(
        self,
        filter: QuarantineFilter,
        limit: int,
        after: QuarantineListing | None,
        newest_first: bool,
    ) -> list[QuarantineListing]:
        """See :meth:`.api.Spool.quarantined`."""
        statement, values = search(filter, limit, after, newest_first)
        found = self._query(statement, *values).fetchall()
        return [self._held(row, filter.recipients) for row in found]

    def _held(self, row: tuple[Any, ...], wanted: tuple[str, ...]) -> QuarantineListing:
        id, sender, arrived, octets, stored, facts, *why = row
        condition, values = whom(wanted)
        held = self._query(
            f"SELECT idx, mailbox, {condition} FROM quarantined WHERE message = ? ORDER BY idx",
            *values,
            id,
        ).fetchall()
        return QuarantineListing(
            MessageId(id),
            sender,
            arrived,
            octets,
            stored,
            envelope_of(sender, facts, ())[1].client,
            tuple(mailbox for _, mailbox, chosen in held if chosen),
            quarantine_of(tuple(why), frozenset(idx for idx, *_ in held)),
        )

    def quarantine_content(self, id: MessageId) -> QuarantinedMessage | None:
        """See :meth:`.api.Spool.quarantine_content`."""
        row = self._query(
            "SELECT arrived, stored, reason, score, symbols, subject, header_from"
            " FROM quarantine WHERE message = ?",
            id,
        ).fetchone()
        recipients = held_recipients(self._query, id)
        message = self._whole(id, "", recipients)
        if row is None or message is None:
            return None
        arrived, stored, *why = row
        held = frozenset(each.index for each in recipients)
        return QuarantinedMessage(
            replace(message, arrived=arrived), stored, quarantine_of(tuple(why), held)
        )

    def quarantine_totals(self) -> tuple[int, int, int]:
        """See :meth:`.api.Spool.quarantine_totals`."""
        messages, recipients, stored = self._query(
            "SELECT messages, recipients, stored FROM quarantine_total"
        ).fetchone()
        return messages, recipients, stored
