"""One spliced session: two sockets, and the octets between them.

**Its life.**  *Connecting*: to the peer, then the header (PROXY) is sent.  *Awaiting*: the
peer's first octet, because a server speaks first in SMTP, and a peer that accepts without
speaking is no use.  *Relaying*: octets both ways until both sides have ended.  Before the
first octet nothing of the client is read, so it has lost nothing when that peer fails:
:meth:`Caller.failed` gets its socket back and tries another.

**How octets move.**  A chunk is read and written at once: two calls to the kernel, and no
buffer of ours.  Where a chunk fills :data:`CHUNK`, more is there, and ``os.splice`` moves
it from socket to socket through a pipe, without copying; where that cannot be, it is
copied.  What the other side does not take at once is kept, in the pipe or as a few octets,
and nothing more is read from the source until it is gone: back-pressure, in both
directions, with a bound of one pipe or one piece for each.

The end of one side is passed on as the end of one side (half-close), and only then, when
all that it had sent is out.

Sessions are made and woken by :class:`.splice.Splicer`, whose rules for edges they keep:
read until a short read or EAGAIN, and never believe an event, only what the call says.
"""

from __future__ import annotations

import errno
import os
import select
from enum import Enum
from typing import Protocol

from .pipes import Pipe, PipePool

__all__ = ["CHUNK", "Caller", "End", "Ending", "Failing", "Owner", "Session", "failing"]

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
_LAST = select.EPOLLRDHUP | _GONE
_READABLE = _IN | _LAST
_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if hasattr(os, "splice") else 0
# Looked up once: they are called for every event.
_read, _write = os.read, os.write
#: Our own want of descriptors, ports or memory says nothing of the peer.
_OURS = {
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN,
    errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT,
}  # fmt: skip


class Failing(Enum):
    """Why a peer did not take a session; the client knows nothing of it."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "no connection in time"
    SILENT = "no greeting in time"
    RESET = "reset before the greeting"
    CLOSED = "closed before the greeting"
    UNWILLING = "greeted with a refusal"
    #: Not the peer's fault: no descriptors, ports or memory here.
    OURS = "no resources here"


class Ending(Enum):
    """Why a session that was relayed ended."""

    DONE = "done"
    CLIENT_LOST = "client lost"
    PEER_LOST = "peer lost"
    IDLE = "idle for too long"
    STOPPED = "stopped"
    BROKEN = "internal error"


class Caller(Protocol):
    """Who asked for a session.  Exactly one of ``failed`` and ``ended`` comes, at its end.

    All three may be called before :meth:`splice.Splicer.splice` returns; ``session.tag`` is what
    was given to it.
    """

    def opened(self, session: Session) -> None:
        """The peer greets; from here on the client is its."""

    def failed(self, session: Session, client: int, why: Failing) -> None:
        """The peer does not; the client's socket is the caller's again, nothing read from it."""

    def ended(self, session: Session, why: Ending) -> None:
        """Both sockets are closed."""


class Owner(Protocol):
    """What a session needs of the splicer that it is in."""

    #: Monotonic seconds, as of this turn.
    now: float
    #: Octets of bulk that may still be moved in this turn.
    budget: int
    zero_copy: bool
    greeting: bytes
    pipes: PipePool

    def modify(self, end: End) -> None:
        """Tell what is of interest of an end; if there is something now, tell again."""

    def awaits(self, session: Session) -> None:
        """It has connected."""

    def relays(self, session: Session) -> None:
        """The peer has greeted."""

    def forget(self, session: Session) -> None:
        """It is over; its descriptors are about to be closed."""

    def end_writing(self, end: End) -> None:
        """Close one half: say that nothing more comes to this end.  OSError if it is gone."""

    def cannot_splice(self) -> None:
        """The kernel refuses to splice: copy from now on."""


class _State(Enum):
    CONNECTING = 0
    AWAITING = 1
    RELAYING = 2
    OVER = 3


_CONNECTING, _AWAITING, _RELAYING, _OVER = _State


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
        elif session.state is not _OVER:
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
            elif not event & _LAST:
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
                sent = os.write(self.other.fd, self.held)
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
        self.move(_LAST)

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


class Session:
    """One client and one peer."""

    __slots__ = ("_caller", "_header", "client", "peer", "seen", "splicer", "state", "tag")

    def __init__(
        self, splicer: Owner, client: int, peer: int, header: bytes, caller: Caller, tag: object
    ) -> None:
        self.splicer = splicer
        self.client = End(client, self)
        self.peer = End(peer, self)
        self.client.other, self.peer.other = self.peer, self.client
        self.state = _CONNECTING
        self._header = header
        self._caller = caller
        #: When octets last moved; before that, when the state began.
        self.seen = splicer.now
        self.tag = tag

    @property
    def octets(self) -> tuple[int, int]:
        """How many came from the client, and from the peer."""
        return self.client.octets, self.peer.octets

    @property
    def half_closed(self) -> bool:
        """Whether one side has ended."""
        return self.client.eof or self.peer.eof

    def advance(self, event: int) -> None:
        """Connected, or greeted, or not: whatever the socket to the peer says."""
        if self.state is _CONNECTING and not self._send_header():
            return
        try:
            data = _read(self.peer.fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(failing(error))
            return
        if not data:
            self.fail(Failing.CLOSED)
        elif not data.startswith(self.splicer.greeting):
            self.fail(Failing.UNWILLING)
        else:
            self._relay(data, event)

    def connected(self) -> None:
        """Send the header if the connection stands already; else an event will come."""
        self._send_header()

    def _send_header(self) -> bool:
        if self._header:
            try:
                sent = os.write(self.peer.fd, self._header)
            except BlockingIOError:
                return False
            except OSError as error:
                self.fail(failing(error))
                return False
            if sent < len(self._header):
                # A new socket takes a few hundred octets; this one is not well.
                self.fail(Failing.RESET)
                return False
            self._header = b""
        self.state = _AWAITING
        self.splicer.awaits(self)
        return True

    def _relay(self, data: bytes, event: int) -> None:
        self.state = _RELAYING
        self.client.settle()
        self.peer.settle()
        self.splicer.relays(self)
        self._caller.opened(self)
        if self.peer.pass_on(data) and (event & _LAST or len(data) == CHUNK):
            self.peer.move(event)

    def fail(self, why: Failing) -> None:
        """Close the socket to the peer; hand the client back."""
        if self.state is _OVER:
            return
        self.state = _OVER
        self.splicer.forget(self)
        if self.peer.fd >= 0:
            os.close(self.peer.fd)
        client, self.client.fd, self.peer.fd = self.client.fd, -1, -1
        caller = self._caller
        self._untie()
        caller.failed(self, client, why)

    def over(self, why: Ending) -> None:
        """Close both sockets."""
        if self.state is _OVER:
            return
        self.state = _OVER
        self.splicer.forget(self)
        for end in (self.client, self.peer):
            end.give_back()
            os.close(end.fd)
            end.fd = -1
            end.held = b""
        caller = self._caller
        self._untie()
        caller.ended(self, why)

    def _untie(self) -> None:
        """Leave no circle: the collector rarely comes by."""
        for end in (self.client, self.peer):
            del end.other, end.session


def failing(error: OSError) -> Failing:
    """Say what an error of the socket to a peer means."""
    if error.errno == errno.ECONNREFUSED:
        return Failing.REFUSED
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return Failing.RESET
    if error.errno in _OURS:
        return Failing.OURS
    return Failing.UNREACHABLE
