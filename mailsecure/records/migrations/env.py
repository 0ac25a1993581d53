"""What alembic runs: the steps, on the connection that :func:`.migrate` was given."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, version_table="records_version", transaction_per_migration=False
)
context.run_migrations()
