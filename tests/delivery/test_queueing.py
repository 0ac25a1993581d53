"""The queues: nobody starves, no limit is exceeded, nothing is lost or given out twice."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery.queueing import (
    FIRST_WINDOW,
    NEVER,
    SHARE,
    Destination,
    Limits,
    NextHop,
    Queues,
    octets_in_memory,
)
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import Body, QueuedMessage, QueuedRecipient
from mailsecure.spool.body import FileBody, MemoryBody
from mailsecure.spool.ids import MessageId

MX = Route(RouteKind.MX)
LIMITS = Limits(window=4, active=10, ready=16, page=5)


def message(number: int, domain: str, body: Body | None = None) -> QueuedMessage:
    """Return a message of ten octets with one recipient."""
    recipient = QueuedRecipient(0, Recipient(f"b@{domain}", domain))
    return QueuedMessage(
        MessageId(number),
        Envelope("a@s.example", ()),
        Arrival(),
        0.0,
        body or MemoryBody([b"0123456789"]),
        domain,
        [recipient],
    )


class QueuesTests(SynchronousTestCase):
    """Single steps."""

    def setUp(self) -> None:
        self.queues = Queues(LIMITS)
        self.number = 0

    def add(self, domain: str, hop: str = "") -> Destination:
        """Return a new destination behind ``hop`` or a next hop of its own."""
        return self.queues.add(domain, hop or f"mx:{domain}", MX)

    def put(self, destination: Destination, count: int = 1) -> None:
        """Make messages ready."""
        for _ in range(count):
            self.number += 1
            self.queues.put(destination, message(self.number, destination.domain), 10)

    def taken(self) -> list[str]:
        """Return the domains of all that can begin now, in order."""
        domains = []
        while (found := self.queues.next(0.0)) is not None:
            domains.append(found[1].domain)
        return domains

    def test_round_robin(self) -> None:
        """Next hops take turns, and the domains of one within its turns."""
        for domain, hop in (("a", "h"), ("b", "h"), ("c", "k")):
            self.put(self.add(domain, hop), 9)
        self.assertEqual(self.taken(), ["a", "c", "b", "c", "a", "c", "b", "c"])

    def test_limits(self) -> None:
        """The window of each, and the limit of all."""
        for number in range(5):
            self.put(self.add(f"d{number}"), 9)
        domains = Counter(self.taken())
        self.assertEqual(sum(domains.values()), 10)
        self.assertEqual(set(domains.values()), {2})

    def test_window_opens(self) -> None:
        """A next hop's window opens with its answers."""
        self.queues.reconfigure(replace(LIMITS, window=7, active=99, ready=99))
        destination = self.add("a")
        hop = destination.hop
        hop.window = FIRST_WINDOW
        self.put(destination, 50)
        self.assertEqual(len(self.taken()), 5)
        for _ in range(5):
            self.queues.ended(destination, hop, 10)
            self.assertFalse(self.queues.answered(hop))
        self.assertEqual(len(self.taken()), 7)
        self.queues.reconfigure(LIMITS)
        self.assertEqual(hop.window, 4)

    def test_fall(self) -> None:
        """A next hop that fell gives its messages back, takes none, and then one."""
        destination = self.add("a")
        hop = destination.hop
        self.put(destination, 3)
        self.queues.next(0.0)
        self.queues.fell(hop, 100.0)
        self.assertEqual((len(destination.ready), hop.ready, destination.due), (0, 0, 0.0))
        self.assertEqual(destination.hands, {MessageId(1)})
        self.assertEqual((destination.waiting, self.queues.octets), (2, 10))
        self.assertFalse(self.queues.admits(destination, MessageId(9), 10, 50.0))
        self.assertEqual(self.queues.wake_time(destination), 100.0)
        # Not before the attempt under way has ended is there room for the probe.
        self.queues.hunger(destination)
        self.assertIsNone(self.queues.next_reading())
        self.queues.ended(destination, hop, 10)
        self.assertEqual(self.queues.next_reading(), (destination, 1))
        self.assertFalse(self.queues.admits(destination, MessageId(9), 10, 150.0))
        self.queues.read(destination, hop, 1)
        self.put(destination)
        self.assertIsNone(self.queues.next(50.0))
        self.queues.ended(destination, hop, 0)
        self.queues.active = hop.active = 0
        self.assertIsNotNone(self.queues.next(150.0))
        self.assertTrue(self.queues.answered(hop))
        self.assertEqual((hop.failures, hop.down_until, hop.window), (0, 0.0, 4))
        self.assertTrue(self.queues.admits(destination, MessageId(9), 10, 150.0))

    def test_fall_while_waiting_for_reading(self) -> None:
        """A domain that stood in the line leaves it; its timer counts again."""
        destination = self.add("a")
        self.queues.note_due(destination, 5.0)
        self.queues.hunger(destination)
        self.assertEqual(self.queues.wake_time(destination), NEVER)
        self.queues.fell(destination.hop, 100.0)
        self.assertEqual(self.queues.wake_time(destination), 100.0)
        self.assertIsNone(self.queues.next_reading())
        self.queues.pardon(destination.hop)
        self.assertEqual(self.queues.wake_time(destination), 5.0)

    def test_admission(self) -> None:
        """A next hop's room, halved while others of the domain wait in the spool."""
        destination = self.add("a")
        self.put(destination, 8)
        self.assertTrue(self.queues.admits(destination, MessageId(99), 10, 1.0))
        self.assertFalse(self.queues.admits(destination, MessageId(1), 10, 1.0))
        self.queues.note_due(destination, 1.0)
        self.assertFalse(self.queues.admits(destination, MessageId(99), 10, 1.0))
        self.put(destination, 8)
        destination.due = NEVER
        self.assertFalse(self.queues.admits(destination, MessageId(99), 10, 1.0))

    def test_share(self) -> None:
        """With memory full a next hop without anything may still have a few."""
        self.queues.reconfigure(replace(LIMITS, octets=80))
        busy, quiet = self.add("busy"), self.add("quiet")
        self.put(busy, 8)
        self.assertFalse(self.queues.admits(busy, MessageId(99), 10, 1.0))
        for _ in range(SHARE):
            self.assertTrue(self.queues.admits(quiet, MessageId(99), 10, 1.0))
            self.put(quiet)
        self.assertFalse(self.queues.admits(quiet, MessageId(99), 10, 1.0))
        third = self.add("third")
        self.queues.hunger(third)
        self.queues.hunger(quiet)
        self.assertEqual(self.queues.next_reading(), (third, SHARE))
        self.assertIsNone(self.queues.next_reading())

    def test_readings_take_turns(self) -> None:
        """Readings go round the next hops, and the domains of one, a page at a time."""
        for domain, hop in (("a", "h"), ("b", "h"), ("c", "k")):
            self.queues.hunger(self.add(domain, hop))
        order = []
        while (wanted := self.queues.next_reading()) is not None:
            order.append((wanted[0].domain, wanted[1]))
        self.assertEqual(order, [("a", 5), ("c", 5), ("b", 5)])

    def test_reading_waits_for_room(self) -> None:
        """A next hop that is nearly full is read for when it has given something out."""
        destination = self.add("a")
        self.put(destination, 14)
        self.queues.hunger(destination)
        self.assertIsNone(self.queues.next_reading())
        self.assertIsNotNone(self.queues.next(0.0))
        self.assertIsNone(self.queues.next_reading())
        self.assertIsNotNone(self.queues.next(0.0))
        self.assertEqual(self.queues.next_reading(), (destination, 4))

    def test_passed(self) -> None:
        """What left our hands during a reading is left out of it."""
        destination = self.add("a")
        self.put(destination, 2)
        self.queues.next(0.0)
        self.queues.hunger(destination)
        self.queues.next_reading()
        self.queues.release(destination, MessageId(1))
        self.assertEqual(
            self.queues.read(destination, destination.hop, 5), {MessageId(1), MessageId(2)}
        )
        self.queues.release(destination, MessageId(2))
        self.assertEqual(destination.passed, set())

    def test_others_in_the_line(self) -> None:
        """A probe that moves away, or finds nothing, leaves its turn to the next in line."""
        one, two = self.add("a", "h"), self.add("b", "h")
        hop = one.hop
        self.queues.fell(hop, 0.0)
        self.queues.hunger(one)
        self.queues.hunger(two)
        self.assertEqual(self.queues.next_reading(), (one, 1))
        self.assertIsNone(self.queues.next_reading())
        self.queues.move(one, "k", MX)
        self.queues.read(one, hop, 1)
        self.assertEqual(self.queues.next_reading(), (two, 1))

    def test_move(self) -> None:
        """A domain that moves takes nothing along; an empty next hop is forgotten."""
        one, two = self.add("a", "h"), self.add("b", "h")
        self.put(one, 2)
        self.queues.hunger(two)
        self.queues.move(one, "k", MX)
        self.assertEqual((one.hop.key, len(one.ready), one.due), ("k", 0, 0.0))
        self.assertEqual(set(self.queues.hops), {"h", "k"})
        self.queues.move(two, "k", MX)
        self.assertIs(two.hop, one.hop)
        self.assertEqual(set(self.queues.hops), {"k"})
        self.assertIsNone(self.queues.next_reading())
        self.assertIsNone(self.queues.next(0.0))

    def test_forget(self) -> None:
        """Idle domains are forgotten when too many are known; others never."""
        self.queues.reconfigure(replace(LIMITS, known=5))
        self.queues = Queues(replace(LIMITS, known=5))
        busy = self.add("busy")
        self.put(busy)
        waiting = self.add("waiting")
        waiting.waiting = 1
        for number in range(50):
            self.add(f"d{number}")
        self.assertLess(len(self.queues.destinations), 10)
        self.assertTrue({"busy", "waiting"} <= set(self.queues.destinations))
        self.assertEqual(len(self.queues.hops), len(self.queues.destinations))

    def test_moved_hop_is_not_forgotten_twice(self) -> None:
        """A next hop that was replaced under the same name stays."""
        one = self.add("a", "h")
        old = one.hop
        self.queues.hops["h"] = NextHop("h", MX, 1)
        self.queues.move(one, "k", MX)
        self.assertIsNot(self.queues.hops["h"], old)

    def test_octets(self) -> None:
        """Only bodies in memory count."""
        self.assertEqual(octets_in_memory(message(1, "a")), 10)
        self.assertEqual(octets_in_memory(message(1, "a", FileBody(b"", 10))), 0)


