"""Large bodies on their way into a connection.

A body that is too large for one write, or that has to be read from a file, is moved by a
:class:`Pump`: a batch of pieces at a time, stuffed, as fast as the connection takes them.
Files are read and stuffed in the reactor's thread pool, one batch at a time, so that neither
a slow disk nor a slow reader fills memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import LocalFault
from .stuffing import DotStuffer

__all__ = ["Content", "Pump"]

PIECE = 65536
#: Pieces in a batch.
BATCH = 4


class Content(Protocol):
    """What can be sent; :class:`mailsecure.spool.api.Body` is one."""

    @property
    def octets(self) -> int:
        """How long it is."""

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield it from the start."""

    @property
    def in_memory(self) -> bool:
        """True where :meth:`pieces` does not block."""


class Pump:
    """Moves one body.

    ``write`` takes octets for the wire and returns whether more may follow at once; where it
    says no, :meth:`run` is called again later.  ``ended`` is called after the final dot,
    ``failed`` where the body cannot be read or must not go out (no dot is sent then).
    """

    __slots__ = (
        "_content",
        "_ended",
        "_failed",
        "_in_thread",
        "_pieces",
        "_reading",
        "_stopped",
        "_stuffer",
        "_write",
    )

    def __init__(
        self,
        content: Content,
        in_thread: Callable[..., Deferred[Any]],
        write: Callable[[bytes], bool],
        ended: Callable[[], object],
        failed: Callable[[Failure], object],
    ) -> None:
        self._content = content
        self._in_thread = in_thread
        self._write = write
        self._ended = ended
        self._failed = failed
        self._pieces = content.pieces(PIECE)
        self._stuffer = DotStuffer()
        self._reading = False
        self._stopped = False

    def stop(self) -> None:
        """Move no more."""
        self._stopped = True

    def run(self) -> None:
        """Go on until the connection says stop or a thread has to be waited for."""
        if self._reading or self._stopped:
            return
        if not self._content.in_memory:
            self._reading = True
            self._in_thread(self._read).addCallbacks(self._have_read, self._could_not)
            return
        try:
            while self._have(*self._read()):
                pass
        except LocalFault:
            self._could_not(Failure())

    def _read(self) -> tuple[bytes, bool]:
        """Return the next octets for the wire, and whether they are the last."""
        batch: list[bytes] = []
        while len(batch) < BATCH:
            piece = next(self._pieces, None)
            if piece is None:
                batch.append(self._stuffer.end())
                return b"".join(batch), True
            batch.append(self._stuffer.feed(piece))
        return b"".join(batch), False

    def _have_read(self, result: tuple[bytes, bool]) -> None:
        self._reading = False
        if not self._stopped and self._have(*result):
            self.run()

    def _have(self, data: bytes, last: bool) -> bool:
        more = self._write(data)
        if last and not self._stopped:
            self._ended()
            return False
        return more and not self._stopped

    def _could_not(self, failure: Failure) -> None:
        self._reading = False
        if not self._stopped:
            self._failed(failure)
