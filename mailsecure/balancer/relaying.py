"""One end of a spliced session: what is read here goes to the other end.

**How octets move.**  A chunk is read and written at once: two calls to the kernel, and no
buffer of ours.  Where a chunk fills :data:`CHUNK`, more is there, and ``os.splice`` moves
it from socket to socket through a pipe, without copying; where that cannot be, it is
copied.  What the other end does not take at once is kept, in the pipe or as a few octets,
and nothing more is read from this one until it is gone: back-pressure, in both
directions, with a bound of one pipe or one piece for each.

The end of one side is passed on as the end of one side (half-close), and only then, when
all that it had sent is out.

**Edges.**  The epoll tells of a change once.  So an end reads until a short read or EAGAIN
says that nothing is left, and after a full pipe or a used-up budget it looks again
whether it was told or not.  It never believes an event, only what the call says.

:class:`.session.Session` has two of these; this module is long because all of it works on
the same few fields, and they are touched at every event.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

from .pipes import Pipe
from .values import Ending, Stage

if TYPE_CHECKING:
    from .session import Session

__all__ = ["CHUNK", "LAST", "End"]

#: A read of so much means that more is there.
CHUNK = 8192
#: What one read of bulk takes where it is copied.
PIECE = 65536
#: The most that one call of splice moves.
LENGTH = 1 << 20
_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
_GONE = select.EPOLLHUP | select.EPOLLERR
#: With one of these a short read does not mean that nothing follows: an end may.
LAST = select.EPOLLRDHUP | _GONE
_READABLE = _IN | LAST
_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if hasattr(os, "splice") else 0
# Looked up once: they are called for every event.
_read, _write = os.read, os.write
_RELAYING = Stage.RELAYING


class End:
    """One of a session's two sockets, and what was read from it that the other has not taken."""

    __slots__ = (
        "bulk", "eof", "fd", "held", "in_pipe", "octets", "other", "outward", "pipe", "session",
        "simple", "stuck",
    )  # fmt: skip

    other: End

    def __init__(self, fd: int, session: Session) -> None:
        self.fd = fd
        self.session = session
        #: The event that says that octets have come, and nothing else; see :meth:`settle`.
        self.simple = -1
        #: Octets read from this end so far.
        self.octets = 0
        #: Whether what was read waits for the other end to take it: in the pipe, or held.
        self.stuck = False
        self.held = b""
        self.pipe: Pipe | None = None
        self.in_pipe = 0
        #: Whether the last read was of bulk.
        self.bulk = False
        self.eof = False
        #: Whether the epoll tells when this end can be written.
        self.outward = False

    def ready(self, event: int) -> None:
        """Do what the state of the session asks for."""
        if event == self.simple:
            # Nearly every event of a session of SMTP; :meth:`move` would do the same.
            try:
                data = _read(self.fd, CHUNK)
            except OSError as error:
                self.could_not_read(error)
                return
            if not data:
                self.ended()
            elif self.pass_on(data) and len(data) == CHUNK:
                self.bulk = True
                self.settle()
                self.move(event)
            return
        session = self.session
        if session.state is _RELAYING:
            if event & (_OUT | _GONE) and self.other.stuck:
                self.other.flush()
            if session.state is not _RELAYING:
                return
            if self.eof:
                if event & _GONE:
                    session.over(self.lost)
            elif event & _READABLE and not self.stuck:
                self.move(event)
        else:
            session.advance(event)

    def settle(self) -> None:
        """Note which event, from now on, says that octets have come and nothing else."""
        if self.eof or self.stuck or self.bulk or self.other.stuck:
            self.simple = -1
        else:
            self.simple = _IN | _OUT if self.outward else _IN

    def could_not_read(self, error: OSError) -> None:
        """Nothing is there, after all, or the connection is lost."""
        if error.errno != errno.EAGAIN:
            self.session.over(self.lost)

    @property
    def lost(self) -> Ending:
        """What it means that this end is gone."""
        return Ending.CLIENT_LOST if self is self.session.client else Ending.PEER_LOST

    def move(self, event: int) -> None:
        """Read and pass on until nothing is left."""
        while True:
            if self.bulk:
                again = self.pour() if self.session.splicer.zero_copy else self.copy()
                if not again:
                    return
            try:
                data = _read(self.fd, CHUNK)
            except OSError as error:
                self.could_not_read(error)
                return
            if not data:
                self.ended()
                return
            if not self.pass_on(data):
                return
            if len(data) == CHUNK:
                self.bulk = True
                self.settle()
            elif not event & LAST:
                return

    def pass_on(self, data: bytes) -> bool:
        """Write what was read; say whether all of it went."""
        session = self.session
        session.seen = session.splicer.now
        size = len(data)
        self.octets += size
        other = self.other
        try:
            sent = _write(other.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            session.over(other.lost)
            return False
        if sent == size:
            return True
        self.held = data[sent:]
        self.wait()
        return False

    def wait(self) -> None:
        """Read no more before the other end has taken what it did not take now."""
        self.stuck = True
        other = self.other
        self.settle()
        other.settle()
        if not other.outward:
            other.outward = True
            self.session.splicer.modify(other)

    def pour(self) -> bool:
        """Move bulk by splice, as far as the turn's budget goes.

        Returns whether to look again by reading.  A short splice, unlike a short read,
        does not mean that nothing is left: the pipe may have no room for more pieces.
        """
        session = self.session
        splicer = session.splicer
        while splicer.budget > 0:
            pipe = self.pipe = splicer.pipes.take()
            if pipe is None:
                return self.copy()
            try:
                got = os.splice(self.fd, pipe[1], LENGTH, flags=_SPLICE_FLAGS)
            except OSError as error:
                self.give_back()
                return self._could_not_splice(error)
            if not got:
                self.give_back()
                self.ended()
                return False
            splicer.budget -= got
            session.seen = splicer.now
            self.octets += got
            self.in_pipe = got
            if not self.drain():
                return False
            if got < CHUNK:
                self.bulk = False
                self.settle()
                return True
        splicer.modify(self)
        return False

    def _could_not_splice(self, error: OSError) -> bool:
        if error.errno == errno.EAGAIN:
            return False
        if error.errno == errno.EINVAL:
            self.session.splicer.cannot_splice()
            return self.copy()
        self.session.over(self.lost)
        return False

    def drain(self) -> bool:
        """Move from the pipe to the other end; say whether all of it went."""
        pipe = self.pipe
        assert pipe is not None
        session = self.session
        try:
            while self.in_pipe:
                self.in_pipe -= os.splice(pipe[0], self.other.fd, self.in_pipe, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            self.wait()
            return False
        except OSError:
            session.over(self.other.lost)
            return False
        self.give_back()
        return True

    def give_back(self) -> None:
        """Return the pipe, if there is one."""
        if self.pipe is not None:
            self.session.splicer.pipes.give(self.pipe, self.in_pipe == 0)
            self.pipe = None
            self.in_pipe = 0

    def copy(self) -> bool:
        """Move bulk without splice; return whether to look again by smaller reads."""
        session = self.session
        splicer = session.splicer
        while splicer.budget > 0:
            try:
                data = _read(self.fd, PIECE)
            except OSError as error:
                self.could_not_read(error)
                return False
            if not data:
                self.ended()
                return False
            splicer.budget -= len(data)
            if not self.pass_on(data):
                return False
            if len(data) < CHUNK:
                self.bulk = False
                self.settle()
                return True
        splicer.modify(self)
        return False

    def flush(self) -> None:
        """The other end takes octets again: give it what waits, then go on reading."""
        session = self.session
        if self.pipe is not None:
            if not self.drain():
                return
        else:
            try:
                sent = _write(self.other.fd, self.held)
            except BlockingIOError:
                return
            except OSError:
                session.over(self.other.lost)
                return
            self.held = self.held[sent:]
            if self.held:
                return
        session.seen = session.splicer.now
        self.stuck = False
        self.settle()
        self.other.settle()
        # What came meanwhile has had its event.
        self.move(LAST)

    def ended(self) -> None:
        """Nothing more comes from this end; pass that on too."""
        self.eof = True
        self.simple = -1
        session = self.session
        other = self.other
        if other.eof:
            session.over(Ending.DONE)
            return
        try:
            session.splicer.end_writing(other)
        except OSError:
            session.over(other.lost)
