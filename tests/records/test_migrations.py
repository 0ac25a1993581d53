"""A database of any earlier version becomes one of this version, with what is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import Connection, inspect
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records.api import Search
from mailsecure.records.database import Database, Trouble
from mailsecure.records.migrations import LATEST, migrate, upgrading
from mailsecure.records.migrations.upgrading import head
from mailsecure.records.schema import METADATA
from mailsecure.records.sqlite import Sqlite
from mailsecure.records.store import Store

from .support import Book, ids, message, refusal, session


class MigrationContract:
    """Run against each database."""

    addCleanup: Callable[..., None]
    assertEqual: Callable[..., None]
    assertIn: Callable[..., None]
    assertRaises: Callable[..., Any]

    def make(self) -> Database:
        """Return an empty database."""
        raise NotImplementedError

    def test_from_the_first(self) -> None:
        """What was written before there were indexes of texts is found by its parts."""
        database = self.make()
        with database.connect(database.engine()) as connection, connection.begin():
            migrate(connection, "0001")
        with database.connect(database.engine()) as connection, connection.begin():
            old_rows(connection)
        book = Book(database)
        self.addCleanup(book.close)
        book.write(message(10, reverse_path="new@sender.example"), session(10), refusal(20))
        for part, count in (
            ({"subject": "anci"}, 1),
            ({"sender": "old@"}, 1),
            ({"text": "new@"}, 1),
            ({"helo": "CIENT-pc"}, 2),
            ({"helo": "mai"}, 1),
        ):
            found = book.reader.trace(Search(**part))
            self.assertEqual(len(ids(found)), count, part)

    def test_again(self) -> None:
        """A database of this version is left alone."""
        for _ in range(2):
            book = Book(self.make_once())
            book.write(message())
            book.close()

    def test_nothing_to_run(self) -> None:
        """Where the version is ours, alembic is not even asked."""
        database = self.make()
        with database.connect(database.engine()) as connection, connection.begin():
            migrate(connection)
        with (
            database.connect(database.engine()) as connection,
            connection.begin(),
            mock.patch.object(upgrading, "upgrade") as upgrade,
        ):
            migrate(connection)
        self.assertEqual(upgrade.mock_calls, [])

    def make_once(self) -> Database:
        """Return the same database each time."""
        if not hasattr(self, "_made"):
            self._made = self.make()
        return self._made

    def test_tables_are_as_declared(self) -> None:
        """The steps lead to what :mod:`mailsecure.records.schema` says."""
        database = self.make()
        book = Book(database)
        self.addCleanup(book.close)
        with database.connect(database.engine()) as connection:
            found = inspect(connection)
            for table in METADATA.tables.values():
                columns = [column["name"] for column in found.get_columns(table.name)]
                self.assertEqual(columns, [column.name for column in table.columns])
                key = found.get_pk_constraint(table.name)["constrained_columns"]
                self.assertEqual(key, [each.name for each in table.primary_key])
                indexes = {index["name"] for index in found.get_indexes(table.name)}
                wanted = {index.name for index in table.indexes}
                self.assertEqual(wanted - indexes, set())

    def test_of_a_later_version(self) -> None:
        """It is not touched; that is trouble, in one line."""
        database = self.make()
        Book(database).close()
        with database.connect(database.engine()) as connection, connection.begin():
            connection.exec_driver_sql("UPDATE records_version SET version_num = '9999'")
        store = Store(database, database.engine(), "mx1", True)
        trouble = self.assertRaises(Trouble, store.open)
        self.assertEqual(str(trouble), "its tables (9999) are of a later mailsecure than this")


def old_rows(connection: Connection) -> None:
    """Write what version 0001 wrote."""
    connection.exec_driver_sql(
        "INSERT INTO name (id, text, day) VALUES (1, 'old@sender.example', 1)"
    )
    connection.exec_driver_sql("INSERT INTO name (id, text, day) VALUES (2, '192.0.2.1', 1)")
    connection.exec_driver_sql("INSERT INTO name (id, text, day) VALUES (3, 'mx1', 1)")
    connection.exec_driver_sql(
        "INSERT INTO message VALUES (4096, 0, 1.0, 3, 2, 'helo', 1, 0, 'The ancient mariner',"
        " '<a@b>', 7, 100, 0.0, 'accept', '250 2.0.0 Ok', 0.1, '[[], [], []]')"
    )
    connection.exec_driver_sql("INSERT INTO recipient VALUES (4096, 0, 1, 'accept')")
    connection.exec_driver_sql(
        "INSERT INTO session VALUES (8192, 2.0, 1.0, 3, 2, 25, 'ancient-PC', '', '', 0, 0, 0, 'x')"
    )
    connection.exec_driver_sql(
        "INSERT INTO refusal VALUES (9000, 8192, 2.0, 3, 2, 'RCPT', 0, 0, '550 No', '', '[]')"
    )
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT setval(pg_get_serial_sequence('name', 'id'), 10)")


class SqliteMigrationTests(MigrationContract, SynchronousTestCase):
    """On a file."""

    def make(self) -> Sqlite:
        return Sqlite(Path(self.mktemp()))

    def test_the_latest_is_the_last(self) -> None:
        """What we migrate to is the last step that there is."""
        self.assertEqual(head(), LATEST)
