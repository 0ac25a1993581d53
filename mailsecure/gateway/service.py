"""The gateway as a service: listens, opens sessions, sweeps, drains, takes new settings.

``assemble`` makes one :class:`Gateway`; ``tap`` binds its ports before privileges are
dropped; at stop it lets transactions end before it closes (:meth:`Gateway.drain`).
All sessions share one :class:`~.session.Desk`, whose fields :meth:`Gateway.reconfigure`
replaces: a session that runs goes on under the new rules from its next command.

A session comes in one of four ways, and is the same from there on (:meth:`Gateway._begin`):

* by a port of Twisted's: ``[smtp] listen`` and ``listen_tls``;
* by such a port through a proxy that we know, after its header (:mod:`.doorstep`);
* from the load balancer, which accepts in our stead where nodes share the sessions: there
  the gateway is its :class:`~mailsecure.entrance.Front`;
* from the load balancer of another node (:mod:`.passed`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address as Ip4
from ipaddress import IPv6Address as Ip6
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.protocol import Factory, ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..background import Periodic
from ..config.endpoints import Place as ListeningPlace
from ..config.model import BareNewlines, Config, RouteKind, Smtp
from ..counters import Counters
from ..delivery.routes import Routes
from ..entrance import Connection, Entrance, Place, Screening
from ..errors import LocalFault
from ..proxyproto.reading import HeaderReader
from ..proxyproto.sealing import Seen
from ..proxyproto.values import Header
from ..smtp.commands import Offer
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from ..smtp.server import ServerMachine
from ..smtp.serving import EARLY_TALKER, Patience, SmtpServerProtocol
from ..spool.api import NewMessage, Spool
from ..spool.body import BodyStore
from ..spool.ids import IdSource
from ..world import World
from .doorstep import Doorstep, Stranger, hand_over
from .limits import ClientLimits, Limits, client_key
from .networks import NetworkList
from .passed import PeerDoor, ends_of
from .ports import entrance, listen, listening_socket
from .relaying import RelayRules, literal_of, postmaster_domain
from .session import Client, Desk, GatewaySession
from .tls import ServerTls
from .verify import Probe, RecipientVerifier

__all__ = ["Gateway", "GatewayParts"]

_log = Logger(namespace="smtpd")

#: Connections of proxies that may wait for their header.
MOST_WAITING = 1000
#: Sessions that other nodes may pass on before we have accepted one.
PEER_BACKLOG = 1024
NO_TLS = Reply(421, "4.3.2", "There is no certificate for TLS here")
#: A session that another node passed on: it was screened there, and is counted there.
PASSED = Screening(b"", 0.0, "")
VERIFIABLE = (RouteKind.SMTP, RouteKind.LMTP, RouteKind.LMTP_UNIX)


@dataclass(frozen=True)
class GatewayParts:
    """What the gateway is given by ``assemble``.

    ``balanced``: the load balancer accepts at our ports of TCP (:attr:`Gateway.entrances`).
    ``verify_seal`` says who sealed a PROXY header (RemoteFault: nobody), and ``peer_address``
    at which address of ours the other nodes pass sessions on (LocalFault: there is none);
    without both, none may.
    """

    world: World
    spool: Spool
    bodies: BodyStore
    ids: IdSource
    take: Callable[[NewMessage], None]
    probe: Probe
    counters: Counters
    balanced: bool = False
    verify_seal: Callable[[bytes], Seen] | None = None
    peer_address: Callable[[], Ip4 | Ip6] | None = None


class _Factory(ServerFactory):
    """Makes a protocol a connection; Twisted's part of :class:`Gateway`."""

    noisy = False

    def __init__(self, build: Callable[[IAddress | None], IProtocol]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted's question for each connection."""
        return self._build(addr)


class Gateway(Service):
    """Everything between a port and the spool; the load balancer's ``Front``."""

    name = "gateway"

    def __init__(self, parts: GatewayParts, config: Config, routes: Routes) -> None:
        self._parts = parts
        self._clock = parts.world.clock
        self._ports: list[IListeningPort] = []
        self._listening: list[str] = []
        #: Where the load balancer is to accept, which closes them; none before :meth:`bind`.
        self.entrances: Sequence[Entrance] = ()
        #: Where the other nodes pass on sessions; 0 where they may not, or not yet.
        self.peer_port = 0
        self._peer_place = ListeningPlace(Ip4(0), int(config.cluster.peer_listen), None)
        self._peer_door: PeerDoor | None = None
        if parts.verify_seal is not None:
            self._peer_door = PeerDoor(self._clock, parts.counters, parts.verify_seal, self)
        self._doorstep = Doorstep(self._clock, MOST_WAITING, self._introduced, self._misled)
        self._tls_factory: TLSMemoryBIOFactory | None = None
        self._sessions: set[SmtpServerProtocol] = set()
        self._empty: Deferred[None] | None = None
        self._tls: ServerTls | None = None
        self._sweeper = Periodic(self._clock, 1.0, "the sweep of sessions", self._sweep)
        self._limits = ClientLimits(_limits(config.smtp))
        self._configure(config, routes)
        self._desk = self._new_desk(config, routes)

    def count_sessions(self) -> int:
        """Return how many sessions there are."""
        return len(self._sessions)

    def load(self) -> int:
        """Return how much of the sessions we may have is taken, in thousandths."""
        return min(1000, 1000 * len(self._sessions) // self._smtp.max_sessions)

    @property
    def listening(self) -> list[str]:
        """Where we listen, for people."""
        return self._listening

    # -- settings

    def _configure(self, config: Config, routes: Routes) -> None:
        """Take the settings; :class:`LocalFault` before anything has changed."""
        smtp = config.smtp
        certificate = smtp.tls_certificate
        if certificate is None:
            self._tls = None
        elif self._tls is None:
            self._tls = ServerTls(certificate, smtp.tls_key or certificate)
            # It listens nowhere: it is there to wrap protocols, and not asked for any.
            self._tls_factory = TLSMemoryBIOFactory(self._tls, False, Factory(), self._clock)
        else:
            self._tls.load(certificate, smtp.tls_key or certificate)
        self._offer = Offer(
            config.node.hostname,
            smtp.max_message_size,
            smtp.max_line_length,
            smtp.max_recipients,
            smtp.max_transactions,
            self._tls is not None,
        )
        self._patience = Patience(
            smtp.command_timeout,
            smtp.data_timeout,
            smtp.transaction_timeout,
            smtp.session_timeout,
            smtp.minimum_rate,
        )
        self._smtp = smtp
        self._virtual = {each.ip for group in config.virtual.values() for each in group.addresses}
        self._relay_networks = NetworkList(config.relay.networks)
        self._blocked = NetworkList(smtp.blocked)
        self._proxies = NetworkList(smtp.proxy_protocol)
        self._mended = NetworkList(
            smtp.bare_newlines_networks if smtp.bare_newlines is BareNewlines.NORMALISE else ()
        )
        self._limits.limits = _limits(smtp)

    def _new_desk(self, config: Config, routes: Routes) -> Desk:
        parts = self._parts
        desk = Desk(
            clock=parts.world.clock,
            wall=parts.world.wall,
            hostname=config.node.hostname,
            smtp=config.smtp,
            rules=RelayRules(routes, self._postmaster(config, routes)),
            limits=self._limits,
            verifier=None,
            needs_verifying=_verifiable(routes),
            spool=parts.spool,
            bodies=parts.bodies,
            ids=parts.ids,
            take=parts.take,
            counters=parts.counters,
            session_count=self._sessions.__len__,
            blocked=self._blocked,
        )
        if config.relay.verify_recipients:
            desk.verifier = RecipientVerifier(self._clock, config.relay, parts.probe)
        return desk

    @staticmethod
    def _postmaster(config: Config, routes: Routes) -> str:
        return postmaster_domain(config.domains, config.node.hostname, routes.is_ours)

    def reconfigure(self, config: Config, routes: Routes) -> None:
        """Take new settings, for running sessions too; :class:`LocalFault` keeps the old."""
        self._configure(config, routes)
        new, desk = self._new_desk(config, routes), self._desk
        desk.hostname, desk.smtp, desk.rules = new.hostname, new.smtp, new.rules
        desk.verifier, desk.needs_verifying = new.verifier, new.needs_verifying
        desk.blocked = new.blocked

    # -- sessions

    def _arrived(self, tls: bool, where: IAddress | None) -> IProtocol:
        """Return the protocol of a connection at a port of Twisted's."""
        if self._proxies and _plain(getattr(where, "host", "")) in self._proxies:
            return self._doorstep.stranger(HeaderReader(), tls)
        return self._protocol(tls, self._open)

    def _protocol(self, tls: bool, opened: Callable[[SmtpServerProtocol], None]) -> IProtocol:
        """Return the protocol of a new session; ``opened`` is to call :meth:`_begin`."""
        machine = ServerMachine(self._offer, tls=tls)
        protocol = SmtpServerProtocol(
            self._clock, machine, self._patience, self._tls, opened, self._closed
        )
        if not tls:
            return protocol
        assert self._tls_factory is not None
        wrapped: IProtocol = self._tls_factory.protocol(self._tls_factory, protocol)
        return wrapped

    def _open(self, protocol: SmtpServerProtocol) -> None:
        """Begin a session whose ends are those of its connection."""
        transport = protocol.transport
        peer = transport.getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            address, port = _plain(peer.host), peer.port
        else:
            # A Unix socket: who may open it is for the file system to say.
            address, port = "127.0.0.1", 0
        client = Client(
            address,
            port,
            client_key(address),
            lambda: literal_of(getattr(transport.getHost(), "host", "127.0.0.1")),
            address in self._relay_networks,
        )
        self._begin(protocol, client, self._greeting_delay(client.key, client.trusted))

    def _open_for(
        self,
        client: Place,
        here: Place,
        delay: float | None,
        screening: Screening | None,
        via: str,
        protocol: SmtpServerProtocol,
    ) -> None:
        """Begin a session whose ends were told to us; ``delay`` None: that of the client."""
        who = self._client(client, here, via)
        if delay is None:
            delay = self._greeting_delay(who.key, who.trusted)
        self._begin(protocol, who, delay, screening)

    def _client(self, client: Place, here: Place, via: str = "") -> Client:
        address, port = client
        return Client(
            address,
            port,
            client_key(address),
            lambda: literal_of(here[0]),
            address in self._relay_networks,
            via,
        )

    def _begin(
        self,
        protocol: SmtpServerProtocol,
        client: Client,
        delay: float,
        screening: Screening | None = None,
    ) -> None:
        self._sessions.add(protocol)
        session = GatewaySession(self._desk, client, screening)
        protocol.begin(session, delay, normalise=client.address in self._mended)

    def _greeting_delay(self, key: str, trusted: bool) -> float:
        delay = self._smtp.greeting_delay
        if delay and (trusted or self._limits.is_known(key, self._clock.seconds())):
            return 0.0
        return delay

    # -- connections that come through a proxy that we know

    def _introduced(self, stranger: Stranger, header: Header) -> None:
        ends = ends_of(header)
        opened = self._open if ends is None else partial(self._open_for, *ends, None, None, "")
        hand_over(stranger, self._protocol(stranger.tls, opened))

    def _misled(self, stranger: Stranger, why: str) -> None:
        _log.warn(
            "closed the connection of proxy [{client}]: {reason}",
            client=stranger.address,
            reason=why,
        )

    # -- for the load balancer (:class:`mailsecure.entrance.Front`)

    def expects_header(self, address: str) -> bool:
        """Say whether a connection from there must begin with a PROXY header."""
        return address in self._proxies

    def screen(self, client: Place) -> Screening:
        """Check a client that has just connected, log a refusal, and count its session."""
        address = client[0]
        key, trusted = client_key(address), address in self._relay_networks
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
            self._limits.close(screening.key)

    def adopt(self, connection: Connection, screening: Screening) -> None:
        """Have the session here.  It was counted, and waited for as long as it had to."""
        tls, descriptor = connection.tls, connection.descriptor
        # The load balancer waits only with those that it can hear.
        delay = screening.delay if tls else 0.0
        opened = partial(self._open_for, connection.client, connection.here, delay, screening, "")
        factory = _Factory(lambda _: self._protocol(tls, opened))
        try:
            self._parts.world.reactor.adoptStreamConnection(descriptor, connection.family, factory)
        except OSError:
            # The client is gone already, or there is no descriptor for another copy.
            self.left(screening)
        finally:
            # The reactor made a descriptor of its own.
            os.close(descriptor)

    # -- for the other nodes (:class:`.passed.Host`)

    def readiness(self) -> Reply:
        """Return what a new session would be greeted with."""
        refusal = self._desk.no_room(1)
        return self._desk.greeting if refusal is None else refusal[0]

    def passed(self, stranger: Stranger, client: Place, here: Place, tls: bool, via: str) -> None:
        """Have the session that ``via`` passes on."""
        if tls:
            refusal = self.readiness() if self._tls_factory else NO_TLS
            if not self._tls_factory or not refusal.positive:
                stranger.transport.write(refusal.encode())
                stranger.transport.loseConnection()
                return
            stranger.transport.write(b"+")
        opened = partial(self._open_for, client, here, 0.0, PASSED, via)
        hand_over(stranger, self._protocol(tls, opened))

    # -- sessions that run

    def _closed(self, protocol: SmtpServerProtocol) -> None:
        self._sessions.discard(protocol)
        if not self._sessions:
            self._fire_empty()

    def _sweep(self) -> None:
        now = self._clock.seconds()
        draining = self._desk.draining
        for protocol in list(self._sessions):
            if draining:
                protocol.end(gently=True)
            protocol.sweep(now)
        if draining and all(protocol.closing for protocol in self._sessions):
            self._fire_empty()

    def _fire_empty(self) -> None:
        if self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    # -- life

    async def bind(self) -> None:
        """Listen everywhere; :class:`LocalFault` says where we cannot, and why."""
        for description in self._smtp.listen:
            await self._bind(description, tls=False)
        if self._tls is not None:
            for description in self._smtp.listen_tls:
                await self._bind(description, tls=True)
        self._bind_for_peers()

    async def _bind(self, description: str, tls: bool) -> None:
        reactor, smtp = self._parts.world.reactor, self._smtp
        listed = (*smtp.listen, *smtp.listen_tls)
        try:
            if self._parts.balanced:
                wire = entrance(description, self._virtual, listed)
                if wire is not None:
                    self.entrances = (*self.entrances, Entrance(wire, tls))
                    self._listening.append(_place(*wire.getsockname()[:2]))
                    return
            factory = _Factory(partial(self._arrived, tls))
            port = await listen(reactor, description, factory, self._virtual, listed)
            self._keep(port)
            where = port.getHost()
            if isinstance(where, IPv4Address | IPv6Address):
                self._listening.append(_place(where.host, where.port))
            else:
                self._listening.append(str(where))
        except CannotListenError as error:
            raise LocalFault(f"cannot listen on {description}: {_reason(error)}") from None
        except (OSError, ValueError) as error:
            raise LocalFault(f"cannot listen on {description}: {error}") from None

    def _bind_for_peers(self) -> None:
        address, door = self._parts.peer_address, self._peer_door
        if door is None or address is None:
            return
        place = replace(self._peer_place, interface=address())
        try:
            with listening_socket(place, backlog=PEER_BACKLOG) as wire:
                self._keep(
                    self._parts.world.reactor.adoptStreamPort(wire.fileno(), wire.family, door)
                )
                self.peer_port = wire.getsockname()[1]
        except CannotListenError as error:
            where = _place(str(place.interface), place.port)
            raise LocalFault(
                f"[cluster] peer_listen: cannot listen on {where}: {_reason(error)}"
            ) from None

    def _keep(self, port: IListeningPort) -> None:
        # Bound, but not read before startService: the spool is not open yet.
        port.pauseProducing()  # type: ignore[attr-defined]
        self._ports.append(port)

    def startService(self) -> None:
        """Begin to take sessions and to watch the time."""
        super().startService()
        for port in self._ports:
            port.resumeProducing()  # type: ignore[attr-defined]
        self._sweeper.start()

    def stopService(self) -> Deferred[None]:
        """Drain; the Deferred fires when no session is left."""
        super().stopService()
        return Deferred.fromCoroutine(self.drain(self._smtp.drain_timeout))

    async def drain(self, limit: float) -> None:
        """Take no new sessions, let transactions end within ``limit`` seconds, close all."""
        self._desk.draining = True
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        self._doorstep.close()
        if self._peer_door is not None:
            self._peer_door.close()
        hurry = Periodic(self._clock, 0.1, "the drain", self._sweep)
        hurry.start()
        try:
            await self._wait_until_done(limit)
            for protocol in list(self._sessions):
                protocol.end(gently=False)
            # Whoever read our 421 closes; whoever does not, is not waited for.
            await self._wait_until_gone(1.0)
            for protocol in list(self._sessions):
                protocol.transport.abortConnection()
            await self._wait_until_gone(1.0)
        finally:
            hurry.stop()
            self._sweeper.stop()

    async def _wait_until_done(self, limit: float) -> None:
        """Wait until every session was told goodbye, or ``limit`` seconds."""
        if not self._sessions:
            return
        done: Deferred[None] = Deferred()
        self._empty = done
        self._sweep()
        late = self._clock.callLater(limit, self._fire_empty)
        await done
        if late.active():
            late.cancel()

    async def _wait_until_gone(self, limit: float) -> None:
        """Wait until no session is left, or ``limit`` seconds."""
        ends = self._clock.seconds() + limit
        while self._sessions and self._clock.seconds() < ends:
            await deferLater(self._clock, 0.05)


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _plain(host: str) -> str:
    return host[7:] if host.startswith("::ffff:") else host


def _reason(error: CannotListenError) -> object:
    return getattr(error.socketError, "strerror", None) or error.socketError


def _limits(smtp: Smtp) -> Limits:
    return Limits(
        smtp.max_sessions_per_client, smtp.session_rate, smtp.message_rate, smtp.recipient_rate
    )


def _verifiable(routes: Routes) -> Callable[[Recipient], bool]:
    def verifiable(recipient: Recipient) -> bool:
        route = routes.find(recipient.domain) if routes.is_ours(recipient.domain) else None
        postmaster = recipient.mailbox.lower().startswith("postmaster@")
        return route is not None and route.kind in VERIFIABLE and not postmaster

    return verifiable
