"""The octets of a message: gathered while they arrive, read when they are sent.

A :class:`BodyStore` stands between DATA and the spool.  Its :class:`BodyBuilder` keeps
a message in memory up to ``spill_at`` octets, and as long as the memory of all messages
together lasts; beyond that it goes to a temporary file in the state directory that has
no name, so that a crash leaves nothing behind.  No fsync here: durability is the
spool's (:mod:`.storage`), which copies the octets while it commits.

The memory of a message counts until :meth:`release`, which the gateway calls when the
spool has answered.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import LocalFault
from .api import SpoolBroken, SpoolFull

__all__ = ["BodyBuilder", "BodyStore", "FileBody", "MemoryBody", "disk_fault"]

SPILL_AT = 1 << 20
_WRITE_AT = 1 << 18
_NO_ROOM = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG)
)


def disk_fault(error: OSError, doing: str) -> LocalFault:
    """Return the fault that ``error`` means: no room (452), or a broken disk (451)."""
    why = f"{doing}: {error.strerror or error}"
    return SpoolFull(why) if error.errno in _NO_ROOM else SpoolBroken(why)


class MemoryBody:
    """A body in memory."""

    __slots__ = ("_chunks", "_store", "octets")

    in_memory = True

    def __init__(self, chunks: list[bytes], store: BodyStore | None = None) -> None:
        self._chunks = chunks
        self._store = store
        self.octets = sum(map(len, chunks))

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield the octets as they came, whatever ``size``: they are in memory anyway."""
        return iter(self._chunks)

    def release(self) -> None:
        """Give the memory back to the store's account (once); the body stays readable."""
        store, self._store = self._store, None
        if store is not None:
            store.give_back(self.octets)


class FileBody:
    """A body in a file: a header in memory, then ``length`` octets at ``offset``.

    Either of a descriptor that this body owns (a spilled message) or of a file that is
    opened for each reading (a segment of the spool).
    """

    __slots__ = ("_descriptor", "_header", "_length", "_offset", "_path", "octets")

    in_memory = False

    def __init__(
        self,
        header: bytes,
        length: int,
        offset: int = 0,
        path: Path | None = None,
        descriptor: int = -1,
    ) -> None:
        self._header = header
        self._length = length
        self._offset = offset
        self._path = path
        self._descriptor = descriptor
        self.octets = len(header) + length

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield the octets; blocks on the disk."""
        if self._header:
            yield self._header
        descriptor = self._descriptor
        try:
            if self._path is not None:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield from self._read(descriptor, size)
            finally:
                if self._path is not None:
                    os.close(descriptor)
        except OSError as error:
            raise disk_fault(error, "cannot read a message") from error

    def _read(self, descriptor: int, size: int) -> Iterator[bytes]:
        position, end = self._offset, self._offset + self._length
        while position < end:
            piece = os.pread(descriptor, min(size, end - position), position)
            if not piece:
                raise SpoolBroken("cannot read a message: its file is too short")
            position += len(piece)
            yield piece

    def release(self) -> None:
        """Nothing to give back: files do not count as memory."""

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class BodyBuilder:
    """One message on its way in.  Used in the reactor's thread."""

    __slots__ = ("_chunks", "_descriptor", "_spilled", "_store", "_waiting", "octets")

    def __init__(self, store: BodyStore) -> None:
        self._store = store
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._descriptor = -1
        self._spilled = 0
        self.octets = 0

    def write(self, data: bytes) -> None:
        """Keep ``data``.  Raises SpoolFull or SpoolBroken; discard the builder then."""
        self._chunks.append(data)
        size = len(data)
        self.octets += size
        self._waiting += size
        store = self._store
        store.used += size
        if self._descriptor >= 0:
            if self._waiting >= _WRITE_AT:
                self._spill()
        elif self._waiting > store.spill_at or store.used > store.memory:
            self._spill()

    def _spill(self) -> None:
        """Move what is in memory to the file."""
        try:
            if self._descriptor < 0:
                self._descriptor = self._store.open_file()
            for chunk in self._chunks:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise disk_fault(error, "cannot keep a message that arrives") from error
        self._spilled += self._waiting
        self._store.give_back(self._waiting)
        self._chunks = []
        self._waiting = 0

    def view(self) -> MemoryBody | FileBody:
        """Return what came so far, to look at; the builder stays whose it was."""
        if self._descriptor < 0:
            return MemoryBody(list(self._chunks))
        self._spill()
        try:
            descriptor = os.dup(self._descriptor)
        except OSError as error:
            raise disk_fault(error, "cannot look at a message that arrives") from error
        return FileBody(b"", self._spilled, descriptor=descriptor)

    def finish(self, header: bytes, cut: int = 0) -> MemoryBody | FileBody:
        """Return the body, ``header`` in front, which replaces the first ``cut`` octets.

        The builder is of no use after this.
        """
        if self._descriptor < 0:
            chunks, self._chunks, self._waiting = self._chunks, [], 0
            self._store.used += len(header) - cut
            return MemoryBody([header, *_behind(chunks, cut)], self._store)
        self._spill()
        descriptor, self._descriptor = self._descriptor, -1
        return FileBody(header, self._spilled - cut, cut, descriptor=descriptor)

    def discard(self) -> None:
        """Forget the message."""
        self._store.give_back(self._waiting)
        self._chunks = []
        self._waiting = 0
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _behind(chunks: list[bytes], cut: int) -> list[bytes]:
    """Return what is behind the first ``cut`` octets of ``chunks``."""
    for number, chunk in enumerate(chunks):
        if cut < len(chunk):
            return [chunk[cut:] if cut else chunk, *chunks[number + 1 :]]
        cut -= len(chunk)
    return []


class BodyStore:
    """Where messages wait while they arrive; one a node.

    ``memory`` bounds the octets in memory of all of them together.
    """

    def __init__(self, directory: Path, memory: int, spill_at: int = SPILL_AT) -> None:
        self._directory = directory
        self.memory = memory
        self.spill_at = spill_at
        #: Octets in memory now.
        self.used = 0

    def begin(self) -> BodyBuilder:
        """Return a builder for one more message."""
        return BodyBuilder(self)

    def give_back(self, octets: int) -> None:
        """Count octets out of memory."""
        self.used -= octets

    def open_file(self) -> int:
        """Return the descriptor of a new file without a name."""
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            return os.open(self._directory, flags, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
        descriptor, path = tempfile.mkstemp(dir=self._directory)
        Path(path).unlink()
        return descriptor
