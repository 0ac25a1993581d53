"""The anteroom: what happens to a connection before it is decided who gets it.

A bare descriptor may have to wait here for three things: its PROXY header
(:meth:`Anteroom.read_header`), the time that a stranger has to be silent
(:meth:`Anteroom.keep_silent`), and the end of a client that was refused
(:meth:`Anteroom.refuse`).  What came of the first two, its :class:`Host` is told.

*The header* is looked at without taking it (MSG_PEEK), and when it is whole exactly its
octets are read: what follows is the client's, and stays in the kernel for whoever serves
it.  *Silence* takes nothing either: any octet breaks it.  *A refusal* is followed by the
end of our half, and then what the client still says is read and thrown away until it ends
too, for a moment: if we closed with octets unread, the kernel would reset the connection,
and the client might never see why.

No connection has a timer: each line is in the order of its deadlines, and one sweep looks
at the first ones, every :data:`SWEEP` seconds while anybody waits.  The lines are bounded.
All stand in the splicer's epoll.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import RemoteFault
from ..proxyproto.reading import MAX_BLOCK, HeaderReader
from ..proxyproto.values import Header
from .splice import Splicer

__all__ = ["MAX_LEAVING", "Anteroom", "Guest", "Host"]

SWEEP = 0.05
#: How long a header may take, and a refused client to go, in seconds.
HEADER_TIME = 5.0
LEAVING_TIME = 1.0
#: Refused clients that are waited for; others are closed at once.
MAX_LEAVING = 1000
_PIECE = 65536
_EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_INET, _STREAM = int(socket.AF_INET), int(socket.SOCK_STREAM)


class Guest(Protocol):
    """Who waits."""

    @property
    def descriptor(self) -> int:
        """The socket, which does not block."""


class Host(Protocol):
    """Who is told; each guest is told of once for each time that it was handed in."""

    def introduced(self, guest: Guest, header: Header) -> None:
        """Its PROXY header has been read."""

    def misled(self, guest: Guest, reason: str) -> None:
        """It began with no such header in time; it is closed.  "": it never said anything."""

    def waited(self, guest: Guest) -> None:
        """It was silent for as long as it had to."""

    def talked(self, guest: Guest) -> None:
        """It was not."""

    def vanished(self, guest: Guest) -> None:
        """It ended or was lost while it had to be silent; it is closed."""


class _Line:
    """All that wait for the same thing, with their deadlines, the first to be due first."""

    __slots__ = ("overdue", "waiting")

    def __init__(self, overdue: Callable[[_Waiting], None]) -> None:
        self.overdue = overdue
        self.waiting: dict[_Waiting, float] = {}


class _Waiting:
    """One connection in a line."""

    __slots__ = ("descriptor", "guest", "on_event")

    def __init__(
        self,
        descriptor: int,
        guest: Guest | None,
        on_event: Callable[[_Waiting, int], None],
    ) -> None:
        self.descriptor = descriptor
        self.guest = guest
        self.on_event = on_event

    def ready(self, event: int) -> None:
        """Something came (:class:`.splice.Watched`)."""
        self.on_event(self, event)


class Anteroom:
    """See the module's text.  :attr:`most` connections may wait to be served."""

    def __init__(self, splicer: Splicer, clock: IReactorTime, host: Host, most: int) -> None:
        self._splicer = splicer
        self._clock = clock
        self._host = host
        self.most = most
        self._headers = _Line(self._header_late)
        self._silent = _Line(self._was_silent)
        self._leaving = _Line(self._close)
        self._sweeping: IDelayedCall | None = None

    @property
    def guests(self) -> int:
        """How many wait to be served."""
        return len(self._headers.waiting) + len(self._silent.waiting)

    # -- come in

    def read_header(self, guest: Guest) -> bool:
        """Read the header of a guest; False where there are too many already."""
        return self._enter(self._headers, guest.descriptor, guest, self._header_came, HEADER_TIME)

    def keep_silent(self, guest: Guest, delay: float) -> bool:
        """Let a guest wait for ``delay`` seconds; False where there are too many already."""
        return self._enter(self._silent, guest.descriptor, guest, self._broke_silence, delay)

    def refuse(self, descriptor: int, reply: bytes) -> None:
        """Say ``reply`` (nothing, if it is b""), then close once the client has ended."""
        wire = socket.SocketType(_INET, _STREAM, 0, descriptor)
        try:
            wire.send(reply)
            wire.shutdown(socket.SHUT_WR)
        except OSError:
            wire.close()
            return
        wire.detach()
        line, events = self._leaving, select.EPOLLIN
        if not self._enter(line, descriptor, None, self._still_talks, LEAVING_TIME, events):
            os.close(descriptor)

    def _enter(
        self,
        line: _Line,
        descriptor: int,
        guest: Guest | None,
        on_event: Callable[[_Waiting, int], None],
        delay: float,
        events: int = _EDGES,
    ) -> bool:
        full = len(line.waiting) >= MAX_LEAVING if guest is None else self.guests >= self.most
        if full:
            return False
        waiting = _Waiting(descriptor, guest, on_event)
        line.waiting[waiting] = self._clock.seconds() + delay
        self._splicer.watch(descriptor, waiting, events)
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP, self._sweep)
        return True

    # -- go out

    def dismiss(self) -> None:
        """Let all that are silent be served now, close the others, and sweep no more."""
        for waiting in list(self._silent.waiting):
            self._was_silent(waiting)
        for waiting in list(self._headers.waiting):
            self._header_late(waiting)
        for waiting in list(self._leaving.waiting):
            self._close(waiting)
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.seconds()
        for line in (self._headers, self._silent, self._leaving):
            due = []
            for waiting, deadline in line.waiting.items():
                if deadline > now:
                    break
                due.append(waiting)
            for waiting in due:
                # One may have gone on account of another.
                if waiting in line.waiting:
                    line.overdue(waiting)
        busy = self._headers.waiting or self._silent.waiting or self._leaving.waiting
        if busy and self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP, self._sweep)

    def _out(self, line: _Line, waiting: _Waiting) -> Guest:
        """Take one out of its line and of the epoll."""
        del line.waiting[waiting]
        self._splicer.unwatch(waiting.descriptor)
        guest = waiting.guest
        assert guest is not None
        return guest

    # -- the header

    def _header_came(self, waiting: _Waiting, event: int) -> None:
        data = _peek(waiting.descriptor, MAX_BLOCK)
        if data is None and not event & _ENDED:
            return
        # What was looked at is there again the next time: a reader of its own each time.
        reader = HeaderReader()
        try:
            header = reader.feed(data or b"")
        except RemoteFault as fault:
            self._mislead(waiting, str(fault))
            return
        if header is not None:
            os.read(waiting.descriptor, len(reader.raw))
            self._host.introduced(self._out(self._headers, waiting), header)
        elif event & _ENDED:
            self._mislead(waiting, "ended within its PROXY header" if data else "")

    def _header_late(self, waiting: _Waiting) -> None:
        self._mislead(waiting, "no PROXY header in time")

    def _mislead(self, waiting: _Waiting, reason: str) -> None:
        guest = self._out(self._headers, waiting)
        os.close(waiting.descriptor)
        self._host.misled(guest, reason)

    # -- silence

    def _broke_silence(self, waiting: _Waiting, event: int) -> None:
        data = _peek(waiting.descriptor, 1)
        if data:
            self._host.talked(self._out(self._silent, waiting))
        elif data is not None or event & _ENDED:
            guest = self._out(self._silent, waiting)
            os.close(waiting.descriptor)
            self._host.vanished(guest)

    def _was_silent(self, waiting: _Waiting) -> None:
        # The reactor may have been late: what came meanwhile counts.
        self._broke_silence(waiting, 0)
        if waiting in self._silent.waiting:
            self._host.waited(self._out(self._silent, waiting))

    # -- the end

    def _still_talks(self, waiting: _Waiting, event: int) -> None:
        try:
            # One piece an event: who floods us is cut off by the deadline.
            if os.read(waiting.descriptor, _PIECE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(waiting)

    def _close(self, waiting: _Waiting) -> None:
        del self._leaving.waiting[waiting]
        self._splicer.unwatch(waiting.descriptor)
        os.close(waiting.descriptor)


def _peek(descriptor: int, most: int) -> bytes | None:
    """Return what is there without taking it; b"" at the end, None where nothing is."""
    wire = socket.SocketType(_INET, _STREAM, 0, descriptor)
    try:
        return wire.recv(most, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    finally:
        wire.detach()
