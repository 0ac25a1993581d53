"""Whatever a peer does, the client is greeted in time; what is no session of a peer's stays."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.balancer import choosing, service, splice, waiting
from mailsecure.balancer.service import BalancerParts, LoadBalancer
from mailsecure.cluster.values import Fitness
from mailsecure.config.load import parse_config
from mailsecure.counters import Counters
from mailsecure.entrance import Screening
from mailsecure.proxyproto.binary import encode_block
from mailsecure.proxyproto.values import Header, Inet
from mailsecure.world import World

from .fakes import HERE, LOOP, Client, FakeFront, FakeNodes, FakePeer
from .test_splice import asynchronous, descriptors

SETTINGS = """\
[cluster]
slow_start = 0s
connect_timeout = 1s
{}
[smtp]
drain_timeout = 1s
"""


def config_of(more: str = "") -> Any:
    """Return the settings."""
    return parse_config(SETTINGS.format(more), "test.ini")


class BalancerCase(TestCase):
    """A balancer between a fake gateway, a fake cluster and two fake peers."""

    timeout = 60
    more = ""
    tls = False
    family = socket.AF_INET

    def setUp(self) -> Any:
        """Start it, once the reactor runs: that takes descriptors too."""
        return deferLater(reactor, 0, lambda: Deferred.fromCoroutine(self.begin()))

    async def begin(self) -> None:
        """Start it."""
        # With its first port the reactor takes a descriptor, and keeps it.
        await FakePeer("nobody").listen_once()
        self.before = descriptors()
        self.front = FakeFront()
        self.nodes = FakeNodes(reactor.seconds)
        self.port = self.front.listen(self.tls, self.family)
        self.one, self.two = FakePeer("one"), FakePeer("two", incarnation=8)
        for peer in (self.one, self.two):
            self.nodes.all.append(await peer.listen())
        # We ourselves get nothing that a peer can take.
        self.nodes.change("here", weight=0)
        self.here = 0
        self.counters = Counters()
        world = World(reactor, reactor, reactor.seconds, random.Random(1), None)  # type: ignore[arg-type]
        parts = BalancerParts(world, self.front, self.nodes, lambda: self.here, self.counters)
        self.balancer = LoadBalancer(parts, config_of(self.more))
        self.clients: list[Client] = []
        self.balancer.startService()

    def tearDown(self) -> Any:
        """Stop everything; nothing must be left open."""
        return Deferred.fromCoroutine(self.end())

    async def end(self) -> None:
        """Stop everything."""
        for client in self.clients:
            client.transport.abortConnection()
        await self.one.close()
        await self.two.close()
        await self.balancer.stopService()
        self.assertEqual(self.balancer.sessions, 0)
        self.assertEqual(self.balancer.splicer.pipes.lent, 0)
        await self.until(lambda: descriptors() == self.before)

    async def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> Any:
        """Wait for something, with the reactor running."""
        end = reactor.seconds() + seconds
        while not (found := condition()):
            if reactor.seconds() > end:
                self.fail("waited too long")
            await deferLater(reactor, 0.005)
        return found

    async def connect(self, host: str = LOOP) -> Client:
        """Return a new client."""
        client = await Client.connect(self.port, host)
        self.clients.append(client)
        return client

    async def greeting(self) -> bytes:
        """Return how a new client is greeted."""
        return await (await self.connect()).line()

    def row(self, node: str) -> dict[str, Any]:
        """Return what the report says of a node."""
        found: dict[str, Any] = self.balancer.report()["nodes"][node]
        return found


class ShareTests(BalancerCase):
    """Who gets a session."""

    @asynchronous
    async def test_shares(self) -> None:
        """Each node gets its share of what comes to a virtual address; all is counted."""
        self.nodes.change("here", weight=2)
        greetings = [await self.greeting() for _ in range(8)]
        self.assertEqual(
            {each: greetings.count(each) for each in greetings},
            {HERE: 4, b"220 one\r\n": 2, b"220 two\r\n": 2},
        )
        self.assertEqual(len(self.front.screened), 8)
        row = self.row("one")
        self.assertEqual((row["sessions"], row["sessions_total"], row["state"]), (2, 2, "in"))
        self.assertEqual((row["share_wanted"], row["share_had"]), (0.25, 0.25))
        self.assertEqual(self.row("here")["sessions_total"], 4)
        self.assertEqual(self.balancer.report()["spliced"], 4)

    @asynchronous
    async def test_header(self) -> None:
        """A peer learns who the client is and where it came; then both talk to each other."""
        self.nodes.change("two", weight=0)
        client = await self.connect()
        self.assertEqual(await client.line(), b"220 one\r\n")
        header = self.one.headers[0]
        place = client.transport.getHost()
        self.assertEqual(header.source, Inet(ip_address(LOOP), place.port))
        self.assertEqual(header.destination, Inet(ip_address(LOOP), self.port))
        client.transport.write(b"EHLO me\r\n")
        side = self.one.open[0]
        await self.until(lambda: side.got == b"EHLO me\r\n")
        side.transport.write(b"250 you\r\n")
        self.assertEqual(await client.line(), b"250 you\r\n")
        client.transport.loseConnection()
        await self.until(lambda: self.front.gone)
        row = self.row("one")
        self.assertEqual((row["octets_in"], row["octets_out"], row["sessions"]), (9, 18, 0))
        self.assertEqual((self.counters.sessions_shared, self.counters.octets_shared), (1, 27))

    @asynchronous
    async def test_not_virtual(self) -> None:
        """What comes to an address of our own stays."""
        self.nodes.virtual = set()
        self.assertEqual(await self.greeting(), HERE)
        connection = self.front.adopted[0]
        self.assertEqual(connection.here, (LOOP, self.port))
        self.assertEqual(connection.client[0], LOOP)
        self.assertEqual(connection.family, socket.AF_INET)
        self.assertEqual(self.row("here")["sessions_total"], 0)

    @asynchronous
    async def test_nobody(self) -> None:
        """With no weight anywhere it is served here."""
        for name in ("one", "two"):
            self.nodes.change(name, weight=0)
        self.assertEqual(await self.greeting(), HERE)

    @asynchronous
    async def test_no_port(self) -> None:
        """Who takes no sessions of others gets none."""
        self.nodes.change("one", port=0)
        self.assertEqual({await self.greeting() for _ in range(3)}, {b"220 two\r\n"})

    @asynchronous
    async def test_unfit(self) -> None:
        """Who says that it drains, or is full, gets none; then some again."""
        self.nodes.change("one", fitness=Fitness.DRAINING | Fitness.OVERLOADED)
        self.assertEqual({await self.greeting() for _ in range(3)}, {b"220 two\r\n"})
        self.assertEqual(self.row("one")["why"], "draining, overloaded")
        self.nodes.change("one", fitness=Fitness.FIT)
        self.assertEqual(len({await self.greeting() for _ in range(4)}), 2)

    @asynchronous
    async def test_gone(self) -> None:
        """Who is gone by the cluster's word is not even asked."""
        self.nodes.change("one", alive=False)
        self.assertEqual({await self.greeting() for _ in range(3)}, {b"220 two\r\n"})
        self.nodes.all.pop()
        self.nodes.tell()
        self.assertNotIn("two", self.balancer.report()["nodes"])
        self.assertEqual(await self.greeting(), HERE)
        self.assertEqual(self.one.attempts, 0)

    @asynchronous
    async def test_draining(self) -> None:
        """While we drain, peers get everything; where there are none, we."""
        self.nodes.change("here", weight=100)
        self.balancer.draining = True
        self.assertTrue(self.balancer.draining)
        self.assertNotIn(HERE, [await self.greeting() for _ in range(4)])
        for name in ("one", "two"):
            self.nodes.change(name, alive=False)
        self.assertEqual(await self.greeting(), HERE)
        self.balancer.draining = False
        self.assertEqual(self.row("here")["state"], "in")

    @asynchronous
    async def test_no_descriptors_to_spare(self) -> None:
        """Sessions with peers are bounded by what the process may have open."""
        self.balancer.director.most = 1
        self.assertNotEqual(await self.greeting(), HERE)
        self.assertEqual(await self.greeting(), HERE)

    @asynchronous
    async def test_many_destinations(self) -> None:
        """Addresses of ours are remembered, in a bounded table."""
        for number in range(1001):
            self.balancer.director._destination(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual(len(self.balancer.director._destinations), 1)
        self.nodes.virtual = set()
        for number in range(1001):
            here = (f"10.0.{number >> 8}.{number & 255}", 25)
            end, descriptor = os.pipe()
            self.balancer.director.arrived(False, 0, descriptor, (LOOP, 1), here)
            os.close(end)
        self.assertEqual(len(self.balancer.director._ours), 1)


class LeastSessionsTests(BalancerCase):
    """balance = least-sessions, peer_sessions."""

    more = "balance = least-sessions\npeer_sessions = 2"

    @asynchronous
    async def test_least(self) -> None:
        """Our own sessions count; each peer has its limit; then they are ours."""
        self.nodes.change("here", weight=1)
        self.here = 1
        first = [await self.greeting() for _ in range(2)]
        self.assertEqual(sorted(first), [b"220 one\r\n", b"220 two\r\n"])
        self.here = 100
        second = [await self.greeting() for _ in range(2)]
        self.assertEqual(sorted(second), sorted(first))
        self.assertEqual(await self.greeting(), HERE)
        self.balancer.reconfigure(config_of("balance = least-sessions\npeer_sessions = 3"))
        third = [await self.greeting() for _ in range(2)]
        self.assertEqual(sorted(third), sorted(first))
        self.balancer.reconfigure(config_of())
        self.assertEqual(self.balancer.report()["balance"], "round-robin")
        self.assertIn(HERE, [await self.greeting() for _ in range(3)])


class FailureTests(BalancerCase):
    """No client sees a peer's fault."""

    @asynchronous
    async def test_fails(self) -> None:
        """Reset, closed, refusal, silence: the next one; and the failed one is out at once."""
        for way, kind in (
            ("reset", "reset before the greeting"),
            ("close", "closed before the greeting"),
            ("421", "greeted with a refusal"),
            ("silent", "no greeting in time"),
        ):
            attempts = self.one.attempts
            self.one.way = way
            greetings = [await self.greeting() for _ in range(4)]
            self.assertEqual(greetings, [b"220 two\r\n"] * 4, way)
            self.assertEqual(self.one.attempts, attempts + 1, way)
            row = self.row("one")
            self.assertEqual((row["why"], row["failures"][kind]), (kind, 1), way)
            self.assertEqual(row["state"], "out")
            self.assertGreater(row["until"], 0)
            self.one.way = "greet"
            # Another start of it need not wait for its time; a probe brings it back.
            self.nodes.change("one", incarnation=self.one.incarnation)
            health = self.balancer.pool.members["one"].health
            health._until = 0.0
            await self.until(lambda: self.row("one")["state"] == "in")
            self.assertTrue(self.one.headers[-1].local)
        self.assertEqual(self.row("one")["ejections"], 4)

    @asynchronous
    async def test_refused(self) -> None:
        """Nobody listens: two of three would have been its."""
        await self.one.close()
        self.nodes.change("one", weight=2)
        greetings = [await self.greeting() for _ in range(3)]
        self.assertEqual(greetings, [b"220 two\r\n"] * 3)
        self.assertEqual(self.row("one")["failures"], {"refused": 1})
        self.assertEqual(self.counters.sessions_shared_in_vain, 1)

    @asynchronous
    async def test_slow(self) -> None:
        """A greeting that comes in time counts."""
        self.one.way = self.two.way = "slow"
        self.assertIn(await self.greeting(), (b"220 one\r\n", b"220 two\r\n"))
        self.assertEqual(self.row("one")["failures"], {})

    @asynchronous
    async def test_all_silent(self) -> None:
        """Whatever happens, within connect_timeout a client is greeted."""
        self.one.way = self.two.way = "silent"
        begun = reactor.seconds()
        self.assertEqual(await self.greeting(), HERE)
        self.assertLess(reactor.seconds() - begun, 1.2)
        # Both are out: nobody waits for them any more.
        begun = reactor.seconds()
        self.assertEqual(await self.greeting(), HERE)
        self.assertLess(reactor.seconds() - begun, 0.2)

    @asynchronous
    async def test_ours(self) -> None:
        """Want of descriptors is no fault of a peer's."""
        self.patch(splice.Splicer, "splice", _failing_splice)
        self.assertEqual(await self.greeting(), HERE)
        self.assertEqual(self.row("one")["ejections"] + self.row("two")["ejections"], 0)

    @asynchronous
    async def test_dies(self) -> None:
        """A peer that dies takes the sessions that it had, and no others."""
        self.nodes.change("two", weight=0)
        client = await self.connect()
        await client.line()
        await self.one.close()
        await self.until(lambda: client.lost)
        await self.until(lambda: self.front.gone)
        self.assertEqual(await self.greeting(), HERE)

    @asynchronous
    async def test_probe(self) -> None:
        """A probe that fails puts off the next one for longer; a drained peer gets none."""
        await self.one.close()
        await self.two.close()
        self.assertEqual(await self.greeting(), HERE)
        await self.until(lambda: sum(self.row("one")["failures"].values()) == 2)
        # Refused twice: once a session, once a probe.
        self.assertEqual(self.row("one")["ejections"], 1)
        self.assertEqual(self.row("one")["state"], "out")

    @asynchronous
    async def test_probe_is_late(self) -> None:
        """A probe that is not answered is given up."""
        self.one.way = "silent"
        self.nodes.change("two", weight=0)
        self.assertEqual(await self.greeting(), HERE)
        await self.until(lambda: self.row("one")["state"] == "being probed")
        await self.until(lambda: self.row("one")["failures"] == {"no greeting in time": 2})
        self.assertEqual(self.balancer._probes, {})

    @asynchronous
    async def test_stop_while_probing(self) -> None:
        """A probe that is under way at the stop is dropped."""
        self.one.way = "silent"
        self.nodes.change("two", weight=0)
        self.assertEqual(await self.greeting(), HERE)
        await self.until(lambda: self.balancer._probes)


def _failing_splice(
    splicer: Any, client: int, address: Any, header: bytes, caller: Any, tag: object, **_: object
) -> None:
    """Find no descriptor for a peer."""

    class Session:
        def __init__(self) -> None:
            self.tag = tag

    caller.failed(Session(), client, choosing.Failing.OURS)


class CheckTests(BalancerCase):
    """What happens before it is decided."""

    @asynchronous
    async def test_refused(self) -> None:
        """Who is refused gets the reply, and an end that does not cut it off."""
        self.front.screening = Screening(b"554 5.7.1 no\r\n", 0.0, "")
        client = await self.connect()
        client.transport.write(b"EHLO early\r\n")
        self.assertEqual(await client.line(), b"554 5.7.1 no\r\n")
        await self.until(lambda: client.lost)
        self.assertEqual((self.one.attempts, self.front.adopted), (0, []))

    @asynchronous
    async def test_silence(self) -> None:
        """A stranger waits, and is then served."""
        self.front.screening = Screening(b"", 0.2, "key")
        begun = reactor.seconds()
        client = await self.connect()
        await self.until(lambda: self.balancer.sessions == 1)
        self.assertEqual(self.balancer.report()["waiting"], 1)
        self.assertIn(await client.line(), (b"220 one\r\n", b"220 two\r\n"))
        self.assertGreaterEqual(reactor.seconds() - begun, 0.2)

    @asynchronous
    async def test_talks_early(self) -> None:
        """Who does not wait is refused, and no peer hears of it."""
        self.front.screening = Screening(b"", 0.5, "key")
        client = await self.connect()
        client.transport.write(b"EHLO\r\n")
        self.assertEqual(await client.line(), b"554 5.5.0 early\r\n")
        self.assertEqual(len(self.front.early), 1)
        self.assertEqual(self.one.attempts + self.two.attempts, 0)

    @asynchronous
    async def test_leaves_early(self) -> None:
        """Who goes meanwhile is counted out."""
        self.front.screening = Screening(b"", 0.5, "key")
        client = await self.connect()
        client.transport.loseConnection()
        await self.until(lambda: self.front.gone)
        self.assertEqual(self.balancer.sessions, 0)

    @asynchronous
    async def test_too_many_wait(self) -> None:
        """The line of those who wait is bounded."""
        self.front.screening = Screening(b"", 0.3, "key")
        self.balancer.director.anteroom.most = 1
        first = await self.connect()
        await self.until(lambda: self.balancer.sessions == 1)
        self.assertEqual(
            await self.greeting(), b"421 4.3.2 Too many connections, try again later\r\n"
        )
        self.assertEqual(len(self.front.gone), 1)
        self.assertTrue((await first.line()).startswith(b"220"))


class ProxyTests(BalancerCase):
    """Connections through a proxy that we know."""

    async def begin(self) -> None:
        """Expect headers."""
        await super().begin()
        self.front.proxies = {LOOP}

    def header(self) -> bytes:
        """Return one of version 2."""
        near, far = (ip_address(each) for each in ("192.0.2.7", "192.0.2.25"))
        return encode_block(Header(2, source=Inet(near, 700), destination=Inet(far, 25)))

    @asynchronous
    async def test_chunks(self) -> None:
        """However it is cut; what follows is the session's."""
        for size in (1, 3, 13, 1000):
            client = await self.connect()
            data = self.header() + b"EHLO\r\n"
            for at in range(0, len(data), size):
                client.transport.write(data[at : at + size])
                await deferLater(reactor, 0.001)
            greeting = await client.line()
            peer = self.one if greeting == b"220 one\r\n" else self.two
            self.assertEqual(peer.headers[-1].source, Inet(ip_address("192.0.2.7"), 700))
            self.assertEqual(peer.headers[-1].destination, Inet(ip_address("192.0.2.25"), 25))
            side = peer.open[-1]
            await self.until(lambda side=side: side.got == b"EHLO\r\n")
        self.assertEqual(set(self.front.screened), {("192.0.2.7", 700)})

    @asynchronous
    async def test_text(self) -> None:
        """Version 1 too; and with octets behind it that come too early."""
        self.front.screening = Screening(b"", 0.3, "key")
        client = await self.connect()
        client.transport.write(b"PROXY TCP4 192.0.2.7 192.0.2.25 700 25\r\nEHLO\r\n")
        self.assertEqual(await client.line(), b"554 5.5.0 early\r\n")
        self.assertEqual(self.front.early, [("192.0.2.7", 700)])

    @asynchronous
    async def test_unknown(self) -> None:
        """Where the proxy speaks for itself, or cannot say, it is the client."""
        client = await self.connect()
        client.transport.write(b"PROXY UNKNOWN\r\n")
        await client.line()
        self.assertEqual(self.front.screened[0][0], LOOP)

    @asynchronous
    async def test_none(self) -> None:
        """Who begins otherwise, ends within, or says nothing in time, is closed."""
        self.patch(waiting, "HEADER_TIME", 0.1)
        for data, ends in ((b"EHLO\r\n", False), (b"PROXY TCP4", True), (b"", True)):
            client = await self.connect()
            client.transport.write(data)
            if ends:
                client.transport.loseWriteConnection()
            self.assertEqual(await client.line(), b"")
        self.assertEqual(self.front.screened, [])

    @asynchronous
    async def test_too_many(self) -> None:
        """Those who owe one are bounded."""
        self.balancer.director.anteroom.most = 0
        client = await self.connect()
        self.assertEqual(await client.line(), b"")


class TlsTests(BalancerCase):
    """A port with TLS from the start."""

    tls = True

    @asynchronous
    async def test_answer(self) -> None:
        """The client talks first, so nobody waits; the peer's answer is not the client's."""
        self.front.screening = Screening(b"", 5.0, "key")
        self.one.answer = self.two.answer = b"+"
        client = await self.connect()
        client.transport.write(b"\x16hello")
        peer = await self.until(lambda: next((p for p in (self.one, self.two) if p.open), None))
        side = peer.open[0]
        await self.until(lambda: side.got == b"\x16hello")
        side.transport.write(b"\x16world\n")
        self.assertEqual(await client.line(), b"\x16world\n")

    @asynchronous
    async def test_refused(self) -> None:
        """Nothing that it could not read is said."""
        self.front.screening = Screening(b"554 5.7.1 no\r\n", 0.0, "")
        self.assertEqual(await self.greeting(), b"")


class SixTests(BalancerCase):
    """A socket of IPv6 that takes IPv4 too."""

    family = socket.AF_INET6

    @asynchronous
    async def test_mapped(self) -> None:
        """An IPv4 address is one."""
        client = await self.connect()
        self.assertTrue((await client.line()).startswith(b"220"))
        self.assertEqual(self.front.screened[0][0], LOOP)
        header = (self.one.headers + self.two.headers)[0]
        self.assertEqual(header.source.address, ip_address(LOOP))  # type: ignore[union-attr]

    @asynchronous
    async def test_six(self) -> None:
        """And one of IPv6 is told too."""
        client = await self.connect("::1")
        self.assertTrue((await client.line()).startswith(b"220"))
        header = (self.one.headers + self.two.headers)[0]
        self.assertEqual(header.source.address, ip_address("::1"))  # type: ignore[union-attr]


class StopTests(BalancerCase):
    """The end."""

    @asynchronous
    async def test_drains(self) -> None:
        """No new ones; those with peers may end; who waits is the gateway's."""
        client = await self.connect()
        await client.line()
        self.front.screening = Screening(b"", 60.0, "key")
        waits = await self.connect()
        await self.until(lambda: self.balancer.sessions == 2)
        self.assertEqual(len(self.balancer.sockets), 1)
        stopped = self.balancer.stopService()
        self.assertEqual(self.balancer.sockets, [])
        self.assertEqual(await waits.line(), HERE)
        self.assertFalse(stopped.called)
        self.nodes.change("one", alive=False)
        self.assertEqual(self.row("one")["state"], "in")
        client.transport.write(b"QUIT\r\n")
        side = (self.one.open + self.two.open)[0]
        await self.until(lambda: side.got == b"QUIT\r\n")
        side.transport.loseConnection()
        client.transport.loseConnection()
        await stopped

    @asynchronous
    async def test_in_vain(self) -> None:
        """Who does not end in time is ended."""
        client = await self.connect()
        await client.line()
        begun = reactor.seconds()
        await self.balancer.stopService()
        self.assertGreater(reactor.seconds() - begun, 0.9)
        await self.until(lambda: client.lost)

    @asynchronous
    async def test_never_started(self) -> None:
        """One that never started stops as well."""
        world = self.balancer._parts.world
        parts = BalancerParts(world, FakeFront(), self.nodes, lambda: 0, self.counters)
        await LoadBalancer(parts, config_of()).stopService()

    def test_unlimited(self) -> None:
        """Where descriptors are not limited they are reckoned as a million."""
        self.patch(service.resource, "getrlimit", lambda _: (service.resource.RLIM_INFINITY, 0))
        self.assertEqual(service._descriptors(), 1 << 20)
