"""Octets get through whole and in order, whatever either side does; a failed peer costs nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailsecure.balancer import relaying, splice
from mailsecure.balancer.accepting import Door
from mailsecure.balancer.pipes import PipePool
from mailsecure.balancer.session import Session
from mailsecure.balancer.splice import Patience, Splicer
from mailsecure.balancer.values import Ending, Failing

LOOP = ("127.0.0.1", 0)
HEADER = b"\r\n\r\n\0\r\nQUIT\n" + bytes(40)
BANNER = b"220 peer\r\n"


def asynchronous(method: Callable[..., Any]) -> Callable[..., Deferred[Any]]:
    """Let trial run a coroutine."""

    def run(self: object) -> Deferred[Any]:
        return Deferred.fromCoroutine(method(self))

    run.__name__ = method.__name__
    run.__doc__ = method.__doc__
    return run


def listening(family: int = socket.AF_INET, where: Any = LOOP) -> socket.socket:
    """Return a listening socket that does not block."""
    wire = socket.socket(family)
    wire.bind(where)
    wire.listen(1000)
    wire.setblocking(False)
    return wire


def reset(wire: socket.socket) -> None:
    """Close with RST."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def descriptors() -> int:
    """Return how many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def memory() -> int:
    """Return the octets that this process has in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Log:
    """A caller that remembers."""

    def __init__(self) -> None:
        self.opened_ones: list[Session] = []
        self.failures: list[Failing] = []
        self.returned: list[int] = []
        self.endings: list[Ending] = []
        self.moved: list[tuple[int, int]] = []

    def opened(self, session: Session) -> None:
        self.opened_ones.append(session)

    def failed(self, session: Session, client: int, why: Failing) -> None:
        self.failures.append(why)
        self.returned.append(client)

    def ended(self, session: Session, why: Ending) -> None:
        self.endings.append(why)
        self.moved.append(session.octets)


class SpliceCase(TestCase):
    """A splicer on the reactor, a peer, and clients."""

    timeout = 60
    patience = Patience(connect=0.5, banner=0.5, idle=300, closing=300)
    greeting = b"2"

    def setUp(self) -> Any:
        """Start it, once the reactor runs: that takes descriptors too."""
        return deferLater(reactor, 0, self.begin)

    def begin(self) -> None:
        """Start it."""
        self.before = descriptors()
        self.splicer = Splicer(reactor, reactor, self.patience, greeting=self.greeting)
        self.splicer.start()
        self.log = Log()
        self.front = listening()
        self.peer = listening()
        self.wires: list[socket.socket] = []

    def tearDown(self) -> None:
        """Stop it; nothing must be left open."""
        self.splicer.stop()
        for wire in (self.front, self.peer, *self.wires):
            wire.close()
        for descriptor in self.log.returned:
            os.close(descriptor)
        self.assertEqual(self.splicer.sessions, 0)
        self.assertEqual(self.splicer.pipes.lent, 0)
        self.assertEqual(descriptors(), self.before)

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Wait for something, with the reactor running."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > end:
                self.fail("waited too long")
            await deferLater(reactor, 0.001)
        return found

    def client(self) -> tuple[socket.socket, int]:
        """Return a client's socket, and our descriptor of its connection."""
        wire = socket.create_connection(self.front.getsockname())
        wire.setblocking(False)
        ours, _ = self.front.accept()
        ours.setblocking(False)
        self.wires.append(wire)
        return wire, ours.detach()

    def address(self, peer: socket.socket | None = None) -> tuple[int, Any]:
        """Return where a peer listens."""
        peer = peer or self.peer
        return int(peer.family), peer.getsockname()

    async def accepted(self, peer: socket.socket | None = None) -> socket.socket:
        """Return the next connection that reaches the peer."""
        peer = peer or self.peer

        def accept() -> socket.socket | None:
            try:
                return peer.accept()[0]
            except BlockingIOError:
                return None

        wire = await self.until(accept)
        assert isinstance(wire, socket.socket)
        wire.setblocking(False)
        self.wires.append(wire)
        return wire

    async def expect(self, wire: socket.socket, data: bytes) -> None:
        """Read exactly these octets."""
        got = bytearray()

        def read() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.extend(wire.recv(len(data) - len(got)))
            return len(got) == len(data)

        await self.until(read)
        self.assertEqual(bytes(got), data)

    async def end_of(self, wire: socket.socket) -> None:
        """Read the end of the stream."""

        def read() -> bool:
            try:
                return wire.recv(1) == b""
            except BlockingIOError:
                return False

        await self.until(read)

    async def session(self) -> tuple[socket.socket, socket.socket]:
        """Return both far ends of a session that is relayed."""
        client, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        peer = await self.accepted()
        peer.send(BANNER)
        await self.expect(peer, HEADER)
        await self.expect(client, BANNER)
        return client, peer

    async def pump(
        self, source: socket.socket, sink: socket.socket, octets: int, slowly: bool = False
    ) -> int:
        """Send so much of a pattern, check it at the other end; return the most memory used."""
        block = bytes(range(256)) * 1024
        sent = got = most = 0
        pause = 0
        while got < octets:
            try:
                at = sent % 256
                sent += source.send(memoryview(block)[at : at + min(octets - sent, 65536)])
            except BlockingIOError:
                pass
            pause += 1
            if not slowly or pause % 8 == 0:
                try:
                    data = sink.recv(65536)
                except BlockingIOError:
                    data = b""
                at = got % 256
                self.assertEqual(data, block[at : at + len(data)])
                got += len(data)
            if pause % 4 == 0:
                most = max(most, memory())
                await deferLater(reactor, 0)
        return most


