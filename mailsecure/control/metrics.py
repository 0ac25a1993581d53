"""Figures for Prometheus over HTTP: ``/metrics``, and ``/healthz`` for balancers.

A registry of our own, made of what the daemon counts anyway: on each scrape a collector
reads :class:`~mailsecure.counters.Counters` and a few gauges, so the hot paths pay for
plain integers only.  ``/healthz`` is 200 while the spool takes mail, else 503 with the
reason.

It is Twisted's HTTP server, held short: no access log, bodies of requests thrown away
unread, idle connections closed, and a bound on connections.  ``prometheus_client`` has a
Twisted resource too; it is WSGI in a thread, which would read the counters from there.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from .. import __version__
from ..counters import Counters
from ..errors import LocalFault
from ..spool.api import Filter, Listing, QuarantineFilter, QuarantineListing, Spool
from ..world import World
from .api import Cluster
from .balance_metrics import balance_figures
from .cluster_metrics import cluster_figures
from .scan_metrics import history_figures, scan_figures
from .vitals import Vitals, memory_octets, open_descriptors

__all__ = ["Figures", "Gauge", "MetricsService", "listening", "process_gauges"]

_log = Logger(namespace="control")

#: Returns a gauge's value; None if there is none now.
Gauge = Callable[[], float | None]
_PLAIN = b"text/plain; charset=utf-8"
_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_IDLE_TIMEOUT = 30.0
_MAX_CONNECTIONS = 50
_SPOOL_TIMEOUT = 2.0


class Figures(Collector):
    """Turns counters and gauges into metrics when it is asked.

    ``gauges`` maps a name to what it means and a callable that is quick.  ``cluster`` is
    the cluster, ``balance`` what the load balancer reports, if there is one, ``scanning`` what
    the scanner does, and ``history`` how the history is.
    """

    def __init__(
        self,
        counters: Counters,
        gauges: Mapping[str, tuple[str, Gauge]],
        cluster: Cluster | None = None,
        balance: Callable[[], dict[str, Any]] | None = None,
        scanning: Callable[[], dict[str, Any]] | None = None,
        history: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self._history = history
        self._scanning = scanning
        self._counters = counters
        self._balance = balance
        self._gauges = dict(gauges)
        self._cluster = cluster
        #: The queue's figures, as the service last had them from the spool.
        self.queue: dict[str, float] = {}

    def collect(self) -> Iterator[Any]:
        """Yield every metric once, as Prometheus' client asks."""
        yield InfoMetricFamily("mailsecure", "The version.", {"version": __version__})
        values = self._counters.values()
        for name, meaning in Counters.meanings().items():
            yield CounterMetricFamily(f"mailsecure_{name}", meaning, values[name])
        for name, (meaning, gauge) in self._gauges.items():
            value = gauge()
            if value is not None:
                yield GaugeMetricFamily(f"mailsecure_{name}", meaning, value)
        for name, value in self.queue.items():
            yield GaugeMetricFamily(f"mailsecure_{name}", _QUEUE[name], value)
        if self._cluster is not None:
            yield from cluster_figures(self._cluster.report())
        if self._balance is not None:
            yield from balance_figures(self._balance())
        if self._scanning is not None:
            yield from scan_figures(self._scanning())
        if self._history is not None:
            yield from history_figures(self._history())


_QUEUE = {
    "queue_messages": "Messages in the queue.",
    "queue_recipients": "Recipients in the queue.",
    "queue_octets": "Octets of the messages in the queue.",
    "queue_oldest_seconds": "The age of the oldest message in the queue.",
    "quarantine_messages": "Messages in the quarantine.",
    "quarantine_recipients": "Recipients in the quarantine.",
    "quarantine_octets": "Octets on disk of the messages in the quarantine.",
    "quarantine_oldest_seconds": "The age of the oldest message in the quarantine.",
    "spool_well": "1 while the spool takes mail, else 0.",
}


def process_gauges(vitals: Vitals) -> dict[str, tuple[str, Gauge]]:
    """Return the gauges of the process itself, for :class:`Figures`."""
    return {
        "reactor_late_seconds": ("The worst lateness of the last minute.", vitals.lateness),
        "start_time_seconds": ("Unix time of the start.", lambda: vitals.started),
        "memory_octets": ("Resident memory.", memory_octets),
        "open_descriptors": ("Open file descriptors.", open_descriptors),
    }


class _Short(Request):
    """A request whose body nobody wants."""

    def gotLength(self, length: int | None) -> None:
        """Keep no room for a body."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Throw it away."""


_Content = tuple[int, bytes, bytes]


