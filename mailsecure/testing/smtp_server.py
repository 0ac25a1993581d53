"""A next hop that does what a test tells it: a scripted SMTP or LMTP server.

:class:`ScriptedSmtpServer` listens on loopback (:meth:`~ScriptedSmtpServer.listen`, or
:meth:`~ScriptedSmtpServer.listen_unix`), or gives out protocols for string transports
(:meth:`~ScriptedSmtpServer.protocol`).  Left alone it offers every extension, accepts
everything and collects it in :attr:`~ScriptedSmtpServer.messages`::

    server = ScriptedSmtpServer()
    port = await server.listen(reactor)
    server.replies["RCPT"] = "450 4.2.0 Not now"           # every RCPT
    server.recipients["gone@example.com"] = "550 5.1.1 No"  # this one
    server.replies["DOT"] = ["451 4.3.0 Later", "250 2.0.0 Ok"]  # once, then always
    server.replies["DATA"] = DROP                           # closes the connection
    server.delays["DOT"] = 2.0                              # seconds before the answer
    ...
    await server.stop()

The steps are GREETING, EHLO (LHLO too), HELO, STARTTLS, MAIL, RCPT, DATA, DOT, RSET, NOOP
and QUIT.  In LMTP mode DOT is answered once for each accepted recipient, by
:attr:`~ScriptedSmtpServer.final` where that names the mailbox.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

__all__ = ["DROP", "EXTENSIONS", "SILENCE", "ReceivedMessage", "ScriptedSmtpServer"]

#: As a reply: close the connection instead.
DROP = "<drop>"
#: As a reply: say nothing, and go on with the next command.
SILENCE = "<silence>"
EXTENSIONS = (
    "PIPELINING",
    "SIZE 52428800",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
)
_DEFAULTS = {
    "GREETING": "220 next.hop.test ESMTP",
    "HELO": "250 next.hop.test",
    "STARTTLS": "220 2.0.0 Go ahead",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 Go ahead",
    "DOT": "250 2.0.0 Ok",
    "RSET": "250 2.0.0 Ok",
    "NOOP": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
}
_END = b"\r\n.\r\n"


@dataclass
class ReceivedMessage:
    """One message that was taken; ``content`` is unstuffed, without the final dot."""

    reverse_path: str
    recipients: list[str]
    #: Everything after the path of MAIL, as it came.
    parameters: str = ""
    #: Mailbox → everything after the path of its RCPT.
    recipient_parameters: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    helo: str = ""
    tls: bool = False
    #: The number of the connection, from 1.
    connection: int = 0


class ScriptedSmtpServer:
    """A server, its script and what it received.  See the module's text.

    ``tls_options`` (what ``startTLS`` takes on the server's side) adds STARTTLS to the
    extensions.  ``clock`` is needed for delays only, and is set by :meth:`listen`.
    """

    def __init__(
        self,
        *,
        lmtp: bool = False,
        extensions: tuple[str, ...] = EXTENSIONS,
        tls_options: Any = None,
        clock: IReactorTime | None = None,
    ) -> None:
        self.lmtp = lmtp
        self.extensions = extensions
        self.tls_options = tls_options
        self.clock = clock
        self.replies: dict[str, str | list[str]] = {}
        self.recipients: dict[str, str] = {}
        self.final: dict[str, str] = {}
        self.delays: dict[str, float] = {}
        self.messages: list[ReceivedMessage] = []
        #: Every command line, in order, of all connections.
        self.commands: list[str] = []
        #: How many connections there were, and at most at once.
        self.connections = 0
        self.most_at_once = 0
        self.sessions: set[_Session] = set()
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._port: Any = None

    # -- running it

    async def listen(self, reactor: Any, interface: str = "127.0.0.1", port: int = 0) -> int:
        """Listen on loopback; return the port."""
        self.clock = reactor
        self._port = reactor.listenTCP(port, self.factory(), interface=interface)
        number: int = self._port.getHost().port
        return number

    async def listen_unix(self, reactor: Any, path: str) -> None:
        """Listen on a Unix socket."""
        self.clock = reactor
        self._port = reactor.listenUNIX(path, self.factory())

    async def stop(self) -> None:
        """Close the port and every connection, and wait for it."""
        port, self._port = self._port, None
        gone = []
        for session in list(self.sessions):
            gone.append(session.gone)
            session.transport.abortConnection()
        if port is not None:
            await port.stopListening()
        for deferred in gone:
            await deferred

    def factory(self) -> Factory:
        """Return a factory for an endpoint of your own."""
        return Factory.forProtocol(self.protocol)

    def protocol(self) -> _Session:
        """Return a protocol for one connection."""
        return _Session(self)

    def received(self, count: int) -> Deferred[None]:
        """Return a Deferred that fires once ``count`` messages were taken in all."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        self._tell()
        return waiting

    # -- for the sessions

    def reply(self, step: str, default: str = "") -> str:
        """Return what the script says at ``step``."""
        scripted = self.replies.get(step)
        if isinstance(scripted, list):
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return scripted or default or _DEFAULTS[step]

    def take(self, message: ReceivedMessage) -> None:
        """Keep a message."""
        self.messages.append(message)
        self._tell()

    def _tell(self) -> None:
        ready = [entry for entry in self._waiting if entry[0] <= len(self.messages)]
        self._waiting = [entry for entry in self._waiting if entry not in ready]
        for _, waiting in ready:
            waiting.callback(None)


class _Session(Protocol):
    """One connection of the scripted server."""

    transport: Any

    def __init__(self, server: ScriptedSmtpServer) -> None:
        self._server = server
        self._buffer = b""
        self._in_data = False
        self._busy = False
        self._over = False
        self._helo = ""
        self._tls = False
        self._number = 0
        self._message: ReceivedMessage | None = None
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """A client is here."""
        server = self._server
        server.connections += 1
        self._number = server.connections
        server.sessions.add(self)
        server.most_at_once = max(server.most_at_once, len(server.sessions))
        self._say("GREETING", server.reply("GREETING"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The client has gone."""
        self._over = True
        self._server.sessions.discard(self)
        self.gone.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Commands, or content."""
        self._buffer += data
        self._run()

    def _run(self) -> None:
        while not self._busy and not self._over:
            if self._in_data:
                # The CRLF of the DATA command counts as the one before the dot.
                end = (b"\r\n" + self._buffer).find(_END)
                if end < 0:
                    return
                content, self._buffer = self._buffer[:end], self._buffer[end + 3 :]
                self._in_data = False
                self._content(content)
                continue
            line, newline, rest = self._buffer.partition(b"\r\n")
            if not newline:
                return
            self._buffer = rest
            self._command(line.decode("utf-8", "replace"))

    def _command(self, line: str) -> None:
        self._server.commands.append(line)
        verb, _, argument = line.partition(" ")
        verb = verb.upper()
        step = "EHLO" if verb == "LHLO" else verb
        action = getattr(self, f"_do_{step.lower()}", None)
        if action is None:
            self.transport.write(b"500 5.5.1 What?\r\n")
        else:
            action(argument)

    def _do_ehlo(self, argument: str) -> None:
        self._helo = argument
        server = self._server
        words = ["next.hop.test", *server.extensions]
        if server.tls_options is not None and not self._tls:
            words.append("STARTTLS")
        lines = [f"250-{word}" for word in words[:-1]] + [f"250 {words[-1]}"]
        self._say("EHLO", server.reply("EHLO", "\r\n".join(lines)))

    def _do_helo(self, argument: str) -> None:
        self._helo = argument
        self._say("HELO", self._server.reply("HELO"))

    def _do_starttls(self, argument: str) -> None:
        reply = self._server.reply("STARTTLS")
        self._say("STARTTLS", reply)
        if reply.startswith("220") and self._server.tls_options is not None:
            self._tls = True
            self.transport.startTLS(self._server.tls_options)

    def _do_mail(self, argument: str) -> None:
        path, _, parameters = argument.partition("<")[2].partition(">")
        reply = self._server.reply("MAIL")
        if reply.startswith("2"):
            self._message = ReceivedMessage(
                path,
                [],
                parameters.strip(),
                helo=self._helo,
                tls=self._tls,
                connection=self._number,
            )
        self._say("MAIL", reply)

    def _do_rcpt(self, argument: str) -> None:
        path, _, parameters = argument.partition("<")[2].rpartition(">")
        reply = self._server.recipients.get(path) or self._server.reply("RCPT")
        if self._message is None:
            reply = "503 5.5.1 MAIL first"
        elif reply.startswith("2"):
            self._message.recipients.append(path)
            self._message.recipient_parameters[path] = parameters.strip()
        self._say("RCPT", reply)

    def _do_data(self, argument: str) -> None:
        reply = self._server.reply("DATA")
        if "DATA" not in self._server.replies and not (self._message and self._message.recipients):
            reply = "554 5.5.1 No valid recipients"
        self._in_data = reply.startswith("354")
        self._say("DATA", reply)

    def _content(self, stuffed: bytes) -> None:
        server = self._server
        message, self._message = self._message, None
        if message is None or not message.recipients:
            if not server.lmtp:
                self._say("DOT", "554 5.5.1 No valid recipients")
            return
        message.content = (b"\r\n" + stuffed).replace(b"\r\n.", b"\r\n")[2:]
        default = server.reply("DOT")
        if not server.lmtp:
            if default.startswith("2"):
                server.take(message)
            self._say("DOT", default)
            return
        replies = [server.final.get(mailbox, default) for mailbox in message.recipients]
        taken = [
            mailbox
            for mailbox, reply in zip(message.recipients, replies, strict=True)
            if reply.startswith("2")
        ]
        if taken:
            message.recipients = taken
            server.take(message)
        self._say("DOT", "\r\n".join(replies))

    def _do_rset(self, argument: str) -> None:
        self._message = None
        self._say("RSET", self._server.reply("RSET"))

    def _do_noop(self, argument: str) -> None:
        self._say("NOOP", self._server.reply("NOOP"))

    def _do_quit(self, argument: str) -> None:
        self._say("QUIT", self._server.reply("QUIT"), self.transport.loseConnection)

    def _say(self, step: str, reply: str, then: Callable[[], object] | None = None) -> None:
        """Answer, late where the script says so; nothing else is read before."""
        delay = self._server.delays.get(step, 0.0)
        if not delay:
            self._say_now(reply, then)
            return
        clock = self._server.clock
        assert clock is not None, "delays need a clock"
        self._busy = True
        clock.callLater(delay, self._say_late, reply, then)

    def _say_late(self, reply: str, then: Callable[[], object] | None) -> None:
        self._busy = False
        if not self._over:
            self._say_now(reply, then)
            self._run()

    def _say_now(self, reply: str, then: Callable[[], object] | None) -> None:
        if reply == DROP:
            self._over = True
            self.transport.loseConnection()
            return
        if reply != SILENCE:
            self.transport.write(reply.encode() + b"\r\n")
        if reply.startswith("421"):
            self.transport.loseConnection()
        if then is not None:
            then()
