"""One link: a TLS connection between two nodes, and what is said over it.

Both sides show a certificate of the cluster (:mod:`.certificates`); a peer without one is
told nothing.  TLS 1.3 only (RFC 8446), nothing is resumed.  Then each says HELLO: its
name, which must be the one in its certificate and, where we connected, the one we wanted;
its *instance*, a number drawn at its start, by which a restarted process is told from a
broken line.  That must all be done within :data:`GREETING`.

Later a PING every few seconds measures the way; a peer that is silent for
:data:`SILENCE` is dropped, by us or by the kernel (TCP_USER_TIMEOUT, keepalive), whoever
notices first.  BYE says that a node stops in good order.

:class:`Link` keeps one connection and judges nothing; its :class:`Owner`, :mod:`.links`,
is told of a link that is up, of a BYE, and of the end, with a word on whose doing it was.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Protocol

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import RemoteFault
from .certificates import Identity, node_of
from .linkframes import Kind, Message, Reader, encode_message

__all__ = ["GREETING", "SILENCE", "Link", "LinkTls", "Owner", "under_tls"]

#: Seconds for the handshake and the first message together.
GREETING = 5.0
#: Seconds after which a peer of whom nothing comes is dropped.
SILENCE = 10.0
#: The longest name, version or instance that a peer may have.
LONGEST_WORD = 64

#: Keepalive: after so long, so often, so many times (seconds; tcp(7)).
_KEEPALIVE = (4, 2, 3)


class Owner(Protocol):
    """Who keeps links."""

    node: str
    version: str
    instance: str

    def opened(self, link: Link) -> None:
        """``link`` is up: both sides have said who they are."""

    def leaves(self, link: Link) -> None:
        """The peer said BYE."""

    def shared(self, link: Link, body: dict[str, Any]) -> None:
        """The peer shares something; nothing in it has been looked at."""

    def closed(self, link: Link, reason: str, ours: bool) -> None:
        """``link`` has ended; ``ours`` says that we did it."""


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class LinkTls:
    """Makes TLS connections with one identity, for both sides."""

    def __init__(self, identity: Identity) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        store = context.get_cert_store()
        assert store is not None
        for authority in identity.authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, None)
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Twisted's question where we connect."""
        return SSL.Connection(self._context, None)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Twisted's question where we accept."""
        return SSL.Connection(self._context, None)


def under_tls(link: Link, tls: LinkTls, clock: IReactorTime, addr: Any) -> TwistedProtocol:
    """Return the protocol that speaks TLS on the wire for ``link``."""
    factory = TLSMemoryBIOFactory(tls, bool(link.wanted), _One(link), clock)
    protocol: TwistedProtocol = factory.buildProtocol(addr)
    return protocol


