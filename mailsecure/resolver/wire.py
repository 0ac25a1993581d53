"""One question to one server: over UDP, and over TCP where the answer is cut short.

Each question has a socket of its own, so the kernel draws a new source port for it, and the
socket is connected, so datagrams of anyone but the server never arrive (RFC 5452).  What
does not match the question is ignored, and the wait goes on.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.python.failure import Failure

from ..world import DnsFault
from .answers import matches

__all__ = ["ask_tcp", "ask_udp"]

MAX_DATAGRAM = 4096


class _UdpQuestion(DatagramProtocol):
    """Sends one datagram and waits for the answer."""

    def __init__(self, server: tuple[str, int], question: bytes) -> None:
        self._server = server
        self._question = question
        self.answer: Deferred[bytes] = Deferred()

    def startProtocol(self) -> None:
        """The socket is there."""
        transport: Any = self.transport
        try:
            transport.connect(*self._server)
            transport.write(self._question)
        except OSError as fault:
            self._fail(fault.strerror or "cannot send")

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        """Something came from the server."""
        if not self.answer.called and matches(self._question, datagram):
            self.answer.callback(datagram)

    def connectionRefused(self) -> None:
        """No server there."""
        self._fail("refused")

    def _fail(self, why: str) -> None:
        if not self.answer.called:
            self.answer.errback(DnsFault(f"{self._server[0]}: {why}"))


async def ask_udp(
    reactor: Any, clock: IReactorTime, server: tuple[str, int], question: bytes, timeout: float
) -> bytes:
    """Return the octets of the answer; raises DnsFault."""
    asked = _UdpQuestion(server, question)
    interface = "::" if ":" in server[0] else ""
    try:
        port = reactor.listenUDP(0, asked, interface=interface, maxPacketSize=MAX_DATAGRAM)
    except CannotListenError as fault:
        raise DnsFault(f"no socket: {fault.socketError}") from None
    timer = clock.callLater(timeout, asked._fail, "timed out")
    try:
        return await asked.answer
    finally:
        if timer.active():
            timer.cancel()
        # The port is closed in the reactor's next turn; nobody needs to wait for it.
        port.stopListening()


class _TcpQuestion(Protocol):
    """Sends one question with its length in front, and waits for the answer."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self._buffer = b""
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """The server is there."""
        assert self.transport is not None
        self.transport.write(struct.pack("!H", len(self._question)) + self._question)

    def dataReceived(self, data: bytes) -> None:
        """A part of the answer came; its length bounds the buffer."""
        self._buffer += data
        if len(self._buffer) < 2:
            return
        size = 2 + struct.unpack("!H", self._buffer[:2])[0]
        if len(self._buffer) >= size and not self.answer.called:
            answer = self._buffer[2:size]
            if matches(self._question, answer):
                self.answer.callback(answer)
            else:
                self.fail("not an answer to the question")

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The server has gone."""
        self.fail("connection lost")

    def fail(self, why: str) -> None:
        """Nothing will come."""
        if not self.answer.called:
            self.answer.errback(DnsFault(why))


class _TcpAttempt(ClientFactory):
    noisy = False

    def __init__(self, asked: _TcpQuestion) -> None:
        self._asked = asked

    def buildProtocol(self, addr: object) -> _TcpQuestion:
        """Give out the question."""
        return self._asked

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """Nobody there."""
        self._asked.fail("cannot connect")


async def ask_tcp(
    reactor: Any, clock: IReactorTime, server: tuple[str, int], question: bytes, timeout: float
) -> bytes:
    """Return the octets of the answer; raises DnsFault."""
    asked = _TcpQuestion(question)
    connector = reactor.connectTCP(*server, _TcpAttempt(asked), timeout=timeout)
    timer = clock.callLater(timeout, asked.fail, f"{server[0]}: timed out")
    try:
        return await asked.answer
    finally:
        if timer.active():
            timer.cancel()
        connector.disconnect()
