"""The door of the links: who connects, and how many may stand in it.

Anybody on the network can connect to the port of the links.  A stranger gets a TLS
handshake that he cannot finish, and nothing else; what he can use up is bounded:
:data:`HALF_OPEN` connections that have not greeted yet, each for a few seconds, and
:data:`STRANGERS_A_SECOND` handshakes, for each costs us a signature.  Addresses of nodes
that we know are let in past the strangers, whose oldest makes room for them.

What is turned away is counted, and told in the log once a minute at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from .link import Link, LinkTls, Owner, under_tls

__all__ = ["HALF_OPEN", "STRANGERS_A_SECOND", "Door"]

_log = Logger(namespace="cluster")

HALF_OPEN = 64
STRANGERS_A_SECOND = 20
#: One line in so many seconds.
TELL_INTERVAL = 60.0


class Door(Factory):
    """Takes connections for ``owner``; ``is_peer`` says whether an address is a node's."""

    noisy = False

    def __init__(
        self, owner: Owner, clock: IReactorTime, tls: LinkTls, is_peer: Callable[[str], bool]
    ) -> None:
        self._owner = owner
        self._clock = clock
        self.tls = tls
        self._is_peer = is_peer
        # In the order in which they came; the value says whether it is a node's address.
        self._half_open: dict[Link, bool] = {}
        self._tokens = float(HALF_OPEN)
        self._stamp = clock.seconds()
        self._told = -TELL_INTERVAL
        self._untold = 0
        #: Connections that were turned away, or never showed that they are a node's.
        self.turned_away = 0

    def buildProtocol(self, addr: Any) -> Protocol | None:
        """Take a connection, or None: it is closed."""
        known = self._is_peer(addr.host)
        if not known and not self._admits():
            self._count(addr.host, "too many connections of strangers")
            return None
        if len(self._half_open) >= HALF_OPEN:
            oldest = next((link for link, peer in self._half_open.items() if not peer), None)
            if not known or oldest is None:
                self._count(addr.host, "too many connections without a greeting")
                return None
            oldest.drop("it makes room")
            self._half_open.pop(oldest, None)
        link = Link(self._owner, self._clock)
        self._half_open[link] = known
        return under_tls(link, self.tls, self._clock, addr)

    def _admits(self) -> bool:
        now = self._clock.seconds()
        earned = (now - self._stamp) * STRANGERS_A_SECOND
        self._tokens = min(float(HALF_OPEN), self._tokens + earned)
        self._stamp = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def through(self, link: Link) -> None:
        """``link`` has greeted: it stands in the door no more."""
        self._half_open.pop(link, None)

    def closed(self, link: Link, address: str, reason: str) -> None:
        """``link`` has ended before it greeted."""
        if self._half_open.pop(link, None) is not True:
            self._count(address, reason)

    def close(self) -> None:
        """Drop all who stand in the door."""
        for link in list(self._half_open):
            link.drop("we stop")

    def _count(self, address: str, reason: str) -> None:
        self.turned_away += 1
        self._untold += 1
        now = self._clock.seconds()
        if now - self._told < TELL_INTERVAL:
            return
        self._told = now
        _log.warn(
            "links: turned away {number}, the last one from {source}: {reason}",
            number=self._untold,
            source=address,
            reason=reason,
        )
        self._untold = 0