class RelayTests(SpliceCase):
    """Sessions that go well."""

    @asynchronous
    async def test_both_ways(self) -> None:
        """The header first, then the banner, then both ways; the end of both is the end."""
        client, peer = await self.session()
        self.assertEqual(len(self.log.opened_ones), 1)
        client.send(b"EHLO a\r\n")
        await self.expect(peer, b"EHLO a\r\n")
        peer.send(b"250 b\r\n")
        await self.expect(client, b"250 b\r\n")
        client.close()
        await self.end_of(peer)
        peer.close()
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.DONE])
        self.assertEqual(self.log.moved, [(8, len(BANNER) + 7)])

    @asynchronous
    async def test_talks_early(self) -> None:
        """What the client said before the banner waits for it, untouched."""
        client, descriptor = self.client()
        client.send(b"EHLO early\r\n")
        self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        peer = await self.accepted()
        await self.expect(peer, HEADER)
        await deferLater(reactor, 0.05)
        self.assertRaises(BlockingIOError, peer.recv, 1)
        peer.send(BANNER)
        await self.expect(peer, b"EHLO early\r\n")
        await self.expect(client, BANNER)

    @asynchronous
    async def test_half_close_by_client(self) -> None:
        """The client ends; what the peer still sends arrives."""
        client, peer = await self.session()
        client.send(b"last words")
        client.shutdown(socket.SHUT_WR)
        await self.expect(peer, b"last words")
        await self.end_of(peer)
        await self.pump(peer, client, 300_000)
        peer.close()
        await self.end_of(client)
        await self.until(lambda: self.log.endings == [Ending.DONE])

    @asynchronous
    async def test_half_close_by_peer(self) -> None:
        """The same the other way."""
        client, peer = await self.session()
        peer.shutdown(socket.SHUT_WR)
        await self.end_of(client)
        await self.pump(client, peer, 300_000)
        client.close()
        await self.until(lambda: self.log.endings == [Ending.DONE])

    @asynchronous
    async def test_end_behind_a_full_pipe(self) -> None:
        """An end that comes while octets still wait is passed on after the last of them."""
        client, peer = await self.session()
        octets = 0
        while True:
            try:
                octets += client.send(bytes(65536))
            except BlockingIOError:
                await deferLater(reactor, 0.02)
                try:
                    octets += client.send(bytes(65536))
                except BlockingIOError:
                    break
        client.shutdown(socket.SHUT_WR)
        await deferLater(reactor, 0.05)
        got = 0

        def read() -> bool:
            nonlocal got
            try:
                data = peer.recv(1 << 20)
            except BlockingIOError:
                return False
            got += len(data)
            return not data

        await self.until(read)
        self.assertEqual(got, octets)

    @asynchronous
    async def test_reset_by_client(self) -> None:
        """A client that resets ends the session on the other side too."""
        client, peer = await self.session()
        reset(client)
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.CLIENT_LOST])
        await self.end_of(peer)

    @asynchronous
    async def test_reset_by_peer(self) -> None:
        """And a peer that does."""
        client, peer = await self.session()
        reset(peer)
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.PEER_LOST])
        await self.end_of(client)

    @asynchronous
    async def test_reset_while_stuck(self) -> None:
        """A reader that resets while octets wait for it; the pipe is not used again."""
        client, peer = await self.session()
        for _ in range(200):
            try:
                client.send(bytes(1 << 20))
            except BlockingIOError:
                await deferLater(reactor, 0.001)
        self.assertEqual(self.splicer.pipes.lent, 1)
        reset(peer)
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.PEER_LOST])
        self.assertEqual(self.splicer.pipes.lent, 0)

    @asynchronous
    async def test_reset_after_an_end(self) -> None:
        """One side has ended, then resets: nothing is left to wait for."""
        client, peer = await self.session()
        client.shutdown(socket.SHUT_WR)
        await self.end_of(peer)
        reset(client)
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.CLIENT_LOST])

    @asynchronous
    async def test_unix_peer(self) -> None:
        """A peer behind a Unix socket; IPv6 goes as IPv4."""
        path = self.mktemp()
        for family, where in ((socket.AF_UNIX, path), (socket.AF_INET6, ("::1", 0))):
            other = listening(family, where)
            client, descriptor = self.client()
            self.splicer.splice(descriptor, self.address(other), HEADER, self.log)
            peer = await self.accepted(other)
            other.close()
            peer.send(BANNER)
            await self.expect(client, BANNER)
            await self.expect(peer, HEADER)
            await self.pump(client, peer, 1_000_000)

    @asynchronous
    async def test_many(self) -> None:
        """Two hundred at once, some of them bulk, none disturbs another."""
        pairs = [await self.session() for _ in range(200)]
        for number, (client, peer) in enumerate(pairs):
            client.send(b"%d" % number)
            if number % 20 == 0:
                await self.pump(peer, client, 500_000)
        for number, (client, peer) in enumerate(pairs):
            await self.expect(peer, b"%d" % number)
            client.close()
            peer.close()
        await self.until(lambda: len(self.log.endings) == 200)
        self.assertEqual(set(self.log.endings), {Ending.DONE})


