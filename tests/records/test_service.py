"""The service: three threads, and a database that comes and goes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.config.scanning import Records
from mailsecure.errors import LocalFault
from mailsecure.records import postgresql, questions, service, sqlite, writer
from mailsecure.records.api import RecordsAway, Search
from mailsecure.records.service import RecordsService, database_of
from mailsecure.records.sqlite import Sqlite
from mailsecure.world import World
from tests.spool.support import real_world

from .support import Book, attempt, id_at, message, refusal


def settings(**more: Any) -> Records:
    """Return settings; the defaults are the ini's own, in its kinds."""
    given: dict[str, Any] = {
        "enabled": True,
        "database": "",
        "password_file": None,
        "retention": 36500 * 86400.0,
        "max_size": 1 << 40,
        "subjects": True,
        "backlog": 1 << 20,
    }
    assert set(given) == {each.name for each in fields(Records)}
    return Records(**given | more)


class ServiceContract:
    """What the service does with any database."""

    world: World
    state: Path
    addCleanup: Callable[..., None]
    assertEqual: Callable[..., None]
    assertIn: Callable[..., None]
    assertTrue: Callable[..., None]
    patch: Callable[..., Any]
    mktemp: Callable[[], str]

    def url(self) -> str:
        """Return [records] database for a new database."""
        raise NotImplementedError

    def stop_database(self) -> None:
        """Take the database away."""
        raise NotImplementedError

    def start_database(self) -> None:
        """Bring it back."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Be quick."""
        self.patch(service, "HAND_OVER", 0.02)
        self.patch(writer, "_FIRST_PAUSE", 0.05)
        self.patch(writer, "_LONGEST_PAUSE", 0.1)
        self.world = real_world()
        self.state = Path(self.mktemp())
        self.state.mkdir()
        self.settings = settings(database=self.url())

    async def started(self, **more: Any) -> RecordsService:
        """Return a service that runs."""
        made = RecordsService(self.world, self.settings, self.state, "mx1")
        await made.start()
        self.addCleanup(made.stop)
        return made

    async def until(self, true: Callable[[], Any], what: str) -> None:
        """Wait until ``true`` says so."""
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end, f"{what}: {self.service.figures()}"
            await deferLater(self.world.clock, 0.01)

    async def test_tell_and_ask(self) -> None:
        """What was told is found a moment later, and after a restart."""
        self.service = made = await self.started()
        for event in (message(), attempt(), refusal(5)):
            made.tell(event)
        await self.until(lambda: made.figures()["written"] == 3, "three events are written")
        found = await made.trace(Search(recipient="bob@"))
        self.assertEqual([item["id"] for item in found], [id_at(0)])
        self.assertEqual((await made.message(id_at(0)) or {})["subject"], "The annual report")
        self.assertEqual(await made.message(5), None)
        await made.stop()
        again = await self.started()
        await self.until(lambda: again.figures()["oldest"], "it is measured")
        self.assertEqual(len(await again.trace(Search())), 2)
        report = await again.report()
        self.assertEqual((report["lost"], report["backlog"], report["away_since"]), (0, 0, 0.0))
        self.assertTrue(report["octets"] > 0)

    async def test_stop_writes_what_waits(self) -> None:
        """What was told just before is there."""
        self.patch(service, "HAND_OVER", 3600)
        self.service = made = await self.started()
        for n in range(4000):
            made.tell(message(n / 100))
        self.assertTrue(made.figures()["waiting"] > 0)
        await made.stop()
        again = await self.started()
        self.assertEqual(len(await again.trace(Search(limit=10_000))), 4000)

    async def test_away_and_back(self) -> None:
        """Nothing told while the database was away is lost, or there twice."""
        self.service = made = await self.started()
        made.tell(message(0))
        await self.until(lambda: made.figures()["written"] == 1, "the first is written")
        self.stop_database()
        for n in range(1, 200):
            made.tell(message(n))
            made.tell(attempt(n))
            if n % 50 == 0:
                await deferLater(self.world.clock, 0.05)
        await self.until(lambda: made.figures()["away_since"], "it is known to be away")
        await self.until(lambda: made.figures()["waiting"] == 0, "all is on disk")
        self.assertTrue(made.figures()["backlog"] > 0)
        self.assertTrue(made.figures()["last_error"])
        self.start_database()
        await self.until(lambda: made.figures()["written"] == 399, "all is written")
        found = await made.trace(Search(limit=1000))
        self.assertEqual(len(found), 200)
        self.assertEqual({len(item["attempts"]) for item in found}, {0, 1})
        report = made.figures()
        self.assertEqual((report["lost"], report["backlog"], report["away_since"]), (0, 0, 0.0))

    async def test_away_at_start_and_at_stop(self) -> None:
        """A start is one without the database; what it did not take survives a restart."""
        self.stop_database()
        self.service = made = await self.started()
        made.tell(message(0))
        await self.until(lambda: made.figures()["away_since"], "it is known to be away")
        made.tell(message(1))
        await made.stop()
        self.start_database()
        self.service = again = await self.started()
        await self.until(lambda: again.figures()["written"] == 2, "all is written")
        self.assertEqual(len(await again.trace(Search())), 2)


