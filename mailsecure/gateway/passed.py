"""``[cluster] peer_listen``: where the other nodes pass on the sessions of their clients.

Whoever may open a session here says on whose behalf it comes, so he could lend himself an
address of ``[relay] networks``.  Hence the header with a seal (:mod:`mailsecure.proxyproto.
sealing`): a connection that does not begin with a good one, within the doorstep's time, is
cut off without a word.  It costs an attacker a connection, and us one line in the log every
:data:`LOG_INTERVAL` seconds and a count.

What a good header says is believed: the client's address, and ours that it connected to.

*Sessions* go to the :class:`Host`.  One that came to a port of ``listen_tls`` says so, inside
the seal; it is answered ``+`` before its TLS begins, because nobody else could tell a peer
that lives from one that only accepts.

*Probes*, headers that name no client (LOCAL), are greeted like a session, with 421 where
there is no room for one, and closed after :data:`PROBE_TIME` seconds.  They are no sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..counters import Counters
from ..entrance import Place
from ..errors import RemoteFault
from ..proxyproto.reading import HeaderReader
from ..proxyproto.sealing import IMPLICIT_TLS, Seen
from ..proxyproto.values import Header, Inet
from ..smtp.replies import Reply
from .doorstep import Doorstep, Stranger, hand_over

__all__ = ["Host", "PeerDoor", "ends_of"]

_log = Logger(namespace="smtpd")

#: Connections that may wait for their header.
MOST_WAITING = 200
#: The longest header that is read; a node's own has at most 182 octets.
MAX_HEADER = 512
#: How long a probe may stay, in seconds, and how many may.
PROBE_TIME = 10.0
MOST_PROBES = 200
#: Seconds between two lines about connections that were cut off.
LOG_INTERVAL = 10.0


class Host(Interface):
    """The gateway, as this door sees it."""

    def readiness(self) -> Reply:
        """Return what a new session would be greeted with."""

    def passed(self, stranger: Stranger, client: Place, here: Place, tls: bool, via: str) -> None:
        """Have the session that ``via`` passes on."""


class PeerDoor(ServerFactory):
    """Makes a protocol of each connection.  ``verify`` says who sealed a header."""

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        counters: Counters,
        verify: Callable[[bytes], Seen],
        host: Host,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._verify = verify
        self._host = host
        self._doorstep = Doorstep(clock, MOST_WAITING, self._introduced, self._refused)
        self._probes: dict[_Probed, None] = {}
        self._quiet_until = -LOG_INTERVAL
        self._unsaid = 0

    def buildProtocol(self, addr: IAddress | None) -> Stranger:
        """Twisted's question for each accepted connection."""
        return self._doorstep.stranger(HeaderReader(text=False, limit=MAX_HEADER))

    def close(self) -> None:
        """Cut off who is not a session yet."""
        self._doorstep.close()
        for probe in list(self._probes):
            probe.transport.abortConnection()

    def _introduced(self, stranger: Stranger, header: Header) -> None:
        try:
            seen = self._verify(stranger.raw)
        except RemoteFault as fault:
            self._doorstep.send_away(stranger, str(fault))
            return
        if header.local:
            self._greet_probe(stranger)
            return
        ends = ends_of(header)
        if ends is None:
            self._doorstep.send_away(stranger, "PROXY header without addresses")
            return
        tls = bool(header.values(IMPLICIT_TLS))
        self._host.passed(stranger, ends[0], ends[1], tls, seen.node)

    def _greet_probe(self, stranger: Stranger) -> None:
        if len(self._probes) >= MOST_PROBES:
            next(iter(self._probes)).transport.abortConnection()
        hand_over(stranger, _Probed(self._clock, self._host.readiness(), self._probes))

    def _refused(self, stranger: Stranger, why: str) -> None:
        self._counters.peer_refused += 1
        self._unsaid += 1
        now = self._clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL
            count, self._unsaid = self._unsaid, 0
            _log.warn(
                "refused {count} connections at peer_listen, the last from [{client}]: {reason}",
                count=count,
                client=stranger.address,
                reason=why,
            )


class _Probed(Protocol):
    """A probe: it has its greeting, and may look at it for a while."""

    transport: Any

    def __init__(self, clock: IReactorTime, greeting: Reply, probes: dict[_Probed, None]) -> None:
        self._clock = clock
        self._greeting = greeting
        self._probes = probes
        self._call: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Greet it."""
        self._probes[self] = None
        self.transport.write(self._greeting.encode())
        self._call = self._clock.callLater(PROBE_TIME, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        """It has seen enough, and says goodbye."""
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(Exception("closed"))) -> None:  # noqa: B008
        """It is gone."""
        self._probes.pop(self, None)
        if self._call is not None and self._call.active():
            self._call.cancel()


def ends_of(header: Header) -> tuple[Place, Place] | None:
    """Return the client and our own end, as ``header`` has them; None if it names none."""
    source, destination = header.source, header.destination
    if isinstance(source, Inet) and isinstance(destination, Inet):
        return (_plain(source.address), source.port), (
            _plain(destination.address),
            destination.port,
        )
    return None


def _plain(address: IPv4Address | IPv6Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)
