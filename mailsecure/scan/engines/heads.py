"""Answers with a head, as HTTP, ICAP and spamd give them (pure).

The three share the shape of RFC 9112 §2.1: a status line, fields, an empty line, and a body
whose end a field tells.  :class:`HeadReader` reads the first part, :class:`ChunkedBody`,
:class:`SizedBody` and :class:`OpenBody` the second (RFC 9112 §7.1, §6.2, §6.3),
:class:`AnswerReader` both, for answers that are to be had as a whole.

Fed anything, in any pieces, they raise nothing but
:class:`~mailsecure.errors.RemoteFault`, and keep no more than their limits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from ...errors import RemoteFault

__all__ = [
    "Answer",
    "AnswerReader",
    "BodyReader",
    "ChunkedBody",
    "Head",
    "HeadReader",
    "OpenBody",
    "SizedBody",
]

MAX_HEAD = 64 << 10
#: A chunk's size line with its extensions, or a line of the trailer.
MAX_LINE = 4096
MAX_TRAILER_LINES = 100

_STATUS = re.compile(r"([A-Z]{3,8}/[0-9]\.[0-9]) ([0-9]{1,3})(?: ([^\r\n]*))?")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:([^\r\n\0]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_LENGTH = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Head:
    """A status line and fields, names in lower case, values without blanks around them."""

    protocol: str
    code: int
    reason: str
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return the value of the first field called ``name`` (lower case), or ""."""
        return next((value for each, value in self.fields if each == name), "")


def parse_head(octets: bytes) -> Head:
    """Return the head that ``octets``, without the empty line at its end, are."""
    lines = octets.decode("latin-1").split("\r\n")
    status = _STATUS.fullmatch(lines[0])
    if status is None:
        raise RemoteFault(f"no status line: {lines[0][:80]!r}")
    fields: list[tuple[str, str]] = []
    for line in lines[1:]:
        if line[:1] in (" ", "\t") and fields:
            # Folded, as RFC 3507's examples and old servers have it.
            name, value = fields[-1]
            fields[-1] = (name, f"{value}\n{line.strip()}")
            continue
        match = _FIELD.fullmatch(line)
        if match is None:
            raise RemoteFault(f"no field: {line[:80]!r}")
        fields.append((match[1].lower(), match[2].strip()))
    return Head(status[1], int(status[2]), status[3] or "", tuple(fields))


class HeadReader:
    """Reads one head; what comes behind it is in ``rest``."""

    def __init__(self, limit: int = MAX_HEAD) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self.rest = b""

    def feed(self, data: bytes) -> Head | None:
        """Return the head once it is whole."""
        begin = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", begin)
        if (end if end >= 0 else len(self._buffer)) > self._limit:
            raise RemoteFault(f"a head of more than {self._limit} octets")
        if end < 0:
            return None
        self.rest = bytes(self._buffer[end + 4 :])
        return parse_head(bytes(self._buffer[:end]))

    def end(self) -> Head:
        """Return what came before the connection was closed, if it is a whole status line.

        That is all that spamd says to PING.
        """
        head, _, rest = bytes(self._buffer).partition(b"\r\n")
        if rest or len(head) + 2 != len(self._buffer):
            raise RemoteFault("closed before it answered")
        return parse_head(head)


class BodyReader(Protocol):
    """Reads one body: ``feed`` returns what is content, ``rest`` what comes behind it."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Return the content in ``data``."""

    def end(self) -> None:
        """Say that the connection was closed; raises RemoteFault where that is too early."""


class SizedBody:
    """A body of ``octets`` octets."""

    def __init__(self, octets: int) -> None:
        self._left = octets
        self.done = octets == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the content in ``data``."""
        content = data[: self._left]
        self._left -= len(content)
        self.done = self._left == 0
        self.rest = data[len(content) :]
        return content

    def end(self) -> None:
        """Nothing more will come."""
        if not self.done:
            raise RemoteFault(f"closed, {self._left} octets before the end")


class OpenBody:
    """A body that ends with the connection."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return ``data``: all is content."""
        return data

    def end(self) -> None:
        """This is how it ends."""
        self.done = True