class _One(Factory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> TwistedProtocol:
        return self._link


@implementer(IHandshakeListener)
class Link(TwistedProtocol):
    """One connection.  ``wanted`` is the node that we connected to, "" where we accepted."""

    def __init__(self, owner: Owner, clock: IReactorTime, wanted: str = "") -> None:
        self._owner = owner
        self._clock = clock
        self.wanted = wanted
        #: Where the peer connects from, what its certificate and its HELLO say; "" and
        #: None before.
        self.address = ""
        self.node = ""
        self.version = ""
        self.instance = ""
        self.certificate: x509.Certificate | None = None
        #: Seconds that the last PING took, None before.
        self.round_trip: float | None = None
        #: When octets came last, and when we pinged last (monotonic).
        self.heard = clock.seconds()
        self.pinged = -SILENCE
        self._pings = 0
        self._reader = Reader()
        self._greeting: IDelayedCall | None = None
        self._ours = ""
        self._full = False
        self._ended = False

    # -- what the owner may do

    def ping(self) -> None:
        """Measure the way."""
        self._pings += 1
        self.pinged = self._clock.seconds()
        self._say(Message(Kind.PING, {"number": self._pings}))

    def share(self, body: dict[str, Any]) -> bool:
        """Share something; False, and nothing was said, while the peer does not read."""
        if self._full or self._ours:
            return False
        self._say(Message(Kind.SHARED, body))
        return True

    def leave(self) -> None:
        """Say BYE and close."""
        self._ours = "we stop"
        self._say(Message(Kind.BYE))
        self._close()

    def drop(self, reason: str) -> None:
        """End at once; the owner is told that it was our doing."""
        if not self._ours:
            self._ours = reason
        self._transport.abortConnection()

    # -- what Twisted tells

    @property
    def _transport(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        """TCP is connected; TLS begins."""
        self.address = str(getattr(self._transport.getPeer(), "host", ""))
        self._greeting = self._clock.callLater(GREETING, self.drop, "no greeting in time")
        self._transport.registerProducer(self, True)
        # Where we are under TLS there is a socket below; a string transport has none.
        _set_options(getattr(self._transport, "transport", None))

    def handshakeCompleted(self) -> None:
        """TLS is up, and the peer's certificate one of the cluster's."""
        certificate = self._transport.getPeerCertificate().to_cryptography()
        name = node_of(certificate)
        if self.wanted and name != self.wanted:
            self.drop(f"its certificate is that of {name}")
            return
        self.certificate, self.node = certificate, name
        owner = self._owner
        body = {"node": owner.node, "version": owner.version, "instance": owner.instance}
        self._say(Message(Kind.HELLO, body))

    def dataReceived(self, data: bytes) -> None:
        """Octets have come out of TLS."""
        if self._ours:
            return
        self.heard = self._clock.seconds()
        try:
            for message in self._reader.feed(data):
                self._hear(message)
                if self._ours:
                    return
        except RemoteFault as fault:
            self.drop(str(fault))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended."""
        if self._ended:
            return
        self._ended = True
        self._greeted()
        self._owner.closed(self, self._ours or _words(reason), bool(self._ours))

    # A peer that does not read gets no PONG: else our buffer grew with its PINGs.

    def pauseProducing(self) -> None:
        """The transport is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """The transport has room."""
        self._full = False

    def stopProducing(self) -> None:
        """The transport has ended."""
        self._full = True

    def _close(self) -> None:
        # A transport waits for its producer before it closes.
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    # -- messages

    def _say(self, message: Message) -> None:
        if not self._full:
            self._transport.write(encode_message(message))

    def _hear(self, message: Message) -> None:
        if not self.instance:
            self._greet(message)
        elif message.kind is Kind.PING:
            self._say(Message(Kind.PONG, message.body))
        elif message.kind is Kind.PONG:
            if message.body.get("number") == self._pings:
                self.round_trip = self.heard - self.pinged
        elif message.kind is Kind.SHARED:
            self._owner.shared(self, message.body)
        elif message.kind is Kind.BYE:
            self._ours = "it stopped"
            self._owner.leaves(self)
            self._close()
        else:
            raise RemoteFault("says hello twice")

    def _greet(self, message: Message) -> None:
        if message.kind is not Kind.HELLO:
            raise RemoteFault("does not say who it is")
        words = [_word(message.body, name) for name in ("node", "version", "instance")]
        if words[0] != self.node:
            raise RemoteFault(f"says that it is {words[0]}, but its certificate is {self.node}'s")
        _, self.version, self.instance = words
        self._greeted()
        self._owner.opened(self)

    def _greeted(self) -> None:
        greeting, self._greeting = self._greeting, None
        if greeting is not None and greeting.active():
            greeting.cancel()


def _word(body: dict[str, Any], name: str) -> str:
    word = body.get(name)
    if not isinstance(word, str) or not 0 < len(word) <= LONGEST_WORD:
        raise RemoteFault(f"says hello without its {name}")
    return word


def _set_options(transport: Any) -> None:
    """Let the kernel drop a silent peer within :data:`SILENCE`."""
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, socket.socket):
        return
    idle, every, count = _KEEPALIVE
    with suppress(OSError):
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE * 1000))


def _words(reason: Failure) -> str:
    """Return the reason of an end in a few words."""
    error = reason.value
    if isinstance(error, SSL.Error):
        details = error.args[0] if error.args and isinstance(error.args[0], list) else []
        said = [each[-1] for each in details if each and each[-1]]
        return f"TLS: {said[0] if said else 'broken off'}"
    if isinstance(error, ConnectionDone):
        return "closed by the peer"
    if isinstance(error, ConnectionClosed):
        cause = error.args[0] if error.args else ""
        return f"lost: {cause}" if cause else "lost"
    return str(error)
