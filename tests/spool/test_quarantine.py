"""The quarantine of the spool and of its fake: every test here runs against both."""

from __future__ import annotations

import errno
import math
import os
import threading
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.spool.api import (
    Backlog,
    Filter,
    Freed,
    NewMessage,
    Quarantine,
    QuarantineFilter,
    QuarantineListing,
    Settlement,
    SpoolBroken,
    SpoolFull,
)
from mailsecure.spool.body import BodyStore, MemoryBody
from mailsecure.spool.ids import MessageId
from mailsecure.spool.reading import Reader
from mailsecure.spool.sqlite import SqliteSpool
from mailsecure.spool.values import MAX_SYMBOLS, MAX_TEXT
from mailsecure.testing.spool import MemorySpool

from .support import IDS, SETTINGS, Ground, new_message, real_world, sums_that_are_wrong

EVERYTHING = QuarantineFilter()
SYMBOLS = (("DKIM_FAIL", 2.5, "bad signature of 'x.example'"), ("VIRUS", 20.0, "Eicar"))
SUBJECT = "Your INVOICE \u2028 поштар"


class QuarantineContract(Ground):
    """What every spool does with what is held."""

    async def held(self, *mailboxes: str, **more: Any) -> NewMessage:
        """Accept a message that is held for all its recipients."""
        names = mailboxes or ("a@one.example",)
        return await self.accepted(*names, held=tuple(range(len(names))), **more)

    async def listed(self, filter: QuarantineFilter = EVERYTHING, **more: Any) -> list[MessageId]:
        """Ask for the ids of what is held."""
        return [each.id for each in await self.spool.quarantined(filter, 99, **more)]

    async def content_of(self, id: MessageId) -> bytes:
        """Return the octets of what is held."""
        found = await self.spool.quarantine_content(id)
        assert found is not None
        return b"".join(found.message.body.pieces())

    # -- accept

    async def test_everything_comes_back_from_it(self) -> None:
        """Envelope, arrival, reasons and octets are what was accepted, large or small."""
        for octets in (0, 10, 999, 1001, 5000, 100_000, 3_000_000):
            body = bytes(range(256)) * (octets // 256) + b"y" * (octets % 256)
            message = await self.held(
                "a@one.example",
                "b@two.example",
                body=body,
                symbols=SYMBOLS,
                score=12.5,
                subject=SUBJECT,
                header_from='"X" <x@x.example>',
            )
            found = await self.spool.quarantine_content(message.id)
            assert found is not None
            self.assertEqual(found.quarantine, message.quarantine)
            got = found.message
            self.assertEqual(
                (got.id, got.envelope, got.arrival, got.arrived, got.domain),
                (message.id, message.envelope, message.arrival, 100.0, ""),
            )
            self.assertEqual([each.index for each in got.recipients], [0, 1])
            self.assertEqual(got.body.octets, octets)
            self.assertTrue(b"".join(got.body.pieces(1000)) == body)
            (freed,) = await self.spool.delete_quarantined([message.id])
            self.assertEqual(freed, Freed(message.id, ("a@one.example", "b@two.example")))

    async def test_the_queue_does_not_see_it(self) -> None:
        """No operation of the queue finds, moves, counts or removes what is held."""
        message = await self.held("a@one.example", "b@two.example")
        self.assertEqual(await self.due(), [])
        self.assertEqual(await self.spool.backlog(), [])
        self.assertEqual(await self.spool.find(Filter(), 9), [])
        self.assertIsNone(await self.spool.content(message.id))
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        for done in (
            self.spool.hold(Filter()),
            self.spool.release(Filter(), 5.0),
            self.spool.hasten(Filter(), 5.0),
            self.spool.postpone("one.example", 9e9, "x"),
            self.spool.delete(Filter(id=message.id)),
        ):
            self.assertEqual(await done, 0)
        await self.spool.settle(
            Settlement(message.id, (0,), {1: (1.0, "x", True)}, (1,), new_message())
        )
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertEqual((await self.spool.quarantine_totals())[:2], (1, 2))

    async def test_held_for_some(self) -> None:
        """Some recipients are held, the others queued; each part ends by itself."""
        mailboxes = ("a@one.example", "b@one.example", "c@two.example")
        for last_in_queue in (True, False):
            message = await self.accepted(*mailboxes, held=(1,), body=b"x" * 2000)
            (queued,) = await self.due()
            self.assertEqual([each.index for each in queued.recipients], [0])
            self.assertEqual(
                sorted(await self.spool.backlog(), key=lambda each: each.domain),
                [Backlog("one.example", 1, 100.0), Backlog("two.example", 1, 100.0)],
            )
            self.assertEqual(await self.spool.totals(), (1, 2, 2000))
            found = await self.spool.quarantine_content(message.id)
            assert found is not None
            self.assertEqual([each.index for each in found.message.recipients], [1])
            self.assertEqual(found.stored, 2000)
            if last_in_queue:
                self.assertEqual(len(await self.spool.delete_quarantined([message.id])), 1)
                self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
                self.assertEqual(await self.spool.totals(), (1, 2, 2000))
                await self.spool.settle(Settlement(message.id, done=(0, 2)))
            else:
                await self.spool.settle(
                    Settlement(message.id, done=(0,), retry={2: (5.0, "x", True)})
                )
                self.assertEqual(await self.spool.totals(), (1, 1, 2000))
                await self.spool.settle(Settlement(message.id, done=(2,)))
                self.assertEqual(await self.spool.totals(), (0, 0, 0))
                self.assertEqual(await self.content_of(message.id), b"x" * 2000)
                self.assertEqual(await self.spool.quarantine_totals(), (1, 1, 2000))
                await self.spool.delete_quarantined([message.id])
            self.assertEqual(await self.spool.totals(), (0, 0, 0))
            self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
            self.assertIsNone(await self.spool.content(message.id))

    async def test_deleted_from_the_queue(self) -> None:
        """Who is deleted from the queue leaves those that are held."""
        message = await self.accepted("a@one.example", "b@one.example", held=(1,))
        self.assertEqual(await self.spool.delete(Filter()), 1)
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertEqual(await self.content_of(message.id), b"body\r\n")
        await self.spool.release_quarantined([message.id], 50.0)
        self.assertEqual(await self.spool.totals(), (1, 1, 6))

    async def test_nobody_is_held(self) -> None:
        """A quarantine of nobody is none."""
        message = new_message()
        message.quarantine = Quarantine(frozenset(), "nothing")
        await self.spool.accept(message)
        self.assertEqual(await self.ids_due(), [message.id])
        self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))

    async def test_the_id_is_taken(self) -> None:
        """One id is one message, in the queue or out of it."""
        message = await self.held()
        await self.assertFailure(self.spool.accept(message), SpoolBroken)

    async def test_text_that_nobody_should_send(self) -> None:
        """Whatever a peer wrote, it is kept as far as it can be, and breaks nothing."""
        awkward = "\ud800\x00'\"\\\u2028" + "é" * 2000
        message = await self.held(
            reason=awkward,
            subject=awkward,
            header_from=awkward,
            score=math.inf,
            symbols=((awkward, math.nan, awkward), *[("S", -math.inf, "")] * 999),
        )
        (listing,) = await self.spool.quarantined(QuarantineFilter(), 9)
        assert message.quarantine is not None
        self.assertEqual(listing.quarantine, message.quarantine.kept())
        self.assertTrue(listing.quarantine.subject.startswith("??'\"\\\u2028éé"))
        self.assertEqual(len(listing.quarantine.reason), MAX_TEXT)
        self.assertEqual(len(listing.quarantine.symbols), MAX_SYMBOLS)
        self.assertEqual(listing.quarantine.symbols[0][1], 0.0)

    # -- listing

    async def test_listing(self) -> None:
        """A listing has facts and reasons, and the recipients that match."""
        message = await self.accepted(
            "a@one.example", "B@two.example", "c@two.example", held=(1, 2), symbols=SYMBOLS
        )
        wanted = QuarantineFilter(recipients=("b@TWO.example",))
        (listing,) = await self.spool.quarantined(wanted, 9)
        self.assertEqual(
            listing,
            QuarantineListing(
                message.id,
                "s@sender.example",
                100.0,
                6,
                6,
                "192.0.2.1",
                ("B@two.example",),
                Quarantine(frozenset((1, 2)), "looks bad", 0.0, SYMBOLS),
            ),
        )

    async def test_filters_of_it(self) -> None:
        """Each field, in any case; several together; an empty filter matches all."""
        one = (
            await self.held(
                "a@one.example", "B@two.example", sender="Boss@S.example", due=100.0,
                reason="Score of 12", header_from="Grandma <g@home.example>",
            )
        ).id  # fmt: skip
        two = (await self.held("c@two.example", sender="", due=200.0, symbols=SYMBOLS)).id
        mixed = await self.accepted(
            "d@one.example", "e@sub.two.example", held=(1,), sender="x@sub.s.example", due=300.0,
            subject=SUBJECT, symbols=(("MACRO", 1.0, 'auto "open" \\'),),
        )  # fmt: skip
        three = mixed.id
        for wanted, ids in (
            (QuarantineFilter(), [one, two, three]),
            (QuarantineFilter(id=two), [two]),
            (QuarantineFilter(sender="boss@s.EXAMPLE"), [one]),
            (QuarantineFilter(sender="@s.example"), [one]),
            (QuarantineFilter(sender="S.EX"), [one, three]),
            (QuarantineFilter(sender="grandMA"), [one]),
            (QuarantineFilter(sender="boss@"), [one]),
            (QuarantineFilter(sender="<>"), [two]),
            (QuarantineFilter(sender="g@home.example"), []),
            (QuarantineFilter(recipients=("b@two.example",)), [one]),
            (QuarantineFilter(recipients=("@TWO.example",)), [one, two]),
            (QuarantineFilter(recipients=("C@two.example", "@one.example")), [one, two]),
            (QuarantineFilter(recipients=("sub.",)), [three]),
            (QuarantineFilter(recipients=("E@",)), [three]),
            (QuarantineFilter(recipients=("sub.", "@one.example")), [one, three]),
            (QuarantineFilter(recipients=("d@one.example",)), []),
            (QuarantineFilter(reason="SCORE"), [one]),
            (QuarantineFilter(reason="looks"), [two, three]),
            (QuarantineFilter(reason="virus"), [two]),
            (QuarantineFilter(reason="of 'X.ex"), [two]),
            (QuarantineFilter(reason='"OPEN" \\'), [three]),
            (QuarantineFilter(reason='","'), []),
            (QuarantineFilter(subject="invoice \u2028 п"), [three]),
            (QuarantineFilter(subject="П"), [three]),
            (QuarantineFilter(subject="%"), []),
            (QuarantineFilter(since=200.0), [two, three]),
            (QuarantineFilter(until=200.0), [one]),
            (QuarantineFilter(since=200.0, until=300.0), [two]),
            (QuarantineFilter(id=one, sender="<>"), []),
            (QuarantineFilter(recipients=("@two.example",), reason="virus", since=1.0), [two]),
        ):
            self.assertEqual(await self.listed(wanted), ids, wanted)
            self.assertEqual(await self.listed(wanted, newest_first=True), ids[::-1], wanted)

    async def test_pages_of_it(self) -> None:
        """Pages put together are the whole, in order of arrival, whatever leaves meanwhile."""
        ids = [(await self.held(due=500.0 - n // 2 * 100)).id for n in range(7)]
        ordered = [ids[n] for n in (6, 4, 5, 2, 3, 0, 1)]
        for newest_first in (False, True):
            found: list[QuarantineListing] = []
            while page := await self.spool.quarantined(
                QuarantineFilter(sender="sender"), 2, found[-1] if found else None, newest_first
            ):
                found += page
            self.assertEqual(
                [each.id for each in found], ordered[::-1] if newest_first else ordered
            )
        (first, second) = await self.spool.quarantined(QuarantineFilter(), 2)
        await self.spool.delete_quarantined([first.id, second.id])
        self.assertEqual(await self.listed(after=second), ordered[2:])
        self.assertEqual(await self.spool.quarantined(QuarantineFilter(), 0), [])

    # -- release and delete

    async def test_release(self) -> None:
        """What is released is due now, once, with its envelope, and new in the queue."""
        message = await self.held("a@one.example", "b@two.example", body=b"y" * 3000)
        freed = await self.spool.release_quarantined([message.id], 700.0)
        self.assertEqual(freed, [Freed(message.id, ("a@one.example", "b@two.example"))])
        self.assertEqual(await self.spool.release_quarantined([message.id], 800.0), [])
        self.assertEqual(await self.listed(), [])
        self.assertEqual(await self.due("one.example", 699.0), [])
        (queued,) = await self.due("one.example", 700.0)
        self.assertEqual((queued.arrived, queued.arrival), (700.0, message.arrival))
        self.assertEqual(b"".join(queued.body.pieces()), b"y" * 3000)
        whole = await self.spool.content(message.id)
        assert whole is not None
        self.assertEqual(whole.envelope, message.envelope)
        self.assertEqual(await self.spool.totals(), (1, 2, 3000))
        self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
        await self.spool.settle(Settlement(message.id, done=(0, 1)))
        self.assertEqual(await self.spool.totals(), (0, 0, 0))

    async def test_release_some(self) -> None:
        """Recipients leave one by one; the last one takes the message with it."""
        message = await self.held("a@one.example", "b@one.example", "c@two.example")
        freed = await self.spool.release_quarantined([message.id], 200.0, ("@two.example",))
        self.assertEqual(freed, [Freed(message.id, ("c@two.example",))])
        self.assertEqual((await self.spool.quarantine_totals())[:2], (1, 2))
        self.assertEqual(await self.spool.totals(), (1, 1, 6))
        (listing,) = await self.spool.quarantined(QuarantineFilter(), 9)
        self.assertEqual(listing.recipients, ("a@one.example", "b@one.example"))
        self.assertEqual(listing.quarantine.recipients, frozenset((0, 1)))
        self.assertEqual(listing.arrived, 100.0)
        found = await self.spool.quarantine_content(message.id)
        assert found is not None
        self.assertEqual(found.message.arrived, 100.0)
        await self.spool.delete_quarantined([message.id], ("nobody@x.example", "A@one.example"))
        self.assertEqual((await self.spool.quarantine_totals())[:2], (1, 1))
        await self.spool.release_quarantined([message.id], 300.0, ("b",))
        self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
        self.assertEqual(await self.spool.totals(), (1, 2, 6))
        self.assertEqual(await self.ids_due("one.example", 300.0), [message.id])

    async def test_many_at_once_of_it(self) -> None:
        """Hundreds of messages come, go and are released together; the sums stay right."""
        messages = [
            new_message(
                "a@one.example", "b@two.example",
                held=((0, 1), (1,), ())[n % 3],
                body=b"m" * (n % 7 * 400),
            )
            for n in range(300)
        ]  # fmt: skip
        await gatherResults([self.spool.accept(each) for each in messages])
        self.assertEqual((await self.spool.quarantine_totals())[:2], (200, 300))
        self.assertEqual((await self.spool.totals())[:2], (200, 300))
        ids = [each.id for each in messages]
        freed = await self.spool.release_quarantined([*ids[:150], IDS.draw()], 50.0)
        self.assertEqual(
            [each.id for each in freed], [id for n, id in enumerate(ids[:150]) if n % 3 < 2]
        )
        self.assertEqual((await self.spool.quarantine_totals())[:2], (100, 150))
        self.assertEqual(len(await self.spool.delete_quarantined(ids)), 100)
        self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
        self.assertEqual(await self.spool.delete(Filter()), 450)
        self.assertEqual(await self.spool.totals(), (0, 0, 0))

    async def test_nobody_of_it(self) -> None:
        """What is not held cannot be released, deleted or looked at, and is no error."""
        queued, nobody = await self.accepted(), IDS.draw()
        for id in (queued.id, nobody):
            self.assertIsNone(await self.spool.quarantine_content(id))
            self.assertEqual(await self.spool.release_quarantined([id], 1.0), [])
            self.assertEqual(await self.spool.delete_quarantined([id]), [])
        self.assertEqual(await self.spool.release_quarantined([], 1.0), [])
        self.assertEqual(await self.spool.totals(), (1, 1, 6))

    async def test_closed_quarantine(self) -> None:
        """Closed, it answers nothing; what was asked for before is done."""
        messages = [new_message(held=(0,), body=b"z" * 3000) for _ in range(5)]
        outcomes = [self.spool.accept(each) for each in messages]
        await self.spool.close()
        await gatherResults(outcomes)
        asked: list[Deferred[Any]] = [
            self.spool.accept(new_message(held=(0,))),
            self.spool.quarantined(QuarantineFilter(), 1),
            self.spool.quarantine_content(messages[0].id),
            self.spool.release_quarantined([messages[0].id], 1.0),
            self.spool.delete_quarantined([messages[0].id]),
            self.spool.quarantine_totals(),
        ]
        for outcome in asked:
            await self.assertFailure(outcome, SpoolBroken)


class SqliteQuarantineTests(QuarantineContract, TestCase):
    """The spool, with real files and threads."""

    def make(self) -> SqliteSpool:
        """Return a spool in one directory a test."""
        if not hasattr(self, "directory"):
            self.directory = Path(self.mktemp())
        return SqliteSpool(self.directory, SETTINGS, real_world())

    async def tearDown(self) -> None:
        """Close it; its sums must be right, whatever was done."""
        await super().tearDown()
        self.assertEqual(sums_that_are_wrong(self.directory), [])

    def segments(self) -> list[str]:
        """Return the names of the segment files."""
        return sorted(path.name for path in (self.directory / "segments").iterdir())

    async def reopen(self) -> None:
        """Close and open again."""
        await self.spool.close()
        self.spool = self.make()
        await self.spool.open()

    async def test_compressed(self) -> None:
        """Who is alone in the quarantine takes less room; the account says how much."""
        line = b"line of text\r\n"
        small, large = await self.held(body=line * 60), await self.held(body=line * 60_000)
        noise = await self.held(body=os.urandom(3000))
        listings = await self.spool.quarantined(QuarantineFilter(), 9)
        self.assertEqual([each.octets for each in listings], [840, 840_000, 3000])
        self.assertLess(listings[0].stored, 100)
        self.assertLess(listings[1].stored, 5000)
        self.assertEqual(listings[2].stored, 3000)
        stored = sum(each.stored for each in listings)
        for _ in range(2):
            self.assertEqual(await self.spool.quarantine_totals(), (3, 3, stored))
            self.assertEqual(len(await self.content_of(large.id)), 840_000)
            found = await self.spool.quarantine_content(small.id)
            assert found is not None
            self.assertFalse(found.message.body.in_memory)
            await self.reopen()
        await self.spool.release_quarantined([small.id, large.id, noise.id], 5.0)
        for queued in await self.due():
            self.assertEqual(len(b"".join(queued.body.pieces())), queued.body.octets)

    async def test_segments_of_its_own(self) -> None:
        """What is held for long does not keep the room of what is queued for a moment."""
        queued = []
        for _ in range(6):
            queued.append(await self.accepted(body=os.urandom(3000)))
            await self.held(body=os.urandom(3000))
        await self.accepted("a@one.example", "b@one.example", held=(1,), body=os.urandom(3000))
        self.assertEqual(len(self.segments()), 7)
        for each in queued:
            await self.spool.settle(Settlement(each.id, done=(0,)))
        # Four of the quarantine, and the one that the queue's next body goes to.
        self.assertEqual(len(self.segments()), 5)
        await self.reopen()
        self.assertEqual(len(self.segments()), 4)
        ids = [each.id for each in await self.spool.quarantined(QuarantineFilter(), 99)]
        await self.spool.delete_quarantined(ids[:4])
        self.assertEqual(len(self.segments()), 2)
        self.assertEqual(len(await self.content_of(ids[5])), 3000)

    async def test_damaged(self) -> None:
        """Octets that the disk has changed are a fault, not a message."""
        message = await self.held(body=b"".join(b"%d\r\n" % n for n in range(9000)))
        (name,) = self.segments()
        path = self.directory / "segments" / name
        octets = bytearray(path.read_bytes())
        octets[len(octets) // 2] ^= 16
        path.write_bytes(octets)
        with self.assertRaises(SpoolBroken):
            await self.content_of(message.id)

    async def test_no_room_to_compress(self) -> None:
        """A message that cannot be compressed is refused; the others are not."""
        full = OSError(errno.ENOSPC, "full")
        self.patch(BodyStore, "open_file", mock.Mock(side_effect=full))
        refused = new_message(held=(0,))
        refused.body = MemoryBody([os.urandom(2 << 20), bytes(1 << 20)])
        await self.assertFailure(self.spool.accept(refused), SpoolFull)
        message = await self.held()
        self.assertTrue(self.spool.health().well)
        self.assertEqual(await self.listed(), [message.id])

    async def test_refused_is_forgotten(self) -> None:
        """What was refused although its commit reached the disk does not come back."""
        mixed = await self.accepted("a@one.example", "b@one.example", held=(1,))
        message = await self.held()
        assert isinstance(self.spool, SqliteSpool)
        assert self.spool._storage is not None
        self.spool._storage.note_refused([mixed, message])
        await self.reopen()
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertEqual(await self.spool.quarantine_totals(), (0, 0, 0))
        self.assertEqual(await self.listed(), [])

    async def test_a_search_does_not_outlive_the_spool(self) -> None:
        """To close does not wait for whoever looks for a word in a million subjects."""
        asked = threading.Event()

        def endless(reader: Reader) -> None:
            asked.set()
            reader._query(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
                " SELECT count(*) FROM n"
            ).fetchone()

        assert isinstance(self.spool, SqliteSpool)
        question = self.spool._ask(endless, self.spool._searcher)
        while not asked.is_set():
            await deferLater(reactor, 0.001)
        # Neither the queue nor the status is held up by it.
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertEqual(await self.spool.quarantined(QuarantineFilter(), 1), [])
        await self.spool.close()
        await self.assertFailure(question, SpoolBroken)


class MemoryQuarantineTests(QuarantineContract, TestCase):
    """The fake."""

    def make(self) -> MemorySpool:
        """Return a fake."""
        return MemorySpool()


class KeptTests(SynchronousTestCase):
    """Any text and any number can be kept."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.text(alphabet=st.characters()),
        st.floats(),
        st.lists(st.tuples(st.text(alphabet=st.characters()), st.floats(), st.text()), max_size=3),
    )
    def test_kept(self, text: str, score: float, symbols: list[tuple[str, float, str]]) -> None:
        """It is UTF-8 without NUL, finite, and kept again it is the same."""
        kept = Quarantine(frozenset((0,)), text, score, tuple(symbols), text, text).kept()
        self.assertTrue(math.isfinite(kept.score))
        self.assertNotIn("\0", kept.subject)
        kept.subject.encode()
        self.assertEqual(kept.kept(), kept)
