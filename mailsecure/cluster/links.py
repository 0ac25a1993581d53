"""The links to all other nodes: kept up, and their ends understood.

When a process dies, its kernel closes its connections, and whoever was connected knows it
within a millisecond; no advertisement has to be missed for that (design decision 8).  But
a connection also ends when somebody forges a reset, or a firewall forgets it.  So the end
of a link moves nothing by itself.  It is *verified*: we connect again.  Refused, there is
no process any more: ``gone`` is called.  Answered, the node lives, and this is the new
link.  No answer: then we cannot tell, and the master down interval decides.

A dying process' sockets are closed one after another, so a connection may still be made
and be reset a moment later; that is tried again a few times.

One link a pair is enough: the node whose name comes first connects.  :mod:`.service` says
who there is (:meth:`Links.wanted`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet import error
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ClientFactory, ServerFactory, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ..background import background
from ..errors import LocalFault
from ..world import World
from .certificates import LinkTls
from .keys import KeyRing
from .link import Link, Message

__all__ = ["LinkState", "Links"]

_log = Logger(namespace="cluster")

#: Connections of strangers that may be about to open at once.
MOST_OPENING = 64
#: How long an attempt may take, and the waits between attempts to verify an end (seconds).
ATTEMPT = 0.5
AGAIN = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)
#: The least and the longest wait before a link is tried anew.
SHORTEST, LONGEST = 0.1, 5.0
#: How long a farewell may take.
FAREWELL = 1.0

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link as status shows it; ``since`` is how long ago it went up, in seconds."""

    up: bool
    since: float
    round_trip: float
    connects: int
    reason: str


class _Peer:
    """One node that should have a link."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.link: Link | None = None
        self.work: Deferred[None] | None = None
        self.call: IDelayedCall | None = None
        self.wait = SHORTEST
        self.connects = 0
        self.reason = ""


class Links(Service):
    """See the module's text.

    ``gone(node)`` is called when a node's process has ended, ``left(node)`` when it said
    that it stops.
    """

    name = "links"

    def __init__(
        self,
        world: World,
        node: str,
        incarnation: int,
        ring: KeyRing,
        place: Place,
        gone: Callable[[str], None],
        left: Callable[[str], None],
    ) -> None:
        self._world = world
        self.clock = world.clock
        self.node = node
        self.incarnation = incarnation
        self._tls = LinkTls(ring, node)
        self._place = place
        self._gone = gone
        self._left = left
        self._port: Any = None
        self._peers: dict[str, _Peer] = {}
        #: Every connection there is, up or not.
        self._links: set[Link] = set()
        self._stopping = False

    # -- life

    async def bind(self) -> None:
        """Listen; LocalFault says why not."""
        host, port = self._place
        factory = TLSMemoryBIOFactory(self._tls, False, _Listening(self))
        factory.noisy = False
        try:
            self._port = self._world.reactor.listenTCP(port, factory, interface=host)
        except error.CannotListenError as failure:
            reason = getattr(failure.socketError, "strerror", None) or failure.socketError
            raise LocalFault(
                f"[cluster] link_listen: cannot listen on {host} port {port}: {reason}"
            ) from None

    def stopService(self) -> Deferred[None]:
        """Say goodbye and close everything."""
        super().stopService()
        return background("closing the links", self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        for peer in self._peers.values():
            _cancel(peer.call)
            if peer.work is not None:
                peer.work.cancel()
        for link in list(self._links):
            link.end("we stop", after=Message.BYE)
        ends = self.clock.seconds() + FAREWELL
        while self._links and self.clock.seconds() < ends:
            await deferLater(self.clock, 0.01)
        for link in list(self._links):
            link.end("we stop")

    def rekey(self, ring: KeyRing) -> None:
        """Believe in ``ring`` from the next link on; those that are up stay."""
        self._tls.rekey(ring)

    # -- who there is

    def wanted(self, places: Mapping[str, Place]) -> None:
        """Keep links to these nodes, where they take them."""
        for node in [node for node in self._peers if node not in places]:
            peer = self._peers.pop(node)
            _cancel(peer.call)
            if peer.link is not None:
                peer.link.end("the node is forgotten")
        for node, place in places.items():
            peer = self._peers.setdefault(node, _Peer(place))
            peer.place = place
            if peer.link is None and peer.work is None and peer.call is None:
                self._later(node, peer, 0.0)

    def hurry(self, node: str) -> None:
        """Try the link to ``node`` soon: it was heard anew."""
        peer = self._peers.get(node)
        if peer is not None and peer.call is not None:
            _cancel(peer.call)
            self._later(node, peer, 0.0)

    def snapshot(self) -> dict[str, LinkState]:
        """Return how each link is, by node."""
        now = self.clock.seconds()
        return {node: _state(peer, now) for node, peer in self._peers.items()}

    # -- keeping them up

    def _later(self, node: str, peer: _Peer, delay: float) -> None:
        if self.node < node and not self._stopping:
            peer.call = self.clock.callLater(delay, self._try, node, peer)

    def _try(self, node: str, peer: _Peer) -> None:
        peer.call = None
        if peer.link is None and peer.work is None:
            peer.work = background(f"the link to {node}", self._attempt(node, peer))

    async def _attempt(self, node: str, peer: _Peer) -> None:
        try:
            await self._connect(peer)
        finally:
            peer.work = None
            if peer.link is None:
                peer.wait = min(2 * peer.wait, LONGEST)
                self._later(node, peer, peer.wait)

    async def _connect(self, peer: _Peer) -> str:
        """Connect once; return "up", "refused", "reset" or "silent"."""
        factory = _Connecting(self)
        host, port = peer.place
        connector = self._world.reactor.connectTCP(
            host,
            port,
            TLSMemoryBIOFactory(self._tls, True, factory),
            timeout=ATTEMPT,
            bindAddress=(self._place[0], 0),
        )
        late = self.clock.callLater(ATTEMPT, factory.over, "silent")
        try:
            outcome = await factory.outcome
        finally:
            _cancel(late)
        if outcome == "silent":
            connector.disconnect()
        peer.reason = peer.reason if outcome == "up" else outcome
        return outcome

    # -- what becomes of them

    def adopt(self, link: Link) -> bool:
        """Take a new connection into the books; False: there are too many."""
        if sum(not each.is_up for each in self._links) >= MOST_OPENING:
            return False
        self._links.add(link)
        return True

    def up(self, link: Link) -> None:
        """A link opened: it is the link to its node, unless there is a better one."""
        peer = self._peers.get(link.node)
        if peer is None or link.node == self.node:
            # Its hello has not been heard yet; it will try again.
            link.end("not known yet")
            return
        old = peer.link
        if (
            old is not None
            and old.incarnation == link.incarnation
            and _better(old, link, self.node)
        ):
            link.end("there is one already")
            return
        peer.link = link
        peer.connects += 1
        peer.wait = SHORTEST
        _cancel(peer.call)
        peer.call = None
        if old is not None:
            old.end("there is a newer one")
        _log.debug("link to {node} is up", node=link.node)

    def down(self, link: Link) -> None:
        """A connection ended."""
        self._links.discard(link)
        peer = self._peers.get(link.node) if link.is_up else None
        if peer is None or peer.link is not link:
            return
        peer.link = None
        peer.reason = link.reason
        if self._stopping:
            return
        if link.bye:
            self._left(link.node)
            self._later(link.node, peer, LONGEST)
            return
        _log.info("link to {node} ended: {reason}", node=link.node, reason=link.reason)
        if peer.work is None:
            peer.work = background(f"verifying {link.node}", self._verify(link.node, peer))

    async def _verify(self, node: str, peer: _Peer) -> None:
        """Find out whether the process of ``node`` has ended."""
        outcome = ""
        try:
            for delay in AGAIN:
                await deferLater(self.clock, delay)
                if peer.link is not None:
                    return
                outcome = await self._connect(peer)
                if outcome != "reset":
                    break
            if outcome == "refused":
                self._gone(node)
        finally:
            peer.work = None
            if peer.link is None:
                self._later(node, peer, peer.wait)


class _Listening(ServerFactory):
    """Makes the links that others open."""

    noisy = False

    def __init__(self, links: Links) -> None:
        self._links = links

    def buildProtocol(self, addr: IAddress | None) -> Link | None:
        """Twisted's question for each connection."""
        link = Link(self._links, self._links.clock, ours=False)
        return link if self._links.adopt(link) else None


