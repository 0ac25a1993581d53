"""Is a process dead?  Asked when a link to it has ended; the answer moves addresses.

A link ends for many reasons, and anybody on the network may forge a reset.  A process that
has ended differs in one thing: nobody listens at its address any more, so its kernel
*refuses* a connection.  :class:`Verification` connects, and tells:

* ``GONE``: refused.
* ``THERE``: connected, and the connection stood.  Nothing is said over it, for a kernel
  accepts for a process that is stopped, too; that one is no matter of ours but of the
  master down interval.
* ``UNKNOWN``: no answer of either kind: cut cable, lost power, a firewall that is silent.

A connection that is made and then closed says nothing: a kernel that buries a process
closes its sockets one after another, and may take a connection just before the listening
socket's turn; so does a process that has too many connections.  Therefore attempts are
repeated: the first few at once when one is closed, then at intervals.  A lost SYN is not
waited for; the next attempt sends another.

Not every refusal is a death: a firewall rule that answers with a reset or with "port
unreachable" looks the same.  :mod:`.links` does not believe a refusal again that was shown
to be wrong.  And who can read our SYN on its way can forge the refusal; he could as well
answer ARP for the virtual address, so nothing is lost to him that he has not got.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from ..world import World

__all__ = ["DEADLINE", "Verdict", "Verification"]

#: When attempts are made, in seconds after the start, and when the verdict is due.
ATTEMPTS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3)
DEADLINE = 0.5
#: How many attempts that were closed are followed by another at once.
AT_ONCE = 3


class Verdict(Enum):
    """See the module's text."""

    GONE = "gone"
    THERE = "there"
    UNKNOWN = "unknown"


class Verification:
    """One verification; ``done`` gets the verdict, once, unless it is cancelled.

    ``place`` is the peer's address and port; attempts come from ``source``, our address.
    """

    def __init__(
        self, world: World, place: tuple[str, int], source: str, done: Callable[[Verdict], None]
    ) -> None:
        self._world = world
        self._place = place
        self._source = source
        self._done: Callable[[Verdict], None] | None = done
        self._calls: list[IDelayedCall] = []
        self._connectors: list[Any] = []
        #: How many attempts stand connected.
        self._standing = 0
        self._at_once = AT_ONCE

    def start(self) -> None:
        """Make the first attempt at once."""
        later = self._world.clock.callLater
        self._calls = [later(delay, self._attempt) for delay in ATTEMPTS[1:]]
        self._calls.append(later(DEADLINE, self._end))
        self._attempt()

    def cancel(self) -> None:
        """Make no more attempts, and tell nothing."""
        self._done = None
        for call in self._calls:
            if call.active():
                call.cancel()
        connectors, self._connectors = self._connectors, []
        for connector in connectors:
            connector.disconnect()

    def _tell(self, verdict: Verdict) -> None:
        done = self._done
        self.cancel()
        if done is not None:
            done(verdict)

    def _attempt(self) -> None:
        if self._standing:
            return
        host, port = self._place
        connector = self._world.reactor.connectTCP(
            host, port, _Attempt(self), DEADLINE, (self._source, 0)
        )
        if self._done is None:
            connector.disconnect()
        else:
            self._connectors.append(connector)

    def _end(self) -> None:
        self._tell(Verdict.THERE if self._standing else Verdict.UNKNOWN)

    # -- what an attempt tells

    def connected(self) -> None:
        """An attempt was accepted."""
        self._standing += 1

    def closed(self) -> None:
        """An attempt was accepted, and has been closed."""
        self._standing -= 1
        if self._at_once and self._done is not None:
            self._at_once -= 1
            self._attempt()

    def failed(self, reason: Failure) -> None:
        """An attempt was not accepted."""
        if reason.check(Refused):
            self._tell(Verdict.GONE)


class _Attempt(ClientFactory):
    """One connection on which nothing is said."""

    noisy = False

    def __init__(self, verification: Verification) -> None:
        self._verification = verification

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Silence(self._verification)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._verification.failed(reason)


class _Silence(Protocol):
    def __init__(self, verification: Verification) -> None:
        self._verification = verification

    def connectionMade(self) -> None:
        self._verification.connected()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._verification.closed()
