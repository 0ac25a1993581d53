"""The spool keeps its promise: what was accepted is there, until it is settled."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mailsecure.config.load import parse_config
from mailsecure.spool import segments
from mailsecure.spool.api import Filter, RecipientState, Settlement, SpoolBroken, SpoolFull
from mailsecure.spool.ids import MessageId
from mailsecure.spool.schema import VERSION
from mailsecure.spool.sqlite import SqliteSpool

from .support import new_message, real_world

SETTINGS = replace(
    parse_config("", "test.ini").spool, inline_size=1000, segment_size=4000, min_free=0
)


class SpoolTestCase(TestCase):
    """A spool in a directory of its own, opened anew as often as a test likes."""

    async def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.spool = await self.opened()

    async def opened(self) -> SqliteSpool:
        spool = SqliteSpool(self.directory, SETTINGS, real_world())
        await spool.open()
        return spool

    async def tearDown(self) -> None:
        await self.spool.close()

    async def reopen(self) -> None:
        await self.spool.close()
        self.spool = await self.opened()


class PromiseTests(SpoolTestCase):
    """accept, due, settle."""

    async def test_accepted_is_given_out(self) -> None:
        """Everything of a message comes back, inline or from a segment, after a restart too."""
        small, large = new_message(body=b"x" * 10), new_message(body=b"y" * 2000)
        await gatherResults([self.spool.accept(small), self.spool.accept(large)])
        for _ in range(2):
            first, second = await self.spool.due("one.example", 100, 10, frozenset())
            self.assertEqual((first.id, second.id), (small.id, large.id))
            self.assertEqual(first.envelope, small.envelope)
            self.assertEqual(first.arrival, small.arrival)
            self.assertEqual(first.arrived, 100.0)
            self.assertEqual(b"".join(first.body.pieces()), b"x" * 10)
            self.assertEqual((first.body.in_memory, second.body.in_memory), (True, False))
            self.assertEqual(b"".join(second.body.pieces()), b"y" * 2000)
            self.assertEqual((await self.spool.totals()), (2, 2, 2010))
            await self.reopen()

    async def test_due(self) -> None:
        """Oldest first, up to the limit, without the skipped, nothing that is not due."""
        messages = [new_message(due=100.0 + n) for n in range(5)]
        for message in messages:
            await self.spool.accept(message)
        ids = [message.id for message in messages]
        due = await self.spool.due("one.example", 103, 2, frozenset(ids[:1]))
        self.assertEqual([each.id for each in due], ids[1:3])
        self.assertEqual(await self.spool.due("one.example", 99, 9, frozenset()), [])
        self.assertEqual(await self.spool.due("two.example", 999, 9, frozenset()), [])

    async def test_settled(self) -> None:
        """Done recipients leave; the others wait; the message ends with its last one."""
        message = new_message("a@one.example", "b@one.example", "c@two.example")
        await self.spool.accept(message)
        await self.spool.settle(
            Settlement(message.id, done=(0,), retry={1: (500.0, "451 later", True)}, warned=(1,))
        )
        (waiting,) = await self.spool.due("one.example", 500, 9, frozenset())
        (recipient,) = waiting.recipients
        self.assertEqual((recipient.index, recipient.recipient.mailbox), (1, "b@one.example"))
        self.assertEqual(
            (recipient.attempts, recipient.last_reply, recipient.warned), (1, "451 later", True)
        )
        await self.spool.settle(Settlement(message.id, retry={1: (600.0, "held up", False)}))
        whole = await self.spool.content(message.id)
        self.assertEqual(
            [(each.index, each.attempts) for each in whole.recipients], [(1, 1), (2, 0)]
        )
        await self.spool.settle(Settlement(message.id, done=(1, 2)))
        self.assertIsNone(await self.spool.content(message.id))
        self.assertEqual(await self.spool.totals(), (0, 0, 0))

    async def test_notice_enters_once(self) -> None:
        """A bounce enters with its settlement, and not again with its repetition."""
        message, notice = new_message(), new_message("s@sender.example", sender="")
        await self.spool.accept(message)
        settlement = Settlement(message.id, done=(0,), notice=notice)
        await self.spool.settle(settlement)
        self.assertIsNotNone(await self.spool.content(notice.id))
        await self.spool.settle(Settlement(notice.id, done=(0,)))
        await self.spool.settle(settlement)
        self.assertEqual(await self.spool.totals(), (0, 0, 0))

    async def test_backlog(self) -> None:
        """Queued recipients by domain, with the earliest due; held ones do not count."""
        await self.spool.accept(new_message("a@one.example", "b@two.example", due=200))
        await self.spool.accept(new_message("c@two.example", due=100))
        found = {each.domain: (each.recipients, each.due) for each in await self.spool.backlog()}
        self.assertEqual(found, {"one.example": (1, 200.0), "two.example": (2, 100.0)})
        await self.spool.hold(Filter(destination="two.example"))
        self.assertEqual([each.domain for each in await self.spool.backlog()], ["one.example"])


class CommandTests(SpoolTestCase):
    """What a postmaster does to the queue."""

    async def setUp(self) -> None:
        await super().setUp()
        self.one = new_message("a@one.example", "B@two.example", sender="Boss@sender.example")
        self.two = new_message("c@two.example", sender="")
        for message in (self.one, self.two):
            await self.spool.accept(message)

    async def found(self, **wanted: object) -> list[MessageId]:
        return [each.id for each in await self.spool.find(Filter(**wanted), 99)]  # type: ignore[arg-type]

    async def test_filters(self) -> None:
        """Each field, in any case; several together; an empty filter matches all."""
        one, two = self.one.id, self.two.id
        for wanted, ids in (
            ({}, [one, two]),
            ({"id": two}, [two]),
            ({"sender": "boss@SENDER.example"}, [one]),
            ({"sender": "@sender.example"}, [one]),
            ({"sender": "<>"}, [two]),
            ({"recipient": "b@two.example"}, [one]),
            ({"recipient": "@TWO.example"}, [one, two]),
            ({"destination": "two.example", "sender": "<>"}, [two]),
            ({"state": RecipientState.HELD}, []),
            ({"recipient": "nobody@two.example"}, []),
        ):
            self.assertEqual(await self.found(**wanted), ids, wanted)

    async def test_listing(self) -> None:
        """A page after an id, with only the recipients that match."""
        (listing,) = await self.spool.find(Filter(destination="two.example"), 1)
        self.assertEqual(
            listing.recipients, (("B@two.example", RecipientState.QUEUED, 0, 100.0, ""),)
        )
        self.assertEqual((listing.octets, listing.client), (6, "192.0.2.1"))
        (rest,) = await self.spool.find(Filter(destination="two.example"), 9, listing.id)
        self.assertEqual(rest.id, self.two.id)

    async def test_hold_and_release(self) -> None:
        """Held mail is not given out until it is released."""
        self.assertEqual(await self.spool.hold(Filter(recipient="@two.example")), 2)
        self.assertEqual(await self.spool.hold(Filter(recipient="@two.example")), 0)
        self.assertEqual(await self.spool.due("two.example", 999, 9, frozenset()), [])
        self.assertEqual(await self.spool.release(Filter(), 300.0), 2)
        self.assertEqual(len(await self.spool.due("two.example", 300, 9, frozenset())), 2)

    async def test_hasten_and_postpone(self) -> None:
        """Due now, due later, each only where it changes something."""
        self.assertEqual(await self.spool.postpone("two.example", 900.0, "451 down"), 2)
        self.assertEqual(await self.spool.due("two.example", 899, 9, frozenset()), [])
        (listing, _) = await self.spool.find(Filter(destination="two.example"), 9)
        self.assertEqual(listing.recipients[0][3:], (900.0, "451 down"))
        self.assertEqual(await self.spool.hasten(Filter(), 200.0), 2)
        self.assertEqual(len(await self.spool.due("two.example", 200, 9, frozenset())), 2)

    async def test_delete(self) -> None:
        """What is deleted is gone, with its message when nobody is left."""
        self.assertEqual(await self.spool.delete(Filter(destination="two.example")), 2)
        self.assertEqual(await self.found(), [self.one.id])
        self.assertEqual(await self.spool.delete(Filter()), 1)
        self.assertEqual(await self.spool.totals(), (0, 0, 0))


class DiskTests(SpoolTestCase):
    """Segments, faults, recovery."""

    def segment_files(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "segments").iterdir())

    async def test_segments_are_reclaimed(self) -> None:
        """A segment goes when its last message has gone and another is written to."""
        messages = [new_message(body=b"z" * 3000) for _ in range(6)]
        for message in messages:
            await self.spool.accept(message)
        self.assertEqual(len(self.segment_files()), 3)
        for message in messages[:4]:
            await self.spool.settle(Settlement(message.id, done=(0,)))
        self.assertEqual(len(self.segment_files()), 1)
        await self.reopen()
        (last, _) = await self.spool.due("one.example", 100, 9, frozenset())
        self.assertEqual(b"".join(last.body.pieces()), b"z" * 3000)

    async def test_leftovers_of_a_crash(self) -> None:
        """Segments that no row names are removed at the start."""
        await self.spool.close()
        (self.directory / "segments" / "0000000042.seg").write_bytes(b"left over")
        self.spool = await self.opened()
        self.assertEqual(self.segment_files(), [])

    async def test_one_daemon_at_a_time(self) -> None:
        """A second daemon is told who has the directory.  (Another process: locks are.)"""
        script = (
            "import sys; from pathlib import Path; from mailsecure.spool.storage import Storage;"
            "from mailsecure.config.load import parse_config;"
            "Storage(Path(sys.argv[1]), parse_config('', 't').spool).open()"
        )
        import sys

        from twisted.internet.utils import getProcessOutputAndValue

        root = str(Path(__file__).parent.parent.parent)
        _, told, code = await getProcessOutputAndValue(
            sys.executable, ["-c", script, str(self.directory)], {"PYTHONPATH": root}
        )
        self.assertEqual(code, 1)
        self.assertIn(f"is in use by process {os.getpid()}".encode(), told)

    async def test_newer_version(self) -> None:
        """The spool of a newer mailsecure is refused, not damaged."""
        await self.spool.close()
        with sqlite3.connect(self.directory / "spool.db") as database:
            database.execute("PRAGMA user_version = 99")
        other = SqliteSpool(self.directory, SETTINGS, real_world())
        fault = await self.assertFailure(other.open(), SpoolBroken)
        self.assertIn("has version 99", str(fault))
        with sqlite3.connect(self.directory / "spool.db") as database:
            database.execute(f"PRAGMA user_version = {VERSION}")
        await other.close()
        self.spool = await self.opened()

    def fail_sync(self, number: int) -> None:
        """Let the next sync of a segment fail, and those after it succeed."""
        real = os.fdatasync
        failures = [number]

        def fail(descriptor: int) -> None:
            if failures:
                raise OSError(failures.pop(), "injected")
            real(descriptor)

        self.patch(segments.os, "fdatasync", fail)

    async def test_full_disk(self) -> None:
        """No room fails the group only, says so, and heals by itself."""
        self.fail_sync(errno.ENOSPC)
        await self.assertFailure(self.spool.accept(new_message(body=b"x" * 2000)), SpoolFull)
        health = self.spool.health()
        self.assertEqual((health.well, health.full), (False, True))
        message = new_message(body=b"x" * 2000)
        await self.spool.accept(message)
        self.spool._measure()
        self.assertTrue(self.spool.health().well)
        self.assertEqual(await self.spool.totals(), (1, 1, 2000))

    async def test_broken_disk(self) -> None:
        """A failed sync refuses all, is never tried again, and leads to a new opening."""
        kept = new_message()
        await self.spool.accept(kept)
        self.patch(self.spool, "_pause", 0.01)
        self.fail_sync(errno.EIO)
        refused = new_message(body=b"x" * 2000)
        await self.assertFailure(self.spool.accept(refused), SpoolBroken)
        health = self.spool.health()
        self.assertEqual((health.well, health.full), (False, False))
        await self.assertFailure(self.spool.accept(new_message()), SpoolBroken)
        await self.until_well()
        self.assertIsNone(await self.spool.content(refused.id))
        self.assertIsNotNone(await self.spool.content(kept.id))
        await self.spool.accept(new_message())

    async def test_closed_while_it_is_opened_again(self) -> None:
        """It stays closed, and measures nothing any more."""
        self.patch(self.spool, "_pause", 0.01)
        real, closed = self.spool._reopen, Deferred()

        def reopen_and_close() -> None:
            real()
            self.spool.close().chainDeferred(closed)

        self.patch(self.spool, "_reopen", reopen_and_close)
        self.fail_sync(errno.EIO)
        await self.assertFailure(self.spool.accept(new_message(body=b"x" * 2000)), SpoolBroken)
        await closed
        self.assertEqual(self.spool.health().why, "the spool is closed")

    async def until_well(self) -> None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        for _ in range(200):
            if self.spool.health().well:
                return
            await deferLater(reactor, 0.02)
        self.fail("the spool did not come back")

    async def test_refused_is_forgotten(self) -> None:
        """What was refused although its commit reached the disk does not come back."""
        message = new_message()
        await self.spool.accept(message)
        self.spool._storage.note_refused([message])
        await self.reopen()
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertFalse((self.directory / "refused").exists())

    async def test_results_when_full(self) -> None:
        """On a disk that is full results are recorded, because only they make room."""
        message = new_message()
        await self.spool.accept(message)
        storage = self.spool._storage
        storage.keep_reserve()
        real, calls = storage.commit, []

        def commit(accepts: object, settlements: object) -> None:
            calls.append((accepts, settlements))
            if len(calls) == 1:
                raise SpoolFull("injected")
            real(accepts, settlements)

        self.patch(storage, "commit", commit)
        await self.spool.settle(Settlement(message.id, done=(0,)))
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertFalse((self.directory / "reserve").exists())

    async def test_deleting_when_full(self) -> None:
        """What is deleted makes room, so it is deleted; without a reserve that is said."""
        storage = self.spool._storage
        held = new_message(held=(0,))
        for message in (held, new_message()):
            await self.spool.accept(message)
        for what, ask in (
            ("delete", lambda: self.spool.delete(Filter())),
            ("delete_quarantined", lambda: self.spool.delete_quarantined([held.id])),
        ):
            real, full = getattr(storage, what), [SpoolFull("injected")] * 2

            def change(*arguments: Any, real: Any = real, full: list[Any] = full) -> Any:
                if full:
                    raise full.pop()
                return real(*arguments)

            self.patch(storage, what, change)
            storage.spend_reserve()
            await self.assertFailure(ask(), SpoolFull)
            storage.keep_reserve()
            self.assertTrue(await ask())
            self.assertFalse((self.directory / "reserve").exists())

    async def test_closed(self) -> None:
        """A closed spool takes nothing and says so."""
        await self.spool.close()
        self.assertFalse(self.spool.health().well)
        await self.assertFailure(self.spool.accept(new_message()), SpoolBroken)
        await self.assertFailure(self.spool.totals(), SpoolBroken)
        await self.assertFailure(self.spool.hold(Filter()), SpoolBroken)
        self.spool = await self.opened()
