"""A gateway, a cluster, peers and clients for the load balancer, over sockets on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from mailsecure.cluster.values import Backend, Fitness
from mailsecure.config.model import NodeRole
from mailsecure.entrance import Connection, Entrance, Place, Screening
from mailsecure.errors import RemoteFault
from mailsecure.proxyproto.reading import HeaderReader
from mailsecure.proxyproto.sealing import Sealer, Verifier
from mailsecure.proxyproto.values import Header

__all__ = ["HERE", "Client", "FakeFront", "FakeNodes", "FakePeer", "backend"]

KEY_ID, KEY = b"\1\2\3\4", bytes(32)
HERE = b"220 here\r\n"
LOOP = "127.0.0.1"


def backend(node: str, port: int = 1, incarnation: int = 1, weight: int = 1) -> Backend:
    """Return a node that is well, at 127.0.0.1."""
    return Backend(
        node, incarnation, ip_address(LOOP), port, NodeRole.BOTH, weight, weight, False, 0,
        Fitness.FIT, True, 0.0,
    )  # fmt: skip


class FakeNodes:
    """The cluster: what it says is what tests set."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.sealer = Sealer(KEY_ID, KEY, "here", 1)
        self.all: list[Backend] = [backend("here", 0)]
        self.virtual = {LOOP, "::1"}
        #: Whether nodes go on saying hello.
        self.hello = True
        self._watchers: list[Callable[[], None]] = []

    def backends(self) -> Sequence[Backend]:
        if self.hello:
            self.all = [replace(each, heard=self._clock()) for each in self.all]
        return self.all

    def watch_backends(self, callback: Callable[[], None]) -> None:
        self._watchers.append(callback)

    def holds(self, address: str) -> bool:
        return address in self.virtual

    def change(self, node: str, **changes: object) -> None:
        """Let a node be different, and say so."""
        self.all = [
            replace(each, **changes) if each.node == node else each  # type: ignore[arg-type]
            for each in self.all
        ]
        self.tell()

    def tell(self) -> None:
        """Say that something changed."""
        for watcher in self._watchers:
            watcher()


class FakeFront:
    """The gateway: greets whom it is given with :data:`HERE`, and closes."""

    def __init__(self) -> None:
        self.entrances: list[Entrance] = []
        self.proxies: set[str] = set()
        self.screening = Screening(b"", 0.0, "key")
        self.screened: list[Place] = []
        self.early: list[Place] = []
        self.gone: list[Screening] = []
        self.adopted: list[Connection] = []

    def listen(self, tls: bool = False, family: int = socket.AF_INET) -> int:
        """Add an entrance; return its port."""
        wire = socket.socket(family)
        wire.bind((LOOP if family == socket.AF_INET else "::", 0))
        wire.listen(100)
        wire.setblocking(False)
        self.entrances.append(Entrance(wire, tls))
        port: int = wire.getsockname()[1]
        return port

    def expects_header(self, address: str) -> bool:
        return address in self.proxies

    def screen(self, client: Place) -> Screening:
        self.screened.append(client)
        return self.screening

    def talked_early(self, client: Place, screening: Screening) -> bytes:
        self.early.append(client)
        return b"554 5.5.0 early\r\n"

    def left(self, screening: Screening) -> None:
        self.gone.append(screening)

    def adopt(self, connection: Connection, screening: Screening) -> None:
        self.adopted.append(connection)
        os.write(connection.descriptor, HERE)
        os.close(connection.descriptor)


class FakePeer(Factory):
    """A node's ``peer_listen``.

    ``way`` is what it does once it has a good header: ``greet``, ``silent``, ``reset``,
    ``close``, ``slow`` (greets after :attr:`delay` seconds) or ``421``.
    """

    noisy = False

    def __init__(self, name: str, way: str = "greet", incarnation: int = 7) -> None:
        self.name = name
        self.way = way
        self.delay = 0.2
        self.answer = b""
        self.incarnation = incarnation
        self.verifier = Verifier(incarnation, lambda key_id: KEY if key_id == KEY_ID else None)
        self.headers: list[Header] = []
        self.open: list[_PeerSide] = []
        self.attempts = 0
        self._port: IListeningPort | None = None

    async def listen(self) -> Backend:
        """Listen; return how the cluster knows this peer."""
        endpoint = TCP4ServerEndpoint(reactor, 0, 1000, LOOP)
        self._port = await endpoint.listen(self)
        return backend(self.name, self._port.getHost().port, self.incarnation)

    async def listen_once(self) -> None:
        """Listen and stop."""
        await self.listen()
        await self.close()

    async def close(self) -> None:
        """Be gone: nobody listens, and what is open is reset."""
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        for each in self.open[:]:
            each.transport.abortConnection()

    def buildProtocol(self, addr: object) -> _PeerSide:
        self.attempts += 1
        return _PeerSide(self)


class _PeerSide(Protocol):
    transport: Any

    def __init__(self, peer: FakePeer) -> None:
        self.peer = peer
        self.reader: HeaderReader | None = HeaderReader(text=False)
        self.got = b""

    def connectionMade(self) -> None:
        self.peer.open.append(self)

    def connectionLost(self, reason: object = None) -> None:
        self.peer.open.remove(self)

    def dataReceived(self, data: bytes) -> None:
        if self.reader is None:
            self.got += data
            return
        header = self.reader.feed(data)
        if header is None:
            return
        self.got, raw, self.reader = self.reader.rest, self.reader.raw, None
        try:
            self.peer.verifier.verify(raw)
        except RemoteFault:
            self.transport.abortConnection()
            return
        self.peer.headers.append(header)
        self.act()

    def act(self) -> None:
        """Do what this peer does."""
        way = self.peer.way
        if way == "greet":
            self.greet()
        elif way == "slow":
            reactor.callLater(self.peer.delay, self.greet)
        elif way == "reset":
            self.transport.abortConnection()
        elif way == "close":
            self.transport.loseConnection()
        elif way == "421":
            self.transport.write(b"421 full\r\n")

    def greet(self) -> None:
        if self in self.peer.open:
            self.transport.write(self.peer.answer or f"220 {self.peer.name}\r\n".encode())


class Client(Protocol):
    """A client that keeps what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.lost = False

    @classmethod
    def connect(cls, port: int, host: str = LOOP) -> Deferred[Client]:
        """Connect."""
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        return connectProtocol(kind(reactor, host, port), cls())

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True

    async def line(self, seconds: float = 5.0) -> bytes:
        """Return the next line, b"" at the end."""
        end = reactor.seconds() + seconds
        while b"\n" not in self.got and not self.lost:
            if reactor.seconds() > end:
                raise AssertionError("waited too long for a line")
            await deferLater(reactor, 0.002)
        line, _, self.got = self.got.partition(b"\n")
        return line + b"\n" if line else b""
