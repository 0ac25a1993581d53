"""The header section of a message, taken apart as a mail filter wants it (pure)."""

from __future__ import annotations

import re

from ...errors import RemoteFault

__all__ = ["MAX_FIELDS", "MAX_HEADER", "HeaderSection"]

MAX_HEADER = 256 << 10
#: More would take too long in the reactor's thread, and nobody's mail has them.
MAX_FIELDS = 1000
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)


class HeaderSection:
    """Finds the fields at the beginning of a message.

    ``fields`` are (name, value) once ``done``; values have their lines ended by LF and begin
    behind the colon; ``rest`` is what was fed and belongs to the body.  A line that cannot be
    of a field ends the header section, as for mail servers.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.fields: list[tuple[str, str]] = []
        self.rest = b""
        self.done = False

    def feed(self, data: bytes) -> bool:
        """Take more of the message; True once the header section is whole."""
        self._buffer += data
        if self._buffer.startswith(b"\r\n"):
            return self._end(0, 2)
        at = self._buffer.find(b"\r\n\r\n", max(0, len(self._buffer) - len(data) - 3))
        if at >= 0:
            return self._end(at + 2, at + 4)
        if len(self._buffer) > MAX_HEADER:
            raise RemoteFault(f"a header section of more than {MAX_HEADER} octets")
        return False

    def end(self) -> None:
        """The message is over."""
        if not self.done:
            self._end(len(self._buffer), len(self._buffer))

    def _end(self, end: int, rest: int) -> bool:
        header = bytes(self._buffer[:end])
        after = bytes(self._buffer[rest:])
        self._buffer = bytearray()
        at = 0
        while at < len(header):
            stop = _field_end(header, at)
            match = _FIELD.fullmatch(header[at:stop].removesuffix(b"\r\n"))
            if match is None:
                after = header[at:] + bytes(b"\r\n" * (rest > end)) + after
                break
            value = match[2].replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
            if len(self.fields) >= MAX_FIELDS:
                raise RemoteFault(f"a header section of more than {MAX_FIELDS} fields")
            self.fields.append((match[1].decode("ascii"), value))
            at = stop
        self.rest = after
        self.done = True
        return True


def _field_end(header: bytes, at: int) -> int:
    """Return where the field that begins at ``at`` ends, its CRLF and folded lines included."""
    while True:
        newline = header.find(b"\r\n", at)
        if newline < 0:
            return len(header)
        at = newline + 2
        if header[at : at + 1] not in (b" ", b"\t"):
            return at
