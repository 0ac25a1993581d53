"""Connections to scanners: octets out as fast as they are taken, octets in, until one ends.

A :class:`Wire` is one connection, read and written by a coroutine: ``await send(…)`` returns
when the connection takes more, ``await receive()`` with what came.  :class:`Wires` opens
them, and keeps some for the next message, where the protocol allows that.
:class:`BodyReader` reads a message for them, files in a thread.

What goes wrong with a connection is :class:`~mailsecure.scan.api.ScannerFault`;
:class:`Gone` where the other side ended it.  Deadlines are the caller's (:mod:`.guard`):
cancelling what waits here closes the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from ...background import Periodic
from ...config.routes import parse_host_port
from ...smtp.lost import words_of
from ...spool.values import Body
from ...world import DnsAbsent, DnsFault, World
from ..api import ScannerFault

__all__ = ["BodyReader", "Gone", "Place", "Wire", "Wires"]

#: Octets that are read from a message at once.
BATCH = 256 << 10
#: Octets that wait to be read before the other side has to wait.
READ_AHEAD = 64 << 10
#: Seconds: to connect, and how long an idle connection is kept.
CONNECT = 5.0
IDLE = 15.0

T = TypeVar("T")


class Gone(ScannerFault):
    """The scanner closed the connection."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scanner listens: a Unix socket, or a host (a name or an IP address) and port."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False

    @classmethod
    def of_client(cls, text: str) -> Place:
        """Return the place that ``unix:PATH`` or ``tcp:HOST:PORT`` (kind ``client``) means."""
        scheme, _, rest = text.partition(":")
        if scheme == "unix":
            return cls(rest)
        host, port = parse_host_port(rest, 0)
        return cls("", host, port)

    @classmethod
    def of_url(cls, text: str, port: int) -> Place:
        """Return the place of a URL, at ``port`` where none is written."""
        parts = urlsplit(text)
        host, port = parse_host_port(parts.netloc, port)
        return cls("", host, port, parts.scheme == "https")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"tcp:{host}:{self.port}"


