"""One spliced session: two sockets, and whether the peer has taken the client yet.

*Connecting*: to the peer, then the header (PROXY) is sent.  *Awaiting*: the peer's first
octet, because a server speaks first in SMTP, and a peer that accepts without speaking is
no use.  *Relaying*: octets both ways until both sides have ended (:mod:`.relaying`).

Before the first octet nothing of the client is read, so it has lost nothing when that
peer fails: :meth:`Caller.failed` gets its socket back and tries another.

Sessions are made and woken by :class:`.splice.Splicer`.
"""

from __future__ import annotations

import os
from typing import Protocol

from .pipes import PipePool
from .relaying import CHUNK, LAST, End
from .values import Ending, Failing, Stage, failing

__all__ = ["Caller", "Owner", "Session"]

_CONNECTING, _AWAITING, _RELAYING, _OVER = Stage


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


class Session:
    """One client and one peer."""

    __slots__ = (
        "_caller", "_header", "answer", "client", "deadline", "peer", "seen", "splicer", "state",
        "tag",
    )  # fmt: skip

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
        #: When the peer must have greeted; 0: as the splicer's patience says.
        self.deadline = 0.0
        #: What the peer says to the header, which is not the client's; b"" where nothing.
        self.answer = b""

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
            data = os.read(self.peer.fd, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(failing(error))
            return
        if not data:
            self.fail(Failing.CLOSED)
        elif not data.startswith(self.answer or self.splicer.greeting):
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
        clients = data[len(self.answer) :]
        if self.state is not _RELAYING or not self.peer.pass_on(clients):
            return
        if event & LAST or len(data) == CHUNK:
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
