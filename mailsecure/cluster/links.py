"""Links: one connection to each node of the cluster, by whose end a death is noticed.

When a process ends, however it ends, its kernel closes its connections at once, while
hellos only cease; so a link's end is the earliest word of a death (design decision 8).
It is only a word: :mod:`.verify` asks at the node's own port, and only a refusal there
calls ``gone``.  Whoever resets a link therefore moves nothing.

*Who connects.*  The node with the smaller name; the other accepts.  So two nodes never
connect crosswise.  A link that fails is made again after 0.1 s, then twice that, up to
5 s; :meth:`Links.nudge` does not wait.

*A second link of the same node* replaces the first, for a node makes another only when
its end of the first is gone.  That is no death: either it is the same process, or a new
one already runs, whose hellos the elections hear.  ``gone`` means that *no* process of
the node runs; where a new one has come before we could ask, it is not called.

*A refusal that was wrong.*  Where a process was said to be gone, and the same instance of
it comes back, something on the way answers in its name; its refusals are not believed
again.

*Rotation of keys.*  :meth:`Links.rekey` takes the ring from then on; a link that only a
removed key vouches for is dropped, and made again with a key that is in the ring.

:mod:`.service` says which nodes are there (:meth:`Links.wanted`) and takes the news.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import __version__
from ..background import Periodic, background
from ..errors import LocalFault
from ..world import World
from .certificates import SEED_OCTETS, Identity, issuer_of, make_identity
from .keys import KeyRing
from .link import GREETING, SILENCE, Link, LinkTls, under_tls
from .linkdoor import HALF_OPEN, Door
from .linkpeer import FIRST_DELAY, LinkState, Peer, Place
from .sharing import Sharing
from .verify import Verdict, Verification

__all__ = ["LinkState", "Links", "Place"]

_log = Logger(namespace="cluster")

PING_INTERVAL = 5.0
LOOK_INTERVAL = 1.0
LONGEST_DELAY = 5.0
#: A link that stood so long was a good one: the next attempt is not delayed.
GOOD = 10.0
#: How long peers may take to read our BYE.
LAST_WORDS = 0.5
INSTANCE_BITS = 64

_VERDICTS = {
    Verdict.GONE: "refuses, which does not mean that it is gone",
    Verdict.THERE: "has lost the link, and is there",
    Verdict.UNKNOWN: "has lost the link, and does not answer",
}


class Links(Service):
    """See the module's text.  ``gone(node)``: its process ended; ``left(node)``: stopped."""

    name = "links"
    version = __version__

    def __init__(
        self,
        world: World,
        node: str,
        ring: KeyRing,
        address: str,
        port: int,
        gone: Callable[[str], None],
        left: Callable[[str], None],
    ) -> None:
        self._world = world
        self.clock = world.clock
        self.node = node
        self._ring = ring
        self._address = address
        self._port_number = port
        self._gone = gone
        self._left = left
        self.sharing = Sharing(self._share)
        self.instance = f"{world.rng.getrandbits(INSTANCE_BITS):016x}"
        self._peers: dict[str, Peer] = {}
        self._port: Any = None
        self._stopping = False
        self._look = Periodic(self.clock, LOOK_INTERVAL, "the look at the links", self._look_at)

    # -- life

    def bind(self) -> Deferred[None]:
        """Make our certificate and take links; fails with LocalFault."""
        return execute(self._bind)

    def _bind(self) -> None:
        self._identity = self._make_identity()
        self._tls = LinkTls(self._identity)
        self._door = Door(self, self.clock, self._tls, self._is_peer)
        try:
            self._port = self._world.reactor.listenTCP(
                self._port_number, self._door, HALF_OPEN, self._address
            )
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            where = f"{self._address} port {self._port_number}"
            raise LocalFault(f"cannot take links at {where}: {reason}") from None
        self._looked = self.clock.seconds()
        self._look.start()

    def _make_identity(self) -> Identity:
        seed = self._world.rng.getrandbits(8 * SEED_OCTETS).to_bytes(SEED_OCTETS)
        return make_identity(self.node, self._ring, seed)

    @property
    def port(self) -> int:
        """The port where links are taken."""
        number: int = self._port.getHost().port
        return number

    @property
    def turned_away(self) -> int:
        """Connections that never showed that they are a node's."""
        return self._door.turned_away

    def stopService(self) -> Deferred[None]:
        """Say BYE to everybody; the Deferred fires when all is closed."""
        super().stopService()
        return background("closing the links", self._stop())

    async def _stop(self) -> None:
        if self._port is None or self._stopping:
            return
        self._stopping = True
        self._look.stop()
        for peer in self._peers.values():
            peer.rest()
            if peer.link is not None:
                peer.link.leave()
        self._door.close()
        deadline = self.clock.seconds() + LAST_WORDS
        while self._linked() and self.clock.seconds() < deadline:
            await deferLater(self.clock, 0.01)
        # Until now somebody listened: nobody shall take our leaving for a death.
        await maybeDeferred(self._port.stopListening)
        for peer in self._peers.values():
            if peer.link is not None:
                peer.link.drop("we stop")

    def _linked(self) -> bool:
        return any(peer.link is not None for peer in self._peers.values())

    # -- what the cluster tells

    def wanted(self, peers: Mapping[str, Place]) -> None:
        """Keep links to ``peers``, node → where it takes them, and to no others."""
        if self._stopping:
            return
        for node, place in peers.items():
            peer = self._peer(node)
            if peer.place != place:
                peer.place = place
                self.nudge(node)
        for node in [node for node in self._peers if node not in peers]:
            peer = self._peers[node]
            peer.place = None
            peer.rest()
            if peer.link is None:
                del self._peers[node]

    def nudge(self, node: str) -> None:
        """``node`` has come, or come back: connect now if it is ours to connect."""
        peer = self._peers.get(node)
        if peer is None or self._stopping:
            return
        peer.delay = FIRST_DELAY
        if peer.link is None and peer.connector is None:
            self._dial(node, peer)

    def rekey(self, ring: KeyRing) -> None:
        """Take another ring of keys."""
        if ring == self._ring:
            return
        self._ring = ring
        self._identity = self._make_identity()
        self._tls = self._door.tls = LinkTls(self._identity)
        for peer in self._peers.values():
            if peer.link is not None and not self._vouched_for(peer.link):
                peer.link.drop("its key was removed")

    def snapshot(self) -> dict[str, LinkState]:
        """Return the state of each link, by node."""
        now = self.clock.seconds()
        return {node: peer.state(now) for node, peer in sorted(self._peers.items())}

    def _peer(self, node: str) -> Peer:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = Peer(self.clock.seconds())
        return peer

    def _is_peer(self, address: str) -> bool:
        return any(peer.place and peer.place[0] == address for peer in self._peers.values())

    def _vouched_for(self, link: Link) -> bool:
        certificate = link.certificate
        return certificate is not None and issuer_of(certificate, self._identity.authorities)

    # -- connecting

    def _dial(self, node: str, peer: Peer) -> None:
        peer.end_retry()
        if peer.place is None or node < self.node or self._stopping:
            return
        host, port = peer.place
        dial = _Dial(self, node, self._tls)
        peer.connector = self._world.reactor.connectTCP(
            host, port, dial, GREETING, (self._address, 0)
        )

    def dial_failed(self, node: str, reason: str) -> None:
        """An attempt to connect has failed."""
        peer = self._peers.get(node)
        if peer is None or self._stopping:
            return
        peer.connector = None
        peer.failures += 1
        if reason != peer.reason:
            peer.reason = reason
            _log.info("{node}: no link: {reason}", node=node, reason=reason)
        self._again(node, peer)

    def _again(self, node: str, peer: Peer) -> None:
        """Connect after a while."""
        if peer.place is None or node < self.node or self._stopping or peer.retry is not None:
            return
        peer.retry = self.clock.callLater(peer.delay, self._dial, node, peer)
        peer.delay = min(2 * peer.delay, LONGEST_DELAY)

    # -- what links tell

    def opened(self, link: Link) -> None:
        """A link is up."""
        self._door.through(link)
        trouble = self._trouble(link)
        if trouble:
            link.drop(trouble)
            return
        peer, now = self._peer(link.node), self.clock.seconds()
        old, peer.link = peer.link, link
        if old is not None:
            old.drop("replaced by a new link")
        peer.end_verification()
        peer.end_retry()
        if link.instance == peer.buried:
            peer.believed = False
            _log.warn(
                "{node}: was said to be gone and is not: its refusals are not believed again",
                node=link.node,
            )
        elif peer.buried:
            peer.buried, peer.believed = "", True
        peer.since, peer.version = now, link.version
        peer.connects += 1
        _log.info("{node}: linked", node=link.node)
        link.ping()
        self.sharing.linked(link.node)

    def _trouble(self, link: Link) -> str:
        if self._stopping:
            return "we stop"
        if link.node == self.node:
            return "it has our own name"
        if not link.wanted and self.node < link.node:
            return "it is for us to connect"
        return "" if self._vouched_for(link) else "its key was removed"

    def leaves(self, link: Link) -> None:
        """A peer stops in good order."""
        peer = self._peers.get(link.node)
        if peer is not None and peer.link is link:
            self._left(link.node)

    def shared(self, link: Link, body: dict[str, Any]) -> None:
        """A peer shares something."""
        peer = self._peers.get(link.node)
        if peer is not None and peer.link is link:
            self.sharing.heard(link.node, body)

    def _share(self, node: str, body: dict[str, Any]) -> bool:
        peer = self._peers.get(node)
        return peer is not None and peer.link is not None and peer.link.share(body)

    def closed(self, link: Link, reason: str, ours: bool) -> None:
        """A connection has ended."""
        node = link.wanted or link.node
        peer = self._peers.get(node)
        if peer is None or peer.link is not link:
            self._closed_early(link, node, peer, reason)
            return
        now = self.clock.seconds()
        if now - peer.since >= GOOD:
            peer.delay = FIRST_DELAY
        peer.link = peer.connector = None
        peer.since = now
        self.sharing.unlinked(node)
        if self._stopping:
            return
        _log.info("{node}: link ended: {reason}", node=node, reason=reason)
        peer.reason = reason
        if not ours:
            peer.failures += 1
            self._verify(node, peer, link.instance)
        self._again(node, peer)
        if peer.place is None and peer.verification is None:
            del self._peers[node]

    def _closed_early(self, link: Link, node: str, peer: Peer | None, reason: str) -> None:
        """A connection has ended that was no link, or none any more."""
        if not link.wanted:
            if not link.instance:
                self._door.closed(link, link.address, reason)
        elif peer is not None and peer.link is None and peer.connector is not None:
            self.dial_failed(node, reason)

    # -- deaths

    def _verify(self, node: str, peer: Peer, instance: str) -> None:
        if peer.place is None:
            return

        def judged(verdict: Verdict) -> None:
            peer.verification = None
            if verdict is Verdict.GONE and peer.believed:
                peer.buried = instance
                self._gone(node)
            else:
                _log.info("{node}: {verdict}", node=node, verdict=_VERDICTS[verdict])

        peer.verification = Verification(self._world, peer.place, self._address, judged)
        peer.verification.start()

    # -- looking after them

    def _look_at(self) -> None:
        """Ping, and drop who is silent; without consequences for the elections."""
        now = self.clock.seconds()
        # After a standstill of ours it is we who have not listened.
        late, self._looked = now - self._looked > 2 * LOOK_INTERVAL, now
        for peer in list(self._peers.values()):
            link = peer.link
            if link is None:
                continue
            if now - link.heard >= SILENCE and not late:
                link.drop("silent")
            elif now - link.pinged >= PING_INTERVAL or late:
                link.ping()


class _Dial(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, links: Links, node: str, tls: LinkTls) -> None:
        self._links = links
        self._node = node
        self._tls = tls

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        link = Link(self._links, self._links.clock, self._node)
        return under_tls(link, self._tls, self._links.clock, addr)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        refused = reason.check(Refused)
        text = "refused" if refused else reason.getErrorMessage()
        self._links.dial_failed(self._node, text)
