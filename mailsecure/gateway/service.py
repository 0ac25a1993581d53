"""The gateway as a service: listens, sweeps, drains, takes new settings.

``assemble`` makes one :class:`Gateway`; ``tap`` binds its ports before privileges are
dropped; at stop it lets transactions end before it closes (:meth:`Gateway.drain`).  How a
session comes in is :mod:`.reception`'s, for the load balancer too (:attr:`Gateway.front`).
All sessions share one :class:`~.session.Desk`, whose fields :meth:`Gateway.reconfigure`
replaces: a session that runs goes on under the new rules from its next command.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..background import Periodic
from ..config.endpoints import place_of
from ..config.model import BareNewlines, Config, RouteKind, Smtp
from ..counters import Counters
from ..delivery.routes import Routes
from ..entrance import Front
from ..proxyproto.sealing import Seen
from ..records.api import Recorder
from ..scan.scanner import Scanner
from ..smtp.commands import Offer
from ..smtp.envelope import Recipient
from ..smtp.serving import Patience, SmtpServerProtocol
from ..spool.api import NewMessage, Spool
from ..spool.body import BodyStore
from ..spool.ids import IdSource
from ..world import World
from .desk import Desk
from .gossip import LimitsGossip, Line
from .judging import Judge
from .limits import ClientLimits, Limits
from .networks import NetworkList
from .passed import PeerDoor
from .ports import Ports
from .reception import Builder, Reception, Terms
from .relaying import RelayRules, postmaster_domain
from .tls import ServerTls
from .verify import Probe, RecipientVerifier

__all__ = ["Gateway", "GatewayParts"]

VERIFIABLE = (RouteKind.SMTP, RouteKind.LMTP, RouteKind.LMTP_UNIX)


@dataclass(frozen=True)
class GatewayParts:
    """What the gateway is given by ``assemble``.

    ``balanced``: the load balancer accepts at our ports of TCP (``front.entrances``).
    ``verify_seal`` says who sealed a PROXY header (RemoteFault: nobody), and ``peer_address``
    at which address of ours the other nodes pass sessions on (LocalFault: there is none);
    without both, none may.  ``line`` leads to the other nodes, whose limits are ours; None
    where there are none.  Without ``scanner`` nothing is judged, without ``recorder`` there
    is no history.
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
    peer_address: Callable[[], IPv4Address | IPv6Address] | None = None
    line: Callable[[], Line] | None = None
    scanner: Scanner | None = None
    recorder: Recorder | None = None


