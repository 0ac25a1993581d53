"""The whole object graph on one screen.

:func:`build` is called by ``tap`` with a configuration and a world; it makes every
object of the daemon and gives each what it needs, as callables and values.  Features
meet here and nowhere else.  The order of starting and stopping is :mod:`.life`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import netifaces
from twisted.internet.defer import Deferred

from .balancer.service import BalancerParts, LoadBalancer
from .cluster.place import own_place
from .cluster.service import ClusterParts, ClusterService
from .cluster.values import Fitness
from .config.model import Config, Route, Topology
from .control.api import Desk, Forwarding
from .control.deeds import Deeds
from .control.logfile import LogFile
from .control.server import SOCKET_NAME, ControlService
from .control.status import Status
from .control.vitals import Vitals
from .counters import Counters
from .delivery.api import Prober, Transport
from .delivery.routes import Routes
from .delivery.scheduler import Scheduler
from .delivery.transports import make_transport
from .draining import Drain
from .errors import LocalFault
from .gateway.service import Gateway, GatewayParts
from .life import Bindable, Daemon, Parts
from .scan.api import Line, Site
from .scan.finding import find_makers
from .scan.rehearsing import rehearse
from .scan.scanner import Scanner
from .scan.workers.pool import WorkerPool
from .smtp.envelope import Recipient
from .smtp.replies import Reply
from .spool.api import Spool
from .spool.body import BodyStore
from .spool.ids import IdSource
from .spool.keeping import QuarantineKeeper
from .spool.sqlite import SqliteSpool
from .world import World

if TYPE_CHECKING:
    from .records.service import RecordsService

__all__ = ["build"]

#: Loads, in thousandths: from which on a node takes no session of others, and until when.
FULL, NO_LONGER_FULL = 1000, 950


def build(config: Config, world: World, path: Path) -> Daemon:  # noqa: PLR0915 - on one screen
    """Make the daemon of ``config``, which was read from ``path``.  Nothing starts yet."""
    node, state = config.node, config.node.state
    counters = Counters()
    log = LogFile(config.log, node.hostname, world.clock)
    ids = IdSource(world.wall, world.rng)
    spool = SqliteSpool(state, config.spool, world)
    bodies = BodyStore(state, config.smtp.message_memory)
    routes = Routes(config.domains)
    out = Outward(world, config)
    records = make_records(config, world)
    scheduler = Scheduler(
        world=world,
        spool=spool,
        routes=routes,
        transport_for=out.transport,
        settings=config.delivery,
        hostname=node.hostname,
        ids=ids,
        counters=counters,
        recorder=records,
    )

    def load() -> int:
        return gateway.load()

    cluster = None
    if config.cluster.key_file is not None:
        fitness = Condition(spool, load, lambda: drain.draining, lambda: scanner.well)
        cluster = ClusterService(
            ClusterParts(world, world.kernel, fitness, load, lambda: gateway.peer_port), config
        )
    line = None if cluster is None else lambda: cluster.sharing
    scanner = make_scanner(config, world, line, counters)
    deeds = Deeds(world.wall, records)
    keeper = QuarantineKeeper(world, spool, config.quarantine, deeds.expired)
    shared = cluster if config.cluster.topology is Topology.ACTIVE_ACTIVE else None
    gateway = Gateway(
        GatewayParts(
            world,
            spool,
            bodies,
            ids,
            scheduler.take,
            out.probe,
            counters,
            balanced=shared is not None,
            verify_seal=None if shared is None else shared.verify_seal,
            line=line,
            scanner=scanner,
            recorder=records,
            peer_address=None if shared is None else lambda: own_place(config, world.kernel)[0],
        ),
        config,
        routes,
    )
    balancer = None
    if shared is not None:
        balancer = LoadBalancer(
            BalancerParts(world, gateway.front, shared, gateway.count_sessions, counters), config
        )
        shared.watch_moved(balancer.moved)
    if cluster is not None:
        cluster.watch_moved(gateway.moved)
    drain = Drain(
        world.clock,
        gateway,
        cluster,
        balancer,
        lambda: daemon.parts.config.cluster.handover_timeout,
    )
    vitals = Vitals(world, counters)
    status = Status(
        world,
        node.hostname,
        counters,
        vitals,
        spool,
        scheduler,
        gateway.count_sessions,
        log,
        cluster,
        drain,
        scanner.report,
        records,
    )

    def reconfigure(new: Config) -> None:
        routes = Routes(new.domains)
        in_cluster = cluster.prepared(new) if cluster is not None else None
        checks = scanner.prepared(new)
        gateway.reconfigure(new, routes)
        if balancer is not None:
            balancer.reconfigure(new)
        bodies.memory = new.smtp.message_memory
        out.reconfigure(new)
        scheduler.reconfigure(routes, new.delivery)
        log.reconfigure(new.log)
        keeper.reconfigure(new.quarantine)
        if records is not None:
            records.reconfigure(new.records)
        checks()
        if in_cluster is not None:
            in_cluster()

    async def reload() -> Sequence[str]:
        return await daemon.reload()

    balance = None if balancer is None else balancer.report
    desk = Desk(
        spool,
        scheduler,
        status,
        reload,
        cluster,
        balance,
        drain,
        recorder=records,
        history=records,
        forwarding=Forwarding(node.hostname, ids, bodies, out.routable),
        rehearse=lambda asked: rehearse(scanner, asked),
        trusted=gateway.trusts,
        node=node.name if cluster is not None else "",
        line=line,
        shared_history=shared_history(config),
    )
    control = ControlService(state / SOCKET_NAME, world, desk)
    before: Sequence[Bindable] = ()
    if config.metrics.listen:
        # The web server and the figures' library are imported only where they are wanted.
        from .control.metrics import Figures, MetricsService, process_gauges  # noqa: PLC0415

        gauges = process_gauges(vitals) | {
            "sessions": ("SMTP sessions open now.", gateway.count_sessions),
            "draining": (
                "Whether this node is drained, or about to be.",
                lambda: int(drain.draining),
            ),
        }
        history = None if records is None else records.figures
        figures = Figures(counters, gauges, cluster, balance, scanner.report, history)
        before = [MetricsService(world, config.metrics.listen, figures, spool)]
    namespace = {
        "config": config,
        "world": world,
        "spool": spool,
        "scheduler": scheduler,
        "gateway": gateway,
        "counters": counters,
        "status": status,
        "scanner": scanner,
        "records": records,
        "cluster": cluster,
        "balancer": balancer,
        "drain": drain,
    }
    daemon = Daemon(
        Parts(
            config=config,
            path=path,
            world=world,
            log=log,
            spool=spool,
            scheduler=scheduler,
            gateway=gateway,
            vitals=vitals,
            before=before,
            after=[control, *make_manhole(config, world, namespace)],
            reconfigure=reconfigure,
            cluster=cluster,
            balancer=balancer,
            drain=drain,
            services=[*([] if records is None else [records]), scanner, keeper],
        )
    )
    namespace["daemon"] = daemon
    return daemon


def make_records(config: Config, world: World) -> RecordsService | None:
    """Return what keeps the history, None where there is none."""
    if not config.records.enabled:
        return None
    # A tenth of a second that only the history needs.
    from .records.service import RecordsService  # noqa: PLC0415

    return RecordsService(world, config.records, config.node.state, config.node.name)


def shared_history(config: Config) -> str:
    """Return what is the same at all nodes that write to one history; "" for a file of ours."""
    place = config.records.database
    if not config.records.enabled or not place.startswith("postgresql://"):
        return ""
    return sha256(place.encode()).hexdigest()


def make_manhole(
    config: Config, world: World, namespace: Mapping[str, object]
) -> Sequence[Bindable]:
    """Return the prompt inside the daemon; none where nobody asked for it."""
    if not config.manhole.listen:
        return ()
    # See there: it imports much.
    from .control.manhole import ManholeService  # noqa: PLC0415

    return [ManholeService(world, config.manhole, config.node.state, namespace)]


def make_scanner(
    config: Config, world: World, line: Callable[[], Line] | None, counters: Counters
) -> Scanner:
    """Make what judges mail, with all checks that are installed here."""
    pool = WorkerPool(world, config.scan)
    site = Site(config, world, pool, config.node.state, line)
    return Scanner(site, pool, find_makers(config.scan.plugins), counters)


class Condition:
    """Says why this node should get no sessions now.

    ``load`` is how much of the sessions that it may have is taken, in thousandths.  Who is
    full says so until it is a little less than that, or the word would change with each
    session.
    """

    def __init__(
        self,
        spool: Spool,
        load: Callable[[], int],
        draining: Callable[[], bool],
        judging: Callable[[], bool] = lambda: True,
    ) -> None:
        self._judging = judging
        self._spool = spool
        self._load = load
        self._draining = draining
        self._full = False

    def __call__(self) -> Fitness:
        """Return why; FIT where it should."""
        self._full = self._load() >= (NO_LONGER_FULL if self._full else FULL)
        fitness = Fitness.FIT if self._spool.health().well else Fitness.SPOOL
        if self._draining():
            fitness |= Fitness.DRAINING
        if not self._judging():
            fitness |= Fitness.SCANNERS
        return fitness | Fitness.OVERLOADED if self._full else fitness


class Outward:
    """The transports to next hops, one a route, made when first needed."""

    def __init__(self, world: World, config: Config) -> None:
        self._world = world
        self._config = config
        self._routes = Routes(config.domains)
        self._made: dict[Route, Transport] = {}

    def transport(self, route: Route) -> Transport:
        """Return the transport of ``route``."""
        made = self._made.get(route)
        if made is None:
            config = self._config
            made = self._made[route] = make_transport(
                self._world, config.delivery, config.node.hostname, route, self.is_self
            )
        return made

    def routable(self, domain: str) -> bool:
        """Say whether mail to ``domain`` has a way."""
        return self._routes.find(domain) is not None

    def reconfigure(self, config: Config) -> None:
        """Make transports anew where the settings of delivery changed."""
        if config.delivery != self._config.delivery:
            old, self._made = self._made, {}
            for transport in old.values():
                Deferred.fromCoroutine(transport.close())
        self._config = config
        self._routes = Routes(config.domains)

    def probe(self, recipient: Recipient) -> Deferred[Reply]:
        """Ask the next hop of ``recipient`` whether it takes it."""
        return Deferred.fromCoroutine(self._probe(recipient))

    async def _probe(self, recipient: Recipient) -> Reply:
        route = self._routes.find(recipient.domain)
        prober = None if route is None else self.transport(route)
        if not isinstance(prober, Prober):
            raise LocalFault(f"nobody can be asked about {recipient.domain}")
        return await prober.probe(recipient.domain, recipient.mailbox)

    def is_self(self, name: str) -> bool:
        """Say whether a host name or an IP address is this machine."""
        return name == self._config.node.hostname or name in _own_addresses()


def _own_addresses() -> set[str]:
    """Return the addresses of this machine's interfaces, loopback included."""
    found = set()
    for interface in netifaces.interfaces():
        for family in (netifaces.AF_INET, netifaces.AF_INET6):
            for each in netifaces.ifaddresses(interface).get(family, ()):
                found.add(each["addr"].partition("%")[0])
    return found
