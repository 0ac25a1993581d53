"""The client's Twisted adapter: one connection to a next hop, many messages over it.

:class:`SmtpConnection` carries octets between a transport and :class:`.client.ClientMachine`,
starts TLS, sends bodies and keeps the deadlines; it decides nothing.  :mod:`.connecting`
opens it; :meth:`SmtpConnection.send` is called once a message and gives one Deferred, fired
with the :class:`~.transaction.Result`.  A result always comes: a lost connection, a deadline
or a broken protocol make 4xx replies of our own.  The Deferred fails only where the fault is
ours (a body that cannot be read, or must not go out).

*Bodies.*  What is in memory and up to :data:`AT_ONCE` octets leaves in one write.  Larger
ones, and those in files, are moved by a :class:`.pumping.Pump`, with back-pressure.

*Writes.*  While the socket takes everything, octets go to it directly (``writeSomeData``):
two system calls and a turn of the reactor less a write.  What it does not take goes through
Twisted's buffer, until a reply to the final dot shows that all has arrived.

*Time.*  One delayed call a connection, moved only when a deadline comes nearer: a busy
connection hardly touches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import LocalFault, RemoteFault
from .client import ClientMachine
from .client_events import ClientEvent, Done, Ready, SendBody, StartTls, Unusable
from .lost import words_of
from .pumping import Content, Pump
from .replies import Reply
from .stuffing import stuffed
from .transaction import Capabilities, Result, Transaction

__all__ = [
    "ClientPatience",
    "CouldNotOpen",
    "SmtpConnection",
]

#: Bodies in memory up to this size leave in one write.
AT_ONCE = 256 * 1024
#: Octets a second that a next hop has to take in the long run.
MINIMUM_RATE = 500.0
#: How long a server may take for its goodbye.
CLOSING_LIMIT = 5.0
NEVER = float("inf")
_NO_FAILURE = Failure(ConnectionDone())


@dataclass(frozen=True, slots=True)
class ClientPatience:
    """How long to wait, in seconds: for a reply, and for the reply to the final dot."""

    command: float
    data: float


class CouldNotOpen(RemoteFault):
    """No session with this server now.

    ``reply`` is its own or made up here; ``in_handshake`` says that TLS failed.
    """

    def __init__(self, reply: Reply, in_handshake: bool = False) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.in_handshake = in_handshake


@implementer(IHandshakeListener, IPushProducer)
class SmtpConnection(Protocol):
    """One connection.  See the module's text.

    ``tls_options`` is what ``startTLS`` takes; ``in_thread`` runs blocking calls
    (:meth:`mailsecure.world.World.in_thread`).
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_deadline",
        "_direct",
        "_in_thread",
        "_machine",
        "_patience",
        "_paused",
        "_plain",
        "_pump",
        "_sending",
        "_timer",
        "_timer_at",
        "_tls_options",
        "_waiting",
        "connected",
        "connector",
        "factory",
        "lost",
        "messages",
        "opened",
        "tls",
        "transport",
    )

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        machine: ClientMachine,
        patience: ClientPatience,
        tls_options: Any,
        in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self.transport = None
        self._clock = clock
        self._machine = machine
        self._patience = patience
        self._tls_options = tls_options
        self._in_thread = in_thread
        #: Fires when the session is open; fails with :class:`CouldNotOpen`.
        self.opened: Deferred[None] | None = Deferred(self._cancelled)
        #: Called once when an open session has ended, for whatever reason.
        self.lost: Callable[[SmtpConnection], None] | None = None
        #: How many transactions went over it.
        self.messages = 0
        #: The facts of TLS (``TLSv1.3 TLS_AES_256_GCM_SHA384``), or "".
        self.tls = ""
        #: Twisted's, while there is no transport yet.
        self.connector: Any = None
        self._waiting: Deferred[Result] | None = None
        self._sending: Content | None = None
        self._pump: Pump | None = None
        self._paused = False
        self._closing = False
        self._direct = self._plain = False
        self._deadline = NEVER
        self._timer: IDelayedCall | None = None
        self._timer_at = NEVER

    # -- what the pool and the transports use

    @property
    def usable(self) -> bool:
        """True where :meth:`send` may be called."""
        return self._machine.ready and not self._closing

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers."""
        return self._machine.capabilities

    def send(self, transaction: Transaction, content: Content | None = None) -> Deferred[Result]:
        """Carry out one transaction; ``content`` is None for a probe only.

        Cancelling the Deferred aborts the connection.
        """
        self._machine.begin(transaction)
        self.messages += 1
        self._sending = content
        waiting: Deferred[Result] = Deferred(self._cancelled)
        self._waiting = waiting
        self._expect(self._patience.command)
        self._write(self._machine.take())
        return waiting

    def leave(self) -> None:
        """Say QUIT and close; nothing to wait for."""
        if not self.usable:
            self._close()
            return
        self._machine.quit()
        self._closing = True
        self._expect(CLOSING_LIMIT)
        self._write(self._machine.take())

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._closing = True
        if self.transport is not None:
            self.transport.abortConnection()
        elif self.connector is not None:
            self.connector.disconnect()

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        # The Deferred fails by itself; nobody else may fire it.
        self._waiting = self.opened = None
        self.abort()

    def unreachable(self, why: str) -> None:
        """There was no connection; ``why`` in words."""
        self._settle(self._machine.lost(Reply(451, "4.4.1", f"Cannot connect: {why}")))

    # -- what Twisted tells us

    def connectionMade(self) -> None:
        """The server is there; it speaks first."""
        transport = self.transport
        self.connector = None
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self._direct = self._plain = hasattr(transport, "writeSomeData")
        self._expect(self._patience.command)

    def dataReceived(self, data: bytes) -> None:
        """Replies came, or parts of them."""
        machine = self._machine
        try:
            events = machine.receive(data)
        except RemoteFault as fault:
            self._break(Reply(451, "4.5.0", f"The next hop broke the protocol: {fault}"))
            return
        for event in events:
            _HANDLERS[event.__class__](self, event)
        out = machine.take()
        if out:
            if not machine.ready:
                self._expect(self._patience.command)
            self._write(out)
        if machine.closed:
            self._close()

    def handshakeCompleted(self) -> None:
        """TLS is on, unless the certificate was refused: then Twisted is aborting."""
        if self.transport.disconnecting:
            return
        handle = self.transport.getHandle()
        self.tls = f"{handle.get_protocol_version_name()} {handle.get_cipher_name()}"
        self._machine.tls_started()
        self._expect(self._patience.command)
        self._write(self._machine.take())

    def connectionLost(self, reason: Failure = _NO_FAILURE) -> None:
        """The connection is gone."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        machine = self._machine
        if machine.in_handshake:
            text = f"TLS handshake failed: {words_of(reason)}"
            self._settle(machine.lost(Reply(454, "4.7.5", text)), in_handshake=True)
        else:
            text = f"Connection lost {machine.stage}"
            if reason.check(ConnectionDone) is None:
                text += f": {words_of(reason)}"
            self._settle(machine.lost(Reply(451, "4.4.2", text)))
        self._gone()

    def pauseProducing(self) -> None:
        """The server does not take the body as fast as we send it."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on sending."""
        self._paused = False
        if self._pump is not None:
            self._pump.run()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost follows."""

    # -- events of the machine

    def _on_ready(self, event: Ready) -> None:
        self._deadline = NEVER
        opened, self.opened = self.opened, None
        if opened is not None:
            opened.callback(None)

    def _on_unusable(self, event: Unusable) -> None:
        self._settle(event)

    def _on_starttls(self, event: StartTls) -> None:
        self._direct = self._plain = False
        self._expect(self._patience.command)
        self.transport.startTLS(self._tls_options)

    def _on_send_body(self, event: SendBody) -> None:
        content = self._sending
        assert content is not None
        size = content.octets
        self._expect(self._patience.data + size / MINIMUM_RATE)
        if size > AT_ONCE or not content.in_memory:
            self._pump = pump = Pump(
                content, self._in_thread, self._body_piece, self._body_ended, self._fail
            )
            self._paused = False
            self.transport.registerProducer(self, True)
            pump.run()
            return
        try:
            data = stuffed(b"".join(content.pieces()))
        except LocalFault:
            self._fail(Failure())
            return
        self._machine.body_sent()
        self._write(data)

    def _on_done(self, event: Done) -> None:
        self._direct = self._plain
        self._deadline = NEVER
        self._stop_pump()
        waiting, self._waiting = self._waiting, None
        self._sending = None
        if waiting is not None:
            waiting.callback(event.result)

    # -- the body, for the pump

    def _body_piece(self, data: bytes) -> bool:
        """Write a piece of the body; return whether more may follow at once."""
        self.transport.write(data)
        return not self._paused

    def _body_ended(self) -> None:
        self._stop_pump()
        self._direct = False
        self._machine.body_sent()
        self._expect(self._patience.data)

    def _stop_pump(self) -> None:
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
            self.transport.unregisterProducer()

    # -- the end

    def _settle(self, event: ClientEvent | None, in_handshake: bool = False) -> None:
        if isinstance(event, Done):
            self._on_done(event)
        elif isinstance(event, Unusable) and self.opened is not None:
            opened, self.opened = self.opened, None
            opened.errback(CouldNotOpen(event.reply, in_handshake))

    def _break(self, reply: Reply, in_handshake: bool = False) -> None:
        """End a session in which nothing can be trusted any more."""
        self.abort()
        self._settle(self._machine.lost(reply), in_handshake)

    def _fail(self, failure: Failure) -> None:
        """The fault is ours: the final dot is never sent."""
        waiting, self._waiting = self._waiting, None
        self._break(Reply(451, "4.3.0", "The message could not be sent"))
        if waiting is not None:
            waiting.errback(failure)

    def _close(self) -> None:
        if not self._closing or self._machine.closed:
            self._closing = True
            self._expect(CLOSING_LIMIT)
            self.transport.loseConnection()

    def _gone(self) -> None:
        lost, self.lost = self.lost, None
        if lost is not None:
            lost(self)

    # -- time and octets

    def _expect(self, seconds: float) -> None:
        """Allow ``seconds`` from now for what comes next."""
        self._deadline = deadline = self._clock.seconds() + seconds
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._timer_fired)
            self._timer_at = deadline
        elif self._timer_at > deadline:
            self._timer.reset(seconds)
            self._timer_at = deadline

    def _timer_fired(self) -> None:
        self._timer = None
        left = self._deadline - self._clock.seconds()
        if left == NEVER:
            return
        if left > 0:
            self._timer = self._clock.callLater(left, self._timer_fired)
            self._timer_at = self._deadline
        elif self._closing:
            self.abort()
        else:
            machine = self._machine
            reply = Reply(451, "4.4.2", f"Timed out {machine.stage}")
            self._break(reply, machine.in_handshake)

    def _write(self, data: bytes) -> None:
        if self._direct:
            sent = self.transport.writeSomeData(data)
            if sent == len(data):
                return
            # What the socket did not take, and an error, are the transport's from here.
            self._direct = False
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        self.transport.write(data)


_HANDLERS: dict[type, Callable[[SmtpConnection, Any], None]] = {
    Ready: SmtpConnection._on_ready,
    Unusable: SmtpConnection._on_unusable,
    StartTls: SmtpConnection._on_starttls,
    SendBody: SmtpConnection._on_send_body,
    Done: SmtpConnection._on_done,
}
