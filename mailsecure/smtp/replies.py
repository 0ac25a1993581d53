"""SMTP replies: what a server says and how a client reads it (pure).

A reply is a three-digit code, an enhanced status code (RFC 3463, sent under RFC
2034) and text of one or more lines.  Server code makes :class:`Reply` values and
encodes them; the client's :class:`ReplyReader` is fed octets in any chunking and
gives the same values back.

The text of a reply is public: it never carries what only the log should know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import RemoteFault

__all__ = ["MAX_REPLY_LINE", "MAX_REPLY_LINES", "Reply", "ReplyReader"]

#: RFC 5321 §4.5.3.1.5 allows 512 octets a line; real servers exceed it.
MAX_REPLY_LINE = 2048
#: More lines than any EHLO answer seen; bounds what a hostile server can store.
MAX_REPLY_LINES = 128

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?: |$)")
_UNPRINTABLE = re.compile(r"[^\t\x20-\x7e\x80-\U0010ffff]|[\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; ``text`` holds its lines joined by ``"\\n"``, without codes.

    ``enhanced`` is ``"2.1.0"`` or ``""`` (greeting, EHLO and 3xx replies have none).
    """

    code: int
    enhanced: str
    text: str

    @property
    def positive(self) -> bool:
        """2xx: done."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """3xx: go on."""
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        """4xx: the client may try again."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """5xx: the client must not repeat this command unchanged."""
        return 500 <= self.code < 600

    def encode(self) -> bytes:
        """Return the reply as it stands on the wire, CRLFs included."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        if "\n" not in self.text:
            return f"{self.code} {prefix}{self.text}\r\n".encode()
        lines = self.text.split("\n")
        head = "".join(f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1])
        return f"{head}{self.code} {prefix}{lines[-1]}\r\n".encode()

    def __str__(self) -> str:
        """One line for logs and listings: ``250 2.0.0 text``."""
        enhanced = f" {self.enhanced}" if self.enhanced else ""
        return f"{self.code}{enhanced} {' '.join(self.text.split())}"


class ReplyReader:
    """Read replies from octets (RFC 5321 §4.2).

    :meth:`feed` takes any chunk and returns the replies completed by it.  Tolerant
    where servers are sloppy (bare LF, a missing space after the code, codes that
    differ between the lines: the last counts); strict where it bounds memory.
    Control characters in the text become ``?`` and what is not UTF-8 is replaced.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[str] = []
        self._enhanced = ""

    @property
    def idle(self) -> bool:
        """True where no part of a reply is waiting for the rest."""
        return not self._buffer and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """Take ``data`` and return the replies that are now whole, in order.

        Raises :class:`RemoteFault` where the octets are no reply or too long; the
        reader is of no use after that.
        """
        buffer = self._buffer + data if self._buffer else data
        replies: list[Reply] = []
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            line = buffer[start:end].removesuffix(b"\r")
            start = end + 1
            reply = self._line(line)
            if reply is not None:
                replies.append(reply)
        self._buffer = buffer[start:]
        if len(self._buffer) > MAX_REPLY_LINE:
            raise RemoteFault("reply line too long")
        return replies

    def _line(self, line: bytes) -> Reply | None:
        if len(line) > MAX_REPLY_LINE:
            raise RemoteFault("reply line too long")
        digits, mark = line[:3], line[3:4]
        if len(digits) != 3 or not digits.isdigit() or mark not in (b"", b" ", b"-"):
            raise RemoteFault("not an SMTP reply: " + repr(line[:80]))
        code = int(digits)
        if not 200 <= code < 600:
            raise RemoteFault("no such reply code: " + repr(line[:80]))
        text = _UNPRINTABLE.sub("?", line[4:].decode("utf-8", "replace"))
        enhanced = _ENHANCED.match(text)
        if enhanced is not None and int(enhanced[1]) == code // 100:
            self._enhanced = enhanced[0].rstrip()
            text = text[enhanced.end() :]
        self._lines.append(text)
        if mark == b"-":
            if len(self._lines) >= MAX_REPLY_LINES:
                raise RemoteFault("reply of too many lines")
            return None
        reply = Reply(code, self._enhanced, "\n".join(self._lines))
        self._lines = []
        self._enhanced = ""
        return reply
