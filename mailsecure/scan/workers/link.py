"""The daemon's end of one worker: sends a job, hears what came of it.

A message in memory and not large is written at once.  Any other is sent piece by piece, no
faster than the worker reads, and read from its file in a thread: the reactor's thread
never has more than :data:`PIECE` octets in hand.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ...errors import RemoteFault
from ...spool.values import Body
from ...world import World
from ..faults import WorkerFault
from .frames import FrameReader, encode_frame

__all__ = ["Link", "Owner"]

#: What is read and written at once, in octets.
PIECE = 256 << 10
_READ = 64 << 10


class Owner(Protocol):
    """Who is told what comes from a worker."""

    def heard(self, link: Link, outcome: dict[str, Any]) -> None:
        """The worker has done its job."""

    def broken(self, link: Link, why: str) -> None:
        """The worker is gone, or makes no sense (``why``, "" if it is only gone)."""


@implementer(IPushProducer)
class Link(TwistedProtocol):
    """The socket to worker ``number``."""

    transport: Any

    def __init__(self, world: World, owner: Owner, number: int) -> None:
        self._world = world
        self._owner = owner
        self.number = number
        self._reader = FrameReader()
        self._paused: Deferred[None] | None = None
        self._full = False
        self._open = True

    def open(self) -> socket.socket:
        """Connect; returns the worker's end, which the caller passes on and closes."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            self._world.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Once(self))
        except OSError:
            theirs.close()
            raise
        finally:
            ours.close()
        return theirs

    def close(self) -> None:
        """Close at once; nothing is told any more."""
        if self._open:
            self._open = False
            self._go_on()
            self.transport.abortConnection()

    async def send(self, order: dict[str, Any], body: Body | None) -> None:
        """Send a job and the message it is about; returns when all of it is on its way.

        Raises LocalFault where the message cannot be read, ValueError where ``order`` or
        the message is too long.  Ends early where the link closes meanwhile.
        """
        octets = 0 if body is None else body.octets
        self.transport.write(encode_frame(order, octets))
        if body is None:
            return
        if body.in_memory and octets <= PIECE:
            pieces = list(body.pieces(PIECE))
            _must_be(sum(map(len, pieces)), octets)
            self.transport.writeSequence(pieces)
            return
        await self._send_slowly(body, octets)

    async def _send_slowly(self, body: Body, octets: int) -> None:
        pieces = body.pieces(_READ)
        left = octets
        self.transport.registerProducer(self, True)
        try:
            while left and self._open:
                if body.in_memory:
                    batch = _batch(pieces)
                else:
                    batch = await self._world.in_thread(_batch, pieces)
                left -= len(batch)
                if not batch or left < 0:
                    _must_be(octets - left, octets)
                if self._open:
                    self.transport.write(batch)
                await self._not_full()
        finally:
            if self._open:
                self.transport.unregisterProducer()

    async def _not_full(self) -> None:
        if self._full and self._open:
            self._paused = Deferred()
            await self._paused

    def _go_on(self) -> None:
        self._full = False
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    # -- IPushProducer: told by the transport how fast the worker reads

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._full = True

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._go_on()

    def stopProducing(self) -> None:
        """See IProducer."""
        self._go_on()

    # -- IProtocol

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        try:
            outcomes = self._reader.feed(data)
        except RemoteFault as fault:
            self._owner.broken(self, str(fault))
            return
        for outcome in outcomes:
            self._owner.heard(self, outcome)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See IProtocol."""
        if self._open:
            self._open = False
            self._go_on()
            self._owner.broken(self, "")


class _Once(Factory):
    """Gives the reactor the protocol that is there already."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> Link:
        """See IFactory."""
        return self._link


def _batch(pieces: Iterator[bytes]) -> bytes:
    return b"".join(islice(pieces, PIECE // _READ))


def _must_be(read: int, said: int) -> None:
    if read != said:
        raise WorkerFault(f"the message has {read} octets instead of {said}")