class BulkTests(SpliceCase):
    """Much at once."""

    @asynchronous
    async def test_slow_reader(self) -> None:
        """100 MB to a slow reader: whole, in order, and memory does not grow with it."""
        client, peer = await self.session()
        before = memory()
        most = await self.pump(client, peer, 100 << 20, slowly=True)
        self.assertLess(most - before, 12 << 20)
        self.assertEqual(self.log.opened_ones[0].octets[0], 100 << 20)

    @asynchronous
    async def test_both_at_once(self) -> None:
        """Bulk both ways, and small words after it."""
        client, peer = await self.session()
        one = Deferred.fromCoroutine(self.pump(client, peer, 5 << 20))
        other = Deferred.fromCoroutine(self.pump(peer, client, 5 << 20, slowly=True))
        await one
        await other
        client.send(b"QUIT\r\n")
        await self.expect(peer, b"QUIT\r\n")

    @asynchronous
    async def test_small_pipes(self) -> None:
        """Where the user may have no larger pipe, the small one does."""
        client, peer = await self.session()
        with mock.patch("fcntl.fcntl", side_effect=PermissionError(errno.EPERM, "limit")) as call:
            await self.pump(client, peer, 5 << 20)
        self.assertTrue(call.called)

    @asynchronous
    async def test_small_pieces_through_a_small_pipe(self) -> None:
        """A pipe that is full of small pieces is no sign that nothing is left."""
        self.splicer.pipes = PipePool(size=4096)
        client, peer = await self.session()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(bytes(100_000))
        await self.expect(peer, bytes(100_000))
        for _ in range(300):
            for _ in range(20):
                client.send(b"seven..")
            await deferLater(reactor, 0)
        await self.expect(peer, b"seven.." * 6000)

    @asynchronous
    async def test_no_pipes(self) -> None:
        """Where there is no pipe left it is copied."""
        self.splicer.pipes = PipePool(limit=0)
        client, peer = await self.session()
        before = memory()
        most = await self.pump(client, peer, 20 << 20, slowly=True)
        self.assertLess(most - before, 12 << 20)
        client.close()
        await self.end_of(peer)

    @asynchronous
    async def test_no_descriptors_for_pipes(self) -> None:
        """The same where the system gives none."""
        with mock.patch("os.pipe2", side_effect=OSError(errno.EMFILE, "too many")):
            client, peer = await self.session()
            await self.pump(client, peer, 2 << 20)

    @asynchronous
    async def test_kernel_cannot(self) -> None:
        """A kernel that does not splice these sockets: copied from then on."""
        with mock.patch("os.splice", side_effect=OSError(errno.EINVAL, "invalid")):
            client, peer = await self.session()
            await self.pump(client, peer, 2 << 20)
        self.assertFalse(self.splicer.zero_copy)
        await self.pump(peer, client, 2 << 20)
        reset(client)
        await self.until(lambda: self.log.endings)

    @asynchronous
    async def test_budget(self) -> None:
        """A small budget a turn slows nothing down for good, spliced or copied."""
        self.patch(splice, "BUDGET", 10_000)
        client, peer = await self.session()
        await self.pump(client, peer, 3 << 20)
        self.splicer.zero_copy = False
        await self.pump(client, peer, 3 << 20)


