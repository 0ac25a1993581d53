"""The tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

#: SQLite looks rows up directly only by a column declared as exactly INTEGER.
_ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "name",
        sa.Column("id", _ROW, primary_key=True),
        sa.Column("text", sa.Text, nullable=False, unique=True),
        _count("day"),
    )
    op.create_index("name_day", "name", ["day"])
    op.create_table(
        "session",
        _row_key(),
        *(_real("started"), _real("seconds"), _big("node"), _big("client"), _count("port")),
        *(_text("helo"), _text("tls"), _text("via")),
        *(_count("messages"), _count("refused"), _count("errors"), _text("ending")),
    )
    _partial("session_idle", "session", "client", "messages = 0 AND refused = 0")
    op.create_table(
        "refusal",
        _row_key(),
        *(_big("session"), _real("time"), _big("node"), _big("client"), _text("stage")),
        *(_big("sender"), _big("recipient"), _text("reply"), _text("reason"), _text("symbols")),
    )
    op.create_index("refusal_session", "refusal", ["session"])
    for column in ("client", "sender", "recipient"):
        op.create_index(f"refusal_{column}", "refusal", [column, "id"])
    _messages()
    op.create_table("note", sa.Column("name", sa.Text, primary_key=True), _text("value"))


def _messages() -> None:
    op.create_table(
        "message",
        _row_key(),
        *(_big("session"), _real("time"), _big("node"), _big("client"), _text("helo")),
        *(_big("sender"), _big("author"), _text("subject"), _text("message_id")),
        *(_big("message_key"), _big("octets"), _real("score"), _text("action")),
        *(_text("reply"), _real("seconds"), _text("details")),
    )
    op.create_index("message_session", "message", ["session"])
    op.create_index("message_sender", "message", ["sender", "id"])
    op.create_index("message_client", "message", ["client", "id"])
    op.create_index("message_key", "message", ["message_key"])
    _partial("message_author", "message", "author", "author <> 0")
    _partial("message_action", "message", "action", "action <> 'accept'")
    number = sa.Column("n", sa.Integer, primary_key=True, autoincrement=False)
    op.create_table(
        "recipient",
        *(_key("message"), number, _big("name"), _text("action")),
        sqlite_with_rowid=False,
    )
    op.create_index("recipient_name", "recipient", ["name", "message"])
    op.create_table(
        "attempt",
        *(_key("message"), _key("id"), _real("time"), _big("recipient"), _big("next_hop")),
        *(_text("status"), _text("dsn"), _text("reply"), _real("delay")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deed",
        *(_key("message"), _key("id"), _real("time"), _text("deed"), _text("who")),
        *(_text("reason"), _text("recipients"), _big("copy")),
        sqlite_with_rowid=False,
    )


def _partial(index: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(index, table, [column, "id"], sqlite_where=where, postgresql_where=where)


def _row_key() -> sa.Column[int]:
    return sa.Column("id", _ROW, primary_key=True, autoincrement=False)


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)
