"""The pipes through which ``splice`` moves octets without copying them.

``splice(2)`` needs a pipe between two sockets.  A pipe is held only while octets are in
it, so a few serve thousands of sessions.  The larger it is the fewer calls a gigabyte
takes: 512 KiB were the best of 64 KiB to 1 MiB.  A user without CAP_SYS_RESOURCE may
have so many pages in pipes and no more (``fs.pipe-user-pages-soft``: 16,384 as shipped,
which is exactly :data:`MAX_PIPES` of that size); beyond them the pipe keeps the size it
was born with, and works all the same.

A pipe that was not emptied is closed, never used again: its octets are another session's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

__all__ = ["MAX_PIPES", "PIPE_SIZE", "Pipe", "PipePool"]

#: (read end, write end)
Pipe = tuple[int, int]

MAX_PIPES = 128
PIPE_SIZE = 512 * 1024


class PipePool:
    """Lends pipes; at most ``limit`` at once."""

    def __init__(self, limit: int = MAX_PIPES, size: int = PIPE_SIZE) -> None:
        self._limit = limit
        self._size = size
        self._free: list[Pipe] = []
        self._made = 0

    @property
    def lent(self) -> int:
        """How many are out."""
        return self._made - len(self._free)

    def take(self) -> Pipe | None:
        """Return an empty pipe, or None where there is none to be had."""
        if self._free:
            return self._free.pop()
        if self._made >= self._limit:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # No descriptors: whoever asks can copy.
            return None
        self._made += 1
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, self._size)
        return pipe

    def give(self, pipe: Pipe, empty: bool) -> None:
        """Take a pipe back."""
        if empty:
            self._free.append(pipe)
        else:
            self._made -= 1
            _close(pipe)

    def close(self) -> None:
        """Close those that are here."""
        while self._free:
            self._made -= 1
            _close(self._free.pop())


def _close(pipe: Pipe) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
