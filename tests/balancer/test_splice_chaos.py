"""Hundreds of sessions at once, each doing something else, lose no octet and never hang."""

from __future__ import annotations

import os
import random
import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mailsecure.balancer import relaying, splice
from mailsecure.balancer.pipes import PipePool

from .test_splice import BANNER, HEADER, SpliceCase, asynchronous, reset

#: Small enough that slow readers are felt; much smaller, and TCP's own timers set the pace.
BUFFERS = (70_000, 500_000)


class Direction:
    """What one side sends, in which pieces, and what of it came out at the other."""

    def __init__(self, rng: random.Random, source: socket.socket, sink: socket.socket) -> None:
        self.rng = rng
        self.source = source
        self.sink = sink
        self.data = rng.randbytes(rng.choice([0, 1, 50, 8191, 8192, 8193, 70_000, 600_000]))
        least = len(self.data) // 60 + 1
        self.piece = max(least, rng.choice([7, 500, 8192, 65_536, 1 << 20]))
        self.appetite = max(least, rng.choice([100, 5000, 65_536]))
        self.sent = 0
        self.got = bytearray()
        self.shut = False
        self.ended = False

    def step(self) -> None:
        """Send a piece, or the end, and read some."""
        try:
            if self.sent < len(self.data):
                self.sent += self.source.send(self.data[self.sent : self.sent + self.piece])
            elif not self.shut:
                self.source.shutdown(socket.SHUT_WR)
                self.shut = True
        except BlockingIOError:
            pass
        try:
            for _ in range(self.rng.choice([0, 1, 5])):
                data = self.sink.recv(self.appetite)
                self.got += data
                if not data:
                    self.ended = True
                    break
        except BlockingIOError:
            pass


class ChaosTests(SpliceCase):
    """Sessions that are all different."""

    timeout = 120

    async def one(self, rng: random.Random) -> None:
        """Run a session; check that all came through, or, if it is reset, nothing else."""
        client, descriptor = self.client()
        session = self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        for end in (session.client, session.peer):
            with socket.socket(fileno=os.dup(end.fd)) as wire:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, rng.choice(BUFFERS))
        peer = await self.accepted()
        peer.send(BANNER)
        await self.expect(peer, HEADER)
        await self.expect(client, BANNER)
        ways = [Direction(rng, client, peer), Direction(rng, peer, client)]
        until_reset = rng.randrange(40) if rng.random() < 0.2 else None
        while not all(way.ended for way in ways):
            for way in ways:
                way.step()
            if until_reset is not None:
                until_reset -= 1
                if until_reset < 0:
                    reset(rng.choice([client, peer]))
                    break
            await deferLater(reactor, rng.choice([0, 0, 0.001]))
        for way in ways:
            if until_reset is None or until_reset >= 0:
                self.assertEqual(bytes(way.got), way.data)
            else:
                self.assertEqual(bytes(way.got), way.data[: len(way.got)])
        client.close()
        peer.close()

    def count_stuck(self) -> None:
        """Count how often one side had to wait for the other."""
        self.stuck = 0
        real = relaying.End.wait

        def wait(end: relaying.End) -> None:
            self.stuck += 1
            real(end)

        self.patch(relaying.End, "wait", wait)

    async def many(self, seed: int, sessions: int) -> None:
        """Run so many at once."""
        rng = random.Random(seed)
        work = [
            Deferred.fromCoroutine(self.one(random.Random(rng.random()))) for _ in range(sessions)
        ]
        await gatherResults(work, consumeErrors=True)
        self.assertGreater(self.stuck, sessions // 20)
        await self.until(lambda: self.splicer.sessions == 0)
        self.assertEqual(len(self.log.endings), sessions)
        self.assertEqual(self.log.failures, [])
        self.assertGreater(sum(map(sum, self.log.moved)), sessions * 50_000)

    def begin(self) -> None:
        """Give peers time: the machine that runs this may be busy."""
        self.patience = splice.Patience(connect=30, banner=30)
        super().begin()
        self.count_stuck()

    @asynchronous
    async def test_spliced(self) -> None:
        """As it is."""
        await self.many(1, 300)

    @asynchronous
    async def test_hardly_spliced(self) -> None:
        """Few and small pipes, and a budget that is used up all the time."""
        self.patch(splice, "BUDGET", 20_000)
        self.splicer.pipes = PipePool(limit=3, size=4096)
        await self.many(2, 300)

    @asynchronous
    async def test_copied(self) -> None:
        """Without splice."""
        self.splicer.zero_copy = False
        await self.many(3, 300)
