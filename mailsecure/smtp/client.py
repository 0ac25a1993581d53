"""The client's half of an SMTP or LMTP session, without sockets or clocks (pure).

:class:`ClientMachine` is fed the server's octets and returns events; what it wants to
send is fetched with :meth:`~ClientMachine.take`.  The adapter :mod:`.sending` carries
both, starts TLS, sends the body and keeps the deadlines.  The order of things:

* greeting, EHLO (LHLO), STARTTLS and EHLO again where wanted: :class:`Ready`, or
  :class:`Unusable`;
* :meth:`~ClientMachine.begin`: MAIL, every RCPT and DATA in one group where PIPELINING
  is offered (RFC 2920), else one by one; :class:`SendBody` once DATA and at least one
  recipient are accepted; after :meth:`~ClientMachine.body_sent` the reply, or in LMTP
  one reply for each accepted recipient (RFC 2033 §4.2); :class:`Done`;
* the next ``begin``, or :meth:`~ClientMachine.quit`.

Three laws:

1. **Every recipient gets a reply**, whatever happens: refused, 421, connection lost.
   What is lost between the final dot and its reply is deferred; the message may come
   twice then, as RFC 5321 §4.5.3.2.6 has it, but never not at all.
2. **A server that answers what was not asked is not trusted further**:
   :class:`~mailsecure.errors.RemoteFault`, after which the caller says ``lost``.  That
   includes octets between the 220 of STARTTLS and the handshake: they were written by
   whoever sits in between (RFC 3207 §6).
3. **421 ends the session wherever it comes** (RFC 5321 §3.8).

DATA may be accepted although every RCPT of the group was refused; then a lone dot is
sent and its answer ignored (RFC 2920 §3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ..errors import RemoteFault
from .client_events import ClientEvent, Done, Ready, SendBody, StartTls, Unusable
from .replies import Reply, ReplyReader
from .transaction import (
    Capabilities,
    Result,
    Transaction,
    encoded,
    mail_command,
    parse_capabilities,
    rcpt_command,
)

__all__ = ["ClientMachine"]

#: Lines whose reading is remembered, for each session.
MAX_KNOWN = 32
TLS_NOT_OFFERED = Reply(454, "4.7.4", "TLS is required, but was not offered")


_READY = Ready()
_START_TLS = StartTls()
_SEND_BODY = SendBody()


class _Phase(Enum):
    GREETING = "before the greeting"
    HELLO = "at EHLO"
    HELO = "at HELO"
    STARTTLS = "at STARTTLS"
    HANDSHAKE = "in the TLS handshake"
    READY = "between messages"
    ENVELOPE = "at the envelope"
    BODY = "while the message was sent"
    FINAL = "after the final dot; the message may be sent twice"
    LONE_DOT = "after a lone dot"
    CLOSING = "at QUIT"
    CLOSED = "after the end"


class ClientMachine:
    """One session.  See the module's text for how it is driven.

    ``hostname`` is what we call ourselves.  ``want_tls`` uses STARTTLS where it is
    offered, ``need_tls`` refuses to go on without.
    """

    __slots__ = (
        "_accepted",
        "_at",
        "_commands",
        "_hostname",
        "_known",
        "_lmtp",
        "_mail_refused",
        "_need_tls",
        "_out",
        "_phase",
        "_reader",
        "_replies",
        "_reset",
        "_reset_owed",
        "_secured",
        "_transaction",
        "_waiting_final",
        "_want_tls",
        "capabilities",
    )

    def __init__(
        self, hostname: str, *, lmtp: bool = False, want_tls: bool = False, need_tls: bool = False
    ) -> None:
        self._hostname = hostname
        self._lmtp = lmtp
        self._want_tls = want_tls or need_tls
        self._need_tls = need_tls
        self._secured = False
        self._reader = ReplyReader()
        self._known: dict[bytes, Reply] = {}
        self._phase = _Phase.GREETING
        self._out = b""
        #: What the server offers; the empty set before :class:`Ready`.
        self.capabilities = Capabilities()
        # A transaction of the server's is open that must be ended by RSET.
        self._reset = False
        self._reset_owed = False
        self._mail_refused = False
        self._transaction = Transaction("", ())
        # Without PIPELINING: what is still to be sent of the envelope, last first.
        self._commands: list[str] = []
        # Which reply comes next: 0 for MAIL, 1 … n for RCPT, n + 1 for DATA.
        self._at = 0
        self._replies: list[Reply | None] = []
        self._accepted: list[int] = []
        self._waiting_final = 0

    # -- what the caller asks and tells

    @property
    def ready(self) -> bool:
        """True where a transaction may begin."""
        return self._phase is _Phase.READY

    @property
    def closed(self) -> bool:
        """True after the session's last word: the connection is of no more use."""
        return self._phase is _Phase.CLOSED

    @property
    def in_transaction(self) -> bool:
        """True between :meth:`begin` and :class:`Done`."""
        return self._phase in _IN_TRANSACTION

    @property
    def awaits_final(self) -> bool:
        """True from the final dot to its (last) reply."""
        return self._phase is _Phase.FINAL

    @property
    def in_handshake(self) -> bool:
        """True from :class:`StartTls` to :meth:`tls_started`."""
        return self._phase is _Phase.HANDSHAKE

    @property
    def stage(self) -> str:
        """Where the session is, in a few words for people."""
        return self._phase.value

    def take(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        out, self._out = self._out, b""
        return out

    def receive(self, data: bytes) -> list[ClientEvent]:
        """Take octets from the server; return what came of them, in order.

        Raises RemoteFault where the server breaks the protocol; then call :meth:`lost`
        and close the connection.
        """
        events: list[ClientEvent] = []
        try:
            # A line at a time, so that what was well answered before a fault counts.
            for line in data.splitlines(True) if data.count(b"\n") > 1 else (data,):
                reply = self._read(line)
                if reply is not None:
                    event = _ON_REPLY[self._phase](self, reply)
                    if event is not None:
                        events.append(event)
            if self._phase is _Phase.HANDSHAKE and not self._reader.idle:
                raise RemoteFault("octets between STARTTLS and the handshake")
        except RemoteFault:
            # An event that asks for something is void; an end stands.
            if not events or not isinstance(events[-1], Done | Unusable):
                raise
            self._phase = _Phase.CLOSED
        return events

    def _read(self, line: bytes) -> Reply | None:
        """Return the reply that ``line`` (at most one line) completes."""
        reader = self._reader
        if self._phase is not _Phase.ENVELOPE or not reader.idle:
            replies = reader.feed(line)
            return replies[0] if replies else None
        # A server says the same few words to every MAIL, RCPT and DATA.
        reply = self._known.get(line)
        if reply is None:
            replies = reader.feed(line)
            reply = replies[0] if replies else None
            if reply is not None and len(self._known) < MAX_KNOWN:
                self._known[line] = reply
        return reply

    def tls_started(self) -> None:
        """TLS is on: what was known is forgotten (RFC 3207 §4.2); EHLO again."""
        self._secured = True
        self.capabilities = Capabilities()
        self._say_hello()

    def begin(self, transaction: Transaction) -> None:
        """Start a transaction; it has at least one recipient, and we are ready."""
        assert self._phase is _Phase.READY and transaction.recipients
        offered = self.capabilities
        commands = [mail_command(transaction, offered)]
        commands += [rcpt_command(recipient, offered) for recipient in transaction.recipients]
        if not transaction.probe:
            commands.append("DATA\r\n")
        if self._reset:
            commands.insert(0, "RSET\r\n")
        octets = encoded(commands, len(commands))
        if offered.pipelining:
            self._out += octets
        else:
            self._out += commands[0].encode()
            self._commands = commands[:0:-1]
        self._phase = _Phase.ENVELOPE
        self._transaction = transaction
        self._replies = [None] * len(transaction.recipients)
        self._accepted = []
        self._at = 0
        self._mail_refused = False
        self._reset_owed = self._reset

    def body_sent(self) -> None:
        """The body and its final dot are on their way."""
        if self._phase is _Phase.BODY:
            self._phase = _Phase.FINAL
            self._waiting_final = len(self._accepted) if self._lmtp else 1

    def quit(self) -> None:
        """Say goodbye; only where :attr:`ready`."""
        assert self._phase is _Phase.READY
        self._phase = _Phase.CLOSING
        self._out += b"QUIT\r\n"

    def lost(self, reply: Reply) -> ClientEvent | None:
        """The connection is gone; ``reply`` (4xx) says why, in our words."""
        phase = self._phase
        self._phase = _Phase.CLOSED
        self._out = b""
        if phase in _IN_TRANSACTION:
            return self._abandon(reply, elsewhere=phase not in _AFTER_BODY)
        if phase in _OPENING:
            return Unusable(reply)
        return None

    # -- opening

    def _on_greeting(self, reply: Reply) -> ClientEvent | None:
        if not reply.positive:
            return self._unusable(reply)
        self._say_hello()
        return None

    def _say_hello(self) -> None:
        self._phase = _Phase.HELLO
        self._out += encoded((f"{'LHLO' if self._lmtp else 'EHLO'} {self._hostname}\r\n",), 1)

    def _on_hello(self, reply: Reply) -> ClientEvent | None:
        if reply.positive:
            self.capabilities = parse_capabilities(reply)
            return self._greeted()
        if not reply.permanent or self._lmtp:
            return self._unusable(reply)
        self._phase = _Phase.HELO
        self._out += encoded((f"HELO {self._hostname}\r\n",), 1)
        return None

    def _on_helo(self, reply: Reply) -> ClientEvent | None:
        return self._greeted() if reply.positive else self._unusable(reply)

    def _greeted(self) -> ClientEvent | None:
        if self._want_tls and not self._secured:
            if self.capabilities.starttls:
                self._phase = _Phase.STARTTLS
                self._out += b"STARTTLS\r\n"
                return None
            if self._need_tls:
                return self._unusable(TLS_NOT_OFFERED)
        self._phase = _Phase.READY
        return _READY

    def _on_starttls(self, reply: Reply) -> ClientEvent | None:
        if reply.positive:
            self._phase = _Phase.HANDSHAKE
            return _START_TLS
        if self._need_tls or reply.code == 421:
            return self._unusable(reply if reply.transient else TLS_NOT_OFFERED)
        self._phase = _Phase.READY
        return _READY

    def _unusable(self, reply: Reply) -> ClientEvent:
        if reply.intermediate:
            raise RemoteFault(f"unexpected reply {reply}")
        self._phase = _Phase.CLOSED
        return Unusable(reply)

    def _on_unexpected(self, reply: Reply) -> ClientEvent | None:
        if self._phase is _Phase.READY and reply.code == 421:
            self._phase = _Phase.CLOSED
            return None
        raise RemoteFault(f"unexpected reply {reply}")

    # -- the envelope

    def _on_envelope(self, reply: Reply) -> ClientEvent | None:
        code = reply.code
        if code == 421:
            return self._break_off(reply)
        at = self._at
        count = len(self._replies)
        if at > count:
            return self._on_data(reply)
        if 300 <= code < 400:
            raise RemoteFault(f"unexpected reply {reply} in the envelope")
        if self._reset_owed:
            if code >= 400:
                raise RemoteFault(f"unexpected reply {reply} to RSET")
            self._reset_owed = self._reset = False
        elif at == 0:
            self._at = 1
            self._on_mail(reply)
        else:
            self._at = at + 1
            self._on_rcpt(reply, at - 1)
            if at == count and self._transaction.probe:
                return self._done()
        return None if self.capabilities.pipelining else self._next_command()

    def _on_mail(self, reply: Reply) -> None:
        if reply.code < 300:
            self._reset = True
        else:
            self._replies = [reply] * len(self._replies)
            self._mail_refused = True

    def _on_rcpt(self, reply: Reply, index: int) -> None:
        if self._replies[index] is not None:
            return
        if reply.code < 300:
            self._accepted.append(index)
        if reply.code >= 400 or self._transaction.probe:
            self._replies[index] = reply

    def _next_command(self) -> ClientEvent | None:
        """Send the next command where there is no PIPELINING, if there is use in it."""
        at = self._at
        refused = at > 0 and not self._reset
        if refused or (at > len(self._replies) and not self._accepted):
            return self._done()
        self._out += self._commands.pop().encode()
        return None

    def _on_data(self, reply: Reply) -> ClientEvent | None:
        if reply.positive:
            raise RemoteFault(f"unexpected reply {reply} to DATA")
        if reply.intermediate:
            if self._accepted:
                self._phase = _Phase.BODY
                return _SEND_BODY
            self._out += b".\r\n"
            if not self._lmtp:
                self._phase = _Phase.LONE_DOT
                return None
            # No recipient, no reply (RFC 2033 §4.2); whether this server knows that
            # cannot be told, so it gets no chance to answer out of step.
            done = self._done()
            self._phase = _Phase.CLOSED
            return done
        for index in self._accepted:
            self._replies[index] = reply
        return self._done()

    # -- the content

    def _on_early(self, reply: Reply) -> ClientEvent | None:
        """A reply while the body is still on its way: nobody can go on after that."""
        if not (reply.transient or reply.permanent):
            raise RemoteFault(f"unexpected reply {reply} within the message")
        return self._break_off(reply)

    def _on_final(self, reply: Reply) -> ClientEvent | None:
        if reply.intermediate:
            raise RemoteFault(f"unexpected reply {reply} to the final dot")
        if reply.code == 421:
            return self._break_off(reply)
        self._reset = False
        replies = self._replies
        if self._lmtp:
            replies[self._accepted[-self._waiting_final]] = reply
            self._waiting_final -= 1
            return None if self._waiting_final else self._done()
        for index in self._accepted:
            replies[index] = reply
        return self._done()

    def _on_lone_dot(self, reply: Reply) -> ClientEvent | None:
        # RFC 2920 §3.1: whatever the answer is, nothing was sent to anyone.
        self._reset = False
        result = self._done()
        if reply.code == 421:
            self._phase = _Phase.CLOSED
        return result

    # -- the end of a transaction

    def _break_off(self, reply: Reply) -> Done:
        """The server ends session and transaction with one reply."""
        elsewhere = self._phase not in _AFTER_BODY
        self._phase = _Phase.CLOSED
        self._out = b""
        return self._abandon(reply, elsewhere)

    def _abandon(self, reply: Reply, elsewhere: bool) -> Done:
        result = self._result([given or reply for given in self._replies])
        result.untouched = self._at == 0
        result.elsewhere = elsewhere
        return Done(result)

    def _done(self) -> Done:
        self._phase = _Phase.READY
        replies = [reply for reply in self._replies if reply is not None]
        assert len(replies) == len(self._replies)
        return Done(self._result(replies))

    def _result(self, replies: list[Reply]) -> Result:
        refused = self._mail_refused
        elsewhere = refused and replies[0].transient
        return Result(
            replies, self.capabilities.dsn, self._accepted, False, elsewhere, mail_refused=refused
        )

    def _on_closing(self, reply: Reply) -> ClientEvent | None:
        self._phase = _Phase.CLOSED
        return None

    def _on_closed(self, reply: Reply) -> ClientEvent | None:
        return None


_OPENING = frozenset(
    (_Phase.GREETING, _Phase.HELLO, _Phase.HELO, _Phase.STARTTLS, _Phase.HANDSHAKE)
)
_IN_TRANSACTION = frozenset((_Phase.ENVELOPE, _Phase.BODY, _Phase.FINAL, _Phase.LONE_DOT))
_AFTER_BODY = frozenset((_Phase.FINAL, _Phase.LONE_DOT))
_ON_REPLY: dict[_Phase, Callable[[ClientMachine, Reply], ClientEvent | None]] = {
    _Phase.GREETING: ClientMachine._on_greeting,
    _Phase.HELLO: ClientMachine._on_hello,
    _Phase.HELO: ClientMachine._on_helo,
    _Phase.STARTTLS: ClientMachine._on_starttls,
    _Phase.HANDSHAKE: ClientMachine._on_unexpected,
    _Phase.READY: ClientMachine._on_unexpected,
    _Phase.ENVELOPE: ClientMachine._on_envelope,
    _Phase.BODY: ClientMachine._on_early,
    _Phase.FINAL: ClientMachine._on_final,
    _Phase.LONE_DOT: ClientMachine._on_lone_dot,
    _Phase.CLOSING: ClientMachine._on_closing,
    _Phase.CLOSED: ClientMachine._on_closed,
}
