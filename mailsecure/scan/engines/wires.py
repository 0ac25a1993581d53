"""Where a scanner is, and the connections to it: opened when needed, kept where that is allowed.

:class:`Wires` gives a coroutine a connection (:class:`.wire.Wire`) to talk over.  A
connection on which nothing is under way may be kept for the next message; one that breaks,
or whose talk was cut short, is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError
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
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from ...background import Periodic
from ...config.routes import parse_host_port
from ...smtp.lost import words_of
from ...world import DnsAbsent, DnsFault, World
from ..api import ScannerFault
from .wire import Gone, Wire

__all__ = ["Place", "Unreachable", "Wires"]

#: Seconds: to connect, and how long an idle connection is kept.
CONNECT = 5.0
IDLE = 15.0

T = TypeVar("T")


class Unreachable(ScannerFault):
    """There is no connection to be had: no fault of a message's."""


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
        return cls("", host, port, parts.scheme in ("https", "icaps"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"tcp:{host}:{self.port}"


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
        """Close what is idle, and keep nothing any more."""
        self._keep = 0
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
        """Return a new connection; raises :class:`Unreachable`."""
        place = self._place
        if place.path:
            return await self._connect(
                UNIXClientEndpoint(self._world.reactor, place.path, timeout=CONNECT)
            )
        fault = Unreachable(f"{place.host} has no address")
        for address in await self._addresses(place.host):
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            plain = kind(self._world.reactor, address, place.port, timeout=CONNECT)
            try:
                return await self._connect(
                    plain if self._tls is None else wrapClientTLS(self._tls, plain)
                )
            except Unreachable as unreachable:
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
            raise Unreachable(f"cannot connect to {self._place}: {why}") from None
        return wire

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        try:
            return list(await self._world.resolver.addresses(host))
        except (DnsAbsent, DnsFault) as fault:
            raise Unreachable(f"cannot look {host} up: {fault}") from None
