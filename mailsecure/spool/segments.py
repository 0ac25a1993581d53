"""Segment files: where bodies too large for a database row are kept.

A segment is appended to until it has its size, then another is begun; a segment that no
message refers to any more is removed whole.  So a large body is written once, in a row
with others, and one fdatasync makes all bodies of a group durable.  A row says (segment,
offset, length); a crash may leave octets in a segment that no row names, which costs a
little room and nothing else.  An old segment is never appended to after a restart.

There are several **series**, each with a segment of its own that is appended to: what is
in the quarantine for a month must not keep the room of mail that was in the queue for a
second.  All are in one directory and share its numbers.

Used by :mod:`.storage`, in its thread only.  ``OSError`` passes through.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .api import Body

__all__ = ["QUARANTINE", "QUEUE", "Segments"]

#: The series.
QUEUE, QUARANTINE = "queue", "quarantine"
_SUFFIX = ".seg"


@dataclass(slots=True)
class _Series:
    """The segment that one series appends to; ``descriptor`` is -1 before there is any."""

    descriptor: int = -1
    number: int = 0
    end: int = 0
    dirty: bool = False


class Segments:
    """The segment files of one directory."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self.size = size
        self._series = {QUEUE: _Series(), QUARANTINE: _Series()}
        self._last = 0
        #: Whether there is, or was since the start, any segment at all.
        self.used = False

    @property
    def active(self) -> frozenset[int]:
        """The numbers of the segments that are appended to."""
        return frozenset(each.number for each in self._series.values() if each.descriptor >= 0)

    def open(self, live: set[int]) -> None:
        """Make the directory, and remove every segment that is not in ``live``."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        numbers = [int(path.stem) for path in self._directory.glob("*" + _SUFFIX)]
        for number in numbers:
            if number not in live:
                self.remove(number)
        self._last = max(numbers, default=0)
        self.used = bool(live)

    def path(self, number: int) -> Path:
        """Return where segment ``number`` is."""
        return self._directory / f"{number:010}{_SUFFIX}"

    def append(self, body: Body, series: str = QUEUE) -> tuple[int, int]:
        """Write ``body``; return its segment and offset.  Durable after :meth:`sync`."""
        segment = self._series[series]
        if segment.descriptor < 0 or segment.end >= self.size:
            self._next(segment)
        offset = segment.end
        for piece in body.pieces(1 << 20):
            view = memoryview(piece)
            while view:
                written = os.write(segment.descriptor, view)
                segment.end += written
                view = view[written:]
        segment.dirty = True
        return segment.number, offset

    def sync(self) -> None:
        """Make all that was appended durable."""
        for segment in self._series.values():
            if segment.dirty:
                os.fdatasync(segment.descriptor)
                segment.dirty = False

    def remove(self, number: int) -> None:
        """Remove a segment that no row refers to."""
        self.path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the active segments; the next append begins another."""
        for segment in self._series.values():
            if segment.descriptor >= 0:
                descriptor, segment.descriptor = segment.descriptor, -1
                os.close(descriptor)

    def _next(self, segment: _Series) -> None:
        """Begin another segment, whose name is durable before anything is in it."""
        if segment.descriptor >= 0:
            if segment.dirty:
                os.fdatasync(segment.descriptor)
                segment.dirty = False
            descriptor, segment.descriptor = segment.descriptor, -1
            os.close(descriptor)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        number = self._last + 1
        descriptor = os.open(self.path(number), flags, 0o600)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        segment.descriptor, segment.number, segment.end = descriptor, number, 0
        self._last = number
        self.used = True
