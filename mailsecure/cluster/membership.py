"""Who is there, and whose word counts (pure).

:mod:`.hello` says whether a datagram was made by a node of this cluster; that alone says
nothing of *when*.  :class:`Membership` says whether it counts now.  :mod:`.service` gives
it every hello that was well signed, and asks it what to say of the others in ours.

**The clock is our own sequence numbers.**  Every hello echoes each node that its sender
hears: that node's incarnation, and the last sequence heard of it.  We remember when we
sent each of ours; so what a hello echoes of us tells that it was not made before that
moment.  No clock but our own monotonic one is trusted.  The incarnation of a node is
*adopted* when

1. it echoes our present incarnation *freshly*, with a sequence that we sent within the
   last :data:`FRESH` hello intervals of ours;
2. that sequence is higher than any that was echoed under this name before; and
3. it was not replaced by the one adopted now; unless that has been silent for as long as
   an echo is fresh.

From then on each of its hellos counts whose sequence is higher than the last.  An
incarnation that is not adopted yet is only *noted*: our next hello echoes it, which is how
two nodes prove themselves to each other within a round trip.

**What somebody can do who records everything and sends it again**, without the key:

* *What we took before* is never taken again.  Of the adopted incarnation, its sequence is
  not higher; of any other, its echo is not (2).  Nothing needs to be
  remembered of old incarnations for that.  A peer that is forgotten was silent for so long
  that all it ever echoed is stale (1).
* *What was meant for an earlier life of ours* echoes another incarnation of ours.
* *What an earlier life of a peer said, and never reached us* would have to be fresh, and
  newer than all that the new life echoed: only while he also keeps back every hello of the
  new life that echoes anything from after its birth, and not for longer than
  :data:`FRESH` intervals.  Should he succeed, the true node is believed again as soon
  after; the dead one never returns by (3), because its successor spoke after its death,
  so when that has been silent for long enough, every echo of the dead one is stale.
* *What a living peer says, kept back and delivered late*, counts once each and in order.
  Its echo of us is old then, so after :data:`DEAF` intervals it is marked deaf: no node
  becomes Master by it, at worst one waits or steps back (see :mod:`.election`) for as long
  as he has some left.  Who can keep datagrams back can have that by cutting the cable.
* *Old incarnations in great number* fill only what is noted, which is bounded, and make
  us answer, which the service bounds.  More than :data:`NOTED` of one name between two of
  our hellos can keep a newcomer of that name from being echoed for as long as the flood
  lasts; who is adopted is not touched.
* *Our own*, come back, are ignored; those of an earlier life look like a node that has
  our name, which is an alarm and no more.

Two living nodes with one name cannot change places at each hello, by (3): the others know
the one that started last, for as long as it speaks.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, islice, zip_longest

from ..config.model import NodeRole
from .hello import MOST_HEARD, Drop, Rejected
from .values import Fitness, GroupHello, Heard, Hello, Role, View

__all__ = ["Accepted", "Membership", "Noted", "Peer"]

#: Intervals of ours within which an echo of us is fresh.
FRESH = 10
#: Intervals of ours after which a peer that did not echo a newer hello is deaf.
DEAF = 4
#: Intervals of its own after which a node that was not heard is not alive.
ALIVE = 4
#: Seconds after which a peer that was not heard is forgotten.
FORGET = 600.0
#: Peers, and names and incarnations of each that are noted.  A hello echoes all peers and
#: has room for some that are not peers yet.
PEERS = 24
NAMES = 32
NOTED = 8
#: Sequences of ours whose time is remembered: FRESH intervals' worth, answers included.
REMEMBERED = 256
#: Replaced incarnations of a peer that are remembered, for (3).
REPLACED = 8


@dataclass(frozen=True, slots=True)
class Accepted:
    """The hello counts.

    ``new``: its incarnation was adopted just now; ``deaf``: its sender does not hear us;
    ``back``: it was not heard for so long that it did not count as alive.
    """

    new: bool
    deaf: bool
    back: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """The hello does not count yet: answer soon, so that its sender can prove itself."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of a peer at one moment; what it says of itself is as in :class:`Hello`.

    ``source`` is the address its last hello came from.  ``last_heard`` is how long ago
    that was, ``round_trip`` and ``clock_offset`` (its wall clock less ours) are as
    measured with the last hello that told; all in seconds.  ``hears`` names the nodes that
    it hears, as far as we know them; ``deaf``: we are not among them.  ``incarnations``
    counts the lives we have seen: 1 if it did not restart.
    """

    node: str
    address: IPv4Address | IPv6Address
    source: str
    link_port: int
    peer_port: int
    incarnation: int
    version: str
    role: NodeRole
    weight: int
    load: int
    fitness: Fitness
    uptime: float
    groups: tuple[GroupHello, ...]
    last_heard: float
    round_trip: float
    clock_offset: float
    alive: bool
    deaf: bool
    hears: tuple[str, ...]
    incarnations: int


class _Known:
    """A peer: an adopted incarnation, and what outlives it."""

    __slots__ = (
        "clock_offset",
        "deaf",
        "echo_sent",
        "echoed",
        "gone",
        "heard",
        "hello",
        "incarnations",
        "replaced",
        "round_trip",
        "source",
    )

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.source = ""
        self.heard = 0.0
        #: The highest sequence of ours that was echoed under this name, and when we sent it.
        self.echoed = 0
        self.echo_sent = 0.0
        self.round_trip = self.clock_offset = 0.0
        self.deaf = self.gone = False
        self.incarnations = 0
        self.replaced: deque[int] = deque(maxlen=REPLACED)

    def alive(self, now: float) -> bool:
        return not self.gone and now - self.heard <= ALIVE * self.hello.interval

    def said_of(self, group: str) -> GroupHello | None:
        for each in self.hello.groups:
            if each.name == group:
                return each
        return None


class _Stranger:
    """An incarnation that is noted, from its first hello to its adoption."""

    __slots__ = ("heard", "incarnation", "interval", "sequence", "since")

    def __init__(self, incarnation: int, now: float) -> None:
        self.incarnation = incarnation
        self.sequence = 0
        self.interval = 0.0
        self.since = self.heard = now


class Membership:
    """All nodes, as one of them sees them.

    ``interval`` is how often this node says hello, in seconds; it may be set anew.
    ``incarnation`` is drawn at random (64 bits) for each Membership.  ``drops`` counts
    what :meth:`receive` rejected.
    """

    def __init__(self, node: str, interval: float, incarnation: int) -> None:
        self.node = node
        self.interval = interval
        self.incarnation = incarnation
        self.drops: Counter[Drop] = Counter()
        self._sequence = 0
        self._sent = [0.0] * REMEMBERED
        self._peers: dict[str, _Known] = {}
        #: Name → incarnation → what is noted; in both the longest unheard comes first.
        self._strangers: dict[str, dict[int, _Stranger]] = {}

    # -- what we say

    def next_sequence(self, now: float) -> int:
        """Return the sequence of a hello of ours that is sent at ``now``, from 1."""
        self._sequence += 1
        self._sent[self._sequence % REMEMBERED] = now
        return self._sequence

    def heard(self, now: float) -> tuple[Heard, ...]:
        """Return whom our next hello is to echo: never more than one can hold."""
        self.forget(now)
        peers = (
            (each.hello.incarnation, each.hello.sequence, each.heard)
            for each in self._peers.values()
            if each.alive(now)
        )
        # The latest incarnation of each name first, so that no name crowds out another.
        rows = (reversed(each.values()) for each in reversed(self._strangers.values()))
        strangers = (
            (each.incarnation, each.sequence, each.heard)
            for each in chain.from_iterable(zip_longest(*rows))
            if each is not None
        )
        return tuple(
            Heard(incarnation, sequence, max(0.0, now - heard))
            for incarnation, sequence, heard in islice(chain(peers, strangers), MOST_HEARD)
        )

    # -- what they say

    def receive(self, now: float, wall: float, hello: Hello, source: str) -> Accepted | Noted:
        """Take a hello that was well signed; raise :class:`Rejected` if it is to be ignored.

        ``now`` is monotonic, ``wall`` Unix time; ``source`` is the sender's address.
        """
        try:
            return self._receive(now, wall, hello, source)
        except Rejected as rejected:
            self.drops[rejected.reason] += 1
            raise

    def _receive(self, now: float, wall: float, hello: Hello, source: str) -> Accepted | Noted:
        if hello.node == self.node:
            own = hello.incarnation == self.incarnation
            raise Rejected(Drop.OWN if own else Drop.SAME_NAME)
        known = self._peers.get(hello.node)
        echo = self._echo(hello)
        if known is not None and known.hello.incarnation == hello.incarnation:
            if hello.sequence <= known.hello.sequence:
                raise Rejected(Drop.REPLAYED)
            new, back = False, not known.alive(now)
        elif self._may_adopt(now, known, hello.incarnation, echo):
            known = self._adopt(now, known, hello)
            new, back = True, False
        else:
            return self._note(now, known, hello)
        known.hello = hello
        known.source = source
        known.heard = now
        known.gone = False
        if echo is not None:
            self._measure(now, wall, known, echo)
        known.deaf = now - known.echo_sent > DEAF * self.interval
        return Accepted(new, known.deaf, back)

    def _echo(self, hello: Hello) -> Heard | None:
        """Return what ``hello`` echoes of us, if we know when we sent that."""
        for each in hello.heard:
            if each.incarnation == self.incarnation:
                known = self._sequence - REMEMBERED < each.sequence <= self._sequence
                return each if known and each.sequence > 0 else None
        return None

    def _sent_at(self, echo: Heard) -> float:
        return self._sent[echo.sequence % REMEMBERED]

    def _may_adopt(
        self, now: float, known: _Known | None, incarnation: int, echo: Heard | None
    ) -> bool:
        """Say whether the three rules of the module's text allow it."""
        fresh = FRESH * self.interval
        if echo is None or now - self._sent_at(echo) > fresh:
            return False
        if known is None:
            return True
        if echo.sequence <= known.echoed:
            return False
        return incarnation not in known.replaced or now - known.heard > fresh

    def _adopt(self, now: float, known: _Known | None, hello: Hello) -> _Known:
        if known is None:
            self._make_room(now)
            known = self._peers[hello.node] = _Known(hello)
        else:
            known.replaced.append(known.hello.incarnation)
        known.incarnations += 1
        noted = self._strangers.get(hello.node, {})
        noted.pop(hello.incarnation, None)
        return known

    def _make_room(self, now: float) -> None:
        """Have room for one more peer, if need be that of one silent for long enough."""
        if len(self._peers) < PEERS:
            return
        node, known = min(self._peers.items(), key=lambda item: item[1].heard)
        if known.alive(now) or now - known.heard <= FRESH * self.interval:
            raise Rejected(Drop.TOO_MANY)
        del self._peers[node]

    def _measure(self, now: float, wall: float, known: _Known, echo: Heard) -> None:
        sent = self._sent_at(echo)
        known.round_trip = max(0.0, now - sent - echo.held)
        known.clock_offset = known.hello.wall + known.round_trip / 2 - wall
        if echo.sequence > known.echoed:
            known.echoed = echo.sequence
            known.echo_sent = sent

    def _note(self, now: float, known: _Known | None, hello: Hello) -> Noted:
        """Note an incarnation that is not adopted, forgetting another if there are many."""
        if known is not None and hello.incarnation in known.replaced:
            raise Rejected(Drop.REPLAYED)
        noted = self._strangers.pop(hello.node, {})
        stranger = noted.pop(hello.incarnation, None) or _Stranger(hello.incarnation, now)
        replayed = hello.sequence <= stranger.sequence
        if not replayed:
            stranger.sequence = hello.sequence
            stranger.interval = hello.interval
            stranger.heard = now
        noted[hello.incarnation] = stranger
        self._strangers[hello.node] = noted
        if len(noted) > NOTED:
            del noted[next(iter(noted))]
        if len(self._strangers) > NAMES:
            del self._strangers[next(iter(self._strangers))]
        if replayed:
            raise Rejected(Drop.REPLAYED)
        if now - stranger.since > FRESH * self.interval:
            # It heard nothing of us for all that time: to answer it at once is no use.
            raise Rejected(Drop.STRANGE)
        return Noted()

    def gone(self, node: str) -> None:
        """Take it that ``node`` ended, until it says hello again."""
        if node in self._peers:
            self._peers[node].gone = True

    def forget(self, now: float) -> None:
        """Forget who was not heard for long; :meth:`heard` does this each time."""
        # An echo must be stale before what prevents its replay is forgotten.
        long = max(FORGET, FRESH * self.interval)
        for node in [node for node, each in self._peers.items() if now - each.heard > long]:
            del self._peers[node]
        for node, noted in list(self._strangers.items()):
            for each in list(noted.values()):
                if now - each.heard > min(FORGET, ALIVE * each.interval):
                    del noted[each.incarnation]
            if not noted:
                del self._strangers[node]

    # -- what is seen

    def view(
        self,
        group: str,
        now: float,
        priority: int,
        address: IPv4Address | IPv6Address,
        master: str | None,
    ) -> View:
        """Return what is seen of the other candidates for ``group``.

        ``priority`` and ``address`` are ours.  ``master`` is the node whose place is to be
        taken: it does not stand in the way of an heir.
        """
        ours = _rank(priority, address)
        heir = heard = True
        others = False
        for node, each in self._peers.items():
            said = each.said_of(group)
            if said is None or said.role is Role.INIT or not said.priority:
                continue
            if each.hello.role is NodeRole.SCANNER or not each.alive(now):
                continue
            others = True
            heard = heard and not each.deaf
            if node != master and _rank(said.priority, each.hello.address) > ours:
                heir = False
        return View(heir, heard, others)

    def places(self) -> dict[str, tuple[str, int]]:
        """Return where each peer takes links: its node → (address, port)."""
        return {
            node: (str(each.hello.address), each.hello.link_port)
            for node, each in self._peers.items()
            if each.hello.link_port
        }

    def peers(self, now: float) -> tuple[Peer, ...]:
        """Return what is known of each peer, in the order of their names."""
        names = {each.hello.incarnation: node for node, each in self._peers.items()}
        names[self.incarnation] = self.node
        return tuple(self._peer(now, self._peers[node], names) for node in sorted(self._peers))

    def _peer(self, now: float, known: _Known, names: dict[int, str]) -> Peer:
        hello = known.hello
        hears = {names[each.incarnation] for each in hello.heard if each.incarnation in names}
        return Peer(
            node=hello.node,
            address=hello.address,
            source=known.source,
            link_port=hello.link_port,
            peer_port=hello.peer_port,
            incarnation=hello.incarnation,
            version=hello.version,
            role=hello.role,
            weight=hello.weight,
            load=hello.load,
            fitness=hello.fitness,
            uptime=hello.uptime,
            groups=hello.groups,
            last_heard=now - known.heard,
            round_trip=known.round_trip,
            clock_offset=known.clock_offset,
            alive=known.alive(now),
            deaf=known.deaf,
            hears=tuple(sorted(hears)),
            incarnations=known.incarnations,
        )


def _rank(priority: int, address: IPv4Address | IPv6Address) -> tuple[int, int, int]:
    """Return what decides between two candidates (RFC 9568 §6.4.3): the greater wins."""
    return priority, address.version, int(address)
