"""A relay on loopback that does harm on its way: for scanners that fail in mid-stream.

In the reactor of the test's own process.  ``mode`` is read for each connection and each
piece: ``pass``, ``reset`` (the connection is reset when ``after`` octets have gone through
to the scanner), ``hold`` (what comes after those goes nowhere), ``garbage`` (whatever is asked
is answered with nonsense).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["NONSENSE", "Cutter"]

NONSENSE = b"\x00\x00\x7f\xffOH \xf0\x9f\x92\xa9 no\r\n\r\n\0{]" * 5


class Cutter:
    """See the module's text.  ``address`` is where it listens, as the ini has it."""

    def __init__(self, reactor: Any, scanner: str) -> None:
        self._reactor = reactor
        scheme, _, rest = scanner.partition(":")
        host, _, port = rest.rpartition(":")
        self.scanner: Any = (
            UNIXClientEndpoint(reactor, rest)
            if scheme == "unix"
            else TCP4ClientEndpoint(reactor, host, int(port))
        )
        self.mode = "pass"
        self.after = 200
        self.connections = 0
        self.open: set[Any] = set()
        factory = Factory.forProtocol(lambda: _Front(self))
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._port.getHost().port
        self.address = f"tcp:127.0.0.1:{self.port}"

    async def close(self) -> None:
        """End."""
        for each in list(self.open):
            each.transport.abortConnection()
        await self._port.stopListening()


@implementer(IHalfCloseableProtocol)
class _Side(Protocol):
    """One side of a connection that goes through."""

    transport: Any
    other: _Side | None = None

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter

    def connectionMade(self) -> None:
        """It is open."""
        self._cutter.open.add(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """So is the other side's end."""
        self._cutter.open.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()

    def readConnectionLost(self) -> None:
        """It will say no more."""
        if self.other is not None and self._cutter.mode != "hold":
            self.other.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """It was told so."""

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is not None:
            self.other.transport.write(data)


class _Front(_Side):
    """The client's side."""

    _octets = 0

    def connectionMade(self) -> None:
        """Go to the scanner."""
        super().connectionMade()
        self._cutter.connections += 1
        if self._cutter.mode == "garbage":
            return
        self.transport.pauseProducing()
        back = _Side(self._cutter)
        back.other = self
        self.other = back

        def made(protocol: Any) -> None:
            self.transport.resumeProducing()

        def failed(failure: Failure) -> None:
            self.transport.abortConnection()

        factory = Factory.forProtocol(lambda: back)
        self._cutter.scanner.connect(factory).addCallbacks(made, failed)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, or not."""
        mode = self._cutter.mode
        self._octets += len(data)
        if mode == "reset" and self._octets >= self._cutter.after:
            self.transport.abortConnection()
        elif mode == "hold" and self._octets >= self._cutter.after:
            return
        elif mode == "garbage":
            self.transport.write(NONSENSE)
        else:
            super().dataReceived(data)
