"""More scanners that do what a test tells them: an ICAP server and a mail filter (milter).

Used as those of :mod:`.scanners`, with the same faults.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.interfaces import IReactorTime

from .scanners import EICAR, FakeScanner, FakeSession

__all__ = ["FakeIcap", "FakeMilter"]


class FakeIcap(FakeScanner):
    """An ICAP server with a service that knows OPTIONS and RESPMOD.

    ``preview`` is what it offers (None: none), ``echoes`` has it give clean messages back
    instead of saying 204, ``streams`` has it do so while they come, infected ones without
    their last piece, ``leaves`` has it close each connection behind its answer, and
    ``extension`` is how it names what it found.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        super().__init__(clock)
        self.preview: int | None = 1024
        self.echoes = False
        self.streams = False
        self.leaves = False
        self.extension = b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;\r\n"
        self.questions: list[bytes] = []

    def heard(self, session: FakeSession) -> bool:
        """A request, then chunks, and more chunks after 100."""
        if "head" not in session.notes:
            head, end, rest = session.buffer.partition(b"\r\n\r\n")
            if not end:
                return False
            session.buffer = rest
            if head.startswith(b"OPTIONS"):
                self.pings += 1
                shown = b"" if self.preview is None else b"Preview: %d\r\n" % self.preview
                self.say(
                    session,
                    b"ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nAllow: 204\r\n%b%b"
                    b"Options-TTL: 60\r\nEncapsulated: null-body=0\r\n\r\n"
                    % (shown, b"Connection: close\r\n" * self.leaves),
                    self.leaves,
                )
                return True
            self.questions.append(head)
            place = re.search(rb"res-body=(\d+)", head)
            session.notes |= {"head": head, "skip": int(place[1]) if place else 0, "body": b""}
        skip: int = session.notes["skip"]
        if len(session.buffer) < skip:
            return False
        session.buffer = session.buffer[skip:]
        session.notes["skip"] = 0
        return self._chunk(session)

    def _chunk(self, session: FakeSession) -> bool:
        line, end, rest = session.buffer.partition(b"\r\n")
        if not end:
            return False
        size = int(line.partition(b";")[0], 16)
        if len(rest) < size + 2:
            return False
        session.buffer = rest[size + 2 :]
        session.notes["body"] += rest[:size]
        if size:
            if self.streams and b"Preview:" not in session.notes["head"]:
                self._stream(session, rest[:size])
            return True
        if b"Preview:" in session.notes["head"] and b"ieof" not in line:
            session.notes["head"] = b""
            self.say(session, b"ICAP/1.0 100 Continue\r\n\r\n")
            return True
        if "streaming" in session.notes:
            self._end_stream(session)
        else:
            self._judge(session)
        return True

    def _stream(self, session: FakeSession, piece: bytes) -> None:
        """Give a piece back; where the client does not take it, read no more from it."""
        if "streaming" not in session.notes:
            session.notes["streaming"] = True
            piece = session.notes["body"]
            session.transport.registerProducer(session.transport, True)
            inner = b"HTTP/1.1 200 OK\r\n\r\n"
            encapsulated = b"Encapsulated: res-hdr=0, res-body=%d" % len(inner)
            self.say(session, b"ICAP/1.0 200 OK\r\n%b\r\n\r\n%b" % (encapsulated, inner))
        if EICAR not in piece:
            self.say(session, b"%x\r\n%b\r\n" % (len(piece), piece))

    def _end_stream(self, session: FakeSession) -> None:
        self.messages.append(session.notes["body"])
        session.notes.clear()
        session.transport.unregisterProducer()
        session.transport.resumeProducing()
        self.say(session, b"0\r\n\r\n")

    def _judge(self, session: FakeSession) -> None:
        body: bytes = session.notes["body"]
        session.notes.clear()
        self.messages.append(body)
        infected = EICAR in body
        if self.answer is not None:
            self.say(session, self.answer)
        elif not infected and not self.echoes:
            close = b"Connection: close\r\n" * self.leaves
            self.say(session, b"ICAP/1.0 204 No Content\r\n%b\r\n" % close, self.leaves)
        else:
            status = b"403 Forbidden" if infected else b"200 OK"
            content = b"<p>Infected" if infected else body
            inner = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\n\r\n" % status
            extension = self.extension if infected else b""
            self.say(
                session,
                b"ICAP/1.0 200 OK\r\n%bEncapsulated: res-hdr=0, res-body=%d\r\n\r\n%b%x\r\n%b\r\n0"
                b"\r\n\r\n" % (extension, len(inner), inner, len(content), content),
            )


class FakeMilter(FakeScanner):
    """A mail filter that notes what it hears and answers by a script.

    ``replies`` maps a command's letter (``C`` … ``E``) to the packets of its answer, as
    (letter, data); ``c``, continue, where there is none.  ``recipients`` does so for one
    mailbox.  ``steps`` and ``actions`` are what it negotiates.
    """

    def __init__(self, clock: IReactorTime | None = None) -> None:
        super().__init__(clock)
        self.steps = 0
        self.actions = 0x31
        self.version = 6
        self.replies: dict[str, list[tuple[str, bytes]]] = {}
        self.recipients: dict[str, list[tuple[str, bytes]]] = {}
        self.quiet = ""
        #: Every packet, of all connections, in order.
        self.heard_packets: list[tuple[str, bytes]] = []

    @property
    def commands(self) -> str:
        """The letters of all packets that came, without those of macros."""
        return "".join(letter for letter, _ in self.heard_packets if letter != "D")

    def data(self, letter: str) -> list[bytes]:
        """Return the data of all packets of this letter."""
        return [data for each, data in self.heard_packets if each == letter]

    def heard(self, session: FakeSession) -> bool:
        """One packet."""
        buffer = session.buffer
        size = int.from_bytes(buffer[:4], "big")
        if len(buffer) < 4 or len(buffer) < 4 + size:
            return False
        letter, data = chr(buffer[4]), buffer[5 : 4 + size]
        session.buffer = buffer[4 + size :]
        self.heard_packets.append((letter, data))
        if letter == "O":
            words = (self.version, self.actions, self.steps)
            default = [("O", b"".join(word.to_bytes(4, "big") for word in words))]
        elif letter in "DQA" or letter in self.quiet:
            return True
        else:
            default = [("c", b"")]
        answer = self.replies.get(letter, default)
        if letter == "R":
            answer = self.recipients.get(data.strip(b"<>\0").decode(), answer)
        self.say(session, self.answer or b"".join(self._packet(*each) for each in answer))
        return True

    @staticmethod
    def _packet(letter: str, data: bytes) -> bytes:
        return (len(data) + 1).to_bytes(4, "big") + letter.encode() + data

    def edit(self, letter: str, *strings: Any, index: int | None = None) -> tuple[str, bytes]:
        """Return the packet of a change: ``h``, or ``i`` and ``m`` with an index."""
        data = b"" if index is None else index.to_bytes(4, "big")
        return letter, data + b"".join(str(each).encode() + b"\0" for each in strings)