class ChunkedBody:
    """A body in chunks; the trailer is read and forgotten."""

    def __init__(self) -> None:
        self._buffer = b""
        #: Where in the buffer the next octet is.
        self._at = 0
        #: Octets of this chunk to come, its CRLF included; 0: a size line is next.
        self._left = 0
        self._trailer = 0
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the content in ``data``."""
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        content: list[bytes] = []
        while not self.done and (self._in_chunk(content) if self._left else self._line()):
            pass
        if self.done:
            self.rest = self._buffer[self._at :]
            self._buffer = b""
        return b"".join(content)

    def end(self) -> None:
        """Nothing more will come."""
        if not self.done:
            raise RemoteFault("closed in the middle of a chunked body")

    def _in_chunk(self, content: list[bytes]) -> bool:
        buffer, at = self._buffer, self._at
        if self._left > 2:
            piece = buffer[at : at + self._left - 2]
            content.append(piece)
            self._left -= len(piece)
            self._at = at = at + len(piece)
        if self._left > 2 or len(buffer) < at + 2:
            return False
        if buffer[at : at + 2] != b"\r\n":
            raise RemoteFault("no CRLF behind a chunk")
        self._at = at + 2
        self._left = 0
        return True

    def _line(self) -> bool:
        end = self._buffer.find(b"\r\n", self._at, self._at + MAX_LINE + 2)
        if end < 0:
            if len(self._buffer) - self._at > MAX_LINE + 1:
                raise RemoteFault("a line of more than 4096 octets between chunks")
            return False
        line = self._buffer[self._at : end]
        self._at = end + 2
        if self._trailer:
            self._trailer += 1
            self.done = not line
            if self._trailer > MAX_TRAILER_LINES:
                raise RemoteFault("a trailer without end")
            return True
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise RemoteFault(f"no size of a chunk: {line[:40]!r}")
        size = int(match[1], 16)
        self._left = size + 2 if size else 0
        self._trailer = 0 if size else 1
        return True


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; ``lasting`` says that the connection may be used again."""

    head: Head
    body: bytes
    lasting: bool


class AnswerReader:
    """Reads one answer whose status line says ``protocol``, its body up to ``limit`` octets."""

    def __init__(self, protocol: str, limit: int) -> None:
        self._protocol = protocol
        self._limit = limit
        self._reader = HeadReader()
        self._head: Head | None = None
        self._body: BodyReader = OpenBody()
        self._content: list[bytes] = []
        self._octets = 0

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer once it is whole."""
        if self._head is None:
            self._head = self._reader.feed(data)
            if self._head is None:
                return None
            self._body = self._begin(self._head)
            data = self._reader.rest
        content = self._body.feed(data)
        self._octets += len(content)
        if self._octets > self._limit:
            raise RemoteFault(f"an answer of more than {self._limit} octets")
        self._content.append(content)
        return self._answer(self._head) if self._body.done else None

    def end(self) -> Answer:
        """Return the answer that ends with the connection."""
        if self._head is None:
            self._head = self._reader.end()
        else:
            self._body.end()
        return self._answer(self._head)

    def _begin(self, head: Head) -> BodyReader:
        if not head.protocol.startswith(self._protocol):
            raise RemoteFault(f"speaks {head.protocol}, not {self._protocol}")
        if "chunked" in head.get("transfer-encoding").lower():
            return ChunkedBody()
        length = head.get("content-length")
        if not length:
            return OpenBody()
        if not _LENGTH.fullmatch(length) or int(length) > self._limit:
            raise RemoteFault(f"an answer of {length[:20]!r} octets")
        return SizedBody(int(length))

    def _answer(self, head: Head) -> Answer:
        lasting = (
            not self._body.rest
            and not isinstance(self._body, OpenBody)
            and head.get("connection").lower() != "close"
            and head.protocol != "HTTP/1.0"
        )
        return Answer(head, b"".join(self._content), lasting)
