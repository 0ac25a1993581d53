"""What alembic runs: the steps, on the connection that :func:`.migrate` was given."""

from __future__ import annotations

from alembic import context

from mailsecure.records.migrations import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, version_table=VERSION_TABLE, transaction_per_migration=False
)
context.run_migrations()
