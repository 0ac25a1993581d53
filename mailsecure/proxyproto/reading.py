"""One header at the start of a stream, cut however the network likes (pure).

:meth:`HeaderReader.feed` takes octets as they come and returns the header once it is
whole; what follows it is left in :attr:`HeaderReader.rest`, untouched, because it is the
client's.  Both versions start with octets that no SMTP client says first, and a stream
that cannot become a header is refused at the first octet that shows it.

At most :data:`MAX_BLOCK` octets are ever kept.  The standard wants 232 understood
(§2.2); certificates in an SSL TLV need more, and 4,096 is what HAProxy itself allows.
"""

from __future__ import annotations

from ..errors import RemoteFault
from .binary import FIXED, SIGNATURE, length_of, parse_block
from .text import MAX_LINE, PREFIX, parse_line
from .values import Header

__all__ = ["MAX_BLOCK", "HeaderReader"]

#: The longest header of version 2, all of it.
MAX_BLOCK = 4096


class HeaderReader:
    """Reads one header.

    ``text`` says whether version 1 may come too; ``limit`` bounds one of version 2.
    After the header, :attr:`raw` holds its octets and :attr:`rest` those that followed.
    """

    __slots__ = ("_held", "_limit", "_text", "raw", "rest")

    def __init__(self, text: bool = True, limit: int = MAX_BLOCK) -> None:
        self._text = text
        self._limit = limit
        self._held = b""
        self.raw = b""
        self.rest = b""

    def feed(self, data: bytes) -> Header | None:
        """Take octets; return the header, or None as long as more are needed.

        RemoteFault where no header can come of it.  Once it has returned a header it
        must not be called again.
        """
        held = self._held + data if self._held else data
        if self._text and held[:1] == PREFIX[:1]:
            end, header = self._line(held)
        else:
            end, header = self._block(held)
        if header is None:
            self._held = held
            return None
        self._held = b""
        self.raw, self.rest = held[:end], held[end:]
        return header

    def _line(self, held: bytes) -> tuple[int, Header | None]:
        if held[: len(PREFIX)] != PREFIX[: len(held)]:
            raise RemoteFault("not a PROXY header")
        end = held.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(held) >= MAX_LINE:
                raise RemoteFault("PROXY line too long")
            return 0, None
        if held[end - 1 : end] != b"\r":
            raise RemoteFault("PROXY line does not end with CRLF")
        return end + 1, parse_line(held[: end - 1])

    def _block(self, held: bytes) -> tuple[int, Header | None]:
        if held[: len(SIGNATURE)] != SIGNATURE[: len(held)]:
            raise RemoteFault("not a PROXY header")
        if len(held) < FIXED:
            return 0, None
        end = length_of(held)
        if end > self._limit:
            raise RemoteFault("PROXY header too long")
        if len(held) < end:
            return 0, None
        return end, parse_block(held[:end])
