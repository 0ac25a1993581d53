"""Indexes of trigrams, which find any part of a name or a subject.

SQLite: FTS5 tables that hold the trigrams and nothing else.  ``subject_row`` gives each
subject a small number, because the index stores numbers by their differences: with the ids
of messages it would be more than twice the size.

PostgreSQL: GIN indexes of pg_trgm.  Who may not create the extension goes without; the
search then reads more, and the report says so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SQLITE = (
    "CREATE VIRTUAL TABLE name_text USING fts5"
    "(text, content='', tokenize='trigram', detail=none, columnsize=0)",
    "CREATE VIRTUAL TABLE subject_text USING fts5"
    "(subject, content='', tokenize='trigram', detail=none, columnsize=0)",
    # Merging less often costs a fifth less in all, and searches read a few pages more.
    "INSERT INTO subject_text (subject_text, rank) VALUES ('automerge', 8)",
    "INSERT INTO subject_text (subject_text, rank) VALUES ('crisismerge', 32)",
    "CREATE TABLE subject_row (n INTEGER PRIMARY KEY, message BIGINT NOT NULL)",
    "CREATE INDEX subject_message ON subject_row (message)",
    "CREATE TRIGGER name_in AFTER INSERT ON name BEGIN"
    " INSERT INTO name_text (rowid, text) VALUES (NEW.id, NEW.text); END",
    "CREATE TRIGGER name_out AFTER DELETE ON name BEGIN"
    " INSERT INTO name_text (name_text, rowid, text) VALUES ('delete', OLD.id, OLD.text); END",
    "CREATE TRIGGER subject_in AFTER INSERT ON message WHEN NEW.subject <> '' BEGIN"
    " INSERT INTO subject_row (message) VALUES (NEW.id);"
    " INSERT INTO subject_text (rowid, subject) VALUES (last_insert_rowid(), NEW.subject); END",
    # What was written before there were indexes.
    "INSERT INTO name_text (rowid, text) SELECT id, text FROM name",
    "INSERT INTO subject_row (message) SELECT id FROM message WHERE subject <> '' ORDER BY id",
    "INSERT INTO subject_text (rowid, subject)"
    " SELECT s.n, m.subject FROM subject_row s JOIN message m ON m.id = s.message",
)
_POSTGRESQL = (
    "CREATE INDEX name_text ON name USING gin (text gin_trgm_ops)",
    "CREATE INDEX subject_text ON message USING gin (subject gin_trgm_ops)",
)


def upgrade() -> None:
    """Make the indexes of this database."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE:
            connection.exec_driver_sql(statement)
        return
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except sa.exc.DBAPIError:
        return
    for statement in _POSTGRESQL:
        connection.exec_driver_sql(statement)
