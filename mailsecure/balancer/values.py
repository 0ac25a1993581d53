"""The words of splicing: how a session stands, and why it failed or ended (pure)."""

from __future__ import annotations

import errno
from enum import Enum

__all__ = ["Ending", "Failing", "Stage", "failing"]

#: Our own want of descriptors, ports or memory says nothing of the peer.
_OURS = {
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN,
    errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT,
}  # fmt: skip


class Stage(Enum):
    """How far a session is."""

    CONNECTING = "connecting"
    AWAITING = "awaiting the greeting"
    RELAYING = "relaying"
    OVER = "over"


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
    MOVED = "the address has moved"
    STOPPED = "stopped"
    BROKEN = "internal error"


def failing(error: OSError) -> Failing:
    """Say what an error of the socket to a peer means."""
    if error.errno == errno.ECONNREFUSED:
        return Failing.REFUSED
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return Failing.RESET
    if error.errno in _OURS:
        return Failing.OURS
    return Failing.UNREACHABLE