class FailureTests(SpliceCase):
    """Peers that do not take a session: the client is handed back, nothing lost."""

    async def fails(self, address: tuple[int, Any], why: Failing) -> None:
        """Check that it does, that the client gets through elsewhere, with what it said."""
        client, descriptor = self.client()
        client.send(b"EHLO x\r\n")
        self.splicer.splice(descriptor, address, HEADER, self.log)
        await self.until(lambda: self.log.failures)
        self.assertEqual(self.log.failures, [why])
        self.assertEqual(self.log.returned, [descriptor])
        self.log.returned.clear()
        good = listening()
        self.wires.append(good)
        self.splicer.splice(descriptor, self.address(good), HEADER, self.log)
        peer = await self.accepted(good)
        peer.send(BANNER)
        await self.expect(peer, HEADER + b"EHLO x\r\n")
        await self.expect(client, BANNER)

    @asynchronous
    async def test_refused(self) -> None:
        """Nobody listens."""
        dead = listening()
        address = self.address(dead)
        dead.close()
        await self.fails(address, Failing.REFUSED)

    @asynchronous
    async def test_unreachable(self) -> None:
        """No route."""
        _, descriptor = self.client()
        with mock.patch.object(socket, "SocketType", wraps=socket.SocketType) as kind:
            kind.return_value.connect_ex.return_value = errno.ENETUNREACH
            self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        self.assertEqual(self.log.failures, [Failing.UNREACHABLE])

    @asynchronous
    async def test_no_connection(self) -> None:
        """SYNs that nobody answers: a listener with a full queue."""
        full = socket.socket()
        full.bind(LOOP)
        full.listen(0)
        self.wires.append(full)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            self.wires.append(filler)
        await self.fails(self.address(full), Failing.TIMED_OUT)

    @asynchronous
    async def test_silent(self) -> None:
        """Accepted, and nothing said."""
        await self.fails(self.address(), Failing.SILENT)

    async def _after_accept(self, act: Callable[[socket.socket], object], why: Failing) -> None:
        work = Deferred.fromCoroutine(self.fails(self.address(), why))
        peer = await self.accepted()
        await self.expect(peer, HEADER)
        act(peer)
        await work

    @asynchronous
    async def test_reset(self) -> None:
        """Reset before the banner."""
        await self._after_accept(reset, Failing.RESET)

    @asynchronous
    async def test_closed(self) -> None:
        """Closed before the banner."""
        await self._after_accept(lambda wire: wire.close(), Failing.CLOSED)

    @asynchronous
    async def test_unwilling(self) -> None:
        """A 421 instead of a banner stays between us."""
        await self._after_accept(lambda wire: wire.send(b"421 full\r\n"), Failing.UNWILLING)

    @asynchronous
    async def test_no_sockets(self) -> None:
        """Our own want of descriptors is not the peer's fault."""
        _, descriptor = self.client()
        with mock.patch.object(socket, "SocketType", side_effect=OSError(errno.EMFILE, "many")):
            self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        self.assertEqual(self.log.failures, [Failing.OURS])

    @asynchronous
    async def test_header_too_long(self) -> None:
        """A header that a new socket does not take is no session."""
        _, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), bytes(64 << 20), self.log)
        await self.until(lambda: self.log.failures)
        self.assertEqual(self.log.failures, [Failing.RESET])

    @asynchronous
    async def test_slow_connection(self) -> None:
        """Where the connection stands only later, the header goes then."""
        full = socket.socket()
        full.bind(LOOP)
        full.listen(0)
        self.wires.append(full)
        full.setblocking(False)
        self.wires.append(socket.create_connection(full.getsockname()))
        self.splicer.patience = Patience(connect=20, banner=20)
        client, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(full), HEADER, self.log)
        await deferLater(reactor, 0.05)
        for _ in range(2):
            peer = await self.accepted(full)
        peer.send(BANNER)
        await self.expect(client, BANNER)
        await self.expect(peer, HEADER)
        client.send(b"EHLO")
        await self.expect(peer, b"EHLO")
        peer.send(b"250")
        await self.expect(client, b"250")

    @asynchronous
    async def test_answer(self) -> None:
        """What the peer says to the header stands for its greeting, and is not the client's."""
        for more in (b"", b"\x15\x03"):
            client, descriptor = self.client()
            client.send(b"\x16hello")
            self.splicer.splice(descriptor, self.address(), HEADER, self.log, answer=b"+")
            peer = await self.accepted()
            peer.send(b"+" + more)
            await self.expect(peer, HEADER + b"\x16hello")
            peer.send(b"\x16world")
            await self.expect(client, more + b"\x16world")

    @asynchronous
    async def test_other_answer(self) -> None:
        """A greeting is no such answer."""
        _, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log, answer=b"+")
        (await self.accepted()).send(BANNER)
        await self.until(lambda: self.log.failures)
        self.assertEqual(self.log.failures, [Failing.UNWILLING])

    @asynchronous
    async def test_time_of_its_own(self) -> None:
        """A session may have less time than others, whatever came before it."""
        self.splicer.patience = Patience(connect=20, banner=20)
        _, patient = self.client()
        self.splicer.splice(patient, self.address(), HEADER, self.log)
        _, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log, within=0.2)
        await self.until(lambda: self.log.failures, 1.0)
        self.assertEqual(self.log.failures, [Failing.SILENT])
        self.assertEqual(self.log.returned, [descriptor])
        self.assertEqual(self.splicer.sessions, 1)

    @asynchronous
    async def test_we_slept(self) -> None:
        """Who greeted while we stood still is not overdue."""
        client, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log, within=0.3)
        peer = await self.accepted()
        peer.send(BANNER)
        time.sleep(0.5)
        self.assertEqual(self.log.failures, [])
        await self.expect(client, BANNER)


