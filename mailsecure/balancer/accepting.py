"""The door: accepts connections for the balancer, as bare sockets.

Twisted's own port makes a transport and a protocol of every connection, and most of them
would be thrown away at once, since the session goes to a peer.  The door stands in the
splicer's epoll and calls ``arrived(descriptor, client's address, our address)`` for each
connection; who keeps a session here hands the descriptor to the reactor
(``adoptStreamConnection``).

Where no descriptors are left it rests for :data:`REST` seconds; meanwhile connections
wait in the kernel's queue.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .splice import Splicer

__all__ = ["Arrived", "Door"]

_log = Logger(namespace="balancer")

REST = 0.5
_STREAM = int(socket.SOCK_STREAM)
#: Wants of ours, not of the client that happens to be next.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: Descriptor, the client's address and port, ours; the addresses as the kernel gives them.
Arrived = Callable[[int, tuple[Any, ...], tuple[Any, ...]], None]


class Door:
    """One listening socket, which is bound, listens, and does not block."""

    def __init__(
        self, wire: socket.socket, splicer: Splicer, clock: IReactorTime, arrived: Arrived
    ) -> None:
        self._wire = wire
        self._family = int(wire.family)
        self._splicer = splicer
        self._clock = clock
        self._arrived = arrived
        self._resting: IDelayedCall | None = None

    def open(self) -> None:
        """Begin to accept."""
        # Accepted sockets inherit it: a call less for each.
        self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._splicer.watch(self._wire.fileno(), self)

    def close(self) -> None:
        """Accept no more; the socket is closed."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        else:
            self._splicer.unwatch(self._wire.fileno())
        self._wire.close()

    def ready(self, event: int) -> None:
        """Take one connection; the kernel tells again while others wait.

        To ask for the next one at once would mostly be answered with an exception.
        """
        try:
            # As socket.accept, less two conversions to enums.
            descriptor, client = self._wire._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _SCARCE:
                self._rest(error)
            return
        wire = socket.SocketType(self._family, _STREAM, 0, descriptor)
        try:
            here = wire.getsockname()
        except OSError:
            wire.close()
            return
        wire.setblocking(False)
        self._arrived(wire.detach(), client, here)

    def _rest(self, error: OSError) -> None:
        reason = os.strerror(error.errno or 0)
        _log.warn("cannot accept connections: {reason}", reason=reason)
        self._splicer.unwatch(self._wire.fileno())
        self._resting = self._clock.callLater(REST, self._rested)

    def _rested(self) -> None:
        self._resting = None
        self._splicer.watch(self._wire.fileno(), self)
