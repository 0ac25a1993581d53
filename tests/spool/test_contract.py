"""The spool and its fake keep one contract: every test here runs against both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from mailsecure.spool.api import (
    Backlog,
    Filter,
    RecipientState,
    Settlement,
    SpoolBroken,
    SpoolFull,
)
from mailsecure.spool.ids import MessageId
from mailsecure.spool.sqlite import SqliteSpool
from mailsecure.testing.spool import MemorySpool

from .support import IDS, SETTINGS, Ground, new_message, real_world, sums_that_are_wrong


class Contract(Ground):
    """What every spool does."""

    # -- accept

    async def test_everything_comes_back(self) -> None:
        """Envelope, arrival and octets are what was accepted, large or small."""
        for octets in (0, 10, 999, 1000, 1001, 5000):
            message = await self.accepted(body=b"x" * octets)
            (queued,) = await self.due()
            self.assertEqual(
                (queued.id, queued.envelope, queued.arrival, queued.arrived, queued.domain),
                (message.id, message.envelope, message.arrival, 100.0, "one.example"),
            )
            self.assertEqual(b"".join(queued.body.pieces()), b"x" * octets)
            self.assertEqual(queued.body.octets, octets)
            (recipient,) = queued.recipients
            self.assertEqual(
                (recipient.index, recipient.attempts, recipient.last_reply, recipient.warned),
                (0, 0, "", False),
            )
            await self.spool.settle(Settlement(message.id, done=(0,)))

    async def test_awkward_text(self) -> None:
        """Text of any kind survives, quotes and other alphabets included."""
        mailbox = '"o\'b\\"rien"@one.example'
        message = new_message(mailbox, sender="поштар@пошта.example")
        message = replace(
            message,
            arrival=replace(message.arrival, helo='"\\\x00\x7f\u2028é', facts={"ключ": "'\n"}),
        )
        await self.spool.accept(message)
        (queued,) = await self.due()
        self.assertEqual((queued.envelope, queued.arrival), (message.envelope, message.arrival))
        (listing,) = await self.spool.find(Filter(recipient=mailbox.upper()), 9)
        self.assertEqual(listing.id, message.id)

    # -- due

    async def test_oldest_due_first(self) -> None:
        """In order of due, up to the limit; what is not due is not given."""
        late, early, never = [await self.accepted(due=due) for due in (102.0, 101.0, 104.0)]
        self.assertEqual(await self.ids_due("one.example", 103.0), [early.id, late.id])
        self.assertEqual(await self.ids_due("one.example", 103.0, 1), [early.id])
        self.assertEqual((await self.ids_due("one.example", 104.0))[2:], [never.id])
        self.assertEqual(await self.ids_due("one.example", 100.9), [])

    async def test_skip(self) -> None:
        """What is skipped is left out, and does not count towards the limit."""
        one, two, three = [await self.accepted(due=due) for due in (1.0, 2.0, 3.0)]
        self.assertEqual(await self.ids_due("one.example", 9.0, 2, one.id), [two.id, three.id])
        self.assertEqual(await self.ids_due("one.example", 9.0, 9, one.id, two.id, three.id), [])

    async def test_nothing_is_marked(self) -> None:
        """What was given out is given out again."""
        message = await self.accepted()
        self.assertEqual(await self.ids_due(), [message.id])
        self.assertEqual(await self.ids_due(), [message.id])

    async def test_only_this_domain(self) -> None:
        """Of a message only the recipients of the domain are given, and only those due."""
        message = await self.accepted("a@one.example", "b@two.example", "c@one.example")
        await self.spool.settle(Settlement(message.id, retry={0: (500.0, "later", True)}))
        (queued,) = await self.due("one.example", 400.0)
        self.assertEqual([each.index for each in queued.recipients], [2])
        self.assertEqual([each.mailbox for each in queued.envelope.recipients], ["c@one.example"])
        self.assertEqual(await self.due("absent.example"), [])

    # -- settle

    async def test_done(self) -> None:
        """Done recipients leave; with the last one the message ends."""
        message = await self.accepted("a@one.example", "b@one.example")
        await self.spool.settle(Settlement(message.id, done=(0,)))
        self.assertEqual(await self.spool.totals(), (1, 1, 6))
        await self.spool.settle(Settlement(message.id, done=(1,)))
        self.assertEqual(await self.spool.totals(), (0, 0, 0))
        self.assertIsNone(await self.spool.content(message.id))

    async def test_retry(self) -> None:
        """A new due and reply; an attempt where it counts as one."""
        message = await self.accepted("a@one.example", "b@one.example")
        await self.spool.settle(
            Settlement(message.id, retry={0: (200.0, "451 a", True), 1: (300.0, "b", False)})
        )
        queued = await self.spool.content(message.id)
        assert queued is not None
        self.assertEqual(
            [(each.index, each.attempts, each.last_reply) for each in queued.recipients],
            [(0, 1, "451 a"), (1, 0, "b")],
        )
        self.assertEqual(await self.ids_due("one.example", 199.0), [])
        self.assertEqual(
            [len(each.recipients) for each in await self.due("one.example", 250.0)], [1]
        )

    async def test_retry_of_the_held(self) -> None:
        """A held recipient stays held, whatever a delivery under way says."""
        message = await self.accepted()
        await self.spool.hold(Filter())
        await self.spool.settle(Settlement(message.id, retry={0: (1.0, "451", True)}))
        self.assertEqual(await self.due(), [])
        (listing,) = await self.spool.find(Filter(state=RecipientState.HELD), 9)
        self.assertEqual(listing.recipients[0][1:], (RecipientState.HELD, 1, 1.0, "451"))

    async def test_warned(self) -> None:
        """A warning enters the queue once, whoever repeats the settlement."""
        message, warning, another = await self.accepted(), new_message(), new_message()
        await self.spool.settle(
            Settlement(message.id, retry={0: (5.0, "x", True)}, warned=(0,), notice=warning)
        )
        await self.spool.settle(
            Settlement(message.id, retry={0: (6.0, "x", True)}, warned=(0,), notice=another)
        )
        queued = await self.spool.content(message.id)
        assert queued is not None
        self.assertTrue(queued.recipients[0].warned)
        self.assertEqual((await self.spool.totals())[0], 2)
        self.assertIsNone(await self.spool.content(another.id))

    async def test_bounce_enters_once(self) -> None:
        """A bounce enters with its settlement, and not again, even in one group with it."""
        message, bounce, again = await self.accepted(), new_message(sender=""), new_message()
        await gatherResults(
            [
                self.spool.settle(Settlement(message.id, done=(0,), notice=bounce)),
                self.spool.settle(Settlement(message.id, done=(0,), notice=again)),
            ]
        )
        await self.spool.settle(Settlement(message.id, done=(0,), notice=again))
        self.assertEqual([each.id for each in await self.spool.find(Filter(), 9)], [bounce.id])

    async def test_large_bounce(self) -> None:
        """A bounce may be as large as any message."""
        message, bounce = await self.accepted(), new_message(body=b"b" * 3000)
        await self.spool.settle(Settlement(message.id, done=(0,), notice=bounce))
        queued = await self.spool.content(bounce.id)
        assert queued is not None
        self.assertEqual(b"".join(queued.body.pieces()), b"b" * 3000)

    async def test_unknown_ids(self) -> None:
        """What is not there cannot be settled, found or counted, and is no error."""
        nobody, message = IDS.draw(), await self.accepted()
        await self.spool.settle(
            Settlement(
                nobody, (0,), {1: (5.0, "x", True)}, warned=(0,), notice=new_message("z@z.example")
            )
        )
        await self.spool.settle(
            Settlement(message.id, (7,), {8: (5.0, "x", True)}, (9,), new_message("z@z.example"))
        )
        self.assertIsNone(await self.spool.content(nobody))
        self.assertEqual(await self.spool.find(Filter(id=nobody), 9), [])
        self.assertEqual(await self.spool.delete(Filter(id=nobody)), 0)
        self.assertEqual(await self.spool.postpone("absent.example", 5.0, ""), 0)
        self.assertEqual(await self.spool.totals(), (1, 1, 6))

    async def test_settled_in_one_group(self) -> None:
        """A settlement may come together with its own message."""
        gone, kept = new_message(), new_message()
        await gatherResults(
            [
                self.spool.accept(gone),
                self.spool.accept(kept),
                self.spool.settle(Settlement(gone.id, done=(0,))),
                self.spool.settle(Settlement(kept.id, retry={0: (700.0, "later", True)})),
            ]
        )
        self.assertEqual(await self.ids_due("one.example", 699.0), [])
        self.assertEqual(await self.ids_due("one.example", 700.0), [kept.id])

    async def test_many_at_once(self) -> None:
        """Hundreds of changes together, of every kind, each once."""
        messages = [
            new_message("a@one.example", "b@two.example", body=b"m" * (n % 7 * 400))
            for n in range(700)
        ]
        await gatherResults([self.spool.accept(each) for each in messages])
        self.assertEqual((await self.spool.totals())[:2], (700, 1400))
        await gatherResults(
            [
                self.spool.settle(
                    Settlement(each.id, done=(0,), retry={1: (9.0, "x", True)} if n % 3 else {})
                )
                for n, each in enumerate(messages)
            ]
        )
        self.assertEqual((await self.spool.totals())[:2], (700, 700))
        await gatherResults(
            [self.spool.settle(Settlement(each.id, done=(1,))) for each in messages]
        )
        self.assertEqual(await self.spool.totals(), (0, 0, 0))

    # -- backlog

    async def test_backlog(self) -> None:
        """Queued recipients and the earliest due of each domain; held ones do not count."""
        await self.accepted("a@one.example", "b@two.example", due=200)
        await self.accepted("c@two.example", due=100)
        backlog = sorted(await self.spool.backlog(), key=lambda each: each.domain)
        self.assertEqual(
            backlog, [Backlog("one.example", 1, 200.0), Backlog("two.example", 2, 100.0)]
        )
        await self.spool.hold(Filter(recipient="c@two.example"))
        backlog = sorted(await self.spool.backlog(), key=lambda each: each.domain)
        self.assertEqual(backlog[1], Backlog("two.example", 1, 200.0))

    # -- find

    async def test_filters(self) -> None:
        """Each field, in any case; several together; an empty filter matches all."""
        one = (await self.accepted("a@one.example", "B@two.example", sender="Boss@S.example")).id
        two = (await self.accepted("c@two.example", sender="")).id
        held = (await self.accepted("d@sub.two.example", sender="x@sub.s.example")).id
        await self.spool.hold(Filter(id=held))
        for wanted, ids in (
            (Filter(), [one, two, held]),
            (Filter(id=two), [two]),
            (Filter(sender="boss@s.EXAMPLE"), [one]),
            (Filter(sender="@s.example"), [one]),
            (Filter(sender="<>"), [two]),
            (Filter(recipient="b@two.example"), [one]),
            (Filter(recipient="@TWO.example"), [one, two]),
            (Filter(destination="Two.Example"), [one, two]),
            (Filter(destination="two.example", sender="<>"), [two]),
            (Filter(id=one, sender="<>"), []),
            (Filter(state=RecipientState.HELD), [held]),
            (Filter(state=RecipientState.QUEUED), [one, two]),
            (Filter(recipient="nobody@two.example"), []),
        ):
            found = [each.id for each in await self.spool.find(wanted, 99)]
            self.assertEqual(found, ids, wanted)

    async def test_listing(self) -> None:
        """A listing has the message's facts, and the recipients that match."""
        message = await self.accepted("a@one.example", "b@two.example", "c@two.example")
        (listing,) = await self.spool.find(Filter(destination="two.example"), 9)
        self.assertEqual(
            (listing.id, listing.reverse_path, listing.arrived, listing.octets, listing.client),
            (message.id, "s@sender.example", 100.0, 6, "192.0.2.1"),
        )
        self.assertEqual(
            listing.recipients,
            tuple((who, RecipientState.QUEUED, 0, 100.0, "") for who in _TWO),
        )

    async def test_pages(self) -> None:
        """Pages put together are the whole, in order of arrival."""
        ids = [(await self.accepted(due=900.0 - n)).id for n in range(7)]
        found: list[MessageId] = []
        while page := await self.spool.find(Filter(), 3, found[-1] if found else None):
            found += [each.id for each in page]
        self.assertEqual(found, ids)
        self.assertEqual(await self.spool.find(Filter(), 0), [])

    # -- commands

    async def test_hold_and_release(self) -> None:
        """Held mail is not given out, put off or hastened until it is released."""
        await self.accepted("a@one.example", "b@two.example")
        self.assertEqual(await self.spool.hold(Filter(destination="two.example")), 1)
        self.assertEqual(await self.spool.hold(Filter(destination="two.example")), 0)
        self.assertEqual(await self.spool.postpone("two.example", 5000.0, "x"), 0)
        self.assertEqual(await self.spool.hasten(Filter(), 1.0), 1)
        self.assertEqual(await self.due("two.example"), [])
        self.assertEqual(await self.spool.release(Filter(sender="nobody@x"), 300.0), 0)
        self.assertEqual(await self.spool.release(Filter(), 300.0), 1)
        self.assertEqual(await self.due("two.example", 299.0), [])
        self.assertEqual(len(await self.due("two.example", 300.0)), 1)

    async def test_postpone_and_hasten(self) -> None:
        """Only what is due earlier is put off, only what is due later hastened."""
        early, late = await self.accepted(due=100.0), await self.accepted(due=2000.0)
        self.assertEqual(await self.spool.postpone("one.example", 1000.0, "451 down"), 1)
        self.assertEqual(await self.ids_due("one.example", 999.0), [])
        queued = await self.spool.content(early.id)
        assert queued is not None
        self.assertEqual(
            (queued.recipients[0].last_reply, queued.recipients[0].attempts), ("451 down", 0)
        )
        self.assertEqual(await self.spool.hasten(Filter(id=late.id), 1500.0), 1)
        self.assertEqual(await self.spool.hasten(Filter(), 1500.0), 0)
        self.assertEqual(await self.ids_due("one.example", 1500.0), [early.id, late.id])

    async def test_delete(self) -> None:
        """What matches is gone; messages go with their last recipient."""
        one = await self.accepted("a@one.example", "b@two.example")
        await self.accepted("c@two.example", body=b"x" * 3000)
        self.assertEqual(await self.spool.delete(Filter(recipient="@two.example")), 2)
        self.assertEqual([each.id for each in await self.spool.find(Filter(), 9)], [one.id])
        self.assertEqual(await self.spool.totals(), (1, 1, 6))
        self.assertEqual(await self.spool.delete(Filter()), 1)
        self.assertEqual(await self.spool.totals(), (0, 0, 0))

    async def test_commands_of_many(self) -> None:
        """Thousands of recipients are changed whole, however they are cut in slices."""
        mailboxes = [f"u{n}@{'two' if n % 3 else 'one'}.example" for n in range(90)]
        messages = [
            new_message(*mailboxes, sender="x@x.example" if n % 2 else "y@y.example")
            for n in range(50)
        ]
        await gatherResults([self.spool.accept(each) for each in messages])
        self.assertEqual(await self.spool.hold(Filter(sender="x@x.example")), 25 * 90)
        self.assertEqual(await self.spool.hold(Filter(destination="two.example")), 25 * 60)
        self.assertEqual(await self.spool.release(Filter(sender="@x.example"), 50.0), 25 * 90)
        self.assertEqual(await self.spool.hasten(Filter(), 10.0), 25 * 90 + 25 * 30)
        self.assertEqual(await self.spool.postpone("two.example", 900.0, ""), 25 * 60)
        self.assertEqual(await self.spool.delete(Filter(recipient="@one.example")), 50 * 30)
        self.assertEqual((await self.spool.totals())[:2], (50, 50 * 60))
        self.assertEqual(await self.spool.delete(Filter()), 50 * 60)

    # -- life

    async def test_closed(self) -> None:
        """Closed, it takes nothing, answers nothing, and says so; opened again it does."""
        message = await self.accepted()
        await self.spool.close()
        self.assertFalse(self.spool.health().well)
        for outcome in (
            self.spool.accept(new_message()),
            self.spool.settle(Settlement(message.id, done=(0,))),
            self.spool.totals(),
            self.spool.backlog(),
            self.spool.content(message.id),
            self.spool.find(Filter(), 1),
            self.spool.due("one.example", 1.0, 1, frozenset()),
            self.spool.hold(Filter()),
            self.spool.delete(Filter()),
            self.spool.postpone("one.example", 1.0, ""),
        ):
            await self.assertFailure(outcome, SpoolBroken)

    async def test_close_commits(self) -> None:
        """What was asked for before it was closed is done."""
        outcomes = [self.spool.accept(new_message()) for _ in range(5)]
        await self.spool.close()
        await gatherResults(outcomes)

    async def test_not_open(self) -> None:
        """Before it is opened it takes nothing."""
        await self.spool.close()
        other = self.make()
        self.assertFalse(other.health().well)
        await self.assertFailure(other.accept(new_message()), SpoolBroken)


