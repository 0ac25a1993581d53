"""The spool's database: tables, indexes, triggers, and how rows become values.

One row a message, one row a recipient.  ``recipient_due`` is what delivery asks
("who of this domain is due?"); it holds queued recipients only.  Triggers keep two
small sums right in the same transaction as the rows: the totals, so that nobody has to
count a hundred thousand rows, and the number of live bodies a segment, so that empty
ones can be removed.

``PRAGMA user_version`` is the version of this schema.
"""

from __future__ import annotations

import json
from typing import Any

from ..smtp.envelope import Arrival, Envelope, Recipient
from .api import NewMessage, QueuedRecipient

__all__ = ["SCHEMA", "VERSION", "envelope_of", "message_row", "recipient_of", "recipient_rows"]

VERSION = 1

SCHEMA = """
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    arrived REAL NOT NULL,
    octets INTEGER NOT NULL,
    reverse_path TEXT NOT NULL,
    facts TEXT NOT NULL,
    body BLOB,
    segment INTEGER,
    offset INTEGER
);
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    mailbox TEXT NOT NULL,
    domain TEXT NOT NULL,
    notify TEXT NOT NULL,
    orcpt TEXT NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    reply TEXT NOT NULL DEFAULT '',
    warned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message, idx)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (domain, due) WHERE held = 0;
CREATE TABLE total (messages INTEGER NOT NULL, octets INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0);
CREATE TABLE segment (number INTEGER PRIMARY KEY, live INTEGER NOT NULL);
CREATE TRIGGER message_in AFTER INSERT ON message BEGIN
    UPDATE total SET messages = messages + 1, octets = octets + NEW.octets;
END;
CREATE TRIGGER message_out AFTER DELETE ON message BEGIN
    UPDATE total SET messages = messages - 1, octets = octets - OLD.octets;
END;
CREATE TRIGGER body_in AFTER INSERT ON message WHEN NEW.segment IS NOT NULL BEGIN
    INSERT INTO segment VALUES (NEW.segment, 1)
        ON CONFLICT (number) DO UPDATE SET live = live + 1;
END;
CREATE TRIGGER body_out AFTER DELETE ON message WHEN OLD.segment IS NOT NULL BEGIN
    UPDATE segment SET live = live - 1 WHERE number = OLD.segment;
END;
"""


def message_row(
    new: NewMessage, body: bytes | None, segment: int | None, offset: int | None
) -> tuple[Any, ...]:
    """Return the row of a message whose body is inline, or in a segment."""
    envelope, arrival = new.envelope, new.arrival
    facts = (
        arrival.client,
        arrival.helo,
        arrival.protocol,
        arrival.session,
        int(envelope.eight_bit),
        int(envelope.smtputf8),
        envelope.ret,
        envelope.envid,
        arrival.facts,
    )
    return (
        new.id,
        new.arrived,
        new.body.octets,
        envelope.reverse_path,
        json.dumps(facts, separators=(",", ":")),
        body,
        segment,
        offset,
    )


def recipient_rows(new: NewMessage) -> list[tuple[Any, ...]]:
    """Return the rows of a message's recipients."""
    return [
        (new.id, idx, each.mailbox, each.domain, each.notify, each.orcpt, new.due)
        for idx, each in enumerate(new.envelope.recipients)
    ]


def envelope_of(
    reverse_path: str, facts: str, recipients: tuple[Recipient, ...]
) -> tuple[Envelope, Arrival]:
    """Return what :func:`message_row` kept of envelope and arrival."""
    client, helo, protocol, session, eight_bit, smtputf8, ret, envid, more = json.loads(facts)
    envelope = Envelope(reverse_path, recipients, bool(eight_bit), bool(smtputf8), ret, envid)
    return envelope, Arrival(client, helo, protocol, session, more)


def recipient_of(row: tuple[Any, ...]) -> QueuedRecipient:
    """Return the recipient of (idx, mailbox, domain, notify, orcpt, attempts, reply, warned)."""
    idx, mailbox, domain, notify, orcpt, attempts, reply, warned = row
    return QueuedRecipient(
        idx, Recipient(mailbox, domain, notify, orcpt), attempts, reply, bool(warned)
    )