class DeadlineTests(SpliceCase):
    """What takes too long."""

    patience = Patience(connect=0.5, banner=0.5, idle=0.4, closing=0.1)

    def begin(self) -> None:
        """Look for idle ones at each sweep."""
        self.patch(splice, "IDLE_SWEEPS", 1)
        super().begin()

    @asynchronous
    async def test_idle(self) -> None:
        """No octet for so long ends it; each octet puts it off."""
        client, peer = await self.session()
        for _ in range(5):
            await deferLater(reactor, 0.15)
            client.send(b".")
        self.assertEqual(self.log.endings, [])
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.IDLE])
        await self.expect(peer, b".....")
        await self.end_of(peer)

    @asynchronous
    async def test_half_closed(self) -> None:
        """After one side has ended there is less time."""
        client, peer = await self.session()
        client.shutdown(socket.SHUT_WR)
        await self.end_of(peer)
        begun = time.monotonic()
        await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.IDLE])
        self.assertLess(time.monotonic() - begun, 0.35)


class LifeTests(SpliceCase):
    """Start, stop, and faults."""

    @asynchronous
    async def test_stop(self) -> None:
        """All end: those relayed, those that wait for a greeting."""
        await self.session()
        _, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        self.assertEqual(self.splicer.logPrefix(), "splicer")
        self.splicer.connectionLost(Failure(ConnectionDone()))
        self.splicer.stop()
        self.splicer.unwatch(3)
        self.assertEqual(self.log.endings, [Ending.STOPPED, Ending.STOPPED])
        self.assertEqual(self.splicer.fileno(), -1)

    @asynchronous
    async def test_fault(self) -> None:
        """An exception in one session ends that one; another goes on."""
        client, peer = await self.session()
        other_client, other_peer = await self.session()
        bad = self.log.opened_ones[0]
        with mock.patch.object(relaying.End, "pass_on", side_effect=ZeroDivisionError):
            client.send(b"x")
            await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.BROKEN])
        self.assertEqual(bad.client.fd, -1)
        await self.end_of(peer)
        other_client.send(b"y")
        await self.expect(other_peer, b"y")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @asynchronous
    async def test_caller_at_fault(self) -> None:
        """A caller that raises, at any call, harms no other session."""
        client, peer = await self.session()
        with mock.patch.object(Log, "opened", side_effect=ZeroDivisionError):
            _, descriptor = self.client()
            self.splicer.splice(descriptor, self.address(), HEADER, self.log)
            (await self.accepted()).send(BANNER)
            await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.BROKEN])
        with mock.patch.object(Log, "ended", side_effect=ZeroDivisionError):
            third, _ = await self.session()
            with mock.patch.object(relaying.End, "pass_on", side_effect=ZeroDivisionError):
                third.send(b"x")
                await self.until(lambda: self.splicer.sessions == 1)
        client.send(b"y")
        await self.expect(peer, b"y")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    @asynchronous
    async def test_stale_event(self) -> None:
        """Events are hints: any of them, at any time, changes nothing by itself."""
        client, peer = await self.session()
        session = self.log.opened_ones[0]
        for event in (0, 1, 4, 5, 8, 16, 0x2000, 0x201F):
            for end in (session.client, session.peer):
                end.ready(event)
        client.send(b"y")
        await self.expect(peer, b"y")
        _, descriptor = self.client()
        waiting = self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        for event in (1, 4, 0x201F):
            waiting.peer.ready(event)
        (await self.accepted()).send(BANNER)
        await self.until(lambda: len(self.log.opened_ones) == 2)
        peer.shutdown(socket.SHUT_WR)
        for _ in range(2):
            # An end that nobody announced, and then an event of no meaning.
            session.peer.ready(1)
        self.assertTrue(session.half_closed)
        waiting.over(Ending.STOPPED)
        waiting.over(Ending.DONE)
        waiting.fail(Failing.RESET)
        self.assertEqual((self.log.endings, self.log.failures), ([Ending.STOPPED], []))

    @asynchronous
    async def test_ends_another(self) -> None:
        """A session that was ended by another's caller in the same turn is left alone."""
        pairs = [await self.session() for _ in range(20)]
        sessions = list(self.log.opened_ones)

        def all_of_them(*_: object) -> None:
            while sessions:
                sessions.pop().over(Ending.STOPPED)

        with mock.patch.object(Log, "ended", side_effect=all_of_them):
            for client, peer in pairs:
                client.close()
                peer.close()
            await self.until(lambda: self.splicer.sessions == 0)

    @asynchronous
    async def test_small(self) -> None:
        """An idle session takes little memory."""
        import tracemalloc

        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.take_snapshot()
        for _ in range(100):
            await self.session()
        after = tracemalloc.take_snapshot()
        grown = sum(
            each.size_diff
            for each in after.compare_to(before, "filename")
            if "/mailsecure/" in each.traceback[0].filename
        )
        self.assertLess(grown / 100, 1000)


