"""Where a message ends, and whether its lines are well made (pure).

DATA is read in chunks, never by the line: :class:`DotReader` looks for the one
terminator that RFC 5321 §4.1.1.4 knows, CRLF ``.`` CRLF, and takes the stuffed dots
out (§4.5.2).  No other mixture of CR, LF and dot ends a message, so nobody can hide
a second message in the first.  :class:`ContentCheck` sees the same octets and
remembers the first fault: the message is read to its real end all the same, because
only there can a reply be understood.

The trick that makes both simple: a reader holds back the octets at the end of a
chunk that could begin a terminator.  So a CRLF is never cut in two, and neither is
a stuffed dot.
"""

from __future__ import annotations

import re

from .replies import Reply

__all__ = ["ContentCheck", "CountReader", "DotReader"]

_TERMINATOR = b"\r\n.\r\n"
_STARTS = tuple(_TERMINATOR[:length] for length in (4, 3, 2, 1))
_BARE_CR = re.compile(rb"\r[^\n]").search
_NEWLINE = re.compile(rb"\r\n|\r|\n")

TOO_LARGE = Reply(552, "5.3.4", "Message too large")
BARE_NEWLINE = Reply(550, "5.5.2", "Message has a CR or LF alone; lines end with CRLF")
HAS_NUL = Reply(550, "5.6.0", "Message has a NUL octet")
LONG_LINE = Reply(550, "5.6.0", "Message has a line that is too long")


def _is_bare(data: bytes) -> bool:
    """Say whether a CR or LF stands alone.

    If each CR has its LF, and there are as many of one as of the other, each LF has its
    CR.  Measured on 100 KB of text: half the time of three counts.
    """
    return (
        _BARE_CR(data) is not None
        or data[-1:] == b"\r"
        or len(data.replace(b"\n", b"")) != len(data.replace(b"\r", b""))
    )


class DotReader:
    """Reads the content of DATA, in any chunking."""

    __slots__ = ("_held", "_skip")

    def __init__(self) -> None:
        # A terminator may stand at the very start: the CRLF that ended the DATA
        # command counts as the one before the dot (RFC 5321 §4.1.1.4).
        self._held = b"\r\n"
        self._skip = 2

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take ``data``; return content, and after the end what follows it, else None.

        Content comes unstuffed and never ends between the CR and LF of a CRLF.
        """
        raw = self._held + data if self._held else data
        end = raw.find(_TERMINATOR)
        if end >= 0:
            return self._clean(raw[: end + 2]), raw[end + 5 :]
        keep = 0
        if raw[-1:] in (b"\r", b"\n", b"."):
            for start in _STARTS:
                if raw.endswith(start):
                    keep = len(start)
                    break
        if keep:
            self._held = raw[-keep:]
            raw = raw[:-keep]
        else:
            self._held = b""
        return self._clean(raw), None

    def _clean(self, raw: bytes) -> bytes:
        if b"\r\n." in raw:
            raw = raw.replace(b"\r\n.", b"\r\n")
        if self._skip and raw:
            # Never less than the two octets: the virtual CRLF is held back whole.
            self._skip = 0
            return raw[2:]
        return raw


class CountReader:
    """Reads one chunk of BDAT: so many octets and nothing else (RFC 3030 §2)."""

    __slots__ = ("left",)

    def __init__(self, octets: int) -> None:
        self.left = octets

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take ``data``; return content, and after the end what follows it, else None."""
        if len(data) < self.left:
            self.left -= len(data)
            return data, None
        content, rest = data[: self.left], data[self.left :]
        self.left = 0
        return content, rest


class ContentCheck:
    """Counts and judges the content of one message, piece by piece.

    ``normalise`` turns a CR or LF alone into CRLF and drops NUL instead of finding
    fault.  After the first fault pieces come back empty, because nothing more needs
    to be kept; but all faults are noted, so that the verdict is the same however the
    octets were cut.
    """

    __slots__ = (
        "_bare",
        "_held",
        "_line",
        "_long",
        "_max_line",
        "_max_octets",
        "_normalise",
        "_nul",
        "octets",
    )

    def __init__(self, max_octets: int, max_line: int, normalise: bool) -> None:
        self._max_octets = max_octets
        self._max_line = max_line
        self._normalise = normalise
        self._held = b""
        self._line = 0
        self._bare = False
        self._nul = False
        self._long = False
        self.octets = 0

    @property
    def fault(self) -> Reply | None:
        """The reply that refuses the message, or None where it is well made."""
        if self.octets > self._max_octets:
            return TOO_LARGE
        if self._bare:
            return BARE_NEWLINE
        if self._nul:
            return HAS_NUL
        return LONG_LINE if self._long else None

    def piece(self, data: bytes) -> bytes:
        """Take a piece of content; return what of it is to be kept."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return self._judge(data)

    def end(self) -> bytes:
        """Return what was held back, with a CRLF if the last line had none (BDAT)."""
        last = self._judge(self._held)
        self._held = b""
        return last + self._judge(b"\r\n") if self._line else last

    def _judge(self, data: bytes) -> bytes:
        if not data:
            return b""
        if _is_bare(data):
            if self._normalise:
                data = _NEWLINE.sub(b"\r\n", data)
            else:
                self._bare = True
        if b"\0" in data:
            if self._normalise:
                data = data.replace(b"\0", b"")
            else:
                self._nul = True
        self._measure_lines(data)
        self.octets += len(data)
        if self._bare or self._nul or self._long or self.octets > self._max_octets:
            return b""
        return data

    def _measure_lines(self, data: bytes) -> None:
        """Look for a line over the limit, in steps of a line's length."""
        limit = self._max_line
        size = len(data)
        start = 0
        if self._line + size > limit and not self._long:
            newline = data.find(b"\n", 0, limit + 2)
            first = newline if newline >= 0 else min(size, limit + 2)
            self._long = self._line + first > limit + 1
            start = newline + 1
            while newline >= 0 and size - start > limit and not self._long:
                newline = data.rfind(b"\n", start, start + limit + 2)
                self._long = newline < 0
                start = newline + 1
        last = data.rfind(b"\n", start)
        if last < 0 and start:
            last = start - 1
        self._line = self._line + size if last < 0 else size - last - 1
        if self._line > limit:
            self._long = True
