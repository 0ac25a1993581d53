"""A spool of an older version is brought up to date when it is opened, or left alone."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from twisted.trial.unittest import TestCase

from mailsecure.spool.api import Filter, QuarantineFilter, RecipientState, Settlement, SpoolBroken
from mailsecure.spool.ids import MessageId
from mailsecure.spool.schema import VERSION, schema_from
from mailsecure.spool.sqlite import SqliteSpool
from mailsecure.spool.storage import Storage

from .support import SETTINGS, new_message, real_world

#: What version 1 made, to the letter.
VERSION_1 = """
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    arrived REAL NOT NULL,
    octets INTEGER NOT NULL,
    reverse_path TEXT NOT NULL,
    facts TEXT NOT NULL,
    body BLOB,
    segment INTEGER,
    offset INTEGER
);
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    mailbox TEXT NOT NULL,
    domain TEXT NOT NULL,
    notify TEXT NOT NULL,
    orcpt TEXT NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    reply TEXT NOT NULL DEFAULT '',
    warned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (message, idx)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (domain, due) WHERE held = 0;
CREATE TABLE total (messages INTEGER NOT NULL, octets INTEGER NOT NULL);
INSERT INTO total VALUES (0, 0);
CREATE TABLE segment (number INTEGER PRIMARY KEY, live INTEGER NOT NULL);
CREATE TRIGGER message_in AFTER INSERT ON message BEGIN
    UPDATE total SET messages = messages + 1, octets = octets + NEW.octets;
END;
CREATE TRIGGER message_out AFTER DELETE ON message BEGIN
    UPDATE total SET messages = messages - 1, octets = octets - OLD.octets;
END;
CREATE TRIGGER body_in AFTER INSERT ON message WHEN NEW.segment IS NOT NULL BEGIN
    INSERT INTO segment VALUES (NEW.segment, 1)
        ON CONFLICT (number) DO UPDATE SET live = live + 1;
END;
CREATE TRIGGER body_out AFTER DELETE ON message WHEN OLD.segment IS NOT NULL BEGIN
    UPDATE segment SET live = live - 1 WHERE number = OLD.segment;
END;
CREATE VIEW work (done, id, arrived, octets, reverse_path, facts, body, segment, offset,
                  recipients, due) AS SELECT 0, 0, 0, 0, '', '', NULL, 0, 0, '', 0;
CREATE TRIGGER work_accept INSTEAD OF INSERT ON work WHEN NEW.done = 0 BEGIN
    INSERT INTO message VALUES (NEW.id, NEW.arrived, NEW.octets, NEW.reverse_path, NEW.facts,
                                NEW.body, NEW.segment, NEW.offset);
    INSERT INTO recipient (message, idx, mailbox, domain, notify, orcpt, due)
        SELECT NEW.id, key, json_extract(value, '$[0]'), json_extract(value, '$[1]'),
               json_extract(value, '$[2]'), json_extract(value, '$[3]'), NEW.due
        FROM json_each(NEW.recipients);
END;
CREATE TRIGGER work_done INSTEAD OF INSERT ON work WHEN NEW.done = 1 BEGIN
    DELETE FROM recipient
        WHERE message = NEW.id AND idx IN (SELECT value FROM json_each(NEW.recipients));
    DELETE FROM message WHERE id = NEW.id
        AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = NEW.id);
END;
"""
FACTS = json.dumps(["192.0.2.1", "helo", "ESMTP", "session", 1, 0, "HDRS", "envid", {"k": "v"}])
SMALL, LARGE = MessageId(7356_000_000), MessageId(7356_000_001)


def old_spool(directory: Path) -> None:
    """Make a spool of version 1: a small message to two, one held; a large one to one."""
    segments = directory / "segments"
    segments.mkdir(parents=True)
    (segments / "0000000003.seg").write_bytes(b"before" + b"L" * 5000)
    database = sqlite3.connect(directory / "spool.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(f"BEGIN;{VERSION_1};PRAGMA user_version = 1;COMMIT;")
    one, two = ([f"{name}@one.example", "one.example", "", ""] for name in "ab")
    to_both, to_one = json.dumps([one, two]), json.dumps([one])
    rows = [
        (0, SMALL, 50.0, 4, "s@x.example", FACTS, b"tiny", None, None, to_both, 50.0),
        (0, LARGE, 60.0, 5000, "", FACTS, None, 3, 6, to_one, 60.0),
    ]
    for row in rows:
        database.execute("INSERT INTO work VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
    database.execute("UPDATE recipient SET held = 1 WHERE message = ? AND idx = 1", [SMALL])
    database.execute("UPDATE recipient SET attempts = 3, reply = '451' WHERE message = ?", [LARGE])
    database.close()


def shape(path: Path) -> list[tuple[str, ...]]:
    """Return all that makes up a database's schema, columns by name and in order."""
    with sqlite3.connect(path) as database:
        found = database.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE type <> 'table' ORDER BY name"
        ).fetchall()
        for (table,) in database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
        ).fetchall():
            found += database.execute(f"PRAGMA table_xinfo({table})").fetchall()
    return found