class SqliteServiceTests(ServiceContract, TestCase):
    """With SQLite, which goes away by becoming a directory."""

    def url(self) -> str:
        return ""

    @property
    def path(self) -> Path:
        """The database."""
        return self.state / "records.db"

    def stop_database(self) -> None:
        """Lock it, or put something else in its place."""
        if self.path.exists():
            # Somebody has locked the file, and goes on doing so.
            self.patch(sqlite, "_BUSY", 0.01)
            self.lock: sqlite3.Connection | None = sqlite3.connect(self.path, isolation_level=None)
            self.lock.execute("BEGIN IMMEDIATE")
            connection = self.service._writer._store._connection  # type: ignore[union-attr]
            assert connection is not None
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA busy_timeout = 10")
        else:
            self.lock = None
            self.path.mkdir()

    def start_database(self) -> None:
        if self.lock is not None:
            self.lock.execute("ROLLBACK")
            self.lock.close()
        else:
            self.path.rmdir()

    async def test_a_writer_that_hangs(self) -> None:
        """A stop does not wait for it longer than it may; all goes to the backlog."""
        self.patch(service, "STOP_LIMIT", 0.1)
        self.service = made = await self.started()
        made.tell(message(0))
        await self.until(lambda: made.figures()["written"] == 1, "the first is written")
        hang = threading.Event()
        self.addCleanup(hang.set)
        store = made._writer._store  # type: ignore[union-attr]
        real = store.write

        def write(*given: Any) -> None:
            hang.wait(20)
            real(*given)

        self.patch(store, "write", write)
        made.tell(message(1))
        await deferLater(self.world.clock, 0.1)
        made.tell(message(2))
        await made.stop()
        hang.set()
        self.service = again = await self.started()
        await self.until(lambda: again.figures()["written"] == 2, "both are written")
        self.assertEqual(len(await again.trace(Search())), 3)

    async def test_a_writer_that_stumbles(self) -> None:
        """A surprise costs its batch, and is said; the thread lives on."""
        self.service = made = await self.started()
        store = made._writer._store  # type: ignore[union-attr]
        real = store.write
        self.patch(store, "write", lambda *given: 1 / 0)
        made.tell(message(0))
        await self.until(lambda: made.figures()["waiting"] == 0, "the batch is gone")
        store.write = real
        made.tell(message(1))
        await self.until(lambda: made.figures()["written"] == 1, "the next is written")
        self.assertEqual(made.figures()["lost"], 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_too_much(self) -> None:
        """More than may wait in memory is lost, and counted."""
        self.patch(service, "GATHERED", 10)
        self.patch(service, "MOST_IN_MEMORY", 30)
        self.service = made = await self.started()
        go = threading.Event()
        self.addCleanup(go.set)
        made._work.put(lambda: go.wait(20))
        for n in range(100):
            made.tell(message(n))
        self.assertEqual(made.figures()["lost"], 70)
        go.set()
        await self.until(lambda: made.figures()["written"] == 30, "the others are written")

    async def test_before_and_after(self) -> None:
        """Who tells or asks at the wrong time does no harm."""
        made = RecordsService(self.world, self.settings, self.state, "mx1")
        for n in range(2000):
            made.tell(message(n))
        self.assertEqual(made.figures(), {})
        await self.failure(RecordsAway, made.trace(Search()))
        await made.stop()
        await made.start()
        await made.stop()
        await made.stop()
        made.tell(message(1))
        await self.failure(RecordsAway, made.message(1))

    async def failure(self, kind: type[Exception], asked: Any) -> None:
        """Await what must fail."""
        try:
            await asked
        except kind:
            return
        self.fail("it did not fail")

    async def test_too_many_questions(self) -> None:
        """Questions that wait are bounded."""
        self.patch(questions, "MOST_QUESTIONS", 0)
        self.service = made = await self.started()
        await self.failure(RecordsAway, made.trace(Search()))

    async def test_retention(self) -> None:
        """What is too old is removed once a minute."""
        self.patch(service, "RETAIN", 0.05)
        self.settings = settings(retention=1.0)
        self.service = made = await self.started()
        made.tell(message(0))
        await self.until(lambda: made.figures()["written"] == 1, "it is written")

        def gone() -> bool:
            with sqlite3.connect(self.path) as database:
                return database.execute("SELECT count(*) FROM message").fetchone() == (0,)

        await self.until(gone, "it is removed")
        made.reconfigure(settings(retention=1e9, subjects=False))
        made.tell(message(1))
        await self.until(lambda: made.figures()["written"] == 2, "it is written")
        await deferLater(self.world.clock, 0.3)
        (item,) = await made.trace(Search())
        self.assertEqual(item["subject"], "")

    async def test_another_database(self) -> None:
        """It waits for a restart: the report says which one is written."""
        self.service = made = await self.started()
        before = made.figures()["database"]
        made.reconfigure(settings(database="other.db"))
        self.assertEqual(made.figures()["database"], before)

    async def test_without_a_driver(self) -> None:
        """A database that can never be there is a fault at start, in one line."""
        self.patch(postgresql, "create_engine", self.no_driver)
        made = RecordsService(
            self.world, settings(database="postgresql://u@127.0.0.1/x"), self.state, "mx1"
        )
        await self.failure(LocalFault, made.start())

    @staticmethod
    def no_driver(*_: Any, **__: Any) -> None:
        """Fail as SQLAlchemy does."""
        raise ModuleNotFoundError("No module named 'psycopg'")

    def test_where_it_is(self) -> None:
        """A file in the state directory, or where the ini says."""
        for named, path in (("", "/s/records.db"), ("/x/h.db", "/x/h.db"), ("h.db", "/s/h.db")):
            database = database_of(settings(database=named), Path("/s"))
            assert isinstance(database, Sqlite)
            self.assertEqual(str(database._path), path)

    async def test_told_by_a_book(self) -> None:
        """Two processes may write to one file."""
        self.service = made = await self.started()
        made.tell(message(0))
        await self.until(lambda: made.figures()["written"] == 1, "it is written")
        book = Book(Sqlite(self.path), node="mx2")
        self.addCleanup(book.close)
        book.write(message(1))
        self.assertEqual(len(await made.trace(Search())), 2)
