"""The doorstep: connections that must say first whose they are, with a PROXY header.

A :class:`Stranger` stands for a connection until its header is whole.  Then whoever made the
:class:`Doorstep` is told, and gives the transport to another protocol, which begins as on a
new connection; what followed the header is fed to it (:func:`hand_over`).  Nothing is said to
a stranger, whatever it does: who begins with anything else, or with nothing for
:data:`HEADER_TIME` seconds, is cut off.

The doorstep is bounded: where too many wait, the one that waited longest goes.  All have the
same time, so they stand in the order of their deadlines, and one delayed call serves all.

:class:`.service.Gateway` has one for the proxies of ``[smtp] proxy_protocol``, and
:class:`.passed.PeerDoor` one for the other nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from ..errors import RemoteFault
from ..proxyproto.reading import HeaderReader
from ..proxyproto.values import Header

__all__ = ["HEADER_TIME", "Doorstep", "Stranger", "hand_over"]

#: How long a header may take, in seconds.
HEADER_TIME = 5.0


class Stranger(Protocol):
    """One connection that has said nothing of use yet.  ``tls``: TLS is to begin then."""

    __slots__ = ("_doorstep", "_reader", "began", "connected", "factory", "tls", "transport")

    transport: Any

    def __init__(self, doorstep: Doorstep, reader: HeaderReader, tls: bool) -> None:
        self._doorstep = doorstep
        self._reader = reader
        self.tls = tls
        #: Whether anything came.
        self.began = False

    @property
    def raw(self) -> bytes:
        """The octets of the header."""
        return self._reader.raw

    @property
    def rest(self) -> bytes:
        """The octets that came after it."""
        return self._reader.rest

    @property
    def address(self) -> str:
        """The address at the other end."""
        return str(getattr(self.transport.getPeer(), "host", "-"))

    def connectionMade(self) -> None:
        """It is here."""
        self._doorstep.enter(self)

    def dataReceived(self, data: bytes) -> None:
        """Octets came."""
        self.began = True
        try:
            header = self._reader.feed(data)
        except RemoteFault as fault:
            self._doorstep.send_away(self, str(fault))
            return
        if header is not None:
            self._doorstep.introduced(self, header)

    def connectionLost(self, reason: Failure = Failure(Exception("closed"))) -> None:  # noqa: B008
        """It went by itself, or was cut off."""
        self._doorstep.gone(self)


class Doorstep:
    """All that wait.

    ``introduce`` is called with each stranger whose header is whole; it hands it over, or
    sends it away.  ``refused`` is called with one that is cut off, and why.
    """

    def __init__(
        self,
        clock: IReactorTime,
        most: int,
        introduce: Callable[[Stranger, Header], None],
        refused: Callable[[Stranger, str], None],
    ) -> None:
        self._clock = clock
        self._most = most
        self._introduce = introduce
        self._refused = refused
        self._waiting: dict[Stranger, float] = {}
        self._call: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def stranger(self, reader: HeaderReader, tls: bool = False) -> Stranger:
        """Return the protocol of a new connection, whose header is read by ``reader``."""
        return Stranger(self, reader, tls)

    def close(self) -> None:
        """Cut off all that wait, without a word to the log."""
        for stranger in list(self._waiting):
            self._leave(stranger)
            stranger.transport.abortConnection()

    # -- what strangers tell

    def enter(self, stranger: Stranger) -> None:
        """It has connected."""
        if len(self._waiting) >= self._most:
            self.send_away(next(iter(self._waiting)), "too many others wait to say whose they are")
        self._waiting[stranger] = self._clock.seconds() + HEADER_TIME
        if self._call is None:
            self._call = self._clock.callLater(HEADER_TIME, self._look)

    def introduced(self, stranger: Stranger, header: Header) -> None:
        """Its header is whole."""
        self._leave(stranger)
        self._introduce(stranger, header)

    def send_away(self, stranger: Stranger, why: str) -> None:
        """Cut it off."""
        self._leave(stranger)
        self._refused(stranger, why)
        stranger.transport.abortConnection()

    def gone(self, stranger: Stranger) -> None:
        """It is not connected any more.  Who never said anything only looked if we are up."""
        if stranger in self._waiting:
            self._leave(stranger)
            if stranger.began:
                self._refused(stranger, "ended within its PROXY header")

    def _leave(self, stranger: Stranger) -> None:
        self._waiting.pop(stranger, None)
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        """Cut off who is late; come again when the next one will be."""
        self._call = None
        now = self._clock.seconds()
        late = []
        for stranger, deadline in self._waiting.items():
            if deadline > now:
                self._call = self._clock.callLater(deadline - now, self._look)
                break
            late.append(stranger)
        for stranger in late:
            self.send_away(stranger, "no PROXY header in time")


def hand_over(stranger: Stranger, protocol: IProtocol) -> None:
    """Give a stranger's connection to ``protocol``, and what followed its header."""
    transport, rest = stranger.transport, stranger.rest
    transport.protocol = protocol
    protocol.makeConnection(transport)
    if rest:
        # It may have handed the connection on itself.
        transport.protocol.dataReceived(rest)
