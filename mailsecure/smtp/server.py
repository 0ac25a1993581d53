"""The server's half of an SMTP session, without sockets, clocks or policy (pure).

:class:`ServerMachine` is fed octets and asked for events; the caller (the adapter
:mod:`.serving`) carries each event to whoever decides, and tells the machine with
:meth:`~ServerMachine.answered` what came of it.  Two laws:

1. **No event is given while an answer is owed.**  Everything that a client sends
   ahead (RFC 2920) waits in the buffer, so replies leave in the order of the
   commands, however long a check or a disk takes.
2. **What the machine can answer by itself never reaches the caller as a question.**
   Syntax, sequence, sizes and framing are settled here and come as :class:`Said`
   (a plain answer) or :class:`Fault` (an error that counts against the client).

Standards: RFC 5321, 1870 (SIZE), 2034 (enhanced codes), 2920 (PIPELINING), 3030
(CHUNKING), 3207 (STARTTLS), 3461 (DSN), 6152 (8BITMIME), 6531 (SMTPUTF8), 9422
(LIMITS).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from .commands import (
    MAX_COMMAND,
    Offer,
    clean_helo,
    parse_bdat,
    parse_mail,
    parse_rcpt,
)
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
)
from .framing import ContentCheck, CountReader, DotReader
from .replies import Reply

__all__ = ["ServerMachine"]


class _Mode(Enum):
    COMMANDS = 1
    CONTENT = 2
    SWALLOW_LINE = 3
    CLOSED = 4


#: How much of one endless line is swallowed before the session ends.
MAX_SWALLOWED = 1 << 20

_OK = Reply(250, "2.0.0", "Ok")
_TOO_LONG = Reply(500, "5.5.2", "Line too long")
_BARE = Reply(501, "5.5.2", "Commands end with CRLF, and hold no CR, LF or NUL")
_UNKNOWN = Reply(500, "5.5.1", "Command not recognised")
_NOT_ASCII = Reply(500, "5.5.2", "Command not ASCII")
_ARGUMENT_NOT_ASCII = Reply(501, "5.5.2", "Argument not ASCII")
_NO_ARGUMENT = Reply(501, "5.5.4", "Syntax: no argument here")
_HELO_SYNTAX = Reply(501, "5.5.4", "Syntax: EHLO hostname")
_HELO_FIRST = Reply(503, "5.5.1", "Say HELO or EHLO first")
_NESTED = Reply(503, "5.5.1", "MAIL was given already")
_MAIL_FIRST = Reply(503, "5.5.1", "MAIL comes first")
_RCPT_FIRST = Reply(503, "5.5.1", "RCPT comes first")
_NO_VALID_RCPT = Reply(554, "5.5.1", "No valid recipients")
_MIXED = Reply(503, "5.5.1", "BDAT was begun, DATA cannot follow")
_NOT_OFFERED = Reply(502, "5.5.1", "Command not offered")
_AUTH_SYNTAX = Reply(501, "5.5.4", "Syntax: AUTH mechanism")
_FORBIDDEN = Reply(550, "5.7.1", "Command not allowed")
_NOT_HTTP = Reply(554, "5.5.1", "This is an SMTP server")
_VRFY = Reply(252, "2.5.2", "Cannot VRFY a user; send some mail, and it will be tried")
_VRFY_SYNTAX = Reply(501, "5.5.4", "Syntax: VRFY address")
_EXPN = Reply(502, "5.7.1", "EXPN is not for you")
_HELP = Reply(
    214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS\nSee RFC 5321"
)
_QUIT = Reply(221, "2.0.0", "Bye")
_TLS_GO = Reply(220, "2.0.0", "Go ahead with TLS")
_TLS_TWICE = Reply(503, "5.5.1", "TLS is on already")

_FOREIGN = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PROXY"))


class ServerMachine:
    """One session.  See the module's text for how it is driven."""

    __slots__ = (
        "_bdat_last",
        "_bdat_refusal",
        "_buffer",
        "_check",
        "_chunked",
        "_extended",
        "_greeted",
        "_mail",
        "_mode",
        "_offer",
        "_pending",
        "_reader",
        "_recipients",
        "_refused_recipients",
        "_smtputf8",
        "_swallowed",
        "_tls",
        "normalise",
    )

    def __init__(self, offer: Offer, normalise: bool = False, tls: bool = False) -> None:
        self._offer = offer
        #: Whether bare newlines in content are mended; may be set before DATA.
        self.normalise = normalise
        self._tls = tls
        self._buffer = b""
        self._mode = _Mode.COMMANDS
        self._pending: Event | None = None
        self._reader: DotReader | CountReader | None = None
        self._check: ContentCheck | None = None
        self._swallowed = 0
        self._greeted = False
        self._extended = False
        self._forget()

    def _forget(self) -> None:
        """End the transaction: RFC 5321 §4.1.1.5."""
        self._mail = False
        self._smtputf8 = False
        self._recipients = 0
        self._refused_recipients = 0
        self._chunked = False
        self._bdat_last = False
        self._bdat_refusal: Reply | None = None
        self._check = None

    # -- what the caller asks and tells

    @property
    def in_transaction(self) -> bool:
        """True from an accepted MAIL to the end of the message."""
        return self._mail

    @property
    def receiving(self) -> bool:
        """True while content is on its way."""
        return self._mode is _Mode.CONTENT

    @property
    def extended(self) -> bool:
        """True after EHLO, False after HELO."""
        return self._extended

    @property
    def owed(self) -> bool:
        """True while an answer to the last event is owed."""
        return self._pending is not None

    @property
    def waiting(self) -> int:
        """How many octets wait in the buffer."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Take octets from the client."""
        self._buffer = self._buffer + data if self._buffer else data

    def next_event(self) -> Event | None:
        """Return the next event; None where more octets or an answer are needed first."""
        if self._pending is not None:
            return None
        while True:
            mode = self._mode
            if mode is _Mode.COMMANDS:
                event = self._next_command()
            elif mode is _Mode.CONTENT:
                return self._next_content()
            elif mode is _Mode.SWALLOW_LINE:
                event = self._swallow_line()
            else:
                self._buffer = b""
                return None
            if event is not None or self._mode is mode:
                return event

    def answered(self, reply: Reply) -> None:
        """Say what the last Helo, Mail, Rcpt, Data or ContentEnd was answered.

        The reply to a chunked :class:`Data` is not sent: where it refuses, the chunk
        is swallowed first, and the reply comes as a :class:`Fault` after it.
        """
        event, self._pending = self._pending, None
        positive = reply.code < 400
        if isinstance(event, Rcpt):
            if positive:
                self._recipients += 1
            else:
                self._refused_recipients += 1
        elif isinstance(event, Mail):
            self._mail = positive
            self._smtputf8 = positive and event.smtputf8
        elif isinstance(event, Data):
            self._data_answered(event, reply)
        elif isinstance(event, ContentEnd):
            self._forget()
        elif isinstance(event, Helo) and positive:
            self._greeted = True
            self._extended = event.extended
            self._forget()

    def hello_reply(self, name: str) -> Reply:
        """The positive answer to HELO or EHLO (RFC 5321 §4.1.1.1)."""
        greeting = f"{self._offer.hostname} greets {name}"
        event = self._pending
        if not (isinstance(event, Helo) and event.extended):
            return Reply(250, "", greeting)
        return Reply(250, "", "\n".join((greeting, *self._offer.keywords(self._tls))))

    def tls_started(self) -> None:
        """Forget all that was said in the clear (RFC 3207 §4.2), and what waits."""
        self._pending = None
        self._buffer = b""
        self._tls = True
        self._greeted = False
        self._extended = False
        self._forget()

    def close(self) -> None:
        """Give no more events."""
        self._mode = _Mode.CLOSED
        self._buffer = b""

    # -- commands

    def _next_command(self) -> Event | None:
        buffer = self._buffer
        end = buffer.find(b"\n")
        if end > MAX_COMMAND or (end < 0 and len(buffer) > MAX_COMMAND):
            self._mode = _Mode.SWALLOW_LINE
            return Fault(_TOO_LONG)
        if end < 0:
            return None
        line = buffer[:end]
        self._buffer = buffer[end + 1 :]
        if not line.endswith(b"\r"):
            # Answered at once, for people at a keyboard; but everything up to the
            # real end of the line is thrown away, so that nothing hides behind a LF.
            self._mode = _Mode.SWALLOW_LINE
            return Fault(_BARE, close=b"\0" in line)
        line = line[:-1]
        if b"\r" in line or b"\0" in line:
            return Fault(_BARE, close=b"\0" in line)
        return self._command(line)

    def _command(self, line: bytes) -> Event | None:
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        command = _COMMANDS.get(verb)
        if command is not None:
            if not line.isascii() and verb not in _MAY_BE_UTF8:
                return Fault(_ARGUMENT_NOT_ASCII)
            return command(self, argument.strip(b" "))
        if verb in _FOREIGN and not self._greeted:
            return Fault(_NOT_HTTP, close=True)
        return Fault(_UNKNOWN if verb.isascii() else _NOT_ASCII)

    def _ask(self, event: Event) -> Event:
        self._pending = event
        return event

    def _helo(self, argument: bytes) -> Event:
        return self._hello(argument, extended=False)

    def _ehlo(self, argument: bytes) -> Event:
        return self._hello(argument, extended=True)

    def _hello(self, argument: bytes, extended: bool) -> Event:
        name = clean_helo(argument)
        if not name:
            return Fault(_HELO_SYNTAX)
        return self._ask(Helo(name, extended))

    def _mail_from(self, argument: bytes) -> Event:
        if not self._greeted:
            return Fault(_HELO_FIRST)
        if self._mail:
            return Fault(_NESTED)
        parsed = parse_mail(argument, self._offer)
        if isinstance(parsed, Reply):
            return Fault(parsed)
        path, size, eight_bit, smtputf8, ret, envid = parsed
        return self._ask(Mail(path[0], path[2], size, eight_bit, smtputf8, ret, envid))

    def _rcpt_to(self, argument: bytes) -> Event:
        if not self._mail:
            return Fault(_MAIL_FIRST)
        if self._chunked:
            return Fault(_MIXED)
        parsed = parse_rcpt(argument, self._smtputf8)
        if isinstance(parsed, Reply):
            return Fault(parsed)
        return self._ask(Rcpt(*parsed))

    def _data(self, argument: bytes) -> Event:
        if argument:
            return Fault(_NO_ARGUMENT)
        refusal = self._no_content_yet()
        if refusal is None and self._chunked:
            refusal = _MIXED
        if refusal is not None:
            return Fault(refusal)
        return self._ask(Data(chunked=False))

    def _no_content_yet(self) -> Reply | None:
        if not self._mail:
            return _MAIL_FIRST
        if not self._recipients:
            return _NO_VALID_RCPT if self._refused_recipients else _RCPT_FIRST
        return None

    def _bdat(self, argument: bytes) -> Event | None:
        parsed = parse_bdat(argument)
        if isinstance(parsed, Reply):
            # Without the count nobody knows where the chunk ends.
            return Fault(parsed, close=True)
        octets, self._bdat_last = parsed
        self._reader = CountReader(octets)
        refusal = None if self._chunked else self._no_content_yet()
        if refusal is None and not self._chunked:
            return self._ask(Data(chunked=True))
        if refusal is not None:
            # RFC 3030 §2: 503, where DATA would say 554 for refused recipients.
            self._bdat_refusal = _RCPT_FIRST if refusal is _NO_VALID_RCPT else refusal
        self._mode = _Mode.CONTENT
        return None

    def _data_answered(self, event: Data, reply: Reply) -> None:
        if reply.code >= 400:
            if event.chunked:
                self._bdat_refusal = reply
                self._mode = _Mode.CONTENT
            return
        self._chunked = event.chunked
        offer = self._offer
        self._check = ContentCheck(offer.max_octets, offer.max_line, self.normalise)
        if not event.chunked:
            self._reader = DotReader()
        self._mode = _Mode.CONTENT

    def _rset(self, argument: bytes) -> Event:
        if argument:
            return Fault(_NO_ARGUMENT)
        self._forget()
        return Reset(_OK)

    def _noop(self, argument: bytes) -> Event:
        return Said(_OK)

    def _quit(self, argument: bytes) -> Event:
        if argument:
            return Fault(_NO_ARGUMENT)
        self._mode = _Mode.CLOSED
        return Quit(_QUIT)

    def _vrfy(self, argument: bytes) -> Event:
        return Said(_VRFY) if argument else Fault(_VRFY_SYNTAX)

    def _expn(self, argument: bytes) -> Event:
        return Fault(_EXPN)

    def _help(self, argument: bytes) -> Event:
        return Said(_HELP)

    def _starttls(self, argument: bytes) -> Event:
        if argument:
            return Fault(_NO_ARGUMENT)
        if self._tls:
            return Fault(_TLS_TWICE)
        if not self._offer.starttls:
            return Fault(_NOT_OFFERED)
        return self._ask(StartTls(_TLS_GO))

    def _auth(self, argument: bytes) -> Event:
        return Fault(_NOT_OFFERED if argument else _AUTH_SYNTAX)

    def _forbidden(self, argument: bytes) -> Event:
        return Fault(_FORBIDDEN)

    # -- content and rubbish

    def _next_content(self) -> Event | None:
        reader = self._reader
        if reader is None:
            raise AssertionError("content mode without a reader")
        content, rest = reader.feed(self._buffer)
        self._buffer = b""
        check = self._check
        kept = check.piece(content) if check is not None and content else b""
        if rest is None:
            return Content(kept) if kept else None
        self._buffer = rest
        self._reader = None
        self._mode = _Mode.COMMANDS
        if isinstance(reader, CountReader):
            return self._chunk_ended(kept)
        return self._content_ended(kept)

    def _chunk_ended(self, kept: bytes) -> Event:
        check = self._check
        if self._bdat_refusal is not None or check is None:
            # A later chunk must not pass for the whole message (RFC 3030 §2).
            refusal = self._bdat_refusal or _RCPT_FIRST
            self._forget()
            return Reset(refusal)
        if self._bdat_last or check.fault is not None:
            return self._content_ended(kept)
        return ChunkEnd(kept, Reply(250, "2.0.0", f"{check.octets} octets so far"))

    def _content_ended(self, kept: bytes) -> Event:
        check = self._check
        if check is None:
            raise AssertionError("the end of content that nobody checked")
        kept += check.end()
        return self._ask(ContentEnd(check.fault, check.octets, kept))

    def _swallow_line(self) -> Event | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n")
        if end >= 0:
            self._buffer = buffer[end + 2 :]
            self._swallowed = 0
            self._mode = _Mode.COMMANDS
            return None
        keep = 1 if buffer.endswith(b"\r") else 0
        self._swallowed += len(buffer) - keep
        self._buffer = buffer[len(buffer) - keep :]
        if self._swallowed > MAX_SWALLOWED:
            return Fault(_TOO_LONG, close=True)
        return None


_COMMANDS: dict[bytes, Callable[[ServerMachine, bytes], Event | None]] = {
    b"HELO": ServerMachine._helo,
    b"EHLO": ServerMachine._ehlo,
    b"MAIL": ServerMachine._mail_from,
    b"RCPT": ServerMachine._rcpt_to,
    b"DATA": ServerMachine._data,
    b"BDAT": ServerMachine._bdat,
    b"RSET": ServerMachine._rset,
    b"NOOP": ServerMachine._noop,
    b"QUIT": ServerMachine._quit,
    b"VRFY": ServerMachine._vrfy,
    b"EXPN": ServerMachine._expn,
    b"HELP": ServerMachine._help,
    b"STARTTLS": ServerMachine._starttls,
    b"AUTH": ServerMachine._auth,
    b"XCLIENT": ServerMachine._forbidden,
    b"XFORWARD": ServerMachine._forbidden,
}
_MAY_BE_UTF8 = frozenset((b"MAIL", b"RCPT"))