_TWO = ("b@two.example", "c@two.example")


class SqliteSpoolTests(Contract, TestCase):
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


class MemorySpoolTests(Contract, TestCase):
    """The fake, and what only it can do."""

    def make(self) -> MemorySpool:
        """Return a fake."""
        return MemorySpool()

    async def test_hold_commits(self) -> None:
        """Changes wait to be committed, or to fail, together."""
        spool = self.spool
        assert isinstance(spool, MemorySpool)
        spool.hold_commits = True
        outcomes = [spool.accept(new_message()) for _ in range(2)]
        self.assertEqual(spool.waiting, 2)
        self.assertNoResult(outcomes[0])
        self.assertEqual(self.successResultOf(spool.totals()), (0, 0, 0))
        spool.commit()
        self.successResultOf(outcomes[1])
        refused = spool.accept(new_message())
        spool.commit(SpoolFull("no room"))
        self.failureResultOf(refused, SpoolFull)
        self.assertEqual(self.successResultOf(spool.totals()), (2, 2, 12))

    async def test_fail_with(self) -> None:
        """A fault fails every change and shows in the health; questions are answered."""
        spool = self.spool
        assert isinstance(spool, MemorySpool)
        message = await self.accepted()
        for fault, full in ((SpoolFull("no room"), True), (SpoolBroken("no disk"), False)):
            spool.fail_with = fault
            self.failureResultOf(spool.accept(new_message()), type(fault))
            self.failureResultOf(spool.settle(Settlement(message.id, done=(0,))), type(fault))
            health = spool.health()
            self.assertEqual((health.well, health.full, health.why), (False, full, str(fault)))
            self.assertEqual(self.successResultOf(spool.totals()), (1, 1, 6))
        spool.fail_with = None
        settlement = Settlement(message.id, done=(0,))
        await spool.settle(settlement)
        self.assertEqual(spool.settled, [settlement])
