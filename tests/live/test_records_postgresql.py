"""The history in a real PostgreSQL: the contract, and what is PostgreSQL's own."""

from __future__ import annotations

import threading
import unittest
from pathlib import Path

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.errors import LocalFault
from mailsecure.records import postgresql, service
from mailsecure.records.api import Search
from mailsecure.records.database import Trouble
from mailsecure.records.postgresql import Postgresql
from tests.records.contract import Contract
from tests.records.support import NOON, Book, message
from tests.records.test_migrations import MigrationContract
from tests.records.test_service import ServiceContract

from . import REQUIRED
from .harness import shared, until
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

    def test_cancelled(self) -> None:
        """A statement that takes too long is cancelled, which is known as that."""
        database = self.book.database
        with database.connect(database.engine()) as connection:
            with self.assertRaises(SQLAlchemyError) as raised, connection.begin():
                database.limit(connection, 0.05)
                connection.exec_driver_sql("SELECT pg_sleep(20)")
            self.assertTrue(database.is_late(raised.exception))
            with self.assertRaises(SQLAlchemyError) as raised, connection.begin():
                connection.exec_driver_sql("SELECT nothing")
            self.assertFalse(database.is_late(raised.exception))

    def test_a_name_that_another_node_meets(self) -> None:
        """One that is about to be forgotten stays if another node has just met it again."""
        self.book.write(message(0), now=NOON)
        day = 86400.0
        new = message(10 * day, reverse_path="new@else.example", header_from="")
        self.book.write(new, now=NOON + 10 * day)
        with psycopg.connect(self.url) as other:
            other.execute("UPDATE name SET day = day + 10 WHERE text LIKE 'alice@%'")
            pruning = threading.Thread(target=self.book.store.prune, args=(NOON + 5 * day,))
            pruning.start()
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            with psycopg.connect(self.url, autocommit=True) as watch:
                until(lambda: watch.execute(waits).fetchone() != (0,), "it waits", 5)
            other.commit()
            pruning.join(10)
            left = other.execute("SELECT count(*) FROM name WHERE text LIKE 'alice@%'").fetchone()
        self.assertEqual(left, (1,))

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


@unittest.skipIf(LACK and not REQUIRED, LACK)
class PostgresqlMigrationTests(MigrationContract, SynchronousTestCase):
    """Migrations, in a database of its own for each test."""

    def make(self) -> Postgresql:
        return Postgresql(shared("postgres", running).new(), None)


@unittest.skipIf(LACK and not REQUIRED, LACK)
class PostgresqlServiceTests(ServiceContract, TestCase):
    """The service, with a server that is stopped and started."""

    def url(self) -> str:
        self.server = shared("postgres", running)
        return self.server.new()

    def stop_database(self) -> None:
        self.server.stop()
        self.addCleanup(self.server.start)

    def start_database(self) -> None:
        self.server.start()

    async def test_frozen(self) -> None:
        """A server that hangs costs time, and then what comes goes to disk."""
        self.patch(service, "HANGS", 1)
        self.patch(service, "WATCH", 0.1)
        self.patch(postgresql, "_CONNECT", 1)
        self.service = made = await self.started()
        made.tell(message(0))
        await self.until(lambda: made.figures()["written"] == 1, "the first is written")
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        made.tell(message(1))
        await self.until(lambda: made.figures()["away_since"], "it is known to be away")
        made.tell(message(2))
        await self.until(lambda: made.figures()["waiting"] == 0, "all is on disk")
        self.server.thaw()
        await self.until(lambda: made.figures()["written"] == 3, "all is written")
        self.assertEqual(len(await made.trace(Search())), 3)