class MomentTests(SpliceCase):
    """What happens at the worst moment: calls to the kernel that fail there."""

    def failing_write(self, *errors: OSError | int | None) -> Any:
        """Let the next writes raise, or take so many octets only, or do as always."""
        planned = list(errors)

        def write(descriptor: int, data: bytes) -> int:
            plan = planned.pop(0) if planned else None
            if isinstance(plan, OSError):
                raise plan
            return os.write(descriptor, data if plan is None else data[:plan])

        return mock.patch.object(relaying, "_write", side_effect=write)

    @asynchronous
    async def test_not_taken_at_once(self) -> None:
        """A few octets that are taken in several goes arrive in order."""
        client, peer = await self.session()
        with self.failing_write(BlockingIOError(), 2, BlockingIOError(), 3) as write:
            client.send(b"EHLO me\r\n")
            await self.until(lambda: write.call_count == 2)
            session = self.log.opened_ones[0]
            self.assertTrue(session.client.stuck)
            for _ in range(3):
                session.peer.ready(select.EPOLLOUT)
            self.assertFalse(session.client.stuck)
        client.send(b"more")
        await self.expect(peer, b"EHLO me\r\nmore")

    @asynchronous
    async def test_lost_while_writing(self) -> None:
        """The other side goes between our read and our write, at once or later."""
        client, _ = await self.session()
        with self.failing_write(BrokenPipeError()):
            client.send(b"x")
            await self.until(lambda: self.log.endings)
        client, peer = await self.session()
        with self.failing_write(BlockingIOError(), BrokenPipeError()):
            peer.send(b"x")
            await self.until(lambda: len(self.log.endings) == 2)
        self.assertEqual(self.log.endings, [Ending.PEER_LOST, Ending.CLIENT_LOST])

    @asynchronous
    async def test_lost_while_splicing(self) -> None:
        """The same in bulk: reading, and writing."""
        lost = ConnectionResetError(errno.ECONNRESET, "reset")
        for place, results in enumerate(([lost], [5000, lost])):
            client, _ = await self.session()
            with mock.patch("os.splice", side_effect=results):
                client.send(bytes(100_000))
                await self.until(lambda place=place: len(self.log.endings) > place)
            self.assertEqual(self.splicer.pipes.lent, 0)
        self.assertEqual(self.log.endings, [Ending.CLIENT_LOST, Ending.PEER_LOST])

    @asynchronous
    async def test_lost_while_copying(self) -> None:
        """And where it is copied."""
        self.splicer.zero_copy = False
        client, peer = await self.session()
        client.send(bytes(100_000))
        reset(client)
        await self.until(lambda: self.log.endings)
        client, peer = await self.session()
        for _ in range(300):
            with contextlib.suppress(BlockingIOError):
                client.send(bytes(1 << 20))
            await deferLater(reactor, 0)
        reset(peer)
        await self.until(lambda: len(self.log.endings) == 2)
        self.assertEqual(self.log.endings[1], Ending.PEER_LOST)

    @asynchronous
    async def test_gone_at_the_end(self) -> None:
        """An end cannot be passed on to who is gone already."""
        _, peer = await self.session()
        with mock.patch.object(self.splicer, "end_writing", side_effect=OSError(107, "gone")):
            peer.shutdown(socket.SHUT_WR)
            await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.CLIENT_LOST])

    @asynchronous
    async def test_header_refused(self) -> None:
        """The connection breaks while the header is sent."""
        _, descriptor = self.client()
        with mock.patch("os.write", side_effect=ConnectionResetError(104, "reset")):
            self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        self.assertEqual(self.log.failures, [Failing.RESET])

    @asynchronous
    async def test_no_header(self) -> None:
        """A peer that wants none gets none."""
        client, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), b"", self.log)
        peer = await self.accepted()
        peer.send(BANNER)
        await self.expect(client, BANNER)
        client.send(b"EHLO")
        await self.expect(peer, b"EHLO")

    @asynchronous
    async def test_lost_behind_the_greeting(self) -> None:
        """The client goes while the peer's long banner comes."""
        client, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        peer = await self.accepted()
        with self.failing_write(None, BrokenPipeError()):
            peer.send(b"2" * 8192 + b"more")
            await self.until(lambda: self.log.endings)
        self.assertEqual(self.log.endings, [Ending.CLIENT_LOST])
        client.close()

    @asynchronous
    async def test_connects_late(self) -> None:
        """Events before the connection stands change nothing."""
        client, descriptor = self.client()
        with mock.patch("os.write", side_effect=BlockingIOError):
            session = self.splicer.splice(descriptor, self.address(), HEADER, self.log)
            session.peer.ready(select.EPOLLOUT)
        peer = await self.accepted()
        peer.send(BANNER)
        await self.expect(peer, HEADER)
        await self.expect(client, BANNER)

    @asynchronous
    async def test_ended_when_opened(self) -> None:
        """A caller that ends the session, or stops everything, when it hears of it."""
        for act in (
            lambda session: session.over(Ending.STOPPED),
            lambda session: self.splicer.stop(),
        ):
            with mock.patch.object(Log, "opened", side_effect=act):
                client, descriptor = self.client()
                self.splicer.splice(descriptor, self.address(), HEADER, self.log)
                (await self.accepted()).send(BANNER)
                await self.end_of(client)
        self.assertEqual(self.log.endings, [Ending.STOPPED] * 2)

    @asynchronous
    async def test_much_greeting(self) -> None:
        """A banner of many lines, with the end behind it."""
        client, descriptor = self.client()
        self.splicer.splice(descriptor, self.address(), HEADER, self.log)
        peer = await self.accepted()
        banner = b"220-" + bytes(50_000) + b"\r\n220 peer\r\n"
        peer.send(banner)
        peer.close()
        await self.expect(client, banner)
        await self.end_of(client)