class _Attempt(Link):
    """A link that we open; ``over`` is told how that ends."""

    def __init__(self, links: Links, over: Callable[[str], None]) -> None:
        super().__init__(links, links.clock, ours=True)
        self._over = over

    def _open(self, kind: int, content: bytes) -> None:
        super()._open(kind, content)
        if self.is_up:
            self._over("up")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        super().connectionLost(reason)
        self._over("reset")


class _Connecting(ClientFactory):
    """One attempt; ``outcome`` fires with how it ended, as :meth:`Links._connect` says."""

    noisy = False

    def __init__(self, links: Links) -> None:
        self._links = links
        self.outcome: Deferred[str] = Deferred()
        self._known = False

    def buildProtocol(self, addr: IAddress | None) -> _Attempt | None:
        """Twisted's question when TCP is there."""
        link = _Attempt(self._links, self.over)
        return link if self._links.adopt(link) else None

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """TCP did not come to be."""
        self.over("refused" if reason.check(error.ConnectionRefusedError) else "silent")

    def over(self, outcome: str) -> None:
        """Take the first word."""
        if not self._known:
            self._known = True
            self.outcome.callback(outcome)


def _better(old: Link, new: Link, node: str) -> bool:
    """Say whether ``old`` is kept: of two, that which the node of the lesser name opened."""

    def first(link: Link) -> bool:
        return link.ours == (node < link.node)

    return first(old) and not first(new)


def _state(peer: _Peer, now: float) -> LinkState:
    link = peer.link
    if link is None:
        return LinkState(False, 0.0, 0.0, peer.connects, peer.reason)
    return LinkState(True, now - link.since, link.round_trip, peer.connects, peer.reason)


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