class FairnessTests(SynchronousTestCase):
    """Many messages, slow and quick next hops."""

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 1 << 32), st.integers(1, 5), st.integers(1, 12))
    def test_nobody_starves(self, seed: int, window: int, active: int) -> None:
        """A next hop with work and room waits for no more than a turn of each other."""
        rng = random.Random(seed)
        queues = Queues(Limits(window, active, 1000))
        number = 0
        for name in range(rng.randint(2, 8)):
            destination = queues.add(f"d{name}", f"h{name % 4}", MX)
            for _ in range(rng.randint(1, 60)):
                number += 1
                queues.put(destination, message(number, destination.domain), 10)
        running: list[tuple[QueuedMessage, Destination]] = []
        seen: list[int] = []
        waited: dict[str, int] = defaultdict(int)
        while True:
            while (found := queues.next(0.0)) is not None:
                running.append(found)
                seen.append(found[0].id)
                hop = found[1].hop
                waited[hop.key] = 0
                for other in queues.hops.values():
                    if other is not hop and other.turn and other.active < other.window:
                        waited[other.key] += 1
                        self.assertLessEqual(waited[other.key], len(queues.hops))
                self.assertLessEqual(queues.active, active)
                self.assertLessEqual(hop.active, window)
            if not running:
                break
            ended, destination = running.pop(rng.randrange(len(running)))
            queues.ended(destination, destination.hop, 10)
            queues.release(destination, ended.id)
        self.assertEqual(sorted(seen), list(range(1, number + 1)))
        self.assertEqual((queues.octets, queues.messages, queues.active), (0, 0, 0))


