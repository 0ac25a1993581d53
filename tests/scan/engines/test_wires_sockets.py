"""Connections to scanners on real sockets: TLS, pieces, a peer that leaves, one that is slow."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.config.load import parse_config
from mailsecure.scan.api import ScannerFault, Site
from mailsecure.scan.engines import wires as wires_module
from mailsecure.scan.engines.makers import icap
from mailsecure.scan.engines.wire import READ_AHEAD, Gone, Wire
from mailsecure.scan.engines.wires import Place, Wires
from mailsecure.scan.values import Special, Stage
from mailsecure.testing.certificates import make_authority
from mailsecure.testing.filters import FakeIcap
from mailsecure.testing.scanners import EICAR
from mailsecure.testing.workers import InlineWorkers
from mailsecure.world import World
from tests.scan.engines.net import FileBody, make_facts

WORLD = World(reactor, reactor, time.time, random.Random(3), None)  # type: ignore[arg-type]


class Peer(Protocol):
    """What is at the other end, in the hands of the test."""

    transport: Any
    gone = False

    def connectionMade(self) -> None:
        """Tell the test."""
        self.received = bytearray()
        self.factory.peers.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        self.gone = True


class SocketTests(TestCase):
    """Wires to a port of this machine."""

    timeout = 20

    def listen(self, tls: Any = None) -> Any:
        self.peers: list[Peer] = []
        factory = Factory.forProtocol(Peer)
        factory.peers = self.peers
        port = (
            reactor.listenTCP(0, factory, interface="127.0.0.1")
            if tls is None
            else reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        )
        self.addCleanup(port.stopListening)
        return port.getHost().port

    async def until(self, true: Any) -> None:
        deadline = time.monotonic() + 5
        while not true():
            self.assertLess(time.monotonic(), deadline)
            await deferLater(reactor, 0.005)

    async def test_octets(self) -> None:
        """To and fro, and the end."""
        wires = Wires(WORLD, Place("", "127.0.0.1", self.listen()))

        async def talk(wire: Wire) -> bytes:
            await wire.send(b"question")
            await self.until(lambda: self.peers[0].received == b"question")
            self.peers[0].transport.write(b"answer")
            answer = await wire.receive()
            self.peers[0].transport.loseConnection()
            self.assertEqual(await wire.receive(), b"")
            self.assertEqual(await wire.receive(), b"")
            with self.assertRaises(Gone):
                await wire.send(b"more")
            return answer

        self.assertEqual(await wires.use(talk), b"answer")

    async def test_unix(self) -> None:
        """A Unix socket."""
        path = self.mktemp()[-60:].replace("/", "-")
        factory = Factory.forProtocol(Peer)
        factory.peers = self.peers = []
        self.addCleanup(reactor.listenUNIX(path, factory).stopListening)

        async def talk(wire: Wire) -> bytes:
            await self.until(lambda: self.peers)
            self.peers[0].transport.write(b"answer")
            return await wire.receive()

        self.assertEqual(await Wires(WORLD, Place(path)).use(talk), b"answer")

    async def test_reset(self) -> None:
        """A reset is Gone, whether one waits for it or not."""
        wires = Wires(WORLD, Place("", "127.0.0.1", self.listen()))

        async def waits(wire: Wire) -> None:
            await self.until(lambda: self.peers)
            reactor.callLater(0.01, self.peers[-1].transport.abortConnection)
            await wire.receive()

        async def comes_late(wire: Wire) -> None:
            await self.until(lambda: self.peers)
            self.peers[-1].transport.abortConnection()
            await self.until(lambda: not wire.usable)
            await wire.receive()

        for talk in (waits, comes_late):
            with self.assertRaises(Gone):
                await wires.use(talk)
            self.peers.clear()

    async def test_back_pressure(self) -> None:
        """Neither side piles up what the other does not read."""
        wires = Wires(WORLD, Place("", "127.0.0.1", self.listen()))

        async def talk(wire: Wire) -> int:
            await self.until(lambda: self.peers)
            peer = self.peers[0]
            peer.transport.pauseProducing()
            sent = 0

            def resume() -> None:
                self.assertLess(sent, 14 << 20)
                peer.transport.resumeProducing()

            reactor.callLater(0.3, resume)
            for _ in range(16):
                await wire.send(b"x" * (1 << 20))
                sent += 1 << 20
            await self.until(lambda: len(peer.received) == sent)
            peer.transport.write(b"y" * (8 << 20))
            await deferLater(reactor, 0.3)
            self.assertLess(wire._octets, READ_AHEAD + (1 << 18))
            read = 0
            while read < 8 << 20:
                read += len(await wire.receive())
            return read

        self.assertEqual(await wires.use(talk), 8 << 20)

    async def test_tls(self) -> None:
        """A certificate of nobody is none; one that is trusted is spoken to and left."""
        authority = make_authority()
        root = Certificate.loadPEM(authority.pem)
        port = self.listen(authority.certificate("localhost").server_options())
        place = Place("", "localhost", port, True)

        class Names:
            async def addresses(self, host: str) -> list[str]:
                return ["127.0.0.1"]

        world = World(reactor, reactor, time.time, random.Random(1), Names())  # type: ignore[arg-type]

        async def talk(wire: Wire) -> bytes:
            await wire.send(b"question")
            await self.until(lambda: self.peers[-1].received)
            self.peers[-1].transport.write(b"answer")
            return await wire.receive()

        async def waits(wire: Wire) -> bytes:
            await wire.send(b"question")
            return await wire.receive()

        with self.assertRaises(ScannerFault):
            await Wires(world, place).use(waits)
        self.patch(
            wires_module,
            "optionsForClientTLS",
            lambda host: optionsForClientTLS(host, trustRoot=root),
        )
        self.assertEqual(await Wires(world, place).use(talk), b"answer")
        await self.until(lambda: all(peer.gone for peer in self.peers))

    async def test_icaps(self) -> None:
        """An ICAP server over TLS, and one that streams what is large back."""
        authority = make_authority()
        fake = FakeIcap(reactor)  # type: ignore[arg-type]
        fake.streams = True
        options = authority.certificate("127.0.0.1").server_options()
        port = reactor.listenSSL(0, fake.factory(), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.patch(
            wires_module,
            "optionsForClientTLS",
            lambda host: optionsForClientTLS(host, trustRoot=Certificate.loadPEM(authority.pem)),
        )
        ini = f"[icap]\nurl = icaps://127.0.0.1:{port.getHost().port}/scan\n"
        site = Site(parse_config(ini, "test.ini"), WORLD, InlineWorkers(), Path("/nowhere"))
        check = icap.make(site)
        await check.start()
        for body in (b"\r\n" + EICAR, b"\r\n" + b"x" * (1 << 20) + EICAR):
            (symbol,) = (await check.check(Stage.DATA, make_facts(body))).symbols
            self.assertIs(symbol.special, Special.MALWARE)
            clean = make_facts(FileBody(body.removesuffix(EICAR)))
            self.assertEqual((await check.check(Stage.DATA, clean)).symbols, ())
        self.assertEqual(check.report()["failures"], 0)
        await check.stop()
        await self.until(lambda: not fake.sessions)
