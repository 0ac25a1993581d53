"""The tables of the history, the same for SQLite and PostgreSQL.

``name`` holds each mailbox, client, next hop and node once, with the last day on which it
was met: a search for a part of an address looks through distinct strings, and what has not
been met for as long as anything is kept is forgotten without asking who refers to it.

Ids are times.  A message and a session have the id that the log shows (microseconds of Unix
time above twelve bits, :mod:`mailsecure.spool.ids`); everything else is numbered in the same
way when it is written.  So each primary key is also the index by time, rows are added at its
end, and what is too old is a range at its beginning.

What explains a verdict (symbols, timings, thresholds) is read with its message and never
searched, so it is JSON in a column rather than ten rows.

The tables as they are now; how a database gets there is in :mod:`.migrations`.  What finds
parts of texts is each database's own (:mod:`.sqlite`, :mod:`.postgresql`).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

__all__ = [
    "METADATA",
    "TICK_BITS",
    "attempt",
    "deed",
    "message",
    "name",
    "note",
    "recipient",
    "refusal",
    "session",
]

METADATA = MetaData()
#: Below the microseconds of an id.
TICK_BITS = 12

#: SQLite looks rows up directly only by a column declared as exactly INTEGER.
_ROW = BigInteger().with_variant(Integer(), "sqlite")


def _row_key() -> Column[int]:
    return Column("id", _ROW, primary_key=True, autoincrement=False)


def _key(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _big(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _real(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


name = Table(
    "name",
    METADATA,
    Column("id", _ROW, primary_key=True),
    Column("text", Text, nullable=False, unique=True),
    _count("day"),
    Index("name_day", "day"),
)

session = Table(
    "session",
    METADATA,
    _row_key(),
    _real("started"),
    _real("seconds"),
    _big("node"),
    _big("client"),
    _count("port"),
    _text("helo"),
    _text("tls"),
    _text("via"),
    _count("messages"),
    _count("refused"),
    _count("errors"),
    _text("ending"),
    # The name of its HELO; "helo" is that of sessions before there was this.
    Column("greeting", BigInteger, nullable=False, server_default="0"),
)
#: Sessions in which nothing happened are found by themselves; others by what happened.
_idle = text("messages = 0 AND refused = 0")
Index("session_idle", session.c.client, session.c.id, sqlite_where=_idle, postgresql_where=_idle)
_greeted = text("greeting <> 0")
Index(
    "session_greeting",
    session.c.greeting,
    session.c.id,
    sqlite_where=_greeted,
    postgresql_where=_greeted,
)
_texts = text("helo <> ''")
Index("session_helo", session.c.id, sqlite_where=_texts, postgresql_where=_texts)

refusal = Table(
    "refusal",
    METADATA,
    _row_key(),
    _big("session"),
    _real("time"),
    _big("node"),
    _big("client"),
    _text("stage"),
    _big("sender"),
    _big("recipient"),
    _text("reply"),
    _text("reason"),
    _text("symbols"),
    Index("refusal_session", "session"),
    Index("refusal_client", "client", "id"),
    Index("refusal_sender", "sender", "id"),
    Index("refusal_recipient", "recipient", "id"),
)

message = Table(
    "message",
    METADATA,
    _row_key(),
    _big("session"),
    _real("time"),
    _big("node"),
    _big("client"),
    _text("helo"),
    _big("sender"),
    # The mailbox of the From field where it is not the reverse-path's; else 0.
    _big("author"),
    _text("subject"),
    _text("message_id"),
    # A small number made of the Message-ID: an index of numbers is a quarter of the size.
    _big("message_key"),
    _big("octets"),
    _real("score"),
    _text("action"),
    _text("reply"),
    _real("seconds"),
    _text("details"),
    Index("message_session", "session"),
    Index("message_sender", "sender", "id"),
    Index("message_client", "client", "id"),
    Index("message_key", "message_key"),
)
_authored = text("author <> 0")
Index(
    "message_author",
    message.c.author,
    message.c.id,
    sqlite_where=_authored,
    postgresql_where=_authored,
)
_unusual = text("action <> 'accept'")
Index(
    "message_action",
    message.c.action,
    message.c.id,
    sqlite_where=_unusual,
    postgresql_where=_unusual,
)

recipient = Table(
    "recipient",
    METADATA,
    _key("message"),
    Column("n", Integer, primary_key=True, autoincrement=False),
    _big("name"),
    _text("action"),
    Index("recipient_name", "name", "message"),
    sqlite_with_rowid=False,
)

attempt = Table(
    "attempt",
    METADATA,
    _key("message"),
    _key("id"),
    _real("time"),
    _big("recipient"),
    _big("next_hop"),
    _text("status"),
    _text("dsn"),
    _text("reply"),
    _real("delay"),
    sqlite_with_rowid=False,
)

deed = Table(
    "deed",
    METADATA,
    _key("message"),
    _key("id"),
    _real("time"),
    _text("deed"),
    _text("who"),
    _text("reason"),
    _text("recipients"),
    _big("copy"),
    sqlite_with_rowid=False,
)

#: What the history remembers of itself.
note = Table(
    "note",
    METADATA,
    Column("name", Text, primary_key=True),
    _text("value"),
)