class Gateway(Service):
    """Everything between a port and the spool."""

    name = "gateway"

    def __init__(self, parts: GatewayParts, config: Config, routes: Routes) -> None:
        self._parts = parts
        self._clock = parts.world.clock
        self._config = config
        self._sessions: set[SmtpServerProtocol] = set()
        self._empty: Deferred[None] | None = None
        self._dismissals = 0
        self._tls: ServerTls | None = None
        self._tls_factory: TLSMemoryBIOFactory | None = None
        self._sweeper = Periodic(self._clock, 1.0, "the sweep of sessions", self._sweep)
        self._limits = ClientLimits(_limits(config.smtp), telling=parts.line is not None)
        self._gossip = LimitsGossip(self._clock, self._limits)
        self._load_certificate(config.smtp)
        self._desk = self._new_desk(config, routes)
        reactor = parts.world.reactor
        self._reception = Reception(
            reactor, self._desk, self._terms(config), self._sessions, self._fire_empty
        )
        self._ports = Ports(reactor)
        self._peer_door: PeerDoor | None = None
        if parts.verify_seal is not None:
            self._peer_door = PeerDoor(
                self._clock, parts.counters, parts.verify_seal, self._reception
            )

    @property
    def front(self) -> Front:
        """Ourselves, as the load balancer sees us."""
        return self._reception

    @property
    def peer_port(self) -> int:
        """Where the other nodes pass on sessions; 0 where they may not, or not yet."""
        return self._ports.peer_port

    def trusts(self, address: str) -> bool:
        """Say whether ``address`` is in ``[relay] networks``."""
        return address in self._reception.terms.relay_networks

    def count_sessions(self) -> int:
        """Return how many sessions there are."""
        return len(self._sessions)

    def count_unfinished(self) -> int:
        """Return how many of them were not told goodbye yet."""
        return sum(not each.closing for each in self._sessions)

    def load(self) -> int:
        """Return how much of the sessions we may have is taken, in thousandths."""
        return min(1000, 1000 * len(self._sessions) // self._config.smtp.max_sessions)

    @property
    def listening(self) -> list[str]:
        """Where we listen, for people."""
        return self._ports.listening

    # -- settings

    def _load_certificate(self, smtp: Smtp) -> None:
        """Take the certificate; :class:`LocalFault` leaves the old one where it was."""
        certificate = smtp.tls_certificate
        if certificate is None:
            self._tls = None
        elif self._tls is None:
            self._tls = ServerTls(certificate, smtp.tls_key or certificate)
            # It listens nowhere: it is there to wrap protocols, and not asked for any.
            self._tls_factory = TLSMemoryBIOFactory(self._tls, False, Factory(), self._clock)
        else:
            self._tls.load(certificate, smtp.tls_key or certificate)

    def _terms(self, config: Config) -> Terms:
        smtp = config.smtp
        offer = Offer(
            config.node.hostname,
            smtp.max_message_size,
            smtp.max_line_length,
            smtp.max_recipients,
            smtp.max_transactions,
            self._tls is not None,
        )
        patience = Patience(
            smtp.command_timeout,
            smtp.data_timeout,
            smtp.transaction_timeout,
            smtp.session_timeout,
            smtp.minimum_rate,
        )
        mends = smtp.bare_newlines is BareNewlines.NORMALISE
        return Terms(
            offer=offer,
            patience=patience,
            greeting_delay=smtp.greeting_delay,
            tls=self._tls,
            tls_factory=self._tls_factory,
            relay_networks=NetworkList(config.relay.networks),
            proxies=NetworkList(smtp.proxy_protocol),
            mended=NetworkList(smtp.bare_newlines_networks if mends else ()),
            relay_only=NetworkList(config.scan.relay_only_networks),
            relay_only_places=frozenset(
                (str(place.interface), place.port)
                for place in map(place_of, config.scan.relay_only_listeners)
                if place is not None
            ),
        )

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
            blocked=NetworkList(config.smtp.blocked),
            scanner=parts.scanner,
            judge=None if parts.scanner is None else Judge(parts.scanner, parts.counters),
            recorder=parts.recorder,
        )
        if config.relay.verify_recipients:
            desk.verifier = RecipientVerifier(self._clock, config.relay, parts.probe)
        return desk

    @staticmethod
    def _postmaster(config: Config, routes: Routes) -> str:
        return postmaster_domain(config.domains, config.node.hostname, routes.is_ours)

    def reconfigure(self, config: Config, routes: Routes) -> None:
        """Take new settings, for running sessions too; :class:`LocalFault` keeps the old."""
        self._load_certificate(config.smtp)
        self._config = config
        self._limits.limits = _limits(config.smtp)
        self._reception.terms = self._terms(config)
        new, desk = self._new_desk(config, routes), self._desk
        desk.hostname, desk.smtp, desk.rules = new.hostname, new.smtp, new.rules
        desk.verifier, desk.needs_verifying = new.verifier, new.needs_verifying
        desk.blocked = new.blocked

    # -- sessions that run

    def _sweep(self) -> None:
        now = self._clock.seconds()
        draining = self._desk.draining
        for protocol in list(self._sessions):
            if draining:
                protocol.end(gently=True)
            protocol.sweep(now)
        if draining and all(protocol.closing for protocol in self._sessions):
            self._fire_empty()

    def moved(self, addresses: Container[str]) -> None:
        """End the sessions at addresses of ours that are another node's now."""
        for protocol in list(self._sessions):
            here = protocol.transport.getHost()
            if getattr(here, "host", "").removeprefix("::ffff:") in addresses:
                protocol.transport.abortConnection()

    def _fire_empty(self) -> None:
        if self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    # -- life

    async def bind(self) -> None:
        """Listen everywhere; :class:`LocalFault` says where we cannot, and why."""
        parts, config, ports = self._parts, self._config, self._ports
        smtp = config.smtp
        ports.virtual = {each.ip for group in config.virtual.values() for each in group.addresses}
        ports.listed = (*smtp.listen, *smtp.listen_tls)
        for tls, listed in ((False, smtp.listen), (True, smtp.listen_tls)):
            if tls and self._tls is None:
                continue
            factory = Builder(partial(self._reception.arrived, tls))
            for description in listed:
                await ports.open(description, factory, tls, parts.balanced)
        self._reception.entrances = ports.entrances
        if self._peer_door is not None and parts.peer_address is not None:
            ports.open_for_peers(
                parts.peer_address(), int(config.cluster.peer_listen), self._peer_door
            )

    def startService(self) -> None:
        """Begin to take sessions and to watch the time."""
        super().startService()
        self._ports.begin()
        self._sweeper.start()
        if self._parts.line is not None:
            self._gossip.start(self._parts.line())

    def stopService(self) -> Deferred[None]:
        """Drain; the Deferred fires when no session is left."""
        super().stopService()
        return Deferred.fromCoroutine(self.drain(self._config.smtp.drain_timeout))

    async def drain(self, limit: float) -> None:
        """Take no new sessions, let transactions end within ``limit`` seconds, close all."""
        self._desk.resting = True
        await self._ports.close()
        self._reception.close()
        if self._peer_door is not None:
            self._peer_door.close()
        await self.dismiss(limit)
        self._sweeper.stop()
        self._gossip.stop()

    # -- a rest (:class:`mailsecure.draining.Serving`)

    def listeners(self) -> list[socket.socket]:
        """Return the sockets at which clients arrive."""
        return self._ports.listeners()

    def rest(self, resting: bool) -> None:
        """Tell 421 to who comes, or greet again; sessions that run go on."""
        self._desk.resting = resting
        if not resting:
            self._desk.draining = False
            self._fire_empty()

    def part(self) -> None:
        """Tell 421 to who is in no transaction now."""
        for protocol in list(self._sessions):
            protocol.end(gently=True)

    async def dismiss(self, limit: float) -> None:
        """Let transactions end within ``limit`` seconds, tell 421 to all, and close them.

        :meth:`rest` may call it off.
        """
        self._dismissals += 1
        dismissal = self._dismissals
        self._desk.draining = True
        hurry = Periodic(self._clock, 0.1, "the drain", self._sweep)
        hurry.start()
        try:
            await self._wait_until_done(limit)
            if not self._desk.draining:
                return
            # It may be called off now, and others may come: they are not meant.
            last = list(self._sessions)
            for protocol in last:
                protocol.end(gently=False)
            # Whoever read our 421 closes; whoever does not, is not waited for.
            await self._wait_until_gone(last, 1.0)
            for protocol in self._sessions.intersection(last):
                protocol.transport.abortConnection()
            await self._wait_until_gone(last, 1.0)
        finally:
            hurry.stop()
            if dismissal == self._dismissals:
                self._desk.draining = False

    async def _wait_until_done(self, limit: float) -> None:
        """Wait until every session was told goodbye, or ``limit`` seconds."""
        ends = self._clock.seconds() + limit
        self._sweep()
        while self._desk.draining and not all(each.closing for each in self._sessions):
            left = ends - self._clock.seconds()
            if left <= 0:
                return
            # A stop may begin while somebody waits already.
            done = self._empty = self._empty or Deferred()
            late = self._clock.callLater(left, self._fire_empty)
            await done
            if late.active():
                late.cancel()

    async def _wait_until_gone(self, sessions: Iterable[SmtpServerProtocol], limit: float) -> None:
        """Wait until these sessions are over, or ``limit`` seconds."""
        ends = self._clock.seconds() + limit
        while not self._sessions.isdisjoint(sessions) and self._clock.seconds() < ends:
            await deferLater(self._clock, 0.05)


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