class DoorTests(SpliceCase):
    """The listening socket in the same epoll."""

    def begin(self) -> None:
        """Open it."""
        super().begin()
        self.arrivals: list[tuple[int, Any, Any]] = []
        self.door = Door(
            self.front, self.splicer, reactor, lambda *each: self.arrivals.append(each)
        )

    @contextmanager
    def without(self, error: int) -> Iterator[None]:
        """Let accept fail."""
        real, self.door._wire = self.door._wire, mock.Mock(wraps=self.door._wire)
        self.door._wire._accept.side_effect = OSError(error, "no")
        yield
        self.door._wire = real

    @asynchronous
    async def test_arrives(self) -> None:
        """The descriptor does not block; both addresses are told."""
        self.door.open()
        for _ in range(3):
            wire = socket.create_connection(self.front.getsockname())
            self.wires.append(wire)
            await self.until(lambda: self.arrivals)
            descriptor, client, here = self.arrivals.pop()
            self.assertFalse(os.get_blocking(descriptor))
            self.assertEqual((client, here), (wire.getsockname(), self.front.getsockname()))
            os.close(descriptor)
        self.door.close()
        self.assertEqual(self.front.fileno(), -1)

    @asynchronous
    async def test_scarce(self) -> None:
        """Without descriptors it rests, and then goes on by itself."""
        from mailsecure.balancer import accepting

        self.patch(accepting, "REST", 0.05)
        self.door.open()
        with self.without(errno.EMFILE):
            self.wires.append(socket.create_connection(self.front.getsockname()))
            await self.until(lambda: self.door._resting)
        self.assertEqual(self.arrivals, [])
        await self.until(lambda: self.arrivals)
        os.close(self.arrivals[0][0])
        with self.without(errno.ECONNABORTED):
            self.door.ready(1)
        with self.without(errno.EMFILE):
            self.door.ready(1)
        self.door.close()

    @asynchronous
    async def test_arrival_goes_wrong(self) -> None:
        """An exception over one connection does not close the door."""
        self.door.open()
        with mock.patch.object(self.door, "_arrived", side_effect=self.fault):
            self.wires.append(socket.create_connection(self.front.getsockname()))
            await self.until(lambda: self.flushLoggedErrors(ZeroDivisionError))
        self.wires.append(socket.create_connection(self.front.getsockname()))
        await self.until(lambda: self.arrivals)
        os.close(self.arrivals[0][0])
        self.door.close()

    def fault(self, descriptor: int, *_: object) -> None:
        """Raise."""
        os.close(descriptor)
        raise ZeroDivisionError

    @asynchronous
    async def test_gone_again(self) -> None:
        """A client that went before it was taken is none."""
        self.door.open()
        with mock.patch.object(socket, "SocketType") as kind:
            kind.return_value.getsockname.side_effect = OSError(errno.ENOTCONN, "gone")
            kind.return_value.close.side_effect = lambda: os.close(kind.call_args.args[3])
            self.wires.append(socket.create_connection(self.front.getsockname()))
            await self.until(lambda: kind.return_value.close.called)
        self.assertEqual(self.arrivals, [])
        self.door.ready(1)
        self.door.close()
