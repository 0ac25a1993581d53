"""Proves on real sockets of this machine what the network in memory only pretends."""

import random
import socket
import time

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.cluster.keys import Key, KeyRing
from mailsecure.cluster.link import SILENCE
from mailsecure.cluster.links import Links
from mailsecure.cluster.verify import DEADLINE, Verdict, Verification
from mailsecure.errors import LocalFault
from mailsecure.world import World

RING = KeyRing((Key(b"1" * 32),))
WORLD = World(reactor, reactor, time.time, random.Random(3), None)


async def until(true, timeout=5.0):
    """Wait until ``true()``."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("not in time")
        await deferLater(reactor, 0.005)


class Sockets(TestCase):
    """In one process, so nobody dies here; tests/live kills."""

    async def start(self, name, address="127.0.0.1"):
        told = []
        links = Links(
            WORLD,
            name,
            RING,
            address,
            0,
            lambda node: told.append(("gone", node)),
            lambda node: told.append(("left", node)),
        )
        links.told = told
        await links.bind()
        self.addCleanup(links.stopService)
        return links

    async def pair(self, address="127.0.0.1"):
        a, b = await self.start("a", address), await self.start("b", address)
        a.wanted({"b": (address, b.port)})
        b.wanted({"a": (address, a.port)})
        await until(lambda: self.linked(a, "b") and self.linked(b, "a"))
        return a, b

    @staticmethod
    def linked(links, node):
        state = links.snapshot().get(node)
        return state is not None and state.up

    async def test_linked(self):
        """TLS 1.3, a measured way, and the kernel's own bounds."""
        a, b = await self.pair()
        await until(lambda: a.snapshot()["b"].round_trip and b.snapshot()["a"].round_trip)
        for links, node in ((a, "b"), (b, "a")):
            transport = links._peers[node].link.transport
            self.assertEqual(transport.getHandle().get_protocol_version_name(), "TLSv1.3")
            tcp = transport.transport.getHandle()
            timeout = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            self.assertEqual(timeout, SILENCE * 1000)
            self.assertTrue(tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            self.assertTrue(tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertLess(links.snapshot()[node].round_trip, 1.0)

    async def test_six(self):
        """IPv6."""
        await self.pair("::1")

    async def test_reset(self):
        """A reset at either end."""
        a, b = await self.pair()
        for count, (links, node) in enumerate(((a, "b"), (b, "a")), 2):
            links._peers[node].link.transport.abortConnection()
            await until(lambda count=count: b.snapshot()["a"].connects == count)
            await until(lambda: self.linked(a, "b") and self.linked(b, "a"))
        await deferLater(reactor, DEADLINE + 0.1)
        self.assertEqual(a.told + b.told, [])

    async def test_left(self):
        """BYE comes before the end."""
        a, b = await self.pair()
        begin = time.monotonic()
        await b.stopService()
        self.assertLess(time.monotonic() - begin, 0.4)
        await until(lambda: a.told)
        self.assertEqual(a.told, [("left", "b")])

    async def test_listener_alone(self):
        """Nobody listens any more, and the link ends: that is what a death looks like."""
        a, b = await self.pair()
        await b._port.stopListening()
        begin = time.monotonic()
        b._peers["a"].link.transport.abortConnection()
        await until(lambda: a.told)
        self.assertEqual(a.told, [("gone", "b")])
        self.assertLess(time.monotonic() - begin, 0.3)
        self.assertEqual(b.told, [])

    async def test_port_taken(self):
        """LocalFault in one line."""
        a = await self.start("a")
        other = Links(WORLD, "a", RING, "127.0.0.1", a.port, None, None)
        with self.assertRaises(LocalFault) as caught:
            await other.bind()
        self.assertIn("Address already in use", str(caught.exception))

    async def verdict(self, place):
        """Return the verdict, and how long it took."""
        verdicts = []
        begin = time.monotonic()
        Verification(WORLD, place, "127.0.0.1", verdicts.append).start()
        await until(lambda: verdicts)
        return verdicts[0], time.monotonic() - begin

    async def test_verdicts(self):
        """A socket that nobody accepts from; the same closed."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            place = listening.getsockname()
            verdict, took = await self.verdict(place)
            self.assertIs(verdict, Verdict.THERE)
            self.assertTrue(DEADLINE - 0.01 < took < DEADLINE + 0.5, took)
        verdict, took = await self.verdict(place)
        self.assertIs(verdict, Verdict.GONE)
        self.assertLess(took, 0.1)

    async def test_no_way(self):
        """From an address that is not ours, nothing is known."""
        verdicts = []
        place = ("127.0.0.1", 9)
        Verification(WORLD, place, "192.0.2.1", verdicts.append).start()
        await until(lambda: verdicts)
        self.assertEqual(verdicts, [Verdict.UNKNOWN])
