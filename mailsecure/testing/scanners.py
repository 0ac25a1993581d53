"""Scanners that do what a test tells them: clamd, spamd and Rspamd; see :mod:`.filters` for more.

Each listens on loopback or a Unix socket (:meth:`~FakeScanner.listen`,
:meth:`~FakeScanner.listen_unix`), or gives out protocols for wires of your own
(:meth:`~FakeScanner.factory`).  Left alone it finds nothing, except in messages that hold
the string of EICAR or GTUBE, and keeps what it is shown in :attr:`~FakeScanner.messages`::

    scanner = FakeClamd()
    address = await scanner.listen(reactor)         # "tcp:127.0.0.1:15123"
    scanner.fault = Fault.SILENT                    # takes all, says nothing
    scanner.answer = b"stream: Odd.Thing FOUND\\0"   # instead of its own answers
    ...
    await scanner.stop()

A fault holds for new connections and for those that are open.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

__all__ = [
    "EICAR",
    "GTUBE",
    "FakeClamd",
    "FakeRspamd",
    "FakeScanner",
    "FakeSession",
    "FakeSpamd",
    "Fault",
]

# Taken apart, so that no scanner finds this file.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


class Fault(Enum):
    """How a scanner fails."""

    #: It reads and says nothing.
    SILENT = "silent"
    #: It closes every connection at once, by a reset.
    REFUSE = "refuse"
    #: It resets the connection when it has read ``reset_after`` octets of it.
    RESET = "reset"
    #: It answers every question with ``garbage``.
    GARBAGE = "garbage"
    #: It answers ``delay`` seconds late.
    SLOW = "slow"


class FakeScanner:
    """A scanner, its faults and what it was shown.  Subclasses say what it speaks."""

    def __init__(self, clock: IReactorTime | None = None) -> None:
        self.clock = clock
        self.fault: Fault | None = None
        self.reset_after = 100
        self.delay = 1.0
        self.garbage = b"\x00\xff<html>no\r\n\r\n" * 3
        #: What every message is answered, instead of what it would say by itself.
        self.answer: bytes | None = None
        self.messages: list[bytes] = []
        self.pings = 0
        self.connections = 0
        self.sessions: set[FakeSession] = set()
        self._port: Any = None

    async def listen(self, reactor: Any, port: int = 0) -> str:
        """Listen on loopback; return the address as the ini has it."""
        self.clock = reactor
        self._port = reactor.listenTCP(port, self.factory(), interface="127.0.0.1")
        return f"tcp:127.0.0.1:{self._port.getHost().port}"

    async def listen_unix(self, reactor: Any, path: str) -> str:
        """Listen on a Unix socket; return the address as the ini has it."""
        self.clock = reactor
        self._port = reactor.listenUNIX(path, self.factory())
        return f"unix:{path}"

    async def stop(self) -> None:
        """Close the port and every connection."""
        port, self._port = self._port, None
        for session in list(self.sessions):
            session.transport.abortConnection()
        if port is not None:
            await port.stopListening()

    def factory(self) -> Factory:
        """Return a factory for an endpoint of your own."""
        return Factory.forProtocol(self.session)

    def session(self) -> FakeSession:
        """Return a protocol for one connection."""
        return FakeSession(self)

    def heard(self, session: FakeSession) -> bool:
        """Take one question out of ``session.buffer`` and answer it; False: it is not whole."""
        raise NotImplementedError

    def say(self, session: FakeSession, answer: bytes, last: bool = False) -> None:
        """Answer; ``last`` closes the connection behind it."""
        if self.fault is Fault.SILENT:
            return
        if self.fault is Fault.GARBAGE:
            answer = self.garbage
        if self.fault is Fault.SLOW:
            assert self.clock is not None, "delays need a clock"
            self.clock.callLater(self.delay, session.say, answer, last)
        else:
            session.say(answer, last)


class FakeSession(Protocol):
    """One connection to a :class:`FakeScanner`; ``notes`` is what it keeps for it."""

    transport: Any

    def __init__(self, scanner: FakeScanner) -> None:
        self._scanner = scanner
        self._octets = 0
        self._open = True
        self.buffer = b""
        self.notes: dict[str, Any] = {}

    def connectionMade(self) -> None:
        """A client is here."""
        self._scanner.connections += 1
        self._scanner.sessions.add(self)
        if self._scanner.fault is Fault.REFUSE:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The client has gone."""
        self._open = False
        self._scanner.sessions.discard(self)

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client."""
        self._octets += len(data)
        scanner = self._scanner
        if scanner.fault is Fault.RESET and self._octets >= scanner.reset_after:
            self._open = False
            self.transport.abortConnection()
        if self._open:
            self.buffer += data
            while self.buffer and self._open and scanner.heard(self):
                pass

    def say(self, answer: bytes, last: bool = False) -> None:
        """Answer, unless the client has gone."""
        if self._open:
            self.transport.write(answer)
            if last:
                self._open = False
                self.transport.loseConnection()


class FakeClamd(FakeScanner):
    """clamd: PING, and INSTREAM with and without IDSESSION.

    ``limit`` is its StreamMaxLength.
    """

    limit = 100 << 20

    def heard(self, session: FakeSession) -> bool:
        """Commands, or the chunks of a stream."""
        if "stream" in session.notes:
            return self._chunk(session)
        command, nul, rest = session.buffer.partition(b"\0")
        if not nul:
            return False
        session.buffer = rest
        number = session.notes["number"] = session.notes.get("number", 0) + 1
        if command == b"zIDSESSION":
            session.notes["in session"] = True
            session.notes["number"] = 0
        elif command == b"zINSTREAM":
            session.notes["stream"] = []
        elif command == b"zPING":
            self.pings += 1
            self.say(session, self._numbered(session, number, b"PONG"), self._last(session))
        else:
            self.say(session, b"UNKNOWN COMMAND\0", True)
        return True

    def _last(self, session: FakeSession) -> bool:
        return "in session" not in session.notes

    def _numbered(self, session: FakeSession, number: int, text: bytes) -> bytes:
        return (b"" if self._last(session) else b"%d: " % number) + text + b"\0"

    def _chunk(self, session: FakeSession) -> bool:
        if len(session.buffer) < 4:
            return False
        size = int.from_bytes(session.buffer[:4], "big")
        if len(session.buffer) < 4 + size:
            return False
        stream = session.notes["stream"]
        stream.append(session.buffer[4 : 4 + size])
        session.buffer = session.buffer[4 + size :]
        number = session.notes["number"]
        if sum(map(len, stream)) > self.limit:
            text = b"INSTREAM size limit exceeded. ERROR"
            self.say(session, self._numbered(session, number, text), True)
        elif not size:
            del session.notes["stream"]
            message = b"".join(stream)
            self.messages.append(message)
            found = b"stream: Eicar-Test.UNOFFICIAL FOUND" if EICAR in message else b"stream: OK"
            answer = self._numbered(session, number, found)
            if self.answer is not None:
                answer = self.answer
            self.say(session, answer, self._last(session))
        return True


class FakeSpamd(FakeScanner):
    """spamd: SYMBOLS and PING; ``questions`` are the heads it got."""

    def __init__(self, clock: IReactorTime | None = None) -> None:
        super().__init__(clock)
        self.questions: list[bytes] = []

    def heard(self, session: FakeSession) -> bool:
        """One question a connection."""
        message = _whole(session)
        if message is None:
            return False
        head, body = message
        if head.startswith(b"PING"):
            self.pings += 1
            self.say(session, b"SPAMD/1.5 0 PONG\r\n", True)
            return True
        self.questions.append(head)
        self.messages.append(body)
        spam = GTUBE in body
        rules = b"GTUBE,NO_RECEIVED\r\n" if spam else b"NO_RELAYS\r\n"
        score = b"True ; 1000.0 / 5.0" if spam else b"False ; -0.1 / 5.0"
        self.say(
            session,
            self.answer
            or b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %b\r\n\r\n%b"
            % (len(rules), score, rules),
            True,
        )
        return True


class FakeRspamd(FakeScanner):
    """Rspamd: /checkv2 and /ping; ``result`` is added to what it finds by itself.

    ``lasting`` has connections stay open, as Rspamd's own do not.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        super().__init__(clock)
        self.questions: list[bytes] = []
        self.result: dict[str, Any] = {}
        self.status = b"200 OK"
        self.lasting = False

    def heard(self, session: FakeSession) -> bool:
        """One request after the other."""
        message = _whole(session)
        if message is None:
            return False
        head, body = message
        if head.startswith(b"GET"):
            self.pings += 1
            answer = b"pong\r\n"
        else:
            self.questions.append(head)
            self.messages.append(body)
            spam = GTUBE in body
            found = {"GTUBE": {"name": "GTUBE", "score": 0.0}} if spam else {}
            result = {
                "is_skipped": spam,
                "score": 15.0 if spam else 0.0,
                "required_score": 15.0,
                "action": "reject" if spam else "no action",
                "symbols": found,
                "messages": {"smtp_message": "Gtube pattern"} if spam else {},
            }
            answer = json.dumps(result | self.result).encode()
        if self.answer is not None:
            answer = self.answer
        closing = b"" if self.lasting else b"Connection: close\r\n"
        head = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n" % (self.status, closing, len(answer))
        self.say(session, head + answer, not self.lasting)
        return True


def _whole(session: FakeSession) -> tuple[bytes, bytes] | None:
    """Take a head and a body of its Content-Length out of the buffer."""
    head, end, rest = session.buffer.partition(b"\r\n\r\n")
    if not end:
        return None
    size = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            size = int(value)
    if len(rest) < size:
        return None
    session.buffer = rest[size:]
    return head, rest[:size]
