"""A network in memory: an engine's client on one end, a fake scanner on the other.

:class:`Net` is the reactor's face that endpoints use; who listens is in ``listening``.
Octets travel when :meth:`Net.run` is called, so nothing happens within a write, and are cut
into pieces of ``cut`` octets where that is set.  What is under way to one side is bounded by
``window``: beyond it the writer is asked to pause, as by a real transport.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsecure.config.load import parse_config
from mailsecure.scan.api import Site
from mailsecure.scan.values import Content, Facts
from mailsecure.smtp.envelope import Recipient
from mailsecure.testing.scanners import FakeScanner
from mailsecure.testing.workers import InlineWorkers, OctetsBody
from mailsecure.world import DnsAbsent, World

EPOCH = 1_790_000_000.0


@implementer(ITransport)
class End:
    """One end of a connection, as a protocol sees it."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self.protocol: Any = None
        self.other: End = self
        self.coming: deque[bytes] = deque()
        self.octets = 0
        self.paused = False
        self.finished = False
        self.closing: Exception | None = None
        self.over = False
        self.producer: Any = None
        self.full = False

    def write(self, data: bytes) -> None:
        """Put octets on their way to the other end."""
        if self.over or self.closing is not None:
            return
        other = self.other
        other.coming.append(data)
        other.octets += len(data)
        if other.octets > self._net.window and self.producer is not None and not self.full:
            self.full = True
            self.producer.pauseProducing()

    def loseConnection(self) -> None:
        """Close when all is written."""
        assert self.producer is None, "unregister first, or this never ends"
        self.closing = self.closing or ConnectionDone()

    def abortConnection(self) -> None:
        """Close now; the other end sees a reset, and what was under way is lost."""
        if not self.over:
            self.closing = ConnectionAborted()
            self.other.coming.clear()
            self.other.octets = 0

    def loseWriteConnection(self) -> None:
        """Write nothing more; the other end hears so when it has read all."""
        self.other.finished = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Have somebody asked to pause and to go on."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Nobody any more."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Give nothing more to the protocol."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self.paused = False

    def getPeer(self) -> str:
        """Who is there."""
        return "peer"

    getHost = getPeer

    def step(self) -> bool:
        """Deliver one piece, or the end; True where something happened."""
        if self.over:
            return False
        if self.coming and not self.paused and not isinstance(self.closing, ConnectionAborted):
            self._deliver()
            return True
        if isinstance(self.closing, ConnectionAborted):
            self._end(self.closing)
            self.other._end(ConnectionAborted("reset"))
            return True
        if self.closing is not None and not self.other.coming:
            self._end(self.closing)
            return True
        if self.other.over and not self.coming and not self.paused:
            self._end(ConnectionDone())
            return True
        return False

    def _deliver(self) -> None:
        data = self.coming.popleft()
        cut = self._net.cut or len(data)
        if len(data) > cut:
            self.coming.appendleft(data[cut:])
        piece = data[:cut]
        self.octets -= len(piece)
        other = self.other
        self.protocol.dataReceived(piece)
        if other.full and self.octets <= self._net.window // 2 and other.producer is not None:
            other.full = False
            other.producer.resumeProducing()

    def _end(self, why: Exception) -> None:
        if not self.over:
            self.over = True
            self.protocol.connectionLost(Failure(why))


class Net:
    """See the module's text.  ``refuse`` has every connection refused, ``opened`` counts them."""

    def __init__(self) -> None:
        self.listening: dict[str, FakeScanner] = {}
        self.ends: list[End] = []
        self.opened = 0
        self.cut = 0
        self.window = 1 << 20
        self.silent = False

    def connectUNIX(self, path: str, factory: Any, timeout: float = 30, **_: Any) -> Any:
        """Connect to who listens at ``unix:path``."""
        return self._connect(f"unix:{path}", factory)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """Connect to who listens at ``tcp:host:port``."""
        return self._connect(f"tcp:{host}:{port}", factory)

    def _connect(self, place: str, factory: Any) -> Any:
        connector = MemoryReactorClock().connectTCP("127.0.0.1", 1, factory)
        if self.silent:
            return connector
        scanner = self.listening.get(place)
        if scanner is None:
            factory.clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))
            return connector
        ours, theirs = End(self), End(self)
        ours.other, theirs.other = theirs, ours
        ours.protocol, theirs.protocol = factory.buildProtocol(None), scanner.session()
        self.ends += [ours, theirs]
        self.opened += 1
        theirs.protocol.makeConnection(theirs)
        ours.protocol.makeConnection(ours)
        return connector

    def run(self, steps: int = 100_000) -> None:
        """Let everything travel that is under way."""
        for _ in range(steps):
            moved = [end.step() for end in list(self.ends)]
            if not any(moved):
                break
        else:
            raise AssertionError("the network does not come to rest")
        self.ends = [end for end in self.ends if not end.over]


class Names:
    """A resolver that knows a few names."""

    def __init__(self, known: dict[str, list[str]]) -> None:
        self.known = known

    async def addresses(self, host: str) -> list[str]:
        """Return what is known."""
        if host not in self.known:
            raise DnsAbsent(host)
        return self.known[host]


class ThreadWorld(World):
    """A world whose threads are done when ``turn`` is called."""

    waiting: list[tuple[Deferred[Any], Any]]

    def in_thread(self, call: Any, *arguments: Any) -> Deferred[Any]:
        """Do it at once."""
        try:
            return succeed(call(*arguments))
        except Exception:
            return fail(Failure())


class FileBody(OctetsBody):
    """A body that says that it is in a file; ``reads`` counts its pieces."""

    in_memory = False
    fault: Exception | None = None
    reads = 0

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield the octets, or fail."""
        for piece in super().pieces(size):
            if self.fault is not None:
                raise self.fault
            self.reads += 1
            yield piece


def make_site(net: Net, clock: Clock, ini: str = "") -> Site:
    """Return a site whose world is ``net`` and ``clock``."""
    world = ThreadWorld(
        net, clock, lambda: EPOCH + clock.seconds(), random.Random(1), Names({"s.test": ["::1"]})
    )
    config = parse_config(f"[node]\nhostname = mx.test\n{ini}", "test.ini")
    return Site(config, world, InlineWorkers(), Path("/nowhere"))


def make_facts(body: Any = b"Subject: hi\r\n\r\nHello\r\n", **changes: Any) -> Facts:
    """Return what is known at DATA of a message; ``body`` is octets or a body."""
    octets = OctetsBody(body) if isinstance(body, bytes) else body

    async def anatomy() -> None:
        raise AssertionError("no engine asks for it")

    content = Content(7, "0000000000007", octets, octets.octets, b"", b"Received: x\r\n", anatomy)
    values: dict[str, Any] = {
        "session": "s1",
        "client": "192.0.2.1",
        "port": 4025,
        "helo": "helo.test",
        "name": "client.test",
        "reverse_path": "a@sender.test",
        "recipients": [Recipient("b@us.test", "us.test"), Recipient("c@us.test", "us.test")],
        "content": content,
    }
    return Facts(**(values | changes))
