"""Segment files: where bodies too large for a database row are kept.

A segment is appended to until it has its size, then another is begun; a segment that no
message refers to any more is removed whole.  So a large body is written once, in a row
with others, and one fdatasync makes all bodies of a group durable.  A row says (segment,
offset, length); a crash may leave octets in a segment that no row names, which costs a
little room and nothing else.  An old segment is never appended to after a restart.

Used by :mod:`.storage`, in its thread only.  ``OSError`` passes through.
"""

from __future__ import annotations

import os
from pathlib import Path

from .api import Body

__all__ = ["Segments"]

_SUFFIX = ".seg"


class Segments:
    """The segment files of one directory."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self.size = size
        self._descriptor = -1
        self._number = 0
        self._end = 0
        self._dirty = False
        #: Whether there is, or was since the start, any segment at all.
        self.used = False

    @property
    def active(self) -> int:
        """The number of the segment that is appended to; 0 for none."""
        return self._number if self._descriptor >= 0 else 0

    def open(self, live: set[int]) -> None:
        """Make the directory, and remove every segment that is not in ``live``."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        numbers = [int(path.stem) for path in self._directory.glob("*" + _SUFFIX)]
        for number in numbers:
            if number not in live:
                self.remove(number)
        self._number = max(numbers, default=0)
        self.used = bool(live)

    def path(self, number: int) -> Path:
        """Return where segment ``number`` is."""
        return self._directory / f"{number:010}{_SUFFIX}"

    def append(self, body: Body) -> tuple[int, int]:
        """Write ``body``; return its segment and offset.  Durable after :meth:`sync`."""
        if self._descriptor < 0 or self._end >= self.size:
            self._next()
        offset = self._end
        for piece in body.pieces(1 << 20):
            view = memoryview(piece)
            while view:
                written = os.write(self._descriptor, view)
                self._end += written
                view = view[written:]
        self._dirty = True
        return self._number, offset

    def sync(self) -> None:
        """Make all that was appended durable."""
        if self._dirty:
            os.fdatasync(self._descriptor)
            self._dirty = False

    def remove(self, number: int) -> None:
        """Remove a segment that no row refers to."""
        self.path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the active segment; the next append begins another."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _next(self) -> None:
        """Begin another segment, whose name is durable before anything is in it."""
        self.sync()
        self.close()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        number = self._number + 1
        descriptor = os.open(self.path(number), flags, 0o600)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._descriptor, self._number, self._end = descriptor, number, 0
        self.used = True
