"""What a process writes, a line at a time, with nothing missed that was written before.

A thread takes in what comes, so the process never waits for us, and :meth:`Hearing.line`
can be waited for.  Whoever looks at :attr:`Hearing.lines` takes in what is in the pipe
first: what a daemon has written by then is there, however busy the machine is.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from typing import IO

__all__ = ["Hearing"]

_PIECE = 65_536


class Hearing:
    """The lines of one process after another (:meth:`begin`), in the order they came."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._lines: list[str] = []
        #: What is open, and what came of a line whose end is still due.
        self._open: dict[IO[bytes], bytes] = {}

    def begin(self, stream: IO[bytes]) -> None:
        """Hear a pipe to its end, beside what is heard already; it is closed then."""
        os.set_blocking(stream.fileno(), False)
        with self._news:
            self._open[stream] = b""
        threading.Thread(target=self._follow, args=(stream,), daemon=True).start()

    def _follow(self, stream: IO[bytes]) -> None:
        ready = select.poll()
        ready.register(stream, select.POLLIN)
        open_ = True
        while open_:
            ready.poll()
            with self._news:
                open_ = self._take(stream)
        with self._news:
            if rest := self._open.pop(stream):
                self._lines.append(rest.decode("utf-8", "replace"))
            stream.close()
            self._news.notify_all()

    def _take(self, stream: IO[bytes]) -> bool:
        """Take in what is in a pipe; say whether there may be more to come."""
        try:
            while octets := os.read(stream.fileno(), _PIECE):
                *lines, rest = (self._open[stream] + octets).split(b"\n")
                self._open[stream] = rest
                self._lines += [each.decode("utf-8", "replace") for each in lines]
                self._news.notify_all()
        except BlockingIOError:
            return True
        return False

    @property
    def lines(self) -> list[str]:
        """All lines until now; the same list each time, which only grows."""
        with self._news:
            for stream in self._open:
                self._take(stream)
            return self._lines

    def line(self, pattern: str, timeout: float, since: int = 0) -> re.Match[str] | None:
        """Wait for a line in which ``pattern`` is found; None if none comes in time."""
        found = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                while since < len(self._lines):
                    if match := found.search(self._lines[since]):
                        return match
                    since += 1
                if not self._news.wait(max(0.0, deadline - time.monotonic())):
                    return None
