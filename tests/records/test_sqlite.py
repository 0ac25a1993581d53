"""The history in SQLite keeps the contract, and what is SQLite's own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records import reading, searching, sqlite
from mailsecure.records.api import RecordsAway, Search
from mailsecure.records.database import Trouble
from mailsecure.records.reading import Reader
from mailsecure.records.sqlite import Sqlite
from mailsecure.records.store import Store

from .contract import Contract
from .support import NOON, Book, id_at, message


class SqliteTests(Contract, SynchronousTestCase):
    """The contract, on a file."""

    def make(self) -> Sqlite:
        self.path = Path(self.mktemp())
        return Sqlite(self.path)

    def test_the_file(self) -> None:
        """Nobody else may read it, nor what lies beside it."""
        self.book.write(message())
        for suffix in ("", "-wal", "-shm"):
            mode = Path(f"{self.path}{suffix}").stat().st_mode
            self.assertEqual(mode & 0o777, 0o600, suffix)

    def test_another_process_looks_in(self) -> None:
        """A backup, say: when it closes the file it is not the last, and leaves the WAL."""
        self.book.write(message(0))
        self.found()
        look = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT 1 FROM message')"
        subprocess.run([sys.executable, "-c", look, str(self.path)], check=True)
        self.book.write(message(1))
        count = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]))"
        words = [sys.executable, "-c", count, str(self.path), "SELECT count(*) FROM message"]
        seen = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        self.assertEqual(seen.strip(), "(2,)")

    def test_removed(self) -> None:
        """What is written to a file that nobody finds any more is not written."""
        self.book.write(message(0))
        self.assertEqual(self.found(), [id_at(0)])
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink()
        for ask in (lambda: self.book.write(message(1)), self.book.store.measure):
            with self.assertRaises(Trouble) as caught:
                ask()
            self.assertIn("was removed or replaced", str(caught.exception))
        self.book.store.close()
        self.book.store.open()
        self.book.write(message(1))
        self.assertEqual(self.found(), [id_at(1)])

    def test_ruined(self) -> None:
        """Whoever reads it learns what to do."""
        self.book.close()
        self.path.write_bytes(b"no database at all" * 1000)
        trouble = self.assertRaises(Trouble, self.book.store.open)
        self.assertIn("move the file away and a new one is made", str(trouble))

    def test_space_is_given_back(self) -> None:
        """What retention frees leaves the file, in steps."""
        self.book.write(*[message(each / 100, helo="x" * 900) for each in range(6000)])
        before = self.book.store.measure().octets
        while self.book.store.prune(2e9):
            pass
        self.assertLess(self.book.store.measure().octets, before / 2)
        steps = 1
        while self.book.store.reclaim():
            steps += 1
        self.assertTrue(steps > 1)
        self.book.close()
        self.assertLess(self.path.stat().st_size, before / 2)

    def test_no_orphans_in_the_index(self) -> None:
        """The index of subjects forgets what was pruned."""
        self.book.write(*[message(each, subject=f"subject{each}") for each in range(30)])
        while self.book.store.prune(2e9):
            pass
        with sqlite3.connect(self.path) as database:
            left = database.execute("SELECT count(*) FROM subject_text('\"sub\"')").fetchone()
            self.assertEqual(left, (0,))
            self.assertEqual(database.execute("SELECT * FROM subject_row").fetchall(), [])
        database.close()

    def test_late_subjects(self) -> None:
        """What is written late, after an outage, is found in any time that it belongs to."""
        self.patch(searching, "MOST_IN_SPAN", 0)
        self.book.write(*[message(1000 + each, subject="new mail") for each in range(300)])
        self.book.write(*[message(each, subject="old mail") for each in range(300)])
        self.book.write(*[message(2000 + each, subject="new mail") for each in range(300)])
        found = self.found(subject="old ma", limit=1000)
        self.assertEqual(found, [id_at(each) for each in range(299, -1, -1)])
        for wanted in ({"subject": "mail"}, {"subject": "old", "limit": 1000}):
            found = self.found(since=NOON + 100, until=NOON + 150, **wanted)
            self.assertEqual(found, [id_at(each) for each in range(149, 99, -1)])
        while self.book.store.prune(NOON + 1500):
            pass
        with sqlite3.connect(self.path) as database:
            left = database.execute("SELECT count(*) FROM subject_text('\"mai\"')").fetchone()
            self.assertEqual(left, (300,))
        database.close()

    def test_interrupted(self) -> None:
        """A statement that takes too long ends; what is not known is said, and all goes on."""
        self.book.write(*[message(each) for each in range(3000)])
        self.patch(sqlite, "_INSTRUCTIONS", 100)
        self.patch(reading, "_LEAST", 0.0)
        limits = iter([0.0, 0.0, 0.0, 5.0])
        real = self.book.database.limit
        self.patch(
            self.book.database, "limit", lambda connection, _: real(connection, next(limits))
        )
        (item,) = self.book.reader.trace(Search(subject="zz"))
        self.assertEqual(item["kind"], "unfinished")
        self.patch(self.book.database, "limit", real)
        self.assertEqual(self.found(subject="zz"), [])
        self.assertEqual(len(self.found(subject="an")), 50)

    def test_what_cannot_be_opened(self) -> None:
        """A directory, or what is no database, is trouble in one line."""
        directory = Path(self.mktemp())
        directory.mkdir()
        broken = Path(self.mktemp())
        broken.write_bytes(b"no database\n" * 1000)
        for path, word in ((directory, "directory"), (broken, "not a database")):
            database = Sqlite(path)
            store = Store(database, database.engine(), "mx1", True)
            trouble = self.assertRaises(Trouble, store.open)
            self.assertIn(word, str(trouble))
            reader = Reader(database, database.engine())
            self.assertRaises(RecordsAway, reader.trace, Search())
            self.assertRaises(RecordsAway, reader.message, 1)

    def test_locked(self) -> None:
        """A file that another process holds is trouble, and well again after."""
        self.patch(sqlite, "_BUSY", 0.05)
        book = Book(Sqlite(self.path))
        self.addCleanup(book.close)
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        trouble = self.assertRaises(Trouble, book.write, message())
        self.assertIn("locked", str(trouble))
        other.execute("ROLLBACK")
        other.close()
        book.write(message())
        self.assertEqual(len(book.reader.trace(Search())), 1)

    def test_full(self) -> None:
        """A full disk is trouble; what was committed stays."""
        self.book.write(message())
        connection = self.book.store._connection
        assert connection is not None
        driver: Any = connection.connection.driver_connection
        ((pages,),) = driver.execute("PRAGMA page_count").fetchall()
        driver.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        events = [message(each, helo="x" * 900) for each in range(1, 200)]
        trouble = self.assertRaises(Trouble, self.book.write, *events)
        self.assertIn("full", str(trouble))
        self.assertEqual(len(self.book.reader.trace(Search())), 1)
