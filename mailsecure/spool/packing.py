"""Compressed bodies: what a message costs that lies in the quarantine for a month.

:func:`packed` compresses a body while nobody waits for the writer, in a thread of the
pool, and in bounded memory: what is large goes to a file without a name.  The spool keeps
the result, a zlib stream (RFC 1950), as it would keep any body.  :class:`PackedBody` is the
way back: it decompresses while it is read, never more than the body has, so that neither
a damaged disk nor a body of a billion zeros takes memory.

Called by :mod:`.sqlite` and :mod:`.reading`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from .api import Body, SpoolBroken
from .body import SPILL_AT, BodyStore

__all__ = ["PackedBody", "packed"]

_PIECE = 1 << 18


class PackedBody:
    """A body of ``octets`` octets that is kept compressed in the body ``stored``."""

    __slots__ = ("octets", "stored")

    #: Decompressing takes its time, even where it touches no file.
    in_memory = False

    def __init__(self, stored: Body, octets: int) -> None:
        self.stored = stored
        self.octets = octets

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield the octets; SpoolBroken where they are not what was packed."""
        inflate = zlib.decompressobj()
        left = self.octets
        try:
            for piece in self.stored.pieces(size):
                waiting = piece
                while octets := inflate.decompress(waiting, size):
                    waiting = inflate.unconsumed_tail
                    left -= len(octets)
                    if left < 0:
                        raise SpoolBroken("a message in the spool is damaged: it is too long")
                    yield octets
        except zlib.error as error:
            raise SpoolBroken(f"a message in the spool is damaged: {error}") from error
        if left or not inflate.eof or inflate.unused_data:
            raise SpoolBroken("a message in the spool is damaged: it is not whole")


def packed(body: Body, directory: Path) -> Body:
    """Return ``body`` compressed; as it is where that saves nothing.  Blocking.

    A large one is in a file without a name in ``directory``.  Raises SpoolFull or
    SpoolBroken; then nothing is left behind.
    """
    deflate = zlib.compressobj()
    builder = BodyStore(directory, SPILL_AT).begin()
    try:
        for piece in body.pieces(_PIECE):
            builder.write(deflate.compress(piece))
        builder.write(deflate.flush())
    except BaseException:
        builder.discard()
        raise
    if builder.octets >= body.octets:
        builder.discard()
        return body
    return PackedBody(builder.finish(b""), body.octets)
