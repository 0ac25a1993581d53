"""Alembic, run from within: :func:`upgrade` is called by :func:`..migrations.migrate`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from . import NotUpgraded

__all__ = ["head", "upgrade"]

_HERE = Path(__file__).parent


def upgrade(connection: Connection, revision: str) -> None:
    """Run what leads to ``revision``.  Raises NotUpgraded."""
    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise NotUpgraded(str(error)) from error


def head() -> str:
    """Return the last revision that is there."""
    return ScriptDirectory(str(_HERE)).get_current_head() or ""
