"""What waits on disk while the database is away: a file of :mod:`.lines`.

The file is written without syncing: it survives the death of the process, and the loss of
power but for its last seconds.  It is bounded; what does not fit is refused whole.  A last
line that a crash tore is cut off when the file is opened, a line that makes no sense is
passed over, and both are counted.

It is emptied only when all of it is in the database.  A crash before that has it read again
from its beginning, which changes nothing: each event has an id.

Used in the writer's thread; at a stop that cannot wait for that thread, in another
(:meth:`Backlog.append` may be called from any).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..errors import RemoteFault
from .lines import decode_line, encode_line
from .rows import Numbered

__all__ = ["Backlog"]

_CHUNK = 256 << 10


class Backlog:
    """The file at ``path``, of ``limit`` octets at most."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self.limit = limit
        self._lock = threading.Lock()
        #: Octets in the file, and how many of them are in the database.
        self.octets = 0
        self._done = 0
        self._read = 0
        #: Lines that made no sense.
        self.broken = 0
        self._broken_now = 0

    def open(self) -> None:
        """Look at what an earlier run left; OSError where that cannot be read."""
        with self._lock:
            try:
                with self._path.open("r+b") as stream:
                    self.octets = stream.seek(0, os.SEEK_END)
                    self._cut_torn_line(stream.fileno())
            except FileNotFoundError:
                self.octets = 0
            self._done = self._read = 0

    def _cut_torn_line(self, descriptor: int) -> None:
        end = self.octets
        while end:
            start = max(0, end - _CHUNK)
            newline = os.pread(descriptor, end - start, start).rfind(b"\n")
            end = start + newline + 1 if newline >= 0 else start
            if newline >= 0:
                break
        if end < self.octets:
            self.broken += 1
            os.ftruncate(descriptor, end)
            self.octets = end

    @property
    def left(self) -> int:
        """Octets that are not in the database yet."""
        return self.octets - self._done

    def append(self, batch: Sequence[Numbered]) -> int:
        """Keep events; return how many fitted.  OSError: none is kept."""
        lines = [encode_line(id, event) for id, event in batch]
        with self._lock:
            room = self.limit - self.octets
            fitting = 0
            for line in lines:
                room -= len(line)
                if room < 0:
                    break
                fitting += 1
            if fitting:
                self._write(b"".join(lines[:fitting]))
            return fitting

    def _write(self, octets: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            self._notice_size(os.fstat(descriptor).st_size)
            written = 0
            while written < len(octets):
                written += os.pwrite(descriptor, octets[written:], self.octets + written)
            self.octets += len(octets)
        except OSError:
            # Half a batch would be read as a torn line, and then be there twice.
            os.ftruncate(descriptor, self.octets)
            raise
        finally:
            os.close(descriptor)

    def read(self) -> list[Numbered]:
        """Return the next events, some hundred; the same ones until :meth:`done`.

        OSError: the file cannot be read.
        """
        with self._lock:
            with self._opened() as stream:
                self._notice_size(stream.seek(0, os.SEEK_END))
                stream.seek(self._done)
                chunk = stream.read(min(_CHUNK, self.octets - self._done))
                if not chunk.endswith(b"\n"):
                    chunk += stream.readline(self.octets - self._done - len(chunk))
            self._read = self._done + len(chunk)
        found = []
        broken = 0
        for line in chunk.splitlines():
            try:
                found.append(decode_line(line))
            except RemoteFault:
                broken += 1
        self._broken_now = broken
        return found

    def _opened(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return BytesIO()

    def _notice_size(self, size: int) -> None:
        """Somebody may have emptied or removed the file: then that is how it is."""
        if size < self.octets:
            self.octets = size
            self._done = min(self._done, size)

    def done(self) -> None:
        """What :meth:`read` returned is in the database; empty the file after the last."""
        with self._lock:
            self._done = self._read
            self.broken += self._broken_now
            self._broken_now = 0
            if self._done >= self.octets:
                with suppress(FileNotFoundError):
                    os.truncate(self._path, 0)
                self.octets = self._done = self._read = 0
