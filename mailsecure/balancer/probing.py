"""A probe: does a peer greet again?

One connection of our own to the peer's ``peer_listen``, with a LOCAL header, so it is no
client's session; greeted with 220 it has proved what was asked, and is closed.  Who failed
comes back by nothing less (:mod:`.health`).

A probe stands in the splicer's epoll.  The load balancer makes it, looks after its
deadline, and is told its result once.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable

from .splice import Address, Splicer
from .values import Failing, failing

__all__ = ["Probe"]

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_UNDER_WAY = (errno.EINPROGRESS, 0)


class Probe:
    """One attempt; ``done`` is called with None where it was greeted, else with why not."""

    def __init__(
        self,
        splicer: Splicer,
        header: bytes,
        deadline: float,
        done: Callable[[Probe, Failing | None], None],
    ) -> None:
        self._splicer = splicer
        self._header = header
        self._done = done
        self._wire: socket.socket | None = None
        #: Monotonic seconds; who made it calls :meth:`expire` then.
        self.deadline = deadline

    def start(self, address: Address) -> None:
        """Connect."""
        family, where = address
        try:
            self._wire = wire = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            refusal = wire.connect_ex(where)
            if refusal not in _UNDER_WAY:
                raise OSError(refusal, os.strerror(refusal))
        except OSError as error:
            self._end(failing(error))
            return
        self._splicer.watch(wire.fileno(), self, _EVENTS)

    def expire(self) -> None:
        """It has taken too long."""
        self._end(Failing.TIMED_OUT if self._header else Failing.SILENT)

    def cancel(self) -> None:
        """Close; nobody is told."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._splicer.unwatch(wire.fileno())
            wire.close()

    def ready(self, event: int) -> None:
        """Connected, or greeted, or not (:class:`.splice.Watched`)."""
        wire = self._wire
        assert wire is not None
        try:
            if self._header:
                wire.send(self._header)
                self._header = b""
            said = wire.recv(512)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(failing(error))
            return
        if not said:
            self._end(Failing.CLOSED)
        elif not said.startswith(self._splicer.greeting):
            self._end(Failing.UNWILLING)
        else:
            self._end(None)

    def _end(self, why: Failing | None) -> None:
        self.cancel()
        self._done(self, why)
