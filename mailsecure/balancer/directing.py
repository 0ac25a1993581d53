"""The way of a connection: from a door to a peer, or to the gateway here.

Where it comes through a proxy that we know, its PROXY header is read (:mod:`.waiting`).
The gateway's cheap checks have their say (:class:`mailsecure.entrance.Front`): who is
refused is refused here, and a stranger waits here in silence, so a flood costs the cluster
one accept a connection.  Then it is decided: what came to a virtual address that we hold
goes to whom the pool picks (:mod:`.choosing`), everything else stays.  A peer that does
not greet in time is no fault that the client sees: the next one is asked, and at last the
session is held here.

The way to a peer has no Deferred, no coroutine and no timer of its own: one object
(:class:`Passage`) goes from hand to hand.

:class:`.service.LoadBalancer` makes one :class:`Director`, and its doors call it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..counters import Counters
from ..entrance import Connection, Front, Place, Screening
from ..proxyproto.values import Header, Inet
from .api import Nodes
from .choosing import Change, Member, Pool, time_for
from .session import Session
from .splice import Address, Splicer
from .values import Ending, Failing
from .waiting import Anteroom, Guest

__all__ = ["Director", "Passage", "place_of", "tell"]

_log = Logger(namespace="balancer")

#: Addresses of ours that are remembered, and destinations that proxies name.
MAX_OURS = 1000
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TOO_MANY = b"421 4.3.2 Too many connections, try again later\r\n"
_NOT_SCREENED = Screening(b"", 0.0, "")


#: An address as the kernel gives it.
Raw = tuple[Any, ...]


class Passage:
    """One connection on its way, until it is here or its session with a peer is over.

    ``at`` is the address of ours that it came to, whatever a PROXY header says.
    """

    __slots__ = (
        "at", "began", "client", "descriptor", "family", "here", "member", "screening", "tls",
        "tried",
    )  # fmt: skip

    def __init__(self, descriptor: int, family: int, tls: bool, client: Place, here: Place) -> None:
        self.descriptor = descriptor
        self.family = family
        self.tls = tls
        self.client = client
        self.here = here
        self.at = here[0]
        self.screening = _NOT_SCREENED
        self.tried: tuple[str, ...] = ()
        self.member: Member | None = None
        #: When it was decided that a peer may have it.
        self.began = 0.0


class Director:
    """Takes connections (:class:`.waiting.Host`) and sessions (:class:`.session.Caller`).

    ``count_here`` returns how many sessions this node has.
    """

    def __init__(
        self,
        clock: IReactorTime,
        front: Front,
        nodes: Nodes,
        pool: Pool,
        splicer: Splicer,
        count_here: Callable[[], int],
        counters: Counters,
    ) -> None:
        self._clock = clock
        self._front = front
        self._nodes = nodes
        self._pool = pool
        self._splicer = splicer
        self._count_here = count_here
        self._counters = counters
        self._ours: dict[Raw, Place] = {}
        self._destinations: dict[str, IPv4Address | IPv6Address] = {}
        self.anteroom = Anteroom(splicer, clock, self, 0)
        #: Sessions that peers may have through us at once; the service says.
        self.most = 0

    # -- a connection's way

    def arrived(self, tls: bool, family: int, descriptor: int, client: Raw, here: Raw) -> None:
        """Take a connection from a door."""
        # Ours are few, and need not be kept once a session.
        ours = self._ours.get(here)
        if ours is None:
            if len(self._ours) >= MAX_OURS:
                self._ours.clear()
            ours = self._ours[here] = _place(here)
        passage = Passage(descriptor, family, tls, _place(client), ours)
        if not self._front.expects_header(passage.client[0]):
            self._screen(passage)
        elif not self.anteroom.read_header(passage):
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
        elif not self.anteroom.keep_silent(passage, screening.delay):
            self._front.left(screening)
            self._refuse(passage, _TOO_MANY)

    def _refuse(self, passage: Passage, reply: bytes) -> None:
        # Who begins with TLS could not read it.
        self.anteroom.refuse(passage.descriptor, b"" if passage.tls else reply)

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
        room = self._splicer.sessions < self.most
        if room and self._nodes.holds(passage.at):
            passage.began = self._clock.seconds()
            self._ask_next(passage)
        else:
            self._keep(passage)

    def _ask_next(self, passage: Passage) -> None:
        """Let the next peer try, or have the session here."""
        now = self._clock.seconds()
        tried = passage.tried
        left = passage.began + self._pool.rules.connect_timeout - now
        within = time_for(len(tried), left)
        member = self._pool.pick(now, tried, self._count_here()) if within else None
        if member is None:
            self._pool.stays()
            self._keep(passage)
            return
        passage.member = member
        source, destination = passage.client, passage.here
        header = self._nodes.sealer.proxy(
            member.backend.incarnation,
            _address(source[0]),
            source[1],
            self._destination(destination[0]),
            destination[1],
            passage.tls,
        )
        answer = b"+" if passage.tls else b""
        where = place_of(member)
        self._splicer.splice(
            passage.descriptor, where, header, self, passage, within=within, answer=answer
        )

    def _destination(self, text: str) -> IPv4Address | IPv6Address:
        """Return the address of its text; remember it."""
        known = self._destinations.get(text)
        if known is None:
            if len(self._destinations) >= MAX_OURS:
                self._destinations.clear()
            known = self._destinations[text] = _address(text)
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
        self._pool.greeted(passage.member)
        self._counters.sessions_shared += 1

    def failed(self, session: Session, client: int, why: Failing) -> None:
        """It did not: try the next."""
        passage = session.tag
        assert isinstance(passage, Passage) and passage.member is not None
        self._counters.sessions_shared_in_vain += 1
        member, passage.member = passage.member, None
        tell(self._pool.failed(self._clock.seconds(), member, why))
        if why is Failing.OURS:
            self._pool.stays()
            self._keep(passage)
        else:
            passage.tried += (member.name,)
            self._ask_next(passage)

    def ended(self, session: Session, why: Ending) -> None:
        """The session is over, both sockets are closed."""
        passage = session.tag
        assert isinstance(passage, Passage) and passage.member is not None
        octets_in, octets_out = session.octets
        self._counters.octets_shared += octets_in + octets_out
        self._pool.ended(passage.member, octets_in, octets_out)
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


def tell(changes: Iterable[Change]) -> None:
    """Log who gets sessions since now, and who gets none."""
    for change in changes:
        if change.why:
            _log.warn("{node} gets no sessions: {reason}", node=change.node, reason=change.why)
        else:
            _log.info("{node} gets sessions", node=change.node)


def place_of(member: Member) -> Address:
    """Return where a peer takes sessions of others."""
    family = _INET6 if ":" in member.address else _INET
    return family, (member.address, member.backend.port)


def _place(raw: Raw) -> Place:
    """Return an address as the gateway wants it, of what the kernel gave."""
    return _unmapped(raw[0]), raw[1]


def _unmapped(text: str) -> str:
    return text[7:] if text.startswith("::ffff:") and "." in text else text


def _address(text: str) -> IPv4Address | IPv6Address:
    """Return an address of its text; in a fifth of the time that ipaddress takes to read it."""
    if ":" in text:
        return IPv6Address(socket.inet_pton(_INET6, text.partition("%")[0]))
    return IPv4Address(socket.inet_pton(_INET, text))
