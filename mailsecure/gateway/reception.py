"""How sessions come in, and what they begin with.

There are four ways, and a session is the same from there on (:meth:`Reception._begin`):

* by a port of Twisted's: ``[smtp] listen`` and ``listen_tls``;
* by such a port through a proxy that we know, after its header (:mod:`.doorstep`);
* from the load balancer, which accepts in our stead where nodes share the sessions, and to
  which this is :class:`~mailsecure.entrance.Front`;
* from the load balancer of another node (:mod:`.passed`).

Who came, and to which address of ours, is what the connection says in the first case, and
what a header or the load balancer says in the others.

:class:`.service.Gateway` makes one :class:`Reception`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..entrance import Connection, Entrance, Place, Screening
from ..proxyproto.reading import HeaderReader
from ..proxyproto.values import Header
from ..smtp.commands import Offer
from ..smtp.replies import Reply
from ..smtp.server import ServerMachine
from ..smtp.serving import EARLY_TALKER, Patience, SmtpServerProtocol
from .desk import Client, Desk
from .doorstep import Doorstep, Stranger, hand_over
from .limits import client_key
from .networks import NetworkList
from .passed import ends_of
from .relaying import literal_of
from .session import GatewaySession
from .tls import ServerTls

__all__ = ["Builder", "Reception", "Terms"]

_log = Logger(namespace="smtpd")

#: Connections of proxies that may wait for their header.
MOST_WAITING = 1000
NO_TLS = Reply(421, "4.3.2", "There is no certificate for TLS here")
#: A session that another node passed on: it was screened there, and is counted there.
PASSED = Screening(b"", 0.0, "")


@dataclass(frozen=True, slots=True)
class Terms:
    """What sessions begin with, as the ini says; another one at each reload."""

    offer: Offer
    patience: Patience
    greeting_delay: float
    #: What STARTTLS uses, None where it is not offered; and what TLS from the start does.
    tls: ServerTls | None
    tls_factory: TLSMemoryBIOFactory | None
    relay_networks: NetworkList
    proxies: NetworkList
    #: Whose bare newlines are mended.
    mended: NetworkList
    #: Whose mail is not scanned: who comes from there, and who arrives at such a place.
    relay_only: NetworkList
    relay_only_places: frozenset[Place]


class Builder(ServerFactory):
    """Twisted's factory of what ``build`` returns."""

    noisy = False

    def __init__(self, build: Callable[[IAddress | None], IProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted's question for each connection."""
        return self._build(addr)


class Reception:
    """Makes the sessions of one gateway."""

    def __init__(
        self,
        reactor: Any,
        desk: Desk,
        terms: Terms,
        sessions: set[SmtpServerProtocol],
        over: Callable[[], None],
    ) -> None:
        """``sessions`` are those that are open; ``over`` is called when none is left."""
        self._reactor = reactor
        self._clock = desk.clock
        self._desk = desk
        self._over = over
        self.terms = terms
        self._sessions = sessions
        #: Where the load balancer is to accept, once the gateway is bound.
        self.entrances: Sequence[Entrance] = ()
        self._doorstep = Doorstep(self._clock, MOST_WAITING, self._introduced, self._misled)

    def close(self) -> None:
        """Cut off who is not a session yet."""
        self._doorstep.close()

    # -- sessions

    def arrived(self, tls: bool, where: IAddress | None) -> IProtocol:
        """Return the protocol of a connection at a port of Twisted's."""
        proxies = self.terms.proxies
        if proxies and _plain(getattr(where, "host", "")) in proxies:
            return self._doorstep.stranger(HeaderReader(), tls)
        return self._protocol(tls, self._open)

    def _protocol(self, tls: bool, opened: Callable[[SmtpServerProtocol], None]) -> IProtocol:
        """Return the protocol of a new session; ``opened`` is to call :meth:`_begin`."""
        terms = self.terms
        machine = ServerMachine(terms.offer, tls=tls)
        protocol = SmtpServerProtocol(
            self._clock, machine, terms.patience, terms.tls, opened, self._closed
        )
        if not tls:
            return protocol
        factory = terms.tls_factory
        assert factory is not None
        wrapped: IProtocol = factory.protocol(factory, protocol)
        return wrapped

    def _open(self, protocol: SmtpServerProtocol) -> None:
        """Begin a session whose ends are those of its connection."""
        transport = protocol.transport
        peer = transport.getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            address, port = _plain(peer.host), peer.port
            host = transport.getHost()
            here = (_plain(host.host), host.port)
        else:
            # A Unix socket: who may open it is for the file system to say.
            address, port = "127.0.0.1", 0
            here = ("", 0)
        client = Client(
            address,
            port,
            client_key(address),
            lambda: literal_of(getattr(transport.getHost(), "host", "127.0.0.1")),
            address in self.terms.relay_networks,
            relay_only=self._relay_only(address, here),
        )
        self._begin(client, self._greeting_delay(client.key, client.trusted), None, protocol)

    def _client(self, client: Place, here: Place, via: str = "") -> Client:
        address, port = client
        trusted = address in self.terms.relay_networks
        return Client(
            address,
            port,
            client_key(address),
            lambda: literal_of(here[0]),
            trusted,
            via,
            self._relay_only(address, here),
        )

    def _relay_only(self, address: str, here: Place) -> bool:
        """Say whether mail of a client at ``address`` that arrives ``here`` is not scanned."""
        places = self.terms.relay_only_places
        if places and not places.isdisjoint((here, ("0.0.0.0", here[1]), ("::", here[1]))):  # noqa: S104
            return True
        return address in self.terms.relay_only

    def _begin(
        self,
        client: Client,
        delay: float,
        screening: Screening | None,
        protocol: SmtpServerProtocol,
    ) -> None:
        self._sessions.add(protocol)
        session = GatewaySession(self._desk, client, screening)
        protocol.begin(session, delay, normalise=client.address in self.terms.mended)

    def _greeting_delay(self, key: str, trusted: bool) -> float:
        delay, desk = self.terms.greeting_delay, self._desk
        if delay and (trusted or desk.limits.is_known(key, self._clock.seconds())):
            return 0.0
        return delay

    def _closed(self, protocol: SmtpServerProtocol) -> None:
        self._sessions.discard(protocol)
        if not self._sessions:
            self._over()

    # -- through a proxy that we know

    def _introduced(self, stranger: Stranger, header: Header) -> None:
        ends = ends_of(header)
        if ends is None:
            opened = self._open
        else:
            client = self._client(*ends)
            delay = self._greeting_delay(client.key, client.trusted)
            opened = partial(self._begin, client, delay, None)
        hand_over(stranger, self._protocol(stranger.tls, opened))

    def _misled(self, stranger: Stranger, why: str) -> None:
        _log.warn(
            "closed the connection of proxy [{client}]: {reason}",
            client=stranger.address,
            reason=why,
        )

    # -- from the load balancer (:class:`mailsecure.entrance.Front`)

    def expects_header(self, address: str) -> bool:
        """Say whether a connection from there must begin with a PROXY header."""
        return address in self.terms.proxies

    def screen(self, client: Place) -> Screening:
        """Check a client that has just connected, log a refusal, and count its session."""
        address = client[0]
        key, trusted = client_key(address), address in self.terms.relay_networks
        refusal = self._desk.turn_away(address, key, trusted, here=False)
        if refusal is None:
            return Screening(b"", self._greeting_delay(key, trusted), "" if trusted else key)
        session = GatewaySession(self._desk, self._client(client, ("", 0)))
        return Screening(session.turned_away(*refusal).encode(), 0.0, "")

    def talked_early(self, client: Place, screening: Screening) -> bytes:
        """Return the reply to a client that did not wait; it is logged and counted out."""
        self._desk.counters.sessions_opened += 1
        session = GatewaySession(self._desk, self._client(client, ("", 0)), screening)
        session.complained(EARLY_TALKER)
        session.closed("early talker")
        return EARLY_TALKER.encode()

    def left(self, screening: Screening) -> None:
        """A session that another node had is over."""
        if screening.key:
            self._desk.limits.close(screening.key)

    def adopt(self, connection: Connection, screening: Screening) -> None:
        """Have the session here.  It was counted, and waited for as long as it had to."""
        tls, descriptor = connection.tls, connection.descriptor
        client = self._client(connection.client, connection.here)
        # The load balancer waits only with those that it can hear.
        delay = screening.delay if tls else 0.0
        opened = partial(self._begin, client, delay, screening)
        factory = Builder(lambda _: self._protocol(tls, opened))
        try:
            self._reactor.adoptStreamConnection(descriptor, connection.family, factory)
        except OSError:
            # The client is gone already, or there is no descriptor for another copy.
            self.left(screening)
        finally:
            # The reactor made a descriptor of its own.
            os.close(descriptor)

    # -- from other nodes (:class:`.passed.Host`)

    def readiness(self) -> Reply:
        """Return what a new session would be greeted with."""
        refusal = self._desk.no_room(1)
        return self._desk.greeting if refusal is None else refusal[0]

    def passed(self, stranger: Stranger, client: Place, here: Place, tls: bool, via: str) -> None:
        """Have the session that ``via`` passes on."""
        if tls:
            readiness = self.readiness() if self.terms.tls_factory is not None else NO_TLS
            if not readiness.positive:
                stranger.transport.write(readiness.encode())
                stranger.transport.loseConnection()
                return
            stranger.transport.write(b"+")
        opened = partial(self._begin, self._client(client, here, via), 0.0, PASSED)
        hand_over(stranger, self._protocol(tls, opened))


def _plain(host: str) -> str:
    return host[7:] if host.startswith("::ffff:") else host