class _Page(Resource):
    """One page, computed for each request: code, content type, content."""

    isLeaf = True

    def __init__(self, content: Callable[[], Coroutine[Deferred[Any], Any, _Content]]) -> None:
        super().__init__()
        self._content = content

    def render_GET(self, request: Request) -> int:
        """Answer when the page is there; HEAD is answered by twisted.web from this."""
        left: Deferred[None] = request.notifyFinish()
        page = Deferred.fromCoroutine(self._content())
        left.addErrback(lambda _: page.cancel())
        page.addErrback(_failed).addCallback(self._answer, request)
        return NOT_DONE_YET

    @staticmethod
    def _answer(content: _Content | None, request: Request) -> None:
        if content is None:
            return
        code, kind, body = content
        request.setResponseCode(code)
        request.setHeader(b"content-type", kind)
        request.setHeader(b"content-length", b"%d" % len(body))
        request.write(body)
        request.finish()


def _failed(failure: Failure) -> _Content | None:
    """Answer 500 for a fault of ours, nothing for a client that left."""
    if failure.check(CancelledError):
        return None
    _log.failure("unexpected error on a metrics page", failure=failure)
    return 500, _PLAIN, b"unexpected error; the log has more\n"


class _Site(Site):
    """Twisted's site without access log, and without errors on pages."""

    noisy = False
    displayTracebacks = False
    requestFactory = _Short

    def log(self, request: Any) -> None:
        """Keep no access log."""


class _Bounded(WrappingFactory):
    """Refuses a connection when there are too many."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted's question for each accepted connection."""
        if len(self.protocols) >= _MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)


class MetricsService(Service):
    """Serves ``figures`` and the health of ``spool`` at the endpoint ``description``."""

    name = "metrics"

    def __init__(self, world: World, description: str, figures: Figures, spool: Spool) -> None:
        self._world = world
        self._description = description
        self._figures = figures
        self._spool = spool
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(figures)
        self._port: IListeningPort | None = None
        self._factory: _Bounded | None = None

    def bind(self) -> Deferred[None]:
        """Listen; fails with a :class:`LocalFault` of one line.  Once is enough."""
        if self._port is not None:
            return succeed(None)
        return Deferred.fromCoroutine(self._bind())

    async def _bind(self) -> None:
        root = Resource()
        root.putChild(b"metrics", _Page(self._metrics))
        root.putChild(b"healthz", _Page(self._healthz))
        self._factory = _Bounded(_Site(root, timeout=_IDLE_TIMEOUT, reactor=self._world.reactor))
        self._port = await listening(self._world, self._description, self._factory)

    def startService(self) -> Deferred[None]:
        """Listen, if :meth:`bind` did not yet."""
        super().startService()
        return self.bind()

    def stopService(self) -> Deferred[None]:
        """Listen no more and drop what is connected."""
        super().stopService()
        port, self._port = self._port, None
        if port is None or self._factory is None:
            return succeed(None)
        for connection in list(self._factory.protocols):
            connection.abortConnection()
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)

    async def _metrics(self) -> _Content:
        queue = Deferred.fromCoroutine(self._queue())
        queue.addTimeout(_SPOOL_TIMEOUT, self._world.clock)
        self._figures.queue = {}
        # What is not known is absent from the page; spool_well says the rest.
        with suppress(LocalFault, DeferredTimeout):
            self._figures.queue = await queue
        self._figures.queue["spool_well"] = float(self._spool.health().well)
        return 200, _TYPE, generate_latest(self._registry)

    async def _queue(self) -> dict[str, float]:
        messages, recipients, octets = await self._spool.totals()
        oldest = await self._spool.find(Filter(), 1)
        held, held_recipients, stored = await self._spool.quarantine_totals()
        oldest_held = await self._spool.quarantined(QuarantineFilter(), 1)
        return {
            "queue_messages": messages,
            "queue_recipients": recipients,
            "queue_octets": octets,
            "queue_oldest_seconds": self._age(oldest),
            "quarantine_messages": held,
            "quarantine_recipients": held_recipients,
            "quarantine_octets": stored,
            "quarantine_oldest_seconds": self._age(oldest_held),
        }

    def _age(self, oldest: Sequence[Listing] | Sequence[QuarantineListing]) -> float:
        return max(0.0, self._world.wall() - oldest[0].arrived) if oldest else 0.0

    async def _healthz(self) -> _Content:
        health = self._spool.health()
        if health.well:
            return 200, _PLAIN, b"well\n"
        return 503, _PLAIN, (health.why or "not well").encode() + b"\n"


async def listening(world: World, description: str, factory: Any) -> IListeningPort:
    """Listen at the endpoint; :class:`LocalFault` with address and reason in one line."""
    try:
        port: IListeningPort = await serverFromString(world.reactor, description).listen(factory)
    except CannotListenError as problem:
        reason = getattr(problem.socketError, "strerror", None) or problem.socketError
        raise LocalFault(f"cannot listen on {description}: {reason}") from None
    except (OSError, ValueError) as problem:
        raise LocalFault(f"cannot listen on {description}: {problem}") from None
    return port
