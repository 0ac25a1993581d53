"""The splicer: thousands of sessions between clients and peers, in one epoll.

**Why an epoll of its own.**  Twisted's reactor asks the kernel for each change of interest
and goes through some twenty Python calls for each event.  Here all sockets stand in one
edge-triggered epoll, each registered once; the reactor watches the epoll, which is a
descriptor like any other.  A session of SMTP has some fifteen events, so this decides the
speed.  What edges demand is kept by :mod:`.relaying`; and where a turn's :data:`BUDGET` is
used up, the kernel is asked for the event again, so that bulk never starves the others.

A descriptor's number may have a new owner by the time an event is looked at.  So an event
is a hint and no more: only what the call then says counts.

**Deadlines** are looked at by one sweep every :data:`SWEEP` seconds while there are
sessions: none of them costs a timer.  A fault in one session closes that one, is logged,
and harms no other.

Descriptors given to :meth:`Splicer.splice` are non-blocking, and nobody else holds a copy
of them: closing is what takes them out of the epoll.

Called by the load balancer, which picks the peer and makes the header.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .pipes import PipePool
from .relaying import End
from .session import Caller, Session
from .values import Ending, Failing, failing

__all__ = ["Address", "Patience", "Splicer", "Watched"]

_log = Logger(namespace="balancer")

#: Octets of bulk that one turn moves, and seconds that it may take: the reactor has other work.
BUDGET = 4 << 20
TURN = 0.002
#: Events taken from the kernel in one go.
BATCH = 128
SWEEP = 0.1
#: Every so many sweeps the idle ones are looked for.
IDLE_SWEEPS = 10

_INTEREST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
# SocketType is socket.socket without its Python part; plain numbers spare it the enums.
_UNIX, _INET, _TCP = int(socket.AF_UNIX), int(socket.AF_INET), int(socket.IPPROTO_TCP)
_STREAM, _STREAM_NOW = int(socket.SOCK_STREAM), socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_NODELAY = int(socket.TCP_NODELAY)
_UNDER_WAY = (errno.EINPROGRESS, 0)

#: Family and address of a peer, as the socket module takes them; numeric, never a name.
Address = tuple[int, tuple[Any, ...] | str]


class Watched(Protocol):
    """What can stand in the epoll."""

    def ready(self, event: int) -> None:
        """Something happened, or may have."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a session may take, in seconds.

    ``connect``: to connect; ``banner``: from then to the peer's first octet; ``idle``:
    without an octet while relaying; ``closing``: the same after one side has ended.
    """

    connect: float = 2.0
    banner: float = 5.0
    idle: float = 600.0
    closing: float = 60.0


@implementer(IReadDescriptor)
class Splicer:
    """All spliced sessions.  ``reactor`` needs addReader and removeReader.

    ``greeting`` is what a peer's first octet must be, else it counts as failed: the 2 of
    220 (RFC 5321 §4.2).  A 421 of an overloaded peer thus never reaches a client that
    another could serve.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        patience: Patience,
        pipes: PipePool | None = None,
        greeting: bytes = b"2",
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self.patience = patience
        self.pipes = pipes or PipePool()
        self.greeting = greeting
        self.zero_copy = hasattr(os, "splice")
        #: Sessions that are not over.
        self.sessions = 0
        self.now = 0.0
        self.budget = BUDGET
        self._epoll: select.epoll | None = None
        #: By descriptor, which is a small number.
        self._watched: list[Watched | None] = []
        #: Sessions that connect, and that wait for a greeting, with their deadlines.
        self._connecting: dict[Session, float] = {}
        self._awaiting: dict[Session, float] = {}
        self._sweeping: IDelayedCall | None = None
        self._due = 0.0
        self._sweeps = 0

    # -- life

    def start(self) -> None:
        """Begin."""
        self._epoll = select.epoll()
        self._reactor.addReader(self)

    def stop(self) -> None:
        """End every session, and close."""
        if self._epoll is None:
            return
        for each in list(self._watched):
            if isinstance(each, End) and each.fd >= 0:
                each.session.over(Ending.STOPPED)
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._reactor.removeReader(self)
        self._epoll.close()
        self._epoll = None
        # In place: a turn may be under way.
        self._watched[:] = [None] * len(self._watched)
        self.pipes.close()

    def splice(
        self,
        client: int,
        address: Address,
        header: bytes,
        caller: Caller,
        tag: object = None,
        *,
        within: float = 0.0,
        answer: bytes = b"",
    ) -> Session:
        """Try to have the peer at ``address`` serve the client on the descriptor ``client``.

        ``header`` goes to the peer first.  See :class:`.session.Caller` for what follows.
        ``within`` so many seconds the peer must have greeted; 0: as :class:`Patience` says.
        ``answer`` is what it says to the header before anything else, where it does: that
        octet is not the client's, and then stands for the greeting.
        """
        self.now = self._clock.seconds()
        session = Session(self, client, -1, header, caller, tag)
        if within:
            session.deadline = self.now + within
        if answer:
            session.answer = answer
        self.sessions += 1
        try:
            peer = session.peer.fd = _connect(address)
        except OSError as error:
            session.fail(failing(error))
            return session
        self._connecting[session] = session.deadline or self.now + self.patience.connect
        session.connected()
        if session.peer.fd == peer:
            # Where the header went out at once there is nothing to write for long.
            session.peer.outward = session in self._connecting
            self._register(session.peer)
        if self._sweeping is None:
            self._sweep_later()
        return session

    def watch(self, descriptor: int, watched: Watched, events: int = select.EPOLLIN) -> None:
        """Have another descriptor in the epoll: level-triggered, for reading, unless told else."""
        assert self._epoll is not None
        self._put(descriptor, watched)
        self._epoll.register(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Take it out, if it is there."""
        table = self._watched
        there = descriptor < len(table) and table[descriptor] is not None
        if self._epoll is not None and there:
            table[descriptor] = None
            self._epoll.unregister(descriptor)

    # -- for the sessions

    def modify(self, end: End) -> None:
        """Tell the kernel what is of interest; it tells what is there now once more."""
        assert self._epoll is not None
        self._epoll.modify(end.fd, _INTEREST | (select.EPOLLOUT if end.outward else 0))

    def awaits(self, session: Session) -> None:
        """Start to wait for the greeting."""
        del self._connecting[session]
        self._awaiting[session] = session.deadline or self.now + self.patience.banner

    def relays(self, session: Session) -> None:
        """Begin to listen to the client."""
        del self._awaiting[session]
        # Not needed any more, and thousands may be idle.
        session.deadline = 0.0
        session.seen = self.now
        self._register(session.client)

    def forget(self, session: Session) -> None:
        """Let go of a session that is over."""
        self.sessions -= 1
        self._connecting.pop(session, None)
        self._awaiting.pop(session, None)
        watched = self._watched
        for end in (session.client, session.peer):
            if 0 <= end.fd < len(watched) and watched[end.fd] is end:
                watched[end.fd] = None

    def end_writing(self, end: End) -> None:
        """Close our half."""
        wire = socket.SocketType(_INET, _STREAM, 0, end.fd)
        try:
            wire.shutdown(socket.SHUT_WR)
        finally:
            wire.detach()

    def cannot_splice(self) -> None:
        """Copy from now on."""
        self.zero_copy = False
        _log.warn("the kernel cannot splice these sockets; octets are copied instead")

    def _register(self, end: End) -> None:
        assert self._epoll is not None
        self._put(end.fd, end)
        self._epoll.register(end.fd, _INTEREST | (select.EPOLLOUT if end.outward else 0))

    def _put(self, descriptor: int, watched: Watched) -> None:
        table = self._watched
        if descriptor >= len(table):
            table.extend([None] * (descriptor + 64 - len(table)))
        table[descriptor] = watched

    # -- turns

    def fileno(self) -> int:
        """Return the epoll's descriptor (IReadDescriptor)."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """Name ourselves (IReadDescriptor)."""
        return "splicer"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops (IReadDescriptor)."""
        self.stop()

    def doRead(self) -> None:
        """Take events until there are none, or the turn is over (IReadDescriptor)."""
        epoll, watched, seconds = self._epoll, self._watched, self._clock.seconds
        self.now = now = seconds()
        self.budget = BUDGET
        until = now + TURN
        while epoll is not None:
            events = epoll.poll(0, BATCH)
            for descriptor, event in events:
                each = watched[descriptor]
                if each is not None:
                    try:
                        each.ready(event)
                    except Exception:
                        _log.failure("unexpected error in a spliced session")
                        self._break_off(each)
            if not events or self.budget <= 0 or seconds() >= until:
                return
            epoll = self._epoll

    def _break_off(self, each: Watched) -> None:
        """End a session that raised, if it is not over."""
        if isinstance(each, End) and each.fd >= 0:
            self._safely(each.session.over, Ending.BROKEN)

    def _safely(self, end: Callable[[Any], None], why: Ending | Failing) -> None:
        """End a session whose caller may raise."""
        try:
            end(why)
        except Exception:
            _log.failure("unexpected error at the end of a spliced session")

    def _sweep(self) -> None:
        self._sweeping = None
        if self._clock.seconds() - self._due > SWEEP:
            # We slept, not the peers: what they said meanwhile comes first.
            self.doRead()
        self.now = now = self._clock.seconds()
        for line, why in (
            (self._connecting, Failing.TIMED_OUT),
            (self._awaiting, Failing.SILENT),
        ):
            for session in [each for each, deadline in line.items() if deadline <= now]:
                self._safely(session.fail, why)
        self._sweeps += 1
        if self._sweeps % IDLE_SWEEPS == 0:
            self._end_idle(now)
        self._sweep_later()

    def _sweep_later(self) -> None:
        if self.sessions and self._sweeping is None:
            self._due = self._clock.seconds() + SWEEP
            self._sweeping = self._clock.callLater(SWEEP, self._sweep)

    def end_those(self, chosen: Callable[[Session], bool], why: Ending) -> None:
        """End the sessions that are relayed and chosen."""
        found = []
        for each in self._watched:
            if each.__class__ is End:
                session: Session = each.session
                if session.client is each and chosen(session):
                    found.append(session)
        for session in found:
            self._safely(session.over, why)

    def _end_idle(self, now: float) -> None:
        """Look at every session: some 50 ns each."""
        idle, closing = now - self.patience.idle, now - self.patience.closing
        least = max(idle, closing)
        due = []
        for each in self._watched:
            if each.__class__ is End:
                session: Session = each.session
                if session.seen < least and session.client is each:
                    limit = closing if session.half_closed else idle
                    if session.seen < limit:
                        due.append(session)
        for session in due:
            self._safely(session.over, Ending.IDLE)


def _connect(address: Address) -> int:
    """Return a socket that connects, or has connected; OSError if it cannot."""
    family, where = address
    wire = socket.SocketType(family, _STREAM_NOW)
    try:
        if family != _UNIX:
            # A reply must not wait for the acknowledgement of the one before it.
            wire.setsockopt(_TCP, _NODELAY, 1)
        refusal = wire.connect_ex(where)
        if refusal not in _UNDER_WAY:
            raise OSError(refusal, os.strerror(refusal))
    except OSError:
        wire.close()
        raise
    return wire.detach()
