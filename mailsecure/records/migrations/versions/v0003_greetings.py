"""What clients call themselves becomes a name among the others, so that it can be found.

``greeting`` is a name's id; ``helo``, the text, stays where it was written, and is empty from
now on.  Nothing that is there is rewritten: a column with a constant default costs nothing,
however large the table is, and the two indexes are one reading of it.  The second holds the
sessions of before; they are searched by their texts, until retention has taken them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column and its indexes."""
    op.add_column(
        "session", sa.Column("greeting", sa.BigInteger, nullable=False, server_default="0")
    )
    _partial("session_greeting", ["greeting", "id"], "greeting <> 0")
    _partial("session_helo", ["id"], "helo <> ''")


def _partial(index: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(index, "session", columns, sqlite_where=where, postgresql_where=where)
