"""Who is next: a fair order over next hops and domains, and what is held in memory (pure).

The queue itself is the spool.  Here stands only the little of it that is being worked on:

* A :class:`Destination` is one domain: a few messages that are *ready*, the ids in our
  *hands* (ready, being attempted, or not yet settled), and what is known of the rest in
  the spool: about how many recipients wait, and when the earliest is due.
* A :class:`NextHop` is what connections are counted by; the domains of one fixed route
  share it.  It has a *window*: how many attempts it may have at once.  The window opens
  by one with every answer, up to ``concurrency``, so that a host nobody has heard from
  cannot fill all connections with attempts that time out.  A next hop that is down has a
  time before which nothing is tried, and then a window of one: the probe.
* :class:`Queues` goes round the next hops that have ready work and room, and within each
  round its domains, one message a turn.  It goes round in the same way over those that
  should be refilled from the spool.

**Bounds.**  A next hop holds :attr:`Limits.ready` messages at most, all together
:attr:`Limits.messages` and :attr:`Limits.octets` of bodies in memory; but a next hop with
nothing in memory may always have a few, or one slow neighbour would starve the others.

New messages come straight to memory while there is room; when the rest of their domain
waits in the spool they only fill what reading leaves free, so the old go first.

Nothing here waits, reads a clock, or knows a transport.  Times are Unix seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..config.model import Route
from ..spool.ids import MessageId
from ..spool.values import QueuedMessage

__all__ = ["NEVER", "Destination", "Limits", "NextHop", "Queues"]

NEVER = float("inf")
#: The window of a next hop that nobody has heard from yet.
FIRST_WINDOW = 5
#: What a next hop without anything in memory may have whatever the others hold.
SHARE = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """``window`` and ``active``: attempts at once to one next hop, and in all.

    ``ready``: messages in memory for one next hop; ``messages`` and ``octets``: for all;
    ``page``: messages read from the spool in one go; ``known``: domains remembered.
    """

    window: int
    active: int
    ready: int
    messages: int = 10_000
    octets: int = 64 << 20
    page: int = 50
    known: int = 10_000


class Destination:
    """One domain.  Only :class:`Queues` changes what is not a count for people."""

    __slots__ = (
        "active",
        "alarm",
        "deferred",
        "delivered",
        "domain",
        "due",
        "examined",
        "failed",
        "hands",
        "hop",
        "hungry",
        "last_error",
        "passed",
        "reading",
        "ready",
        "waiting",
    )

    def __init__(self, domain: str, hop: NextHop) -> None:
        self.domain = domain
        self.hop = hop
        self.ready: deque[QueuedMessage] = deque()
        #: Messages that are ready, attempted, or not settled: the spool must skip them.
        self.hands: set[MessageId] = set()
        #: Messages that left our hands during a reading, which may not know it.
        self.passed: set[MessageId] = set()
        self.active = 0
        #: When the earliest message in the spool is due, as far as we know.
        self.due = NEVER
        #: There may be messages in the spool with times that we do not know.
        self.waiting = 0
        self.reading = False
        #: Whether it stands in its next hop's line for reading.
        self.hungry = False
        #: When its timer goes off; the scheduler's.
        self.alarm = NEVER
        #: Up to which message delay warnings were considered; the scheduler's.
        self.examined = MessageId(0)
        self.delivered = self.deferred = self.failed = 0
        self.last_error = ""

    @property
    def idle(self) -> bool:
        """True where nothing is lost by forgetting this domain."""
        return not (self.hands or self.reading or self.waiting) and self.due == NEVER


class NextHop:
    """One next hop and the domains behind it."""

    __slots__ = (
        "active",
        "destinations",
        "down_until",
        "epoch",
        "failures",
        "hungry",
        "in_line",
        "in_turn",
        "key",
        "last_error",
        "line",
        "ready",
        "route",
        "turn",
        "window",
    )

    def __init__(self, key: str, route: Route, window: int) -> None:
        self.key = key
        self.route = route
        # A dict for its order: a set's would differ from run to run.
        self.destinations: dict[Destination, None] = {}
        #: Domains with ready messages, in the order of their turn.
        self.turn: deque[Destination] = deque()
        #: Domains with something due in the spool, in the order of their reading.
        self.line: deque[Destination] = deque()
        self.active = 0
        #: Messages ready, and those that readings under way may bring.
        self.ready = 0
        self.window = window
        self.failures = 0
        self.down_until = 0.0
        #: Counts the times it went down: an attempt begun before says nothing new.
        self.epoch = 0
        self.last_error = ""
        #: Whether it stands in the ring of those with work, and of those to be refilled.
        self.in_turn = False
        self.in_line = False


class Queues:
    """All next hops; every method is quick and the order of the rings is the fairness."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.destinations: dict[str, Destination] = {}
        self.hops: dict[str, NextHop] = {}
        self._work: deque[NextHop] = deque()
        self._hungry: deque[NextHop] = deque()
        self.active = 0
        #: Messages ready or to be brought by readings, and octets of bodies in memory.
        self.messages = 0
        self.octets = 0
        self._forget_at = limits.known

    # -- domains

    def add(self, domain: str, key: str, route: Route) -> Destination:
        """Return a new destination for ``domain`` at the next hop ``key``."""
        if len(self.destinations) >= self._forget_at:
            self.forget()
        hop = self._hop(key, route)
        destination = self.destinations[domain] = Destination(domain, hop)
        hop.destinations[destination] = None
        return destination

    def _hop(self, key: str, route: Route) -> NextHop:
        hop = self.hops.get(key)
        if hop is None:
            hop = self.hops[key] = NextHop(key, route, self._first_window())
        return hop

    def forget(self) -> None:
        """Drop domains that are idle, and next hops without domains.

        Called when too many are known; the next time is when as many again have come.
        """
        for destination in [each for each in self.destinations.values() if each.idle]:
            del self.destinations[destination.domain]
            self._leave(destination)
        self._forget_at = max(self.limits.known, 2 * len(self.destinations))

    def move(self, destination: Destination, key: str, route: Route) -> None:
        """Put a domain behind another next hop; its ready messages go back to the spool."""
        self.put_back(destination)
        self._leave(destination)
        destination.hop = self._hop(key, route)
        destination.hop.destinations[destination] = None

    def reconfigure(self, limits: Limits) -> None:
        """Take new limits; what is under way beyond them ends by itself."""
        self.limits = limits
        for hop in self.hops.values():
            hop.window = min(hop.window, limits.window)

    def _leave(self, destination: Destination) -> None:
        hop = destination.hop
        hop.destinations.pop(destination, None)
        if destination.hungry:
            hop.line.remove(destination)
            destination.hungry = False
        if not hop.destinations and self.hops.get(hop.key) is hop:
            del self.hops[hop.key]

    # -- into memory

    def admits(self, destination: Destination, id: MessageId, octets: int, now: float) -> bool:
        """Say whether a new message may come to memory; its body has ``octets`` there."""
        hop = destination.hop
        room = self.limits.ready
        if destination.due <= now:
            room >>= 1
        if hop.ready >= room or hop.failures or now < hop.down_until:
            return False
        if id in destination.hands or id in destination.passed:
            return False
        return hop.ready < SHARE or (
            self.messages < self.limits.messages and self.octets + octets <= self.limits.octets
        )

    def put(self, destination: Destination, message: QueuedMessage, octets: int) -> None:
        """Make a message ready; :meth:`admits` said yes, or a reading brought it."""
        hop = destination.hop
        destination.hands.add(message.id)
        if not destination.ready:
            hop.turn.append(destination)
        destination.ready.append(message)
        hop.ready += 1
        self.messages += 1
        self.octets += octets
        if not hop.in_turn:
            hop.in_turn = True
            self._work.append(hop)

    def put_back(self, destination: Destination) -> None:
        """Take what is ready out of memory; it is still in the spool, and due."""
        if destination.ready:
            hop = destination.hop
            hop.turn.remove(destination)
            hop.ready -= len(destination.ready)
            self.messages -= len(destination.ready)
            for message in destination.ready:
                self.octets -= octets_in_memory(message)
                self.release(destination, message.id)
                destination.waiting += len(message.recipients)
            destination.ready.clear()
            destination.due = 0.0
            self.look(hop)

    # -- out of memory

    def next(self, now: float) -> tuple[QueuedMessage, Destination] | None:
        """Return what is to be attempted now and count it as active; None if nothing is."""
        work = self._work
        while work and self.active < self.limits.active:
            hop = work.popleft()
            if not hop.turn or hop.active >= hop.window or now < hop.down_until:
                hop.in_turn = False
                continue
            destination = hop.turn.popleft()
            message = destination.ready.popleft()
            if destination.ready:
                hop.turn.append(destination)
            work.append(hop)
            hop.ready -= 1
            self.messages -= 1
            hop.active += 1
            destination.active += 1
            self.active += 1
            if hop.line:
                self.look(hop)
            return message, destination
        return None

    def ended(self, destination: Destination, hop: NextHop, octets: int) -> None:
        """An attempt has ended: its connection is free, its body out of memory."""
        self.active -= 1
        hop.active -= 1
        destination.active -= 1
        self.octets -= octets
        if hop.turn and not hop.in_turn:
            hop.in_turn = True
            self._work.append(hop)
        if hop.line:
            self.look(hop)

    @staticmethod
    def release(destination: Destination, id: MessageId) -> None:
        """A message has left our hands: the spool knows what became of it."""
        destination.hands.discard(id)
        if destination.reading:
            destination.passed.add(id)

    # -- up and down

    def answered(self, hop: NextHop) -> bool:
        """A next hop has answered; returns True where it was down before."""
        if hop.failures:
            self.pardon(hop)
            hop.window = self._first_window()
            self.look(hop)
            return True
        if hop.window < self.limits.window:
            hop.window += 1
        return False

    def _first_window(self) -> int:
        return min(FIRST_WINDOW, self.limits.window)

    def fell(self, hop: NextHop, until: float) -> None:
        """A next hop is down: nothing is tried before ``until``, then one message."""
        hop.failures += 1
        hop.epoch += 1
        hop.window = 1
        hop.down_until = until
        hop.line.clear()
        for destination in hop.destinations:
            destination.hungry = False
            self.put_back(destination)

    def pardon(self, hop: NextHop) -> None:
        """Forget that a next hop was down; its window opens from one, as it answers."""
        hop.failures = 0
        hop.down_until = 0.0

    # -- refilling

    def note_due(self, destination: Destination, due: float) -> None:
        """The spool holds something of this domain that is due then."""
        destination.due = min(destination.due, due)

    @staticmethod
    def wake_time(destination: Destination) -> float:
        """Return when a domain is to be read; NEVER while it is, or stands in the line."""
        if destination.reading or destination.hungry:
            return NEVER
        return max(destination.due, destination.hop.down_until)

    def hunger(self, destination: Destination) -> None:
        """Put a domain whose time has come in the line for reading."""
        destination.hungry = True
        destination.hop.line.append(destination)
        self.look(destination.hop)

    def look(self, hop: NextHop) -> None:
        """Let a next hop have its turn at the spool again: it may have room now."""
        if hop.line and not hop.in_line and self._room(hop):
            hop.in_line = True
            self._hungry.append(hop)

    def next_reading(self) -> tuple[Destination, int] | None:
        """Return whose messages to read and how many; reserves the room for them."""
        hungry = self._hungry
        while hungry:
            hop = hungry.popleft()
            hop.in_line = False
            room = self._room(hop)
            if not hop.line or not room:
                continue
            destination = hop.line.popleft()
            destination.hungry = False
            limit = min(room, self.limits.page)
            destination.reading = True
            hop.ready += limit
            self.messages += limit
            self.look(hop)
            return destination, limit
        return None

    def read(self, destination: Destination, hop: NextHop, limit: int) -> set[MessageId]:
        """A reading has ended; gives the room back, returns whom to leave out."""
        destination.reading = False
        hop.ready -= limit
        self.messages -= limit
        self.look(hop)
        skip = destination.passed | destination.hands
        destination.passed = set()
        return skip

    def _room(self, hop: NextHop) -> int:
        """Return how many messages may be read for a next hop."""
        if hop.failures:
            return 0 if hop.active or hop.ready else 1
        limits = self.limits
        # Not for a few: a reading costs the same for one as for a page.
        if hop.ready > limits.ready - limits.ready // 4:
            return 0
        if self.messages >= limits.messages or self.octets >= limits.octets:
            return max(0, SHARE - hop.ready)
        return limits.ready - hop.ready


def octets_in_memory(message: QueuedMessage) -> int:
    """Return what the body of a message takes in memory."""
    body = message.body
    return body.octets if body.in_memory else 0
