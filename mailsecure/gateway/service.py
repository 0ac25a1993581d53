"""The gateway as a service: listens, opens sessions, sweeps, drains, takes new settings.

``assemble`` makes one :class:`Gateway`; ``tap`` binds its ports before privileges are
dropped; at stop it lets transactions end before it closes (:meth:`Gateway.drain`).
All sessions share one :class:`~.session.Desk`, whose fields :meth:`Gateway.reconfigure`
replaces: a session that runs goes on under the new rules from its next command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..background import Periodic
from ..config.model import BareNewlines, Config, Network, RouteKind, Smtp
from ..counters import Counters
from ..delivery.routes import Routes
from ..errors import LocalFault
from ..smtp.commands import Offer
from ..smtp.envelope import Recipient
from ..smtp.server import ServerMachine
from ..smtp.serving import Patience, SmtpServerProtocol
from ..spool.api import NewMessage, Spool
from ..spool.body import BodyStore
from ..spool.ids import IdSource
from ..world import World
from .limits import ClientLimits, Limits, client_key
from .ports import listen
from .relaying import RelayRules, literal_of, postmaster_domain
from .session import Client, Desk, GatewaySession
from .tls import ServerTls
from .verify import Probe, RecipientVerifier

__all__ = ["Gateway", "GatewayParts"]

_log = Logger(namespace="smtpd")

#: Addresses whose networks were looked up; bounds the memory of a flood.
MAX_REMEMBERED = 20_000
VERIFIABLE = (RouteKind.SMTP, RouteKind.LMTP, RouteKind.LMTP_UNIX)


@dataclass(frozen=True)
class GatewayParts:
    """What the gateway is given by ``assemble``."""

    world: World
    spool: Spool
    bodies: BodyStore
    ids: IdSource
    take: Callable[[NewMessage], None]
    probe: Probe
    counters: Counters


class _NetworkList:
    """Is an address in one of some networks?  Remembers its answers."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return any(_contains(network, address) for network in self._networks)


def _contains(network: IPv4Network | IPv6Network, address: Any) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    return network.version == mapped.version and mapped in network


class _Factory(ServerFactory):
    """Makes a protocol a connection; Twisted's part of :class:`Gateway`."""

    noisy = False

    def __init__(self, gateway: Gateway, tls: bool) -> None:
        self._gateway = gateway
        self._tls = tls

    def buildProtocol(self, addr: IAddress | None) -> SmtpServerProtocol:
        """Twisted's question for each accepted connection."""
        return self._gateway.protocol(self._tls)


class Gateway(Service):
    """Everything between a port and the spool."""

    name = "gateway"

    def __init__(self, parts: GatewayParts, config: Config, routes: Routes) -> None:
        self._parts = parts
        self._clock = parts.world.clock
        self._ports: list[IListeningPort] = []
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
        return [_place(port.getHost()) for port in self._ports]

    # -- settings

    def _configure(self, config: Config, routes: Routes) -> None:
        """Take the settings; :class:`LocalFault` before anything has changed."""
        smtp = config.smtp
        certificate = smtp.tls_certificate
        if certificate is None:
            self._tls = None
        elif self._tls is None:
            self._tls = ServerTls(certificate, smtp.tls_key or certificate)
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
        self._relay_networks = _NetworkList(config.relay.networks)
        self._mended = _NetworkList(
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

    # -- sessions

    def protocol(self, tls: bool) -> SmtpServerProtocol:
        """Return the protocol of a new connection."""
        machine = ServerMachine(self._offer, tls=tls)
        return SmtpServerProtocol(
            self._clock, machine, self._patience, self._tls, self._open, self._closed
        )

    def _open(self, protocol: SmtpServerProtocol) -> None:
        self._sessions.add(protocol)
        transport = protocol.transport
        peer = transport.getPeer()
        if isinstance(peer, IPv4Address | IPv6Address):
            address, port = peer.host, peer.port
        else:
            # A Unix socket: who may open it is for the file system to say.
            address, port = "127.0.0.1", 0
        if address.startswith("::ffff:"):
            address = address[7:]
        client = Client(
            address,
            port,
            client_key(address),
            lambda: literal_of(getattr(transport.getHost(), "host", "127.0.0.1")),
            address in self._relay_networks,
        )
        protocol.begin(
            GatewaySession(self._desk, client),
            self._greeting_delay(client),
            normalise=address in self._mended,
        )

    def _greeting_delay(self, client: Client) -> float:
        delay = self._smtp.greeting_delay
        if delay and (client.trusted or self._limits.is_known(client.key, self._clock.seconds())):
            return 0.0
        return delay

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
            await self._bind(description, _Factory(self, tls=False))
        if self._tls is None:
            return
        for description in self._smtp.listen_tls:
            factory = TLSMemoryBIOFactory(self._tls, False, _Factory(self, tls=True))
            factory.noisy = False
            await self._bind(description, factory)

    async def _bind(self, description: str, factory: Any) -> None:
        try:
            reactor, smtp = self._parts.world.reactor, self._smtp
            listed = (*smtp.listen, *smtp.listen_tls)
            port = await listen(reactor, description, factory, self._virtual, listed)
            # Bound, but not read before startService: the spool is not open yet.
            port.pauseProducing()  # type: ignore[attr-defined]
            self._ports.append(port)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise LocalFault(f"cannot listen on {description}: {reason}") from None
        except (OSError, ValueError) as error:
            raise LocalFault(f"cannot listen on {description}: {error}") from None

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


def _place(address: IAddress) -> str:
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return str(address)


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
