"""A spool in memory, transports that do as they are told, and messages for both."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from mailsecure.config.load import parse_config
from mailsecure.config.model import Delivery, Route, RouteKind
from mailsecure.counters import Counters
from mailsecure.delivery.api import Fate, NextHopDown, Outcome
from mailsecure.delivery.routes import Routes
from mailsecure.delivery.scheduler import Scheduler
from mailsecure.records.values import Event
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.smtp.replies import Reply
from mailsecure.spool.api import (
    Backlog,
    Filter,
    Listing,
    NewMessage,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Settlement,
)
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import IdSource, MessageId
from mailsecure.world import World

EPOCH = 1_790_000_000.0
OK = Reply(250, "2.0.0", "Queued")
LATER = Reply(451, "4.2.0", "Mailbox busy")
NO = Reply(550, "5.1.1", "No such user")
REFUSED = Reply(451, "4.4.1", "Connection refused")
TEXT = b"From: a@sender.example\r\nSubject: Hello\r\n\r\nHi!\r\n"


def settings(text: str = "") -> Delivery:
    """Return [delivery] with ``text`` in it."""
    return parse_config(f"[delivery]\n{text}\n", "test.ini").delivery


@dataclass
class Row:
    """One recipient in the fake."""

    recipient: Recipient
    due: float
    held: bool = False
    attempts: int = 0
    reply: str = ""
    warned: bool = False


class FakeSpool:
    """:class:`mailsecure.spool.api.Spool`, as far as the scheduler asks it.

    It answers at once, or when :meth:`answer` is called where ``slow`` is set.  With
    ``fault`` set every settlement fails.  ``readings`` counts the messages given out.
    """

    def __init__(self) -> None:
        self.messages: dict[MessageId, NewMessage] = {}
        self.rows: dict[MessageId, dict[int, Row]] = {}
        self.by_domain: dict[str, dict[MessageId, None]] = defaultdict(dict)
        self.settlements: list[Settlement] = []
        self.calls: list[str] = []
        self.fault: Exception | None = None
        self.due_fault: Exception | None = None
        self.backlog_fault: Exception | None = None
        self.slow = False
        self.waiting: list[tuple[Deferred[Any], Any]] = []
        self.readings = 0

    def _give(self, result: Any) -> Deferred[Any]:
        if not self.slow:
            return succeed(result)
        waiting: Deferred[Any] = Deferred()
        self.waiting.append((waiting, result))
        return waiting

    def answer(self) -> None:
        """Give the answers that wait."""
        waiting, self.waiting = self.waiting, []
        for deferred, result in waiting:
            deferred.callback(result)

    def put(self, message: NewMessage) -> None:
        """Have ``message`` in the queue."""
        self.messages[message.id] = message
        self.rows[message.id] = {
            index: Row(each, message.due) for index, each in enumerate(message.envelope.recipients)
        }
        for each in message.envelope.recipients:
            self.by_domain[each.domain][message.id] = None

    def _of(self, domain: str) -> Iterable[tuple[MessageId, int, Row]]:
        for id in self.by_domain[domain]:
            for index, row in self.rows[id].items():
                if row.recipient.domain == domain:
                    yield id, index, row

    def _queued(self, id: MessageId, domain: str, rows: dict[int, Row]) -> QueuedMessage:
        new = self.messages[id]
        recipients = [
            QueuedRecipient(index, row.recipient, row.attempts, row.reply, row.warned)
            for index, row in rows.items()
        ]
        return QueuedMessage(
            id, new.envelope, new.arrival, new.arrived, new.body, domain, recipients
        )

    def due(
        self, domain: str, now: float, limit: int, skip: frozenset[MessageId]
    ) -> Deferred[list[QueuedMessage]]:
        if self.due_fault is not None:
            return fail(self.due_fault)
        found: dict[MessageId, dict[int, Row]] = {}
        ready = sorted(
            (row.due, id, index)
            for id, index, row in self._of(domain)
            if not row.held and row.due <= now and id not in skip
        )
        for _, id, index in ready:
            if id in found or len(found) < limit:
                found.setdefault(id, {})[index] = self.rows[id][index]
        self.readings += len(found)
        self.calls.append(f"due {domain} {limit}")
        return self._give([self._queued(id, domain, rows) for id, rows in found.items()])

    def backlog(self) -> Deferred[list[Backlog]]:
        self.calls.append("backlog")
        if self.backlog_fault is not None:
            return fail(self.backlog_fault)
        result = []
        for domain in self.by_domain:
            dues = [row.due for _, _, row in self._of(domain) if not row.held]
            if dues:
                result.append(Backlog(domain, len(dues), min(dues)))
        return self._give(result)

    def settle(self, settlement: Settlement) -> Deferred[None]:
        if self.fault is not None:
            return fail(self.fault)
        self.settlements.append(settlement)
        rows = self.rows.get(settlement.id, {})
        for index in settlement.done:
            row = rows.pop(index, None)
            if row is not None and not any(
                each.recipient.domain == row.recipient.domain for each in rows.values()
            ):
                del self.by_domain[row.recipient.domain][settlement.id]
        for index, (due, reply, counts) in settlement.retry.items():
            if index in rows:
                rows[index].due, rows[index].reply = due, reply
                rows[index].attempts += counts
        for index in settlement.warned:
            rows[index].warned = True
        if not rows:
            self.messages.pop(settlement.id, None)
            self.rows.pop(settlement.id, None)
        if settlement.notice is not None:
            self.put(settlement.notice)
        return self._give(None)

    def postpone(self, domain: str, until: float, reply: str) -> Deferred[int]:
        self.calls.append(f"postpone {domain}")
        changed = 0
        for _, _, row in self._of(domain):
            if not row.held and row.due < until:
                row.due, row.reply = until, reply
                changed += 1
        return self._give(changed)

    def _matches(self, filter: Filter, id: MessageId, row: Row) -> bool:
        domain = filter.recipient.startswith("@")
        mailbox = row.recipient.mailbox
        return (
            filter.id in (None, id)
            and filter.destination in ("", row.recipient.domain)
            and (mailbox.endswith(filter.recipient) if domain else True)
            and (filter.recipient in ("", mailbox) or domain)
            and filter.state in (None, RecipientState.HELD if row.held else RecipientState.QUEUED)
        )

    def find(
        self, filter: Filter, limit: int, after: MessageId | None = None
    ) -> Deferred[list[Listing]]:
        self.calls.append("find")
        found: list[Listing] = []
        for id in sorted(self.rows):
            if (after is not None and id <= after) or len(found) == limit:
                continue
            rows = [row for row in self.rows[id].values() if self._matches(filter, id, row)]
            if rows:
                new = self.messages[id]
                states = (RecipientState.QUEUED, RecipientState.HELD)
                listed = tuple(
                    (row.recipient.mailbox, states[row.held], row.attempts, row.due, row.reply)
                    for row in rows
                )
                found.append(Listing(id, new.envelope.reverse_path, new.arrived, 0, "", listed))
        return self._give(found)

    def content(self, id: MessageId) -> Deferred[QueuedMessage | None]:
        return self._give(self._queued(id, "", self.rows[id]) if id in self.rows else None)

    def hasten(self, filter: Filter, now: float) -> Deferred[int]:
        hastened = 0
        for id, rows in self.rows.items():
            for row in rows.values():
                if not row.held and row.due > now and self._matches(filter, id, row):
                    row.due = now
                    hastened += 1
        return self._give(hastened)


Behaviour = Callable[[QueuedMessage], Any]


class FakeTransport:
    """Does what ``behaviour`` says; ``delivered`` holds (message, mailbox) of all taken.

    ``behaviour`` gets the message and returns a Fate, a list of outcomes, a Deferred of
    one of them, or an exception to raise.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.attempts: list[QueuedMessage] = []
        self.delivered: list[tuple[MessageId, str]] = []
        self.at_once: dict[str, int] = defaultdict(int)
        self.most: dict[str, int] = defaultdict(int)
        self.closed = 0

    async def deliver(self, message: QueuedMessage) -> Sequence[Outcome]:
        self.attempts.append(message)
        self.at_once[message.domain] += 1
        self.most[message.domain] = max(self.most[message.domain], self.at_once[message.domain])
        try:
            result = self.behaviour(message)
            if isinstance(result, Deferred):
                result = await result
        finally:
            self.at_once[message.domain] -= 1
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Fate):
            result = outcomes(message, result)
        for outcome in result:
            if outcome.fate in (Fate.DELIVERED, Fate.RELAYED):
                self.delivered += [
                    (message.id, each.recipient.mailbox)
                    for each in message.recipients
                    if each.index == outcome.index
                ]
        return result  # type: ignore[no-any-return]

    async def close(self) -> None:
        self.closed += 1


