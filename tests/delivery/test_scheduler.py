"""The scheduler: everything accepted is delivered, deferred, or returned, once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery import ledger, notices
from mailsecure.delivery.api import Fate, Outcome
from mailsecure.delivery.routes import Routes
from mailsecure.smtp.envelope import Recipient
from mailsecure.spool.api import Filter, Quarantine, QueuedMessage, SpoolBroken, SpoolFull
from mailsecure.spool.body import FileBody
from mailsecure.world import World

from .fakes import LATER, NO, OK, Station, down, settings

HOST = Route(RouteKind.SMTP, host="10.0.0.5", port=25)


class Held:
    """A behaviour that answers only when told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[QueuedMessage, Deferred[Any]]] = []

    def __call__(self, message: QueuedMessage) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.waiting.append((message, waiting))
        return waiting

    def answer(self, result: Any = Fate.RELAYED) -> None:
        """Answer all that wait."""
        waiting, self.waiting = self.waiting, []
        for _, deferred in waiting:
            deferred.callback(result)


class PlainTests(SynchronousTestCase):
    """The way of a message that nothing happens to."""

    def test_from_memory(self) -> None:
        """A new message is attempted without being read back, and settled."""
        station = Station()
        station.start()
        message = station.send("b@example.com")
        station.turn()
        self.assertEqual(station.transport.delivered, [(message.id, "b@example.com")])
        self.assertEqual(station.spool.readings, 0)
        self.assertEqual(station.spool.rows, {})
        self.assertEqual(station.counters.delivered, 1)
        self.assertEqual(station.scheduler.snapshot()[0].delivered, 1)

    def test_domains_apart(self) -> None:
        """A message to several domains is an attempt each, each with its recipients."""
        station = Station()
        station.start()
        station.send("a@one.example", "b@two.example", "c@one.example")
        station.turn()
        seen = [
            (message.domain, [each.recipient.mailbox for each in message.recipients])
            for message in station.transport.attempts
        ]
        self.assertEqual(
            seen,
            [
                ("one.example", ["a@one.example", "c@one.example"]),
                ("two.example", ["b@two.example"]),
            ],
        )
        self.assertEqual(station.spool.rows, {})

    def test_not_to_whom_the_quarantine_holds(self) -> None:
        """Nobody who is held gets it, whether there are others or not."""
        station = Station()
        station.start()
        for mailboxes, held in (
            (["a@one.example"], {0}),
            (["a@one.example", "b@one.example"], {0}),
        ):
            message = station.new(*mailboxes)
            message.quarantine = Quarantine(frozenset(held), "looks bad")
            station.scheduler.take(message)
            station.turn()
        self.assertEqual([name for _, name in station.transport.delivered], ["b@one.example"])

    def test_before_start_and_after_stop(self) -> None:
        """What comes while we do not run stays in the spool, and is found at start."""
        station = Station()
        station.send("b@example.com")
        station.turn()
        self.assertEqual(station.transport.attempts, [])
        station.start()
        self.assertEqual(len(station.transport.delivered), 1)
        self.assertEqual(station.spool.rows, {})

    def test_files_are_read_back(self) -> None:
        """A body in the file that it arrived in is not attempted from there."""
        station = Station()
        station.start()
        station.send("b@example.com", body=FileBody(b"", 10))
        station.turn()
        self.assertEqual(station.spool.readings, 1)
        self.assertEqual(len(station.transport.delivered), 1)

    def test_due_later(self) -> None:
        """A message that is due later waits for it."""
        station = Station()
        station.start()
        station.send("b@example.com", due=station.now() + 100)
        station.pass_time(99)
        self.assertEqual(station.transport.attempts, [])
        station.pass_time(2)
        self.assertEqual(len(station.transport.delivered), 1)

    def test_concurrency(self) -> None:
        """No more attempts at once than the next hop may have; the rest follows."""
        held = Held()
        station = Station(held, "concurrency = 3\nmax_connections = 10")
        station.start()
        for number in range(40):
            station.send(f"b{number}@example.com")
        station.turn()
        most = 0
        while held.waiting:
            most = max(most, len(held.waiting))
            held.answer()
            station.turn()
        self.assertEqual(most, 3)
        self.assertEqual(len(station.transport.delivered), 40)
        self.assertEqual(station.spool.rows, {})

    def test_memory_is_bounded(self) -> None:
        """What does not fit into memory is read back from the spool, in order, once."""
        held = Held()
        station = Station(held, "concurrency = 2")
        station.start()
        for number in range(500):
            station.send(f"b{number}@example.com")
        station.turn()
        status = station.scheduler.snapshot()[0]
        self.assertLessEqual(status.ready, 20)
        self.assertGreater(status.waiting, 400)
        while held.waiting:
            held.answer()
            station.turn()
            self.assertLessEqual(station.scheduler.snapshot()[0].ready, 20)
        mailboxes = [mailbox for _, mailbox in station.transport.delivered]
        self.assertEqual(len(mailboxes), 500)
        self.assertEqual(len(set(mailboxes)), 500)
        self.assertEqual(station.spool.rows, {})

    def test_success_notice(self) -> None:
        """NOTIFY=SUCCESS: a notice where the next hop sends none, and none where it does."""
        for fate, expected in ((Fate.RELAYED, 1), (Fate.DELIVERED, 0)):
            station = Station(lambda message, fate=fate: fate)
            station.start()
            station.send(Recipient("b@example.com", "example.com", "SUCCESS"))
            station.turn()
            self.assertEqual(station.counters.bounces_sent, expected)
            to = [mailbox for _, mailbox in station.transport.delivered]
            self.assertEqual(to, ["b@example.com", "a@sender.example"][: 1 + expected])


