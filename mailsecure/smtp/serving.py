"""The server's Twisted adapter: carries octets to the machine and answers back.

One :class:`SmtpServerProtocol` stands for one session.  It owns the transport, the
deadlines and the order of replies, and decides nothing: each event of
:class:`.server.ServerMachine` that asks something goes to a :class:`Receiver`
(``gateway`` makes one a session), whose answer is a Reply or a Deferred of one.

Three things that are easy to get wrong, and how they are kept right here:

*Order.*  While an answer is awaited no event is taken from the machine; what the
client sends meanwhile waits in its buffer, and past :data:`READ_AHEAD` octets the
transport is paused.  Replies made in one go leave in one write.

*Back-pressure.*  Replies go straight to the socket (``send``) as long as it takes them
whole: that saves two system calls and a turn of the reactor a reply.  The
first time it does not, the session changes for good to Twisted's buffered write, and
when that buffer is full, nothing more is read from the client.

*Time.*  No delayed call a session: the service sweeps all sessions (:meth:`sweep`)
about once a second and compares numbers.  There is a deadline for the next octet, one
for the transaction, one for the session, and a minimum rate for content.

An unexpected exception is answered 451 4.3.0, logged, and the session goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection as StreamConnection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .events import (
    ChunkEnd,
    Content,
    ContentEnd,
    Data,
    Event,
    Fault,
    Helo,
    Mail,
    Quit,
    Rcpt,
    Reset,
    Said,
    StartTls,
    TlsFacts,
)
from .replies import Reply
from .server import ServerMachine

__all__ = ["Answer", "Patience", "Receiver", "SmtpServerProtocol"]

_log = Logger(namespace="smtpd")

Answer: TypeAlias = Reply | Deferred[Reply]

#: How much a client may send ahead of our answers before it is no longer read.
READ_AHEAD = 65536
#: Commands in a row that bring no message (NOOP, RSET, VRFY, EHLO, MAIL) before the end.
IDLE_COMMANDS = 100
#: How long we give ourselves for one answer, and a closing client to read the last.
ANSWER_LIMIT = 600.0
CLOSING_LIMIT = 10.0
#: How much of what a client still sends is thrown away before it is cut off.
LINGER = 1 << 20
HANDSHAKE_LIMIT = 60.0
NEVER = float("inf")

INTERNAL_ERROR = Reply(451, "4.3.0", "Internal error; nothing is lost, try again later")
BROKEN = Reply(421, "4.3.0", "Internal error; closing, try again later")
TIMED_OUT = Reply(421, "4.4.2", "Timed out; closing")
TOO_SLOW = Reply(421, "4.4.2", "Too slow; closing")
SESSION_OVER = Reply(421, "4.4.2", "Session lasted too long; closing")
EARLY_TALKER = Reply(554, "5.5.0", "You spoke before the greeting")
TOO_IDLE = Reply(421, "4.7.0", "Too many commands without a message; closing")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors; closing")
GOING_DOWN = Reply(421, "4.3.2", "Service is being stopped; try again later")


@dataclass(frozen=True, slots=True)
class Patience:
    """The deadlines of a session, in seconds; ``minimum_rate`` in octets a second."""

    command: float
    data: float
    transaction: float
    session: float
    minimum_rate: float


class Receiver(Interface):
    """Who decides, for one session.  Nothing here may block."""

    def greeting(self) -> Reply:
        """Return the greeting, or the refusal after which the session is closed."""

    def helo(self, event: Helo) -> Answer:
        """A positive answer is replaced by the machine's own."""

    def mail(self, event: Mail) -> Answer:
        """Decide whether a transaction may begin."""

    def rcpt(self, event: Rcpt) -> Answer:
        """Decide whether mail for this recipient is taken."""

    def data(self, event: Data) -> Answer:
        """Answer 354 to let the content come."""

    def content(self, data: bytes) -> None:
        """Keep a piece of the message."""

    def message(self, event: ContentEnd) -> Answer:
        """Answer for the message: 250 only once it is durable."""

    def reset(self) -> None:
        """Forget the transaction."""

    def complained(self, reply: Reply) -> float | None:
        """Count an error reply; return how long to hold it back, None to close."""

    def tls_started(self, facts: TlsFacts) -> None:
        """Take the facts of the handshake; HELO and transaction are forgotten."""

    def closed(self, why: str) -> None:
        """The session is over; ``why`` is a few words of ours for the log."""


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class SmtpServerProtocol(Protocol):
    """One SMTP session.  See the module's text."""

    # The first three shadow Twisted's class attributes, so that no session needs a
    # dictionary: ten thousand idle ones are part of the bargain.
    __slots__ = (
        "_clock",
        "_closed",
        "_closing",
        "_congested",
        "_delayed",
        "_direct",
        "_ends",
        "_eof",
        "_greeted",
        "_idle",
        "_machine",
        "_opened",
        "_out",
        "_patience",
        "_plain",
        "_rate_from",
        "_received",
        "_receiver",
        "_running",
        "_tls_options",
        "_transaction_ends",
        "_waiting",
        "_why",
        "connected",
        "deadline",
        "factory",
        "transport",
    )

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        machine: ServerMachine,
        patience: Patience,
        tls_options: Any,
        opened: Callable[[SmtpServerProtocol], None],
        closed: Callable[[SmtpServerProtocol], None],
    ) -> None:
        self._opened = opened
        self._closed = closed
        self._clock = clock
        self._machine = machine
        self._patience = patience
        self._tls_options = tls_options
        self._receiver: Receiver
        self._out: list[bytes] = []
        self._delayed: IDelayedCall | None = None
        self._greeted = False
        self._waiting = False
        self._running = False
        self._congested = False
        self._closing = False
        self._eof = False
        #: Sends to the socket at once; None where the transport has to buffer.
        self._direct: Callable[[bytes], int] | None = None
        self._plain = False
        self._why = "lost connection"
        self._received = 0
        self._idle = 0
        self._rate_from = NEVER
        self._transaction_ends = NEVER
        self.deadline = NEVER

    # -- the session's beginning

    def begin(self, receiver: Receiver, greeting_delay: float, normalise: bool = False) -> None:
        """Greet, after ``greeting_delay`` seconds of silence.

        ``normalise`` has bare newlines in this client's messages mended.
        """
        now = self._clock.seconds()
        self._receiver = receiver
        self._machine.normalise = normalise
        self._plain = isinstance(self.transport, StreamConnection)
        if self._plain:
            self._direct = self.transport.getHandle().send
        self._ends = now + self._patience.session
        self.transport.registerProducer(self, True)
        reply = receiver.greeting()
        if not reply.positive:
            self._say_goodbye(reply, "refused")
        elif greeting_delay > 0:
            self.deadline = now + greeting_delay + HANDSHAKE_LIMIT
            self._delayed = self._clock.callLater(greeting_delay, self._greet, reply)
        else:
            self._greet(reply)

    def _greet(self, reply: Reply) -> None:
        self._delayed = None
        self._greeted = True
        self._send(reply.encode())
        self.deadline = self._clock.seconds() + self._patience.command

    # -- what Twisted tells us

    def connectionMade(self) -> None:
        """A client is here: whoever made us calls :meth:`begin`."""
        self._opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Octets came."""
        if self._closing:
            self._received += len(data)
            if self._received > LINGER:
                self.transport.abortConnection()
            return
        if not self._greeted:
            self._receiver.complained(EARLY_TALKER)
            self._say_goodbye(EARLY_TALKER, "early talker")
            return
        machine = self._machine
        machine.receive(data)
        self._received += len(data)
        if self._waiting or self._congested:
            if machine.waiting > READ_AHEAD:
                self.transport.pauseProducing()
            return
        self._run()

    def readConnectionLost(self) -> None:
        """The client will send no more; what it sent before is still answered."""
        self._eof = True
        if self._closing:
            self.transport.loseConnection()
        elif not (self._waiting or self._congested):
            self._close("lost connection")

    def writeConnectionLost(self) -> None:
        """Our half is closed: the end."""
        self._close("lost connection")

    def connectionLost(self, reason: Failure = Failure(Exception("closed"))) -> None:  # noqa: B008
        """The session is over."""
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
        self._machine.close()
        self._closing = True
        self._waiting = True
        self.deadline = NEVER
        self._closed(self)
        self._receiver.closed(self._why)

    def pauseProducing(self) -> None:
        """The client does not read our replies: read no more of its commands.

        Under TLS, writing may be waiting for something to be read (a handshake), so there
        only the commands wait, and reading stops at :data:`READ_AHEAD`.
        """
        self._congested = True
        if self._plain:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read; go on."""
        self._congested = False
        if not self._waiting and not self._closing:
            self.transport.resumeProducing()
            self._run()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost follows."""

    def handshakeCompleted(self) -> None:
        """TLS is on."""
        connection = self.transport.getHandle()
        self._receiver.tls_started(
            TlsFacts(connection.get_protocol_version_name(), connection.get_cipher_name())
        )
        if self._greeted:
            self.deadline = self._clock.seconds() + self._patience.command

    # -- time

    def sweep(self, now: float) -> None:
        """End the session if it has run out of time; called about once a second."""
        if now >= self.deadline:
            if self._closing:
                self._why += ", and would not close"
                self.transport.abortConnection()
            else:
                self._say_goodbye(TIMED_OUT, "timeout")
        elif self._closing or self._waiting:
            return
        elif now >= self._ends:
            self._say_goodbye(SESSION_OVER, "session too long")
        elif now >= self._transaction_ends:
            self._say_goodbye(TIMED_OUT, "transaction too long")
        elif now >= self._rate_from + min(60.0, self._patience.data):
            elapsed = now - self._rate_from
            if self._received < elapsed * self._patience.minimum_rate:
                self._say_goodbye(TOO_SLOW, "too slow")

    @property
    def closing(self) -> bool:
        """True once the last reply was given."""
        return self._closing

    def end(self, gently: bool) -> bool:
        """Close because the service stops; ``gently`` spares a session in a transaction.

        Returns whether the session is closing.
        """
        busy = self._waiting or self._machine.in_transaction
        if not self._closing and not (gently and busy):
            self._say_goodbye(GOING_DOWN, "service stopped")
        return self._closing

    # -- the loop

    def _run(self) -> None:
        """Take events from the machine until it needs octets, or we an answer."""
        if self._running:
            return
        self._running = True
        machine = self._machine
        while not (self._waiting or self._congested or self._closing):
            event = machine.next_event()
            if event is None:
                break
            try:
                _HANDLERS[event.__class__](self, event)
            except Exception:
                _log.failure("unexpected error in a session")
                if machine.owed:
                    self._answered(event, INTERNAL_ERROR)
                else:
                    self._say_goodbye(BROKEN, "internal error")
        self._running = False
        if self._out:
            self._flush()
        if self._closing:
            return
        patience = self._patience
        limit = patience.data if machine.receiving else patience.command
        self.deadline = self._clock.seconds() + (ANSWER_LIMIT if self._waiting else limit)
        if self._eof and not (self._waiting or self._congested):
            self._close("lost connection")

    def _ask(self, event: Event, answer: Answer) -> None:
        if isinstance(answer, Reply):
            self._answered(event, answer)
            return
        self._waiting = True
        answer.addCallbacks(
            self._answered_late, self._failed_late, callbackArgs=(event,), errbackArgs=(event,)
        )

    def _answered_late(self, reply: Reply, event: Event) -> None:
        self._waiting = False
        if self._closing:
            return
        try:
            self._answered(event, reply)
        except Exception:
            _log.failure("unexpected error in a session")
        self._go_on()

    def _failed_late(self, failure: Failure, event: Event) -> None:
        _log.failure("unexpected error in a session", failure=failure)
        self._answered_late(INTERNAL_ERROR, event)

    def _go_on(self) -> None:
        if not (self._running or self._waiting or self._congested):
            if self._machine.waiting > READ_AHEAD:
                self.transport.resumeProducing()
            self._run()

    def _answered(self, event: Event, reply: Reply) -> None:
        """Carry one answer to the machine and to the client."""
        kind = event.__class__
        if kind is Helo:
            self._transaction_ends = NEVER
            if reply.positive:
                reply = self._machine.hello_reply(event.name)  # type: ignore[union-attr]
        elif kind is Mail:
            if reply.positive:
                self._transaction_ends = self._clock.seconds() + self._patience.transaction
        elif kind is Data:
            self._machine.answered(reply)
            if reply.intermediate:
                self._received = 0
                self._rate_from = self._clock.seconds()
            if not event.chunked:  # type: ignore[union-attr]
                self._say(reply)
            return
        elif kind is ContentEnd:
            self._rate_from = self._transaction_ends = NEVER
            if reply.positive:
                self._idle = 0
        self._machine.answered(reply)
        self._say(reply)

    def _tires(self) -> bool:
        """Count a command that brings no message; end the session at one too many."""
        self._idle += 1
        if self._idle <= IDLE_COMMANDS:
            return False
        self._receiver.complained(TOO_IDLE)
        self._say_goodbye(TOO_IDLE, "too many commands")
        return True

    def _on_helo(self, event: Helo) -> None:
        if not self._tires():
            self._ask(event, self._receiver.helo(event))

    def _on_mail(self, event: Mail) -> None:
        if not self._tires():
            self._ask(event, self._receiver.mail(event))

    def _on_rcpt(self, event: Rcpt) -> None:
        self._ask(event, self._receiver.rcpt(event))

    def _on_data(self, event: Data) -> None:
        self._ask(event, self._receiver.data(event))

    def _on_content(self, event: Content) -> None:
        self._receiver.content(event.data)

    def _on_chunk_end(self, event: ChunkEnd) -> None:
        self._receiver.content(event.data)
        self._say(event.reply)

    def _on_content_end(self, event: ContentEnd) -> None:
        self._ask(event, self._receiver.message(event))

    def _on_said(self, event: Said) -> None:
        if not self._tires():
            self._say(event.reply)

    def _on_fault(self, event: Fault) -> None:
        if event.close:
            self._receiver.complained(event.reply)
            self._say_goodbye(event.reply, "protocol error")
        else:
            self._say(event.reply)

    def _on_reset(self, event: Reset) -> None:
        self._rate_from = self._transaction_ends = NEVER
        self._receiver.reset()
        if not self._tires():
            self._say(event.reply)

    def _on_starttls(self, event: StartTls) -> None:
        self._out.append(event.reply.encode())
        self._flush()
        self._machine.tls_started()
        self._receiver.reset()
        self._transaction_ends = NEVER
        self._direct = None
        self._plain = False
        self.transport.startTLS(self._tls_options)

    def _on_quit(self, event: Quit) -> None:
        self._say_goodbye(event.reply, "quit")

    # -- replies

    def _say(self, reply: Reply) -> None:
        """Answer; an error reply counts, and may be held back or be the last one."""
        if reply.code >= 400:
            delay = self._receiver.complained(reply)
            if delay is None:
                self._out.append(reply.encode())
                self._say_goodbye(TOO_MANY_ERRORS, "too many errors")
                return
            if delay > 0:
                self._waiting = True
                self._delayed = self._clock.callLater(delay, self._say_late, reply)
                return
            if reply.code == 421:
                self._say_goodbye(reply, "refused")
                return
        self._out.append(reply.encode())

    def _say_late(self, reply: Reply) -> None:
        self._delayed = None
        self._waiting = False
        if reply.code == 421:
            self._say_goodbye(reply, "refused")
        else:
            self._out.append(reply.encode())
            self._go_on()

    def _flush(self) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._direct is not None:
            try:
                sent = self._direct(data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            # What the socket did not take, and an error, are the transport's from here.
            self._direct = None
            data = data[sent:]
        self.transport.write(data)

    def _say_goodbye(self, reply: Reply, why: str) -> None:
        self._out.append(reply.encode())
        self._flush()
        self._close(why)

    def _close(self, why: str) -> None:
        """Close once what was written is out, within :data:`CLOSING_LIMIT`.

        A socket closed while octets wait to be read is reset by the kernel, and the
        client never sees our last words.  So unless the client is done (QUIT, end of
        file), only our half is closed, and what still comes is read and thrown away.
        """
        if self._closing:
            return
        self._closing = True
        self._why = why
        self._received = 0
        linger = self._plain and not self._eof and (why != "quit" or self._machine.waiting > 0)
        self._machine.close()
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
        self.deadline = self._clock.seconds() + CLOSING_LIMIT
        self.transport.unregisterProducer()
        if linger:
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()


_HANDLERS: dict[type, Callable[[SmtpServerProtocol, Any], None]] = {
    Helo: SmtpServerProtocol._on_helo,
    Mail: SmtpServerProtocol._on_mail,
    Rcpt: SmtpServerProtocol._on_rcpt,
    Data: SmtpServerProtocol._on_data,
    Content: SmtpServerProtocol._on_content,
    ChunkEnd: SmtpServerProtocol._on_chunk_end,
    ContentEnd: SmtpServerProtocol._on_content_end,
    Said: SmtpServerProtocol._on_said,
    Fault: SmtpServerProtocol._on_fault,
    Reset: SmtpServerProtocol._on_reset,
    StartTls: SmtpServerProtocol._on_starttls,
    Quit: SmtpServerProtocol._on_quit,
}