class UpgradeTests(TestCase):
    """From version 1, which knew no quarantine."""

    async def setUp(self) -> None:
        """Open a spool that version 1 left."""
        self.directory = Path(self.mktemp())
        old_spool(self.directory)
        self.spool = SqliteSpool(self.directory, SETTINGS, real_world())
        await self.spool.open()

    async def tearDown(self) -> None:
        """Close it."""
        await self.spool.close()

    async def test_all_is_there(self) -> None:
        """What was queued is queued, as it was, and leaves as ever."""
        small, large = await self.spool.find(Filter(), 9)
        self.assertEqual([each[1] for each in small.recipients], [
            RecipientState.QUEUED, RecipientState.HELD,
        ])  # fmt: skip
        self.assertEqual(large.recipients[0][2:], (3, 60.0, "451"))
        first, second = await self.spool.due("one.example", 99.0, 9, frozenset())
        self.assertEqual((first.id, second.id), (SMALL, LARGE))
        self.assertEqual(b"".join(first.body.pieces()), b"tiny")
        self.assertEqual(b"".join(second.body.pieces()), b"L" * 5000)
        self.assertEqual(first.arrival.facts, {"k": "v"})
        self.assertEqual(await self.spool.totals(), (2, 3, 5004))
        self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
        for each in (Settlement(SMALL, done=(0, 1)), Settlement(LARGE, done=(0,))):
            await self.spool.settle(each)
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertEqual(list((self.directory / "segments").iterdir()), [])

    async def test_new_mail(self) -> None:
        """It takes mail of every kind, and keeps it over a restart."""
        for held in ((), (0,)):
            await self.spool.accept(new_message(held=held, body=b"n" * 3000))
        await self.spool.close()
        self.spool = SqliteSpool(self.directory, SETTINGS, real_world())
        await self.spool.open()
        self.assertEqual((await self.spool.totals())[:2], (3, 4))
        (held_one,) = await self.spool.quarantined(QuarantineFilter(), 9)
        found = await self.spool.quarantine_content(held_one.id)
        assert found is not None
        self.assertEqual(b"".join(found.message.body.pieces()), b"n" * 3000)

    async def test_like_a_new_one(self) -> None:
        """Tables, indexes and triggers are those of a spool that was made today."""
        other = Path(self.mktemp())
        storage = Storage(other, SETTINGS)
        storage.open()
        storage.close()
        await self.spool.close()
        self.assertEqual(shape(self.directory / "spool.db"), shape(other / "spool.db"))

    async def test_half_an_upgrade(self) -> None:
        """An upgrade that fails leaves the old spool as it was."""
        directory = Path(self.mktemp())
        old_spool(directory)
        with sqlite3.connect(directory / "spool.db") as database:
            database.execute("CREATE TABLE quarantined (in_the_way)")
        before = shape(directory / "spool.db")
        spool = SqliteSpool(directory, SETTINGS, real_world())
        fault = await self.assertFailure(spool.open(), SpoolBroken)
        self.assertIn("already exists", str(fault))
        await spool.close()
        self.assertEqual(shape(directory / "spool.db"), before)
        with sqlite3.connect(directory / "spool.db") as database:
            self.assertEqual(database.execute("PRAGMA user_version").fetchone(), (1,))
            self.assertEqual(database.execute("SELECT messages FROM total").fetchone(), (2,))

    def test_versions(self) -> None:
        """Nothing is left to do for the newest; what is newer still is refused."""
        self.assertEqual(schema_from(VERSION), "")
        self.assertIn("user_version", schema_from(0))
        for version in (-1, VERSION + 1):
            self.assertRaises(SpoolBroken, schema_from, version)
