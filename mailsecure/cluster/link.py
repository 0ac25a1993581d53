"""One link between two nodes: a TLS connection that carries small messages.

A message is a length (4 octets, network order), a kind (1 octet) and at most
:data:`LONGEST` octets more.  The first in each direction is HELLO; what comes before it, or
is no message, ends the connection.  :mod:`.links` keeps the links and knows what the end of
one means.

Who is at the other end is what its certificate says (:mod:`.certificates`); its HELLO adds
the incarnation, so that a link of an earlier life is not taken for one of this life.
"""

from __future__ import annotations

import json
import socket
from enum import IntEnum
from struct import Struct
from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .certificates import named

__all__ = ["LONGEST", "Keeper", "Link", "Message"]

#: Octets of one message.
LONGEST = 65536
#: Seconds until TLS and HELLO must be done; between two pings; until a silent link ends.
OPENING = 5.0
PING_INTERVAL = 5.0
SILENCE = 12.0
_HEAD = Struct("!IB")
_MOMENT = Struct("!d")
# Linux: how long what was sent may go unacknowledged (tcp(7)), in milliseconds.
_USER_TIMEOUT = 10_000


class Message(IntEnum):
    """The kinds of messages."""

    HELLO = 1
    PING = 2
    PONG = 3
    BYE = 4


class Keeper(Interface):
    """What :mod:`.links` is to a link."""

    node: str
    incarnation: int

    def up(self, link: Link) -> None:
        """TLS and HELLO are done."""

    def down(self, link: Link) -> None:
        """The connection has ended; ``link.reason`` says how."""


@implementer(IHandshakeListener)
class Link(Protocol):
    """One end; ``ours``: we connected."""

    #: The TLS connection, a :class:`~twisted.protocols.tls.TLSMemoryBIOProtocol`.
    transport: Any

    def __init__(self, keeper: Keeper, clock: IReactorTime, ours: bool) -> None:
        self._keeper = keeper
        self._clock = clock
        self.ours = ours
        self._received = bytearray()
        self._call: IDelayedCall | None = None
        self._heard = 0.0
        #: Who is there, once :attr:`is_up`.
        self.node = ""
        self.incarnation = 0
        self.is_up = False
        self.since = 0.0
        self.round_trip = 0.0
        #: The other end said that it stops.
        self.bye = False
        self.reason = ""

    # -- life

    def connectionMade(self) -> None:
        """TCP is there; TLS begins."""
        tcp = self.transport.transport.getHandle()
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
        self.transport.setTcpNoDelay(True)
        self._call = self._clock.callLater(OPENING, self.end, "it took too long to open")

    def handshakeCompleted(self) -> None:
        """TLS is there, and the other end's certificate is one of this cluster."""
        self.node = named(self.transport.getPeerCertificate())
        said = {"node": self._keeper.node, "incarnation": self._keeper.incarnation}
        self._send(Message.HELLO, json.dumps(said).encode())

    def end(self, reason: str, after: Message | None = None) -> None:
        """Close, with ``after`` as the last message."""
        self.reason = self.reason or reason
        if after is not None and self.is_up:
            self._send(after)
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self.reason = self.reason or reason.getErrorMessage()
        self._keeper.down(self)

    # -- messages

    def _send(self, kind: Message, content: bytes = b"") -> None:
        self.transport.write(_HEAD.pack(len(content), kind) + content)

    def dataReceived(self, data: bytes) -> None:
        """Take the messages that are whole."""
        self._received += data
        while len(self._received) >= _HEAD.size and not self.reason:
            length, kind = _HEAD.unpack_from(self._received)
            if length > LONGEST:
                self.end("it sent no message")
                return
            if len(self._received) < _HEAD.size + length:
                return
            content = bytes(self._received[_HEAD.size : _HEAD.size + length])
            del self._received[: _HEAD.size + length]
            self._take(kind, content)

    def _take(self, kind: int, content: bytes) -> None:
        self._heard = self._clock.seconds()
        if not self.is_up:
            self._open(kind, content)
        elif kind == Message.PING:
            self._send(Message.PONG, content)
        elif kind == Message.PONG and len(content) == _MOMENT.size:
            self.round_trip = max(0.0, self._heard - _MOMENT.unpack(content)[0])
        elif kind == Message.BYE:
            self.bye = True
            self.end("it stopped")
        # What is not known is of a later version, and passed over.

    def _open(self, kind: int, content: bytes) -> None:
        try:
            said: Any = json.loads(content) if kind == Message.HELLO else None
            node, incarnation = said["node"], said["incarnation"]
        except (ValueError, TypeError, KeyError):
            self.end("it said no hello")
            return
        if node != self.node or type(incarnation) is not int:
            self.end("its certificate is another node's")
            return
        self.incarnation = incarnation
        self.is_up = True
        self.since = self._heard
        if self._call is not None:
            self._call.cancel()
        self._ping()
        self._keeper.up(self)

    def _ping(self) -> None:
        now = self._clock.seconds()
        if now - self._heard > SILENCE:
            self.end("it is silent")
            return
        self._call = self._clock.callLater(PING_INTERVAL, self._ping)
        self._send(Message.PING, _MOMENT.pack(now))
