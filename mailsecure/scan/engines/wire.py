"""Connections to scanners: octets out as fast as they are taken, octets in, until one ends.

A :class:`Wire` is one connection, read and written by a coroutine: ``await send(…)`` returns
when the connection takes more, ``await receive()`` with what came.  :mod:`.wires` opens and
keeps them; :class:`BodyReader` reads a message for them, files in a thread.

What goes wrong with a connection is :class:`~mailsecure.scan.api.ScannerFault`;
:class:`Gone` where the other side ended it.  Deadlines are the caller's (:mod:`.guard`):
cancelling what waits here closes the connection.
"""

from __future__ import annotations

from socket import IPPROTO_TCP, TCP_QUICKACK
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport, IUNIXTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ...smtp.lost import words_of
from ...spool.values import Body
from ...world import World
from ..api import ScannerFault

__all__ = ["BodyReader", "Gone", "Wire"]

#: Octets that are read from a message at once.
BATCH = 256 << 10
#: Octets that wait to be read before the other side has to wait.
READ_AHEAD = 64 << 10


class Gone(ScannerFault):
    """The scanner closed the connection."""


@implementer(IPushProducer)
class Wire(Protocol):
    """One connection.  ``uses`` counts the messages that went over it."""

    transport: Any

    def __init__(self) -> None:
        self._socket: Any = None
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
        transport = self.transport
        # Twisted has a Unix socket's transport say that it is TCP, too.
        if ITCPTransport.providedBy(transport) and not IUNIXTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            # Scanners that write an answer in two pieces wait for our acknowledgement of the
            # first (Nagle), which the kernel would delay by 40 ms.  It forgets this flag.
            if not ISSLTransport.providedBy(transport):
                self._socket = self.transport.getHandle()
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Octets came."""
        self.answered = True
        if self._socket is not None:
            self._socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)
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

    def finish(self) -> None:
        """Say that nothing more will be sent; the answer may still come.  Not over TLS."""
        if self._end is None:
            self.transport.loseWriteConnection()

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