class FailureTests(SynchronousTestCase):
    """Refusals, deferrals, warnings and expiry."""

    def test_bounce(self) -> None:
        """Recipients that fail together are in one notice, which is delivered."""

        def behaviour(message: QueuedMessage) -> Any:
            if message.domain == "sender.example":
                return Fate.RELAYED
            return [
                Outcome(0, Fate.FAILED, NO, "mx[192.0.2.1]:25"),
                Outcome(1, Fate.RELAYED, OK, "mx[192.0.2.1]:25"),
                Outcome(2, Fate.FAILED, NO, "mx[192.0.2.1]:25"),
            ]

        station = Station(behaviour)
        station.start()
        station.send("a@x.example", "b@x.example", "c@x.example")
        station.turn()
        self.assertEqual(station.counters.failed, 2)
        self.assertEqual(station.counters.bounces_sent, 1)
        self.assertEqual(len(station.spool.settlements), 2)
        notice = station.transport.attempts[1]
        text = b"".join(notice.body.pieces())
        self.assertEqual(notice.envelope.reverse_path, "")
        self.assertIn(b"Final-Recipient: rfc822; a@x.example\r\n", text)
        self.assertNotIn(b"Final-Recipient: rfc822; b@x.example\r\n", text)
        self.assertIn(b"Final-Recipient: rfc822; c@x.example\r\n", text)
        self.assertEqual(station.spool.rows, {})

    def test_bounce_of_a_bounce(self) -> None:
        """What has a null reverse-path fails silently, and is counted."""
        station = Station(lambda message: Fate.FAILED)
        station.start()
        station.send("b@example.com", sender="")
        station.turn()
        self.assertEqual(station.counters.bounces_sent, 0)
        self.assertEqual(station.counters.bounces_dropped, 1)
        self.assertEqual(station.spool.rows, {})

    def test_deferral(self) -> None:
        """A deferred recipient comes again by the schedule; the others are done."""
        results = [
            [Outcome(0, Fate.RELAYED, OK), Outcome(1, Fate.DEFERRED, LATER)],
            Fate.RELAYED,
        ]
        station = Station(lambda message: results.pop(0))
        station.start()
        message = station.send("a@x.example", "b@x.example")
        station.turn()
        row = station.spool.rows[message.id][1]
        self.assertEqual((row.attempts, row.reply), (1, "451 4.2.0 Mailbox busy"))
        self.assertEqual(station.scheduler.snapshot()[0].last_error, "451 4.2.0 Mailbox busy")
        self.assertEqual(
            [trouble.recipient for trouble in station.scheduler.troubles], ["b@x.example"]
        )
        station.pass_time(269)
        self.assertEqual(len(station.transport.attempts), 1)
        station.pass_time(62)
        self.assertEqual(len(station.transport.attempts), 2)
        self.assertEqual(station.spool.rows, {})

    def test_many_due_times(self) -> None:
        """Times behind the earliest are found too."""
        deferred: set[int] = set()

        def behaviour(message: QueuedMessage) -> Fate:
            if message.id in deferred:
                return Fate.RELAYED
            deferred.add(message.id)
            return Fate.DEFERRED

        station = Station(behaviour)
        station.start()
        for number in range(20):
            station.send(f"b{number}@example.com")
            station.pass_time(10)
        station.pass_time(400)
        self.assertEqual(len(station.transport.delivered), 20)

    def test_expiry(self) -> None:
        """After ``expire`` a deferral is the last, and the sender is told once."""
        station = Station(lambda message: Fate.DEFERRED, "expire = 1d\nwarn_after = 4h")
        station.start()
        station.send(
            Recipient("b@example.com", "example.com", "FAILURE"), sender="a@sender.example"
        )
        station.turn()
        station.pass_time(86400 - 60, 10)
        self.assertEqual(station.counters.failed, 0)
        station.pass_time(120)
        self.assertEqual(station.counters.failed, 1)
        self.assertEqual(station.counters.bounces_sent, 1)
        notice = station.transport.attempts[-1]
        self.assertIn(b"Status: 5.4.7\r\n", b"".join(notice.body.pieces()))

    def test_warning(self) -> None:
        """A delay is told once, if NOTIFY does not exclude it."""
        station = Station(
            lambda message: Fate.RELAYED if message.domain == "sender.example" else Fate.DEFERRED
        )
        station.start()
        message = station.send("b@example.com")
        other = station.send(Recipient("c@example.com", "example.com", "FAILURE"))
        station.pass_time(12 * 3600, 10)
        self.assertEqual(station.counters.bounces_sent, 1)
        notices = [each for each in station.transport.attempts if each.domain == "sender.example"]
        self.assertEqual(len(notices), 1)
        self.assertIn(b"Action: delayed\r\n", b"".join(notices[0].body.pieces()))
        self.assertTrue(station.spool.rows[message.id][0].warned)
        self.assertIn(other.id, station.spool.rows)

    def test_unexpected_exception(self) -> None:
        """A fault of ours defers the message; it is neither lost nor tried at once again."""
        results: list[Any] = [ValueError("a bug"), Fate.RELAYED]
        station = Station(lambda message: results.pop(0))
        station.start()
        station.send("b@example.com")
        station.pass_time(200)
        self.assertEqual(len(station.transport.attempts), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        station.pass_time(200)
        self.assertEqual(len(station.transport.delivered), 1)

    def test_nonsense(self) -> None:
        """A transport that returns nonsense defers its message, too."""

        async def nonsense(message: QueuedMessage) -> Any:
            return None

        station = Station()
        self.patch(station.transport, "deliver", nonsense)
        station.start()
        message = station.send("b@example.com")
        station.turn()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(station.spool.rows[message.id][0].attempts, 1)
        self.assertEqual(station.scheduler.under_way, 0)

    def test_outcome_left_out(self) -> None:
        """A recipient without an outcome is deferred."""
        station = Station(lambda message: [Outcome(0, Fate.RELAYED, OK)])
        station.start()
        message = station.send("a@x.example", "b@x.example")
        station.turn()
        self.assertEqual(list(station.spool.rows[message.id]), [1])
        self.assertEqual(station.spool.rows[message.id][1].attempts, 1)

    def test_local_fault(self) -> None:
        """A body that cannot be read is a deferral without a traceback."""
        station = Station(lambda message: SpoolBroken("gone"))
        station.start()
        message = station.send("a@x.example")
        station.turn()
        self.assertEqual(station.spool.rows[message.id][0].attempts, 1)


class DownTests(SynchronousTestCase):
    """Next hops that cannot be reached."""

    def dead(self, message: QueuedMessage) -> Any:
        """dead.example is down, others are well."""
        return down() if message.domain == "dead.example" else Fate.RELAYED

    def test_dead_and_alive(self) -> None:
        """Fifty thousand messages for a dead domain cost a live one nothing."""
        station = Station(self.dead)
        for number in range(50_000):
            station.spool.put(station.new(f"b{number}@dead.example"))
        station.start()
        station.pass_time(10)
        self.assertLessEqual(len(station.transport.attempts), 5)
        before, calls = station.spool.readings, len(station.spool.calls)
        begun = time.process_time()
        for number in range(1000):
            station.send(f"c{number}@alive.example")
            if number % 50 == 49:
                station.turn()
        station.turn()
        spent = time.process_time() - begun
        self.assertEqual(len(station.transport.delivered), 1000)
        self.assertEqual(station.spool.readings, before)
        self.assertEqual(len(station.spool.calls), calls)
        self.assertLess(spent, 5.0)
        status = {each.domain: each for each in station.scheduler.snapshot()}["dead.example"]
        self.assertGreater(status.next_attempt, station.now())
        self.assertEqual(status.last_error, "451 4.4.1 Connection refused")
        self.assertGreater(status.waiting, 49_000)
        # The listing shows the answer and the next attempt for those never tried, too.
        last = list(station.spool.rows.values())[-1][0]
        self.assertEqual((last.reply, last.attempts), ("451 4.4.1 Connection refused", 0))
        self.assertEqual(last.due, status.next_attempt)

    def test_one_probe_then_all(self) -> None:
        """After the back-off one message is tried, with growing waits; then all flow."""
        alive: list[bool] = []
        station = Station(lambda message: Fate.RELAYED if alive else down())
        for number in range(300):
            station.spool.put(station.new(f"b{number}@dead.example"))
        station.start()
        station.pass_time(20)
        first = len(station.transport.attempts)
        self.assertLessEqual(first, 5)
        station.pass_time(340)
        self.assertEqual(len(station.transport.attempts), first + 1)
        station.pass_time(500)
        self.assertEqual(len(station.transport.attempts), first + 1)
        station.pass_time(200)
        self.assertEqual(len(station.transport.attempts), first + 2)
        alive.append(True)
        station.pass_time(1400)
        self.assertEqual(len(station.transport.delivered), 300)
        self.assertEqual(station.spool.rows, {})

    def test_new_mail_while_down(self) -> None:
        """What comes for a dead next hop stays in the spool."""
        station = Station(self.dead)
        station.start()
        station.send("b@dead.example")
        station.turn()
        attempts = len(station.transport.attempts)
        station.send("c@dead.example")
        station.turn()
        self.assertEqual(len(station.transport.attempts), attempts)
        self.assertEqual(station.spool.readings, 0)

    def test_back_at_once(self) -> None:
        """A next hop that falls and answers another attempt is not left alone."""
        held = Held()
        station = Station(held)
        station.start()
        for number in range(20):
            station.send(f"b{number}@example.com")
        station.turn()
        (_, first), *others = held.waiting
        held.waiting = others
        first.callback(down())
        station.turn()
        held.answer()
        station.turn()
        while held.waiting:
            held.answer()
            station.turn()
        self.assertEqual(len(station.transport.delivered), 19)
        station.pass_time(400)
        held.answer()
        station.turn()
        self.assertEqual(len(station.transport.delivered), 20)

    def test_shared_next_hop(self) -> None:
        """Domains behind one fixed route share its concurrency, its turns and its fall."""
        held = Held()
        station = Station(held, "concurrency = 4", {"a.example": HOST, "b.example": HOST})
        station.start()
        for number in range(8):
            station.send(f"x{number}@a.example")
        for number in range(8):
            station.send(f"x{number}@b.example")
        station.turn()
        self.assertEqual(
            [message.domain for message, _ in held.waiting], ["a.example", "b.example"] * 2
        )
        held.answer(down())
        station.turn()
        self.assertEqual(held.waiting, [])
        hops = {(each.next_hop, each.next_attempt) for each in station.scheduler.snapshot()}
        self.assertEqual(len(hops), 1)

    def test_flush_while_down(self) -> None:
        """A flush forgets the back-off of its destination."""
        alive: list[bool] = []
        station = Station(lambda message: Fate.RELAYED if alive else down())
        station.start()
        for number in range(10):
            station.send(f"b{number}@dead.example")
            station.send(f"b{number}@other.example")
        station.pass_time(20)
        alive.append(True)
        flushed = self.successResultOf(station.scheduler.flush(Filter(destination="dead.example")))
        self.assertEqual(flushed, 10)
        station.turn()
        delivered = {mailbox.partition("@")[2] for _, mailbox in station.transport.delivered}
        self.assertEqual(delivered, {"dead.example"})
        self.assertEqual(len(station.transport.delivered), 10)
        self.successResultOf(station.scheduler.flush(Filter()))
        station.turn()
        self.assertEqual(len(station.transport.delivered), 20)

    def test_ageing(self) -> None:
        """Behind a dead next hop messages are warned of once, and expire."""
        station = Station(self.dead, "expire = 1d\nwarn_after = 4h")
        for number in range(250):
            station.spool.put(station.new(f"b{number}@dead.example"))
        station.start()
        station.pass_time(3 * 3600, 10)
        self.assertEqual(station.counters.bounces_sent, 0)
        station.pass_time(12 * 3600, 10)
        self.assertEqual(station.counters.bounces_sent, 250)
        # Younger ones are left alone when the old ones expire.
        station.send("young@dead.example")
        station.pass_time(14 * 3600, 10)
        self.assertEqual(station.counters.failed, 250)
        self.assertEqual(len(station.spool.rows), 1)
        self.assertLess(
            len([1 for each in station.transport.attempts if each.domain == "dead.example"]), 25
        )
        self.assertEqual(station.counters.bounces_sent, 501)

    def test_ageing_past_the_released(self) -> None:
        """A message that came out of the quarantine does not keep others from ageing."""
        station = Station(self.dead, "expire = 1d\nwarn_after = 4h")
        released, waits = (station.new(f"{name}@dead.example") for name in ("r", "w"))
        station.spool.put(released)
        station.spool.put(waits)
        station.start()
        station.pass_time(3600, 10)
        station.spool.messages[released.id] = replace(released, arrived=station.now() + 20 * 3600)
        station.pass_time(12 * 3600, 10)
        self.assertEqual(station.counters.bounces_sent, 1)
        station.pass_time(14 * 3600, 10)
        self.assertEqual(station.counters.failed, 1)
        self.assertEqual(list(station.spool.rows), [released.id])

    def test_restart_with_backlog(self) -> None:
        """A new process takes up what is due, and later what becomes due."""
        station = Station(lambda message: Fate.DEFERRED)
        station.start()
        for number in range(30):
            station.send(f"b@d{number}.example")
        station.pass_time(100)
        self.successResultOf_stop(station)
        station.spool.put(station.new("b@new.example"))
        station.transport.behaviour = lambda message: Fate.RELAYED
        station.scheduler = station.new_scheduler()
        station.start()
        self.assertEqual([mailbox for _, mailbox in station.transport.delivered], ["b@new.example"])
        station.pass_time(400)
        self.assertEqual(len(station.transport.delivered), 31)
        self.assertEqual(station.spool.rows, {})

    def successResultOf_stop(self, station: Station) -> None:
        stopped = station.scheduler.stop()
        station.pass_time(1)
        self.successResultOf(stopped)


class SpoolFaultTests(SynchronousTestCase):
    """A spool that fails while mail is delivered."""

    def test_settling_fails(self) -> None:
        """Nothing is delivered twice, nothing new is begun, and all goes on afterwards."""
        station = Station()
        station.start()
        station.spool.fault = SpoolBroken("I/O error")
        station.send("b@example.com")
        station.turn()
        station.send("c@example.com")
        station.pass_time(600)
        self.assertEqual(len(station.transport.attempts), 1)
        station.spool.fault = None
        station.pass_time(61)
        self.assertEqual(
            [mailbox for _, mailbox in station.transport.delivered],
            ["b@example.com", "c@example.com"],
        )
        self.assertEqual(station.spool.rows, {})

    def test_full_disk(self) -> None:
        """A full disk does not stop deliveries, which make room."""
        station = Station()
        station.start()
        station.spool.fault = SpoolFull("No space left")
        station.send("b@example.com")
        station.send("c@example.com")
        station.turn()
        self.assertEqual(len(station.transport.delivered), 2)
        station.spool.fault = None
        station.pass_time(5)
        self.assertEqual(station.spool.rows, {})

    def test_reading_fails(self) -> None:
        """A domain that cannot be read is read again."""
        station = Station()
        station.spool.put(station.new("b@example.com"))
        station.spool.due_fault = SpoolBroken("I/O error")
        station.start()
        self.assertEqual(station.transport.attempts, [])
        station.spool.due_fault = None
        station.pass_time(6)
        self.assertEqual(len(station.transport.delivered), 1)

    def test_unrecorded_at_stop(self) -> None:
        """What could not be recorded at stop is given up, with a word about it."""
        station = Station()
        station.start()
        station.spool.fault = SpoolBroken("I/O error")
        station.send("b@example.com")
        station.turn()
        stopped = station.scheduler.stop(5.0)
        station.pass_time(6)
        self.successResultOf(stopped)
        self.assertEqual(station.clock.getDelayedCalls(), [])
        self.assertEqual(len(station.spool.rows), 1)

    def test_late_refusal(self) -> None:
        """A spool that answers after the stop finds nobody who asks again."""
        station = Station()
        station.start()
        answer: Deferred[None] = Deferred()
        self.patch(station.scheduler._ledger, "_settle", lambda settlement: answer)
        station.send("b@example.com")
        station.turn()
        stopped = station.scheduler.stop(1.0)
        station.pass_time(2)
        self.successResultOf(stopped)
        answer.errback(SpoolBroken("closed"))
        self.assertEqual(station.clock.getDelayedCalls(), [])

    def test_many_refused(self) -> None:
        """Refused results are bounded: attempts stop, and go on afterwards."""
        self.patch(ledger, "MAX_REFUSED", 10)
        station = Station()
        station.start()
        station.spool.fault = SpoolFull("No space left")
        for number in range(40):
            station.send(f"b{number}@example.com")
        station.turn()
        self.assertEqual(len(station.transport.attempts), 10)
        station.spool.fault = None
        station.pass_time(5)
        self.assertEqual(len(station.transport.delivered), 40)
        self.assertEqual(station.spool.rows, {})

    def test_notice_cannot_be_made(self) -> None:
        """A fault of ours in a notice: the failure is tried again later, not forgotten."""

        def break_down(*arguments: Any) -> None:
            raise ValueError("a bug")

        results = [
            [Outcome(0, Fate.FAILED, NO), Outcome(1, Fate.RELAYED, OK)],
            Fate.FAILED,
            Fate.RELAYED,
        ]
        station = Station(lambda message: results.pop(0))
        station.start()
        patched = self.patch(notices, "compose", break_down)
        success = Recipient("c@x.example", "x.example", "SUCCESS")
        message = station.send("b@x.example", success)
        station.turn()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(list(station.spool.rows[message.id]), [0])
        patched.restore()
        station.pass_time(1000)
        self.assertEqual(station.counters.bounces_sent, 1)
        self.assertEqual(station.spool.rows, {})

    def test_original_cannot_be_read(self) -> None:
        """A notice goes without an original that the disk does not give."""
        station = Station(
            lambda message: Fate.RELAYED if message.domain == "sender.example" else Fate.FAILED
        )
        self.patch(
            World, "in_thread", lambda world, call, *arguments: maybeDeferred(call, *arguments)
        )
        station.start()
        body = FileBody(b"", 10, path=Path("/nonexistent/segment"))
        station.send("b@example.com", body=body)
        station.turn()
        notice = station.transport.attempts[-1]
        self.assertIn(b"Final-Recipient: rfc822; b@example.com", b"".join(notice.body.pieces()))

    def test_long_original(self) -> None:
        """Of a long original no more is read than is returned."""
        read: list[int] = []

        class Long:
            octets = 10_000_000
            in_memory = True

            def pieces(self, size: int = 65536) -> Iterator[bytes]:
                for _ in range(1000):
                    read.append(10_000)
                    yield b"Subject: x\r\n" + b"y" * 9_988

        station = Station(
            lambda message: Fate.RELAYED if message.domain == "sender.example" else Fate.FAILED
        )
        station.start()
        station.send("b@example.com", body=Long())
        station.turn()
        self.assertEqual(station.counters.bounces_sent, 1)
        self.assertLessEqual(len(read), 6)

    def test_backlog_fails(self) -> None:
        """A spool that cannot say what it holds is asked again."""
        station = Station()
        station.spool.put(station.new("b@example.com"))
        station.spool.backlog_fault = SpoolBroken("I/O error")
        station.start()
        station.spool.backlog_fault = None
        station.pass_time(16)
        self.assertEqual(len(station.transport.delivered), 1)

    def test_slow_spool(self) -> None:
        """A reading that began before a settlement brings nothing back."""
        held = Held()
        station = Station(held, "concurrency = 1")
        station.start()
        for number in range(30):
            station.send(f"b{number}@example.com")
        station.spool.slow = True
        station.turn()
        for _ in range(100):
            held.answer()
            station.turn()
            station.spool.answer()
            station.turn()
        mailboxes = [mailbox for _, mailbox in station.transport.delivered]
        self.assertEqual(
            sorted(mailboxes), sorted(f"b{number}@example.com" for number in range(30))
        )


class LifeTests(SynchronousTestCase):
    """Stop, reload, and the postmaster's commands."""

    def test_stop_waits(self) -> None:
        """Stopping waits for attempts and their results, then closes."""
        held = Held()
        station = Station(held)
        station.start()
        station.send("b@example.com")
        station.turn()
        stopped = station.scheduler.stop()
        station.pass_time(5)
        self.assertNoResult(stopped)
        held.answer()
        station.pass_time(1)
        self.successResultOf(stopped)
        self.assertEqual(station.spool.rows, {})
        self.assertEqual(station.transport.closed, 1)
        self.assertEqual(station.clock.getDelayedCalls(), [])

    def test_stop_at_once(self) -> None:
        """Stopping before the first turn begins nothing, nor does a late reading."""
        station = Station()
        station.spool.put(station.new("a@example.com"))
        station.scheduler.start()
        station.spool.slow = True
        station.clock.advance(0)
        station.send("b@other.example")
        stopped = station.scheduler.stop()
        self.successResultOf(stopped)
        station.spool.answer()
        station.turn()
        self.assertEqual(station.transport.attempts, [])
        self.assertEqual(station.clock.getDelayedCalls(), [])

    def test_stop_while_down(self) -> None:
        """The putting off of a queue does not outlive the scheduler."""
        station = Station(lambda message: down())
        station.start()
        station.send("b@dead.example")
        station.turn()
        stopped = station.scheduler.stop()
        station.pass_time(1)
        self.successResultOf(stopped)
        self.assertEqual(station.clock.getDelayedCalls(), [])

    def test_bounce_of_several_domains(self) -> None:
        """One message to several domains is given up in one notice, other recipients kept."""
        station = Station(Held())
        for name in ("b", "c"):
            station.spool.put(
                station.new(f"{name}@one.example", f"{name}@two.example", "x@y.example")
            )
        station.scheduler._running = True
        bounced = station.scheduler.bounce(Filter(recipient="@one.example"), "Closed")
        station.turn()
        self.assertEqual(self.successResultOf(bounced), 2)
        left = [
            row.recipient.domain for rows in station.spool.rows.values() for row in rows.values()
        ]
        self.assertEqual(Counter(left), {"two.example": 2, "y.example": 2, "sender.example": 2})

    def test_deleted_domain(self) -> None:
        """A domain whose mail a postmaster deleted is forgotten to have any."""
        station = Station(lambda message: down())
        station.start()
        for number in range(20):
            station.send(f"b{number}@dead.example")
        station.pass_time(10)
        self.assertGreater(station.scheduler.snapshot()[0].waiting, 0)
        station.spool.rows.clear()
        station.spool.by_domain.clear()
        station.pass_time(500)
        self.assertEqual(station.scheduler.snapshot()[0].waiting, 0)

    def test_many_domains(self) -> None:
        """No more domains are remembered than allowed; all mail goes all the same."""
        station = Station()
        limits = replace(station.scheduler._queues.limits, known=20)
        station.scheduler._queues.reconfigure(limits)
        for number in range(100):
            station.spool.put(station.new(f"b@d{number}.example"))
            station.spool.put(station.new(f"b@e{number}.example", due=station.now() + 3600))
        station.start()
        for _ in range(30):
            self.assertLessEqual(len(station.scheduler.snapshot()), 40)
            station.pass_time(15)
        self.assertEqual(len(station.transport.delivered), 100)
        station.pass_time(4200)
        self.assertEqual(len(station.transport.delivered), 200)

    def test_stop_cuts_off(self) -> None:
        """What takes too long is cut off and stays in the spool."""
        station = Station(Held())
        station.start()
        for number in range(30):
            station.send(f"b{number}@example.com")
        station.turn()
        stopped = station.scheduler.stop(3.0)
        station.pass_time(4)
        self.successResultOf(stopped)
        self.assertEqual(len(station.spool.rows), 30)
        self.assertEqual(station.spool.settlements, [])
        self.assertEqual(station.clock.getDelayedCalls(), [])

    def test_new_routes(self) -> None:
        """What is queued follows new routes."""
        held = Held()
        station = Station(held, "concurrency = 2", {"example.com": HOST})
        station.start()
        for number in range(10):
            station.send(f"b{number}@example.com")
        station.turn()
        self.assertEqual(station.made, [HOST])
        other = Route(RouteKind.SMTP, host="10.0.0.6", port=25)
        station.scheduler.reconfigure(Routes({"example.com": other}), settings("concurrency = 2"))
        while held.waiting:
            held.answer()
            station.turn()
        self.assertEqual(station.made, [HOST, other])
        self.assertEqual(len(station.transport.delivered), 10)
        self.assertEqual(station.scheduler.snapshot()[0].next_hop, "smtp://10.0.0.6:25")

    def test_new_settings(self) -> None:
        """A new concurrency holds from now on, lower or higher."""
        held = Held()
        station = Station(held, "concurrency = 4", {"example.com": HOST})
        station.start()
        for number in range(30):
            station.send(f"b{number}@example.com")
        station.turn()
        self.assertEqual(len(held.waiting), 4)
        for concurrency in (2, 7):
            new = settings(f"concurrency = {concurrency}")
            station.scheduler.reconfigure(Routes({"example.com": HOST}), new)
            for _ in range(2):
                held.answer()
                station.turn()
            self.assertEqual(len(held.waiting), concurrency)

    def test_no_route(self) -> None:
        """A domain without a route goes by its MX: a bounce has to get out."""
        station = Station(routes={"example.com": HOST})
        station.start()
        station.send("b@elsewhere.example")
        station.turn()
        self.assertEqual(station.made, [Route(RouteKind.MX)])

    def test_wake(self) -> None:
        """What was deleted while it was ready is not attempted after wake()."""
        held = Held()
        station = Station(held, "concurrency = 1")
        station.start()
        for number in range(5):
            station.send(f"b{number}@example.com")
        station.turn()
        under_way = held.waiting[0][0].id
        for id in list(station.spool.rows):
            if id != under_way:
                del station.spool.rows[id], station.spool.by_domain["example.com"][id]
        station.scheduler.wake()
        station.turn()
        held.answer()
        station.turn()
        self.assertEqual(len(station.transport.attempts), 1)

    def test_postmasters_bounce(self) -> None:
        """What matches is given up with the reason; what is attempted is left alone."""
        held = Held()
        station = Station(held, "concurrency = 1")
        station.start()
        for number in range(5):
            station.send(f"b{number}@example.com", "c@other.example")
        station.turn()
        begun = {message.id for message, _ in held.waiting if message.domain == "example.com"}
        held_back = next(id for id in station.spool.rows if id not in begun)
        station.spool.rows[held_back][0].held = True
        bounced = station.scheduler.bounce(Filter(destination="example.com"), "Not ours")
        station.turn()
        self.assertEqual(self.successResultOf(bounced), 5 - len(begun))
        self.assertEqual(len(begun), 1)
        held.answer()
        station.turn()
        texts = [
            b"".join(message.body.pieces())
            for message, _ in held.waiting
            if message.domain == "sender.example"
        ]
        self.assertIn(b"554 5.7.1 Not ours", texts[0])
        self.assertEqual(station.counters.bounces_sent, 4)
