"""A small spool, scheduler and world for the control room's tests."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from twisted.internet.defer import fail, succeed

from mailsecure.control.api import Desk
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import (
    Backlog,
    Filter,
    Health,
    Listing,
    Quarantine,
    QuarantineListing,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
)
from mailsecure.spool.ids import MessageId
from mailsecure.world import World

NOON = 1795348800.0
FIRST = MessageId(1795345200_000000 << 12 | 7)


def world(reactor, wall=lambda: NOON):
    """A World around the real reactor or a Clock, without a network."""
    return World(reactor, reactor, wall, random.Random(1), None)


@dataclass
class FakeBody:
    """A body in memory, or one that pretends to be in a file."""

    content: bytes
    in_memory: bool = True

    @property
    def octets(self) -> int:
        return len(self.content)

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        for start in range(0, len(self.content), size):
            yield self.content[start : start + size]


def listing(number, recipients=1, reply="", state=RecipientState.QUEUED, domain="example.com"):
    """The ``number``-th message, one second younger than the last."""
    return Listing(
        MessageId(FIRST + (number * 1_000_000 << 12)),
        f"sender{number}@example.org",
        NOON - 3600 + number,
        2048,
        "192.0.2.1",
        tuple(
            (f"user{index}@{domain}", state, number % 4, NOON + 600, reply)
            for index in range(recipients)
        ),
    )


def held(number):
    """The ``number``-th message, in the quarantine."""
    found = listing(number)
    return QuarantineListing(
        found.id,
        found.reverse_path,
        found.arrived,
        found.octets,
        1024,
        found.client,
        ("user0@example.com",),
        Quarantine(frozenset((0,)), "looks bad"),
    )


class FakeSpool:
    """Just enough of the spool: finds, acts, counts what was asked."""

    def __init__(self, listings=(), body=None):
        self.listings = list(listings)
        self.body = body or FakeBody(b"Subject: x\r\nFrom: a@b\r\n\r\nbody\r\n")
        self.calls = []
        self.healthy = Health(True, False, "")
        self.fault = None
        self.finds = 0

    def _matching(self, filter: Filter):
        for each in self.listings:
            if filter.id is not None and each.id != filter.id:
                continue
            if filter.sender and filter.sender not in (
                each.reverse_path,
                "@" + each.reverse_path.partition("@")[2],
            ):
                continue
            chosen = tuple(
                recipient
                for recipient in each.recipients
                if (not filter.destination or recipient[0].endswith("@" + filter.destination))
                and (not filter.recipient or recipient[0] == filter.recipient)
                and (filter.state is None or recipient[1] is filter.state)
            )
            if chosen:
                yield replace(each, recipients=chosen)

    def find(self, filter, limit, after=None):
        self.finds += 1
        if self.fault:
            return fail(self.fault)
        if after is None and filter == Filter():
            return succeed(self.listings[:limit])
        found = [each for each in self._matching(filter) if after is None or each.id > after]
        return succeed(found[:limit])

    def content(self, id):
        found = [each for each in self.listings if each.id == id]
        if not found:
            return succeed(None)
        recipients = [Recipient(each[0], "example.com") for each in found[0].recipients]
        return succeed(
            QueuedMessage(
                id,
                Envelope(found[0].reverse_path, tuple(recipients), eight_bit=True, envid="E1"),
                Arrival("192.0.2.1", "evil\x1b[31m\r\n[red]", "ESMTPS", "S1", {"tls": "TLSv1.3"}),
                found[0].arrived,
                self.body,
                "example.com",
                [QueuedRecipient(index, each) for index, each in enumerate(recipients)],
            )
        )

    def _count(self, *call):
        if self.fault:
            return fail(self.fault)
        self.calls.append(call)
        return succeed(sum(len(each.recipients) for each in self._matching(call[1])))

    def hold(self, filter):
        return self._count("hold", filter)

    def release(self, filter, now):
        return self._count("release", filter, now)

    def delete(self, filter):
        return self._count("delete", filter)

    def health(self):
        return self.healthy

    def totals(self):
        if self.fault:
            return fail(self.fault)
        recipients = sum(len(each.recipients) for each in self.listings)
        return succeed((len(self.listings), recipients, 2048 * len(self.listings)))

    def quarantine_totals(self):
        return fail(self.fault) if self.fault else succeed((5, 7, 4096))

    def quarantined(self, filter, limit, after=None, newest_first=False):
        return succeed([held(9)][:limit])

    def quarantine_content(self, id):
        return succeed(held(9) if id == held(9).id else None)

    def backlog(self):
        counts: dict[str, int] = {}
        for each in self.listings:
            for mailbox, *_ in each.recipients:
                domain = mailbox.partition("@")[2]
                counts[domain] = counts.get(domain, 0) + 1
        return succeed([Backlog(domain, count, NOON + 60) for domain, count in counts.items()])


@dataclass
class FakeDestination:
    """A destination as delivery knows it."""

    domain: str
    in_flight: int = 3
    next_attempt: float = NOON + 120
    last_error: str = "451 4.4.1 \x1b[31mgone\r\nforged"


class FakeScheduler:
    """Remembers what it was told."""

    def __init__(self):
        self.calls = []

    def flush(self, filter):
        self.calls.append(("flush", filter))
        return succeed(1)

    def bounce(self, filter, reason):
        self.calls.append(("bounce", filter, reason))
        return succeed(2)

    def wake(self):
        self.calls.append(("wake",))

    def snapshot(self):
        return [FakeDestination("example.com")]


def desk(
    spool=None, scheduler=None, status=None, reload=None, cluster=None, drain=None, history=None
):
    """A Desk of fakes."""

    async def nothing():
        return {"well": True}

    async def reloaded():
        return ["tls_certificate applied", "listen needs a restart"]

    return Desk(
        spool or FakeSpool(),
        scheduler or FakeScheduler(),
        status or nothing,
        reload or reloaded,
        cluster,
        drain=drain,
        history=history,
    )


def node(name, hears=(), **more):
    """One node in the report of a cluster."""
    return {
        "node": name,
        "self": False,
        "address": "192.0.2.12",
        "source": "192.0.2.12",
        "role": "both",
        "weight": 100,
        "own_weight": 100,
        "overridden": False,
        "load": 0.25,
        "version": "0.1.0",
        "uptime": 7260.0,
        "last_hello": 0.04,
        "round_trip": 0.0004,
        "clock_offset": 0.003,
        "alive": True,
        "starts": 1,
        "fitness": [],
        "groups": {"mail": "backup/100"},
        "hears": list(hears),
        "heard_by": [],
        "link": {
            "up": True,
            "since": 7200.0,
            "round_trip": 0.0003,
            "connects": 1,
            "failures": 0,
            "last_reason": "",
        },
        **more,
    }


def group(name="mail", **more):
    """One virtual group in the report of a cluster."""
    return {
        "name": name,
        "role": "master",
        "priority": 200,
        "effective_priority": 200,
        "master": "mx1",
        "since": NOON - 7200,
        "reason": "nobody else is Master",
        "addresses": [
            {"address": "192.0.2.25", "held": True},
            {"address": "2001:db8::25", "held": True},
        ],
        "interface": "eth0",
        "interval": 0.1,
        "changes": 1,
        "standing_back_until": None,
        "standing_back_because": "",
        "claimed_until": None,
        "fault": "",
        "two_masters": False,
        **more,
    }


def report(nodes=None, groups=None, **more):
    """What a cluster of two says that is well: mx1, which is asked, is Master."""
    nodes = [node("mx2", ["mx1"])] if nodes is None else nodes
    heard = [each["node"] for each in nodes if each["alive"]]
    mine = {"self": True, "address": "192.0.2.11", "link": None}
    mine["heard_by"] = [each["node"] for each in nodes if "mx1" in each["hears"]]
    mine |= {"groups": {"mail": "master/200"}, "last_hello": 0.0, "clock_offset": 0.0}
    return {
        "node": "mx1",
        "address": "192.0.2.11",
        "version": "0.1.0",
        "interval": 0.1,
        "hellos_sent": 72600,
        "hellos_received": 72590,
        "send_failures": 0,
        "groups": [group()] if groups is None else groups,
        "nodes": [node("mx1", heard, **mine), *nodes],
        "drops": {},
        "alarms": [],
        **more,
    }


class FakeCluster:
    """Says what it is told to say, and remembers what it was told to do."""

    def __init__(self, **more):
        self.said = report(**more)
        self.calls = []

    def report(self):
        return self.said

    def resign(self, group, seconds):
        self.calls.append(("resign", group, seconds))
        return ["mx1 resigns as Master of mail"]

    def takeover(self, group, seconds):
        self.calls.append(("takeover", group, seconds))
        return ["mx1 is Master of mail"]

    def set_weight(self, node, weight):
        self.calls.append(("weight", node, weight))