REPLIES = {Fate.DELIVERED: OK, Fate.RELAYED: OK, Fate.DEFERRED: LATER, Fate.FAILED: NO}


def outcomes(message: QueuedMessage, fate: Fate) -> list[Outcome]:
    """Return the same outcome for every recipient."""
    return [
        Outcome(each.index, fate, REPLIES[fate], "mx.example.net[192.0.2.1]:25")
        for each in message.recipients
    ]


def down() -> NextHopDown:
    """Return what a dead host makes a transport raise."""
    return NextHopDown(REFUSED, "mx.dead.example[192.0.2.9]:25")


class Station:
    """A scheduler with everything around it; time stands still until told otherwise."""

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        options: str = "",
        routes: dict[str, Route] | None = None,
    ) -> None:
        #: What the history was told.
        self.told: list[Event] = []
        self.clock = Clock()
        self.rng = random.Random(1)
        self.spool = FakeSpool()
        self.world = World(
            reactor=None,
            clock=self.clock,
            wall=self.now,
            rng=self.rng,
            resolver=None,  # type: ignore[arg-type]
        )
        self.ids = IdSource(self.now, self.rng)
        self.counters = Counters()
        self.transport = FakeTransport(behaviour or (lambda message: Fate.RELAYED))
        self.made: list[Route] = []
        self.scheduler = self.new_scheduler(options, routes)

    def new_scheduler(self, options: str = "", routes: dict[str, Route] | None = None) -> Scheduler:
        """Return one more scheduler over the same spool, as after a restart."""
        return Scheduler(
            world=self.world,
            spool=self.spool,  # type: ignore[arg-type]
            routes=Routes(routes or {"*": Route(RouteKind.MX)}),
            transport_for=self._make,
            settings=settings(options),
            hostname="gate.example",
            ids=self.ids,
            counters=self.counters,
            recorder=self,
        )

    def tell(self, event: Event) -> None:
        """Be the history."""
        self.told.append(event)

    def _make(self, route: Route) -> FakeTransport:
        if route not in self.made:
            self.made.append(route)
        return self.transport

    def now(self) -> float:
        """Unix time."""
        return EPOCH + self.clock.seconds()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in steps, so that what follows from a timer happens too."""
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 1e-6:
            self.clock.advance(min(step, left))
        self.turn()

    def turn(self) -> None:
        """Let the reactor turn until nothing is due at once."""
        for _ in range(10_000):
            calls = self.clock.getDelayedCalls()
            if not calls or min(call.getTime() for call in calls) > self.clock.seconds():
                return
            self.clock.advance(0)
        raise AssertionError("the reactor never comes to rest")

    def new(
        self, *mailboxes: str | Recipient, sender: str = "a@sender.example", **more: Any
    ) -> NewMessage:
        """Return a new message."""
        recipients = tuple(
            each if isinstance(each, Recipient) else Recipient(each, each.rpartition("@")[2])
            for each in mailboxes
        )
        body = more.pop("body", None) or MemoryBody([TEXT])
        due = more.pop("due", None) or self.now()
        arrived = more.pop("arrived", None) or self.now()
        envelope = replace(Envelope(sender, recipients), **more)
        return NewMessage(self.ids.draw(), envelope, Arrival(), arrived, body, due)

    def send(self, *mailboxes: str | Recipient, **more: Any) -> NewMessage:
        """Have a new message accepted and given to the scheduler, as the gateway does."""
        message = self.new(*mailboxes, **more)
        self.spool.put(message)
        self.scheduler.take(message)
        return message

    def start(self) -> None:
        """Start and let the first turns pass."""
        self.scheduler.start()
        self.turn()