@implementer(IPushProducer)
class Wire(Protocol):
    """One connection.  ``uses`` counts the messages that went over it."""

    transport: Any

    def __init__(self) -> None:
        self._received: list[bytes] = []
        self._octets = 0
        self._reading: Deferred[bytes] | None = None
        self._writing: Deferred[None] | None = None
        self._full = False
        self._end: ScannerFault | None = None
        self._clean = False
        self.uses = 0
        #: Whether anything came since the last :meth:`Wires.take`.
        self.answered = False
        self.idle_since = 0.0
        self.in_use = True

    # -- Twisted's side

    def connectionMade(self) -> None:
        """Begin."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Octets came."""
        self.answered = True
        if not self.in_use:
            # Nobody asked: whatever it is, it must not be taken for the next answer.
            self.abort()
            return
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(data)
            return
        self._received.append(data)
        self._octets += len(data)
        if self._octets > READ_AHEAD:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """It is over."""
        assert reason is not None
        self._clean = reason.check(ConnectionDone) is not None
        self._end = Gone(f"the connection was lost: {words_of(reason)}")
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.callback(None)
        if reading is not None:
            if self._clean:
                reading.callback(b"")
            else:
                reading.errback(self._end)

    def pauseProducing(self) -> None:
        """Enough is under way."""
        self._full = True

    def resumeProducing(self) -> None:
        """More may go out."""
        self._full = False
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.callback(None)

    def stopProducing(self) -> None:
        """The connection is closing: :meth:`connectionLost` says the rest."""

    # -- ours

    @property
    def usable(self) -> bool:
        """True while it is open and nothing unread has come."""
        return self._end is None and not self._received

    @property
    def waiting(self) -> bool:
        """True where something came, or the end: stop sending and look."""
        return bool(self._received) or self._end is not None

    async def send(self, data: bytes) -> None:
        """Send octets; returns when more may follow.

        Raises :class:`Gone` where the connection is lost, unless there is still something to
        read: the other side may have said why before it left.
        """
        if self._end is None:
            self.transport.write(data)
            if self._full:
                self._writing = Deferred(self._cancelled)
                await self._writing
        if self._end is not None and not self._received:
            raise self._end

    async def receive(self) -> bytes:
        """Return what has come; b"" where the other side has said all.  Raises :class:`Gone`."""
        if self._received:
            data = b"".join(self._received)
            self._received.clear()
            if self._octets > READ_AHEAD:
                self.transport.resumeProducing()
            self._octets = 0
            return data
        if self._end is not None:
            if self._clean:
                return b""
            raise self._end
        self._reading = Deferred(self._cancelled)
        return await self._reading

    def leave(self) -> None:
        """Close it when what was sent has gone out, if that is not waited for."""
        if self._end is not None:
            return
        if self._full or ISSLTransport.providedBy(self.transport):
            self.transport.abortConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close it at once."""
        if self._end is None:
            self.transport.abortConnection()

    def _cancelled(self, waiting: Deferred[Any]) -> None:
        if waiting is self._reading:
            self._reading = None
        if waiting is self._writing:
            self._writing = None
        self.abort()


class Wires:
    """The connections to one place; up to ``keep`` idle ones are kept."""

    def __init__(self, world: World, place: Place, keep: int = 0) -> None:
        self._world = world
        self._place = place
        self._idle: deque[Wire] = deque(maxlen=max(1, keep))
        self._keep = keep
        self._sweeper = Periodic(world.clock, IDLE / 3, f"idle connections to {place}", self._sweep)
        self._tls = optionsForClientTLS(place.host) if place.tls else None
        self._factory = Factory.forProtocol(Wire)
        self._factory.noisy = False

    def start(self) -> None:
        """Begin to look after idle connections."""
        if self._keep:
            self._sweeper.start()

    def close(self) -> None:
        """Close what is idle."""
        self._sweeper.stop()
        while self._idle:
            self._idle.pop().abort()

    async def use(self, talk: Callable[[Wire], Coroutine[Any, Any, T]], fresh: bool = False) -> T:
        """Do ``talk`` over a connection, and return what it returns.

        An idle connection that turns out to be dead before it answered anything is replaced
        by a new one, once: it may have been closed while it was idle, which says nothing of
        this message.  ``fresh`` asks for a new one.
        """
        wire = None if fresh else self._take()
        if wire is not None:
            try:
                return await self._talk(wire, talk)
            except Gone:
                if wire.answered:
                    raise
        return await self._talk(await self.open(), talk)

    async def _talk(self, wire: Wire, talk: Callable[[Wire], Coroutine[Any, Any, T]]) -> T:
        wire.uses += 1
        try:
            result = await talk(wire)
        except BaseException:
            wire.abort()
            raise
        if wire.in_use:
            wire.leave()
        return result

    def release(self, wire: Wire) -> None:
        """Keep a connection on which nothing is under way for the next message."""
        if not wire.usable or len(self._idle) >= self._keep:
            return
        wire.in_use = False
        wire.idle_since = self._world.clock.seconds()
        self._idle.append(wire)

    def _take(self) -> Wire | None:
        """Return the idle connection that was used last."""
        while self._idle:
            wire = self._idle.pop()
            if wire.usable:
                wire.in_use = True
                wire.answered = False
                return wire
        return None

    def _sweep(self) -> None:
        """Close those that were idle too long."""
        oldest = self._world.clock.seconds() - IDLE
        while self._idle and (self._idle[0].idle_since < oldest or not self._idle[0].usable):
            self._idle.popleft().abort()

    async def open(self) -> Wire:
        """Return a new connection; raises ScannerFault."""
        place = self._place
        if place.path:
            return await self._connect(
                UNIXClientEndpoint(self._world.reactor, place.path, timeout=CONNECT)
            )
        fault = ScannerFault(f"{place.host} has no address")
        for address in await self._addresses(place.host):
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            plain = kind(self._world.reactor, address, place.port, timeout=CONNECT)
            try:
                return await self._connect(
                    plain if self._tls is None else wrapClientTLS(self._tls, plain)
                )
            except ScannerFault as unreachable:
                fault = unreachable
        raise fault

    async def _connect(self, endpoint: Any) -> Wire:
        try:
            wire: Wire = await endpoint.connect(self._factory)
        except ConnectingCancelledError:
            # An endpoint's own word for it; deadlines know the usual one.
            raise CancelledError from None
        except (ConnectError, ConnectionLost, ConnectionDone, OSError):
            why = words_of(Failure())
            raise ScannerFault(f"cannot connect to {self._place}: {why}") from None
        return wire

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        try:
            return list(await self._world.resolver.addresses(host))
        except (DnsAbsent, DnsFault) as fault:
            raise ScannerFault(f"cannot look {host} up: {fault}") from None


class BodyReader:
    """Reads ``before`` and then a message, in batches of about :data:`BATCH` octets."""

    def __init__(self, world: World, body: Body, before: bytes = b"") -> None:
        self._world = world
        self._in_memory = body.in_memory
        self._pieces = body.pieces()
        self._before = before

    async def read(self) -> bytes:
        """Return the next octets; b"" at the end.  Raises what the body raises."""
        if self._in_memory:
            return self._batch()
        return await self._world.in_thread(self._batch)

    def _batch(self) -> bytes:
        batch, self._before = [self._before], b""
        octets = len(batch[0])
        while octets < BATCH:
            piece = next(self._pieces, None)
            if piece is None:
                break
            batch.append(piece)
            octets += len(piece)
        return b"".join(batch)
