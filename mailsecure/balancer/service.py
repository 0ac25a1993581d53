"""The load balancer as a service: every connection of an active-active node goes through it.

*A connection's way.*  It is accepted (:mod:`.accepting`).  Where it comes through a proxy
that we know, its PROXY header is read (:mod:`.waiting`).  The gateway's cheap checks have
their say (:class:`mailsecure.entrance.Front`): who is refused is refused here, and a
stranger waits here in silence, so a flood costs the cluster one accept a connection.  Then
it is decided: what came to a virtual address that we hold goes to whom the pool picks
(:mod:`.choosing`), everything else stays.  A peer that does not greet in time is no fault
that the client sees: the next one is asked, and at last the session is held here.

*What it costs.*  The way to a peer has no Deferred, no coroutine and no timer of its own:
one object (:class:`Passage`) goes from hand to hand.

*Start and stop.*  It starts after the gateway, whose sockets it reads.  At the stop the
doors close, who waits is given to the gateway (which says 421 then), and sessions with
peers may go on for ``drain_timeout``.

``assemble`` makes one where ``topology`` is active-active.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..background import Periodic, background
from ..config.model import Config
from ..entrance import Connection, Front, Place, Screening
from ..proxyproto.values import Header, Inet
from ..world import World
from .accepting import Door
from .api import Nodes
from .choosing import Change, Member, Pool, Rules, time_for
from .pipes import MAX_PIPES
from .probing import Probe
from .report import report
from .session import Session
from .splice import Address, Patience, Splicer
from .values import Ending, Failing
from .waiting import Anteroom, Guest

__all__ = ["BalancerParts", "LoadBalancer", "Passage"]

_log = Logger(namespace="balancer")

#: How often loads are read, probes sent and looked after, in seconds.
LOOK_INTERVAL = 0.25
#: Descriptors that are neither sessions of ours nor spliced.
SPARE_DESCRIPTORS = 300 + 2 * MAX_PIPES
#: Connections that may wait, whatever is granted.
MOST_WAITING = 10_000
#: Without an octet, a spliced session lasts so much longer (seconds) than any of ours:
#: its end is for the peer to say.
MARGIN = 60.0
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TOO_MANY = b"421 4.3.2 Too many connections, try again later\r\n"
_NOT_SCREENED = Screening(b"", 0.0, "")


@dataclass(frozen=True)
class BalancerParts:
    """What the balancer is given; ``count_here`` is how many sessions this node has."""

    world: World
    front: Front
    nodes: Nodes
    count_here: Callable[[], int]


class Passage:
    """One connection on its way, until it is here or its session with a peer is over.

    ``at`` is the address of ours that it came to, whatever a PROXY header says.
    """

    __slots__ = (
        "at", "began", "client", "deadline", "descriptor", "family", "here", "member",
        "screening", "tls", "tried",
    )  # fmt: skip

    def __init__(self, descriptor: int, family: int, tls: bool, client: Place, here: Place) -> None:
        self.descriptor = descriptor
        self.family = family
        self.tls = tls
        self.client = client
        self.here = here
        self.at = here[0]
        self.screening = _NOT_SCREENED
        self.deadline = 0.0
        self.tried: tuple[str, ...] = ()
        self.member: Member | None = None
        self.began = 0.0


class LoadBalancer(Service):
    """See the module's text."""

    name = "balancer"

    def __init__(self, parts: BalancerParts, config: Config) -> None:
        self._parts = parts
        self._clock = parts.world.clock
        self._front = parts.front
        self._nodes = parts.nodes
        self._doors: list[Door] = []
        #: The sockets at which clients arrive.
        self.sockets: list[socket.socket] = []
        self._probes: dict[Probe, Member] = {}
        self._addresses: dict[str, IPv4Address | IPv6Address] = {}
        self._look = Periodic(self._clock, LOOK_INTERVAL, "the look at the peers", self._look_at)
        self._take(config)
        self.splicer = Splicer(parts.world.reactor, self._clock, self._patience)
        self.pool = Pool(self._clock.seconds(), self._rules)
        #: Sessions with peers at once; set at the start.
        self._most_spliced = 0
        self._anteroom = Anteroom(self.splicer, self._clock, self, 0)

    # -- settings

    def _take(self, config: Config) -> None:
        cluster, smtp = config.cluster, config.smtp
        self._rules = Rules(
            cluster.balance,
            cluster.slow_start,
            cluster.adaptive,
            cluster.peer_sessions,
            cluster.connect_timeout,
        )
        self._drain_timeout = smtp.drain_timeout
        self._max_sessions = smtp.max_sessions
        longest = max(smtp.command_timeout, smtp.data_timeout)
        self._patience = Patience(idle=longest + MARGIN)

    def reconfigure(self, config: Config) -> None:
        """Take new settings; sessions go on."""
        self._take(config)
        self.splicer.patience = self._patience
        self.pool.reconfigure(self._clock.seconds(), self._rules)

    # -- life

    def startService(self) -> None:
        """Begin to accept."""
        super().startService()
        self.splicer.start()
        spare = max(0, _descriptors() - self._max_sessions - SPARE_DESCRIPTORS)
        # Each of them takes two descriptors.
        self._most_spliced = 3 * spare // 8
        self._anteroom.most = min(MOST_WAITING, spare // 4)
        # It may be long since we were made.
        self.pool = Pool(self._clock.seconds(), self._rules)
        self._changed()
        self._nodes.watch_backends(self._changed)
        for entrance in self._front.entrances:
            arrived = partial(self._arrived, entrance.tls, int(entrance.wire.family))
            door = Door(entrance.wire, self.splicer, self._clock, arrived)
            door.open()
            self._doors.append(door)
            self.sockets.append(entrance.wire)
        self._look.start()

    def stopService(self) -> Deferred[None]:
        """Accept no more; the Deferred fires when no session is left."""
        running = self.running
        super().stopService()
        doors, self._doors, self.sockets = self._doors, [], []
        for door in doors:
            door.close()
        self._anteroom.dismiss()
        return background("stopping the load balancer", self._stop(bool(running)))

    async def _stop(self, running: bool) -> None:
        ends = self._clock.seconds() + self._drain_timeout
        while running and self.splicer.sessions and self._clock.seconds() < ends:
            await deferLater(self._clock, 0.02)
        if running:
            self._look.stop()
        for probe in self._probes:
            probe.cancel()
        self._probes.clear()
        self.splicer.stop()

    # -- for those who drain it, and for status

    @property
    def sessions(self) -> int:
        """Connections that wait for somebody, and sessions that peers have through us."""
        return self.splicer.sessions + self._anteroom.guests

    @property
    def draining(self) -> bool:
        """Whether this node itself gets no sessions, whatever its weight."""
        return self.pool.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._tell(self.pool.drain(self._clock.seconds(), draining))

    def report(self) -> dict[str, Any]:
        """Return what :mod:`.report` describes."""
        now, wall = self._clock.seconds(), self._parts.world.wall()
        return report(self.pool, now, wall, self._parts.count_here()) | {
            "spliced": self.splicer.sessions,
            "waiting": self._anteroom.guests,
        }

    # -- a connection's way

    def _arrived(
        self, tls: bool, family: int, descriptor: int, client: Sequence[Any], here: Sequence[Any]
    ) -> None:
        """Take a connection from a door."""
        passage = Passage(descriptor, family, tls, _place(client), _place(here))
        if not self._front.expects_header(passage.client[0]):
            self._screen(passage)
        elif not self._anteroom.read_header(passage):
            socket.close(descriptor)

    def introduced(self, guest: Guest, header: Header) -> None:
        """Its PROXY header has been read (:class:`.waiting.Host`)."""
        assert isinstance(guest, Passage)
        source, destination = header.source, header.destination
        if isinstance(source, Inet) and isinstance(destination, Inet):
            guest.client = _unmapped(str(source.address)), source.port
            guest.here = _unmapped(str(destination.address)), destination.port
        self._screen(guest)

    def misled(self, guest: Guest, reason: str) -> None:
        """It had none (:class:`.waiting.Host`)."""
        assert isinstance(guest, Passage)
        if reason:
            _log.warn("{client}: {reason}", client=guest.client[0], reason=reason)

    def _screen(self, passage: Passage) -> None:
        screening = passage.screening = self._front.screen(passage.client)
        if screening.refusal:
            self._refuse(passage, screening.refusal)
        elif passage.tls or screening.delay <= 0.0:
            self._decide(passage)
        elif not self._anteroom.keep_silent(passage, screening.delay):
            self._front.left(screening)
            self._refuse(passage, _TOO_MANY)

    def _refuse(self, passage: Passage, reply: bytes) -> None:
        # Who begins with TLS could not read it.
        self._anteroom.refuse(passage.descriptor, b"" if passage.tls else reply)

    def waited(self, guest: Guest) -> None:
        """It was silent (:class:`.waiting.Host`)."""
        assert isinstance(guest, Passage)
        self._decide(guest)

    def talked(self, guest: Guest) -> None:
        """It was not (:class:`.waiting.Host`)."""
        assert isinstance(guest, Passage)
        self._refuse(guest, self._front.talked_early(guest.client, guest.screening))

    def vanished(self, guest: Guest) -> None:
        """It did not wait (:class:`.waiting.Host`)."""
        assert isinstance(guest, Passage)
        self._front.left(guest.screening)

    def _decide(self, passage: Passage) -> None:
        room = self.splicer.sessions < self._most_spliced
        if room and self.running and self._nodes.holds(passage.at):
            passage.deadline = self._clock.seconds() + self._rules.connect_timeout
            self._ask_next(passage)
        else:
            self._keep(passage)

    def _ask_next(self, passage: Passage) -> None:
        """Let the next peer try, or have the session here."""
        now = self._clock.seconds()
        tried = passage.tried
        within = time_for(len(tried), passage.deadline - now)
        member = self.pool.pick(now, tried, self._parts.count_here()) if within else None
        if member is None:
            self.pool.stays()
            self._keep(passage)
            return
        passage.member = member
        passage.began = now
        source, destination = passage.client, passage.here
        header = self._nodes.sealer.proxy(
            member.backend.incarnation,
            _address(source[0]),
            source[1],
            self._destination(destination[0]),
            destination[1],
        )
        answer = b"+" if passage.tls else b""
        where = _where(member)
        self.splicer.splice(
            passage.descriptor, where, header, self, passage, within=within, answer=answer
        )

    def _destination(self, text: str) -> IPv4Address | IPv6Address:
        """Remember addresses of ours: there are few."""
        known = self._addresses.get(text)
        if known is None:
            if len(self._addresses) >= 1000:
                self._addresses.clear()
            known = self._addresses[text] = _address(text)
        return known

    def _keep(self, passage: Passage) -> None:
        connection = Connection(
            passage.descriptor, passage.family, passage.tls, passage.client, passage.here
        )
        self._front.adopt(connection, passage.screening)

    # -- a session with a peer (:class:`.session.Caller`)

    def opened(self, session: Session) -> None:
        """The peer greeted."""
        passage = session.tag
        assert isinstance(passage, Passage) and passage.member is not None
        self.pool.greeted(passage.member)

    def failed(self, session: Session, client: int, why: Failing) -> None:
        """It did not: try the next."""
        passage = session.tag
        assert isinstance(passage, Passage) and passage.member is not None
        member, passage.member = passage.member, None
        self._tell(self.pool.failed(self._clock.seconds(), member, why))
        if why is Failing.OURS:
            self.pool.stays()
            self._keep(passage)
        else:
            passage.tried += (member.name,)
            self._ask_next(passage)

    def ended(self, session: Session, why: Ending) -> None:
        """The session is over, both sockets are closed."""
        passage = session.tag
        assert isinstance(passage, Passage) and passage.member is not None
        octets_in, octets_out = session.octets
        self.pool.ended(passage.member, octets_in, octets_out)
        self._front.left(passage.screening)
        _log.info(
            "{client}: with {node} for {seconds} s, {octets_in} octets in, {octets_out} out: {end}",
            client=passage.client[0],
            node=passage.member.name,
            seconds=round(self._clock.seconds() - passage.began, 3),
            octets_in=octets_in,
            octets_out=octets_out,
            end=why.value,
        )

    # -- the peers

    def _changed(self) -> None:
        """The cluster's word: something is different with a node."""
        self._tell(self.pool.update(self._clock.seconds(), self._nodes.backends()))

    def _look_at(self) -> None:
        now = self._clock.seconds()
        for probe in [each for each in self._probes if each.deadline <= now]:
            probe.expire()
        self._changed()
        self.pool.sample(now)
        for member in self.pool.to_probe(now):
            header = self._nodes.sealer.local(member.backend.incarnation)
            deadline = now + self._rules.connect_timeout
            probe = Probe(self.splicer, header, deadline, self._probed)
            self._probes[probe] = member
            probe.start(_where(member))

    def _probed(self, probe: Probe, why: Failing | None) -> None:
        member = self._probes.pop(probe)
        self._tell(self.pool.probed(self._clock.seconds(), member, why))

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            if change.why:
                _log.warn("{node} gets no sessions: {reason}", node=change.node, reason=change.why)
            else:
                _log.info("{node} gets sessions", node=change.node)


def _where(member: Member) -> Address:
    """Return where a peer takes sessions of others."""
    address = member.backend.address
    family = _INET if address.version == 4 else _INET6
    return family, (str(address), member.backend.port)


def _place(raw: Sequence[Any]) -> Place:
    """Return an address as the gateway wants it, of what the kernel gave."""
    return _unmapped(raw[0]), raw[1]


def _unmapped(text: str) -> str:
    return text[7:] if text.startswith("::ffff:") and "." in text else text


def _address(text: str) -> IPv4Address | IPv6Address:
    if ":" in text:
        return IPv6Address(text.partition("%")[0])
    return IPv4Address(text)


def _descriptors() -> int:
    """Return how many descriptors we may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
