"""The history in a real PostgreSQL: the contract, and what is PostgreSQL's own."""

from __future__ import annotations

import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault
from mailsecure.records import postgresql
from mailsecure.records.api import Search
from mailsecure.records.database import Trouble
from mailsecure.records.postgresql import Postgresql
from tests.records.contract import Contract
from tests.records.support import NOON, Book, message

from . import REQUIRED
from .harness import shared
from .postgres import LACK, running


@unittest.skipIf(LACK and not REQUIRED, LACK)
class PostgresqlTests(Contract, SynchronousTestCase):
    """The contract, in a database of its own for each test."""

    def make(self) -> Postgresql:
        self.server = shared("postgres", running)
        self.url = self.server.new()
        return Postgresql(self.url, None)

    def test_without_trigrams(self) -> None:
        """Who may not make the extension searches all the same, and is told."""
        name = self.url.rpartition("/")[2]
        self.book.close()
        self.server.run(
            "postgres",
            f"DROP DATABASE {name}",
            "DROP ROLE IF EXISTS poor",
            "CREATE ROLE poor LOGIN",
            f"CREATE DATABASE {name}",
        )
        self.server.run(name, "GRANT CREATE, USAGE ON SCHEMA public TO poor")
        book = Book(Postgresql(self.url.replace("history@", "poor@"), None))
        self.addCleanup(book.close)
        book.write(message())
        self.assertEqual(len(book.reader.trace(Search(subject="annual"))), 1)
        self.assertEqual(len(book.reader.trace(Search(text="alice"))), 1)
        self.assertIn("pg_trgm", book.store.measure().hindrance)

    def test_two_start_at_once(self) -> None:
        """Whoever is second finds the tables made."""
        again = Book(Postgresql(self.url, None), node="mx2")
        self.addCleanup(again.close)
        again.write(message())

    def test_stopped(self) -> None:
        """A server that is stopped is trouble; when it is back all is well."""
        self.book.write(message(0))
        self.assertEqual(len(self.book.reader.trace(Search(sender="alice"))), 1)
        self.server.stop()
        try:
            self.assertRaises(Trouble, self.book.write, message(1))
            self.book.store.close()
            self.assertRaises(Trouble, self.book.store.open)
        finally:
            self.server.start()
        self.book.store.open()
        self.book.write(message(1))
        self.assertEqual(len(self.book.reader.trace(Search(sender="alice"))), 2)

    def test_size_follows_the_rows(self) -> None:
        """What was deleted does not count, though PostgreSQL keeps its space."""
        self.patch(postgresql, "_ENOUGH_ROWS", 100)
        self.book.write(*[message(each / 100, helo="x" * 500) for each in range(5000)])
        name = self.url.rpartition("/")[2]
        self.server.run(name, "ANALYZE")
        full = self.book.store.measure().octets
        self.assertTrue(full > 3_000_000)
        while self.book.store.prune(NOON + 40):
            pass
        self.server.run(name, "VACUUM ANALYZE")
        self.assertLess(self.book.store.measure().octets, full / 2)

    def test_password_file(self) -> None:
        """It is read when we start; where it is missing that is our fault."""
        path = Path(self.mktemp())
        database = Postgresql(self.url, path)
        self.assertIn("No such file", str(self.assertRaises(LocalFault, database.engine)))
        path.write_text("secret\n")
        with database.connect(database.engine()) as connection:
            self.assertEqual(connection.exec_driver_sql("SELECT 1").scalar_one(), 1)
