"""What the gateway and the load balancer say to each other about a connection.

Both rooms stand side by side and know nothing of each other; ``assemble`` hands the
gateway to the balancer as a :class:`Front`.  With ``topology = active-active`` the
balancer accepts the connections of the gateway's ports (:class:`Entrance`).  Before it
lets another node have one, the gateway's cheap checks have their say
(:meth:`Front.screen`), so a flood costs the cluster one accept.  What stays here goes to
:meth:`Front.adopt`; what goes elsewhere is counted out by :meth:`Front.left`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Connection", "Entrance", "Front", "Place", "Screening"]

#: Address and port; the address as text in canonical form, IPv4 never as mapped IPv6.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Entrance:
    """A socket that is bound and listens, and does not block; ``tls``: TLS from the start."""

    wire: socket.socket
    tls: bool


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection that was accepted.

    ``descriptor`` does not block; ``family`` is the socket's (AF_INET, AF_INET6).
    ``client`` and ``here`` are the two ends as a client sees them: where a PROXY header was
    believed, they are what it says, and the header has been read.
    """

    descriptor: int
    family: int
    tls: bool
    client: Place
    here: Place


@dataclass(frozen=True, slots=True)
class Screening:
    """What the cheap checks say of a client.

    ``refusal`` is the whole reply to a client that may not come in (it was not counted);
    b"" where it may.  ``delay`` is how long it has to wait in silence for its greeting, in
    seconds.  ``key`` is what it was counted under, "" where it is not counted.
    """

    refusal: bytes
    delay: float
    key: str


class Front(Protocol):
    """The gateway, as the load balancer sees it."""

    @property
    def entrances(self) -> Sequence[Entrance]:
        """Where to accept connections, once the gateway is bound."""

    def expects_header(self, address: str) -> bool:
        """Say whether a connection from there must begin with a PROXY header."""

    def screen(self, client: Place) -> Screening:
        """Check a client that has just connected, log a refusal, and count its session."""

    def talked_early(self, client: Place, screening: Screening) -> bytes:
        """Return the reply to a client that did not wait; it is logged and counted out."""

    def left(self, screening: Screening) -> None:
        """A session that another node had is over."""

    def adopt(self, connection: Connection, screening: Screening) -> None:
        """Have the session here.  It was counted, and waited for as long as it had to."""