class QueuesMachine(RuleBasedStateMachine):
    """The queues over a model of the spool: a dict of what is due."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(window=3, active=6, ready=8, octets=150, page=4)
        self.queues = Queues(self.limits)
        self.now = 0.0
        self.number = 0
        self.spool: dict[str, dict[int, None]] = {}
        self.running: list[tuple[QueuedMessage, Destination, NextHop]] = []
        self.readings: list[tuple[Destination, NextHop, int, list[int]]] = []
        self.done: list[int] = []
        for name in range(5):
            domain = f"d{name}"
            self.queues.add(domain, f"h{name % 3}", MX)
            self.spool[domain] = {}

    def arm(self, destination: Destination) -> None:
        """Do what the scheduler does with timers."""
        if self.queues.wake_time(destination) <= self.now:
            self.queues.hunger(destination)

    @rule(name=st.integers(0, 4))
    def arrive(self, name: int) -> None:
        """A new message is durable."""
        destination = self.queues.destinations[f"d{name}"]
        self.number += 1
        self.spool[destination.domain][self.number] = None
        if self.queues.admits(destination, MessageId(self.number), 10, self.now):
            self.queues.put(destination, message(self.number, destination.domain), 10)
        else:
            self.queues.note_due(destination, self.now)
            self.arm(destination)

    @rule()
    def begin(self) -> None:
        """The scheduler's turn."""
        while (found := self.queues.next(self.now)) is not None:
            given, destination = found
            assert all(given.id != other.id for other, _, _ in self.running)
            assert given.id not in self.done
            self.running.append((given, destination, destination.hop))
        while (wanted := self.queues.next_reading()) is not None:
            destination, limit = wanted
            destination.due = NEVER
            ids = [
                id
                for id in self.spool[destination.domain]
                if MessageId(id) not in destination.hands
            ]
            self.readings.append((destination, destination.hop, limit, ids[:limit]))

    @precondition(lambda self: self.readings)
    @rule(place=st.integers(0, 9))
    def read(self, place: int) -> None:
        """The spool answers."""
        destination, hop, limit, ids = self.readings.pop(place % len(self.readings))
        skip = self.queues.read(destination, hop, limit)
        if self.now < destination.hop.down_until:
            self.queues.note_due(destination, 0.0)
        else:
            for id in ids:
                if MessageId(id) not in skip:
                    self.queues.put(destination, message(id, destination.domain), 10)
            if len(ids) >= limit:
                self.queues.note_due(destination, 0.0)
        self.arm(destination)

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 9), down=st.booleans())
    def end(self, place: int, down: bool) -> None:
        """An attempt ends: settled, or its next hop is down."""
        given, destination, hop = self.running.pop(place % len(self.running))
        self.queues.ended(destination, hop, 10)
        if down:
            self.queues.fell(hop, self.now + 5)
            self.queues.release(destination, given.id)
            self.queues.note_due(destination, self.now)
        else:
            if self.queues.answered(hop):
                for each in hop.destinations:
                    self.arm(each)
            del self.spool[destination.domain][given.id]
            self.done.append(given.id)
            self.queues.release(destination, given.id)
        for each in hop.destinations:
            self.arm(each)

    @rule(name=st.integers(0, 4), hop=st.integers(0, 2))
    def move(self, name: int, hop: int) -> None:
        """A reload gives a domain another route."""
        destination = self.queues.destinations[f"d{name}"]
        if destination.hop.key != f"h{hop}":
            self.queues.move(destination, f"h{hop}", MX)
            self.arm(destination)

    @rule()
    def pass_time(self) -> None:
        """Timers go off."""
        self.now += 6
        for destination in self.queues.destinations.values():
            self.arm(destination)

    @invariant()
    def within_limits(self) -> None:
        """No limit is exceeded, no count is wrong."""
        queues = self.queues
        assert queues.active == len(self.running) <= self.limits.active
        assert queues.octets == 10 * (
            len(self.running) + sum(len(each.ready) for each in queues.destinations.values())
        )
        reserved: Counter[int] = Counter()
        for _, hop, limit, _ in self.readings:
            reserved[id(hop)] += limit
        for hop in queues.hops.values():
            assert hop.active <= self.limits.window
            ready = sum(len(each.ready) for each in hop.destinations)
            assert hop.ready == ready + reserved[id(hop)]
        for destination in queues.destinations.values():
            ready_ids = [each.id for each in destination.ready]
            assert len(ready_ids) == len(set(ready_ids))
            assert set(ready_ids) <= destination.hands

    def teardown(self) -> None:
        """Everything that arrived is done in the end, once."""
        for _ in range(10_000):
            self.begin()
            while self.readings:
                self.read(0)
            while self.running:
                self.end(0, False)
            if len(self.done) == self.number:
                break
            self.pass_time()
        assert sorted(self.done) == list(range(1, self.number + 1))


QueuesMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


class MachineTests(SynchronousTestCase):
    """The machine above, run by trial."""

    def test_machine(self) -> None:
        """No sequence of events loses, repeats or exceeds anything."""
        QueuesMachine.TestCase("runTest").runTest()
