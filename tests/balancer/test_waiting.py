"""Who waits before it is decided harms nobody, whatever comes, and is told of exactly once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.balancer import waiting
from mailsecure.balancer.probing import Probe
from mailsecure.balancer.splice import Patience, Splicer
from mailsecure.balancer.values import Failing
from mailsecure.balancer.waiting import Anteroom, Guest
from mailsecure.proxyproto.values import Header

from .test_splice import asynchronous, descriptors, listening, reset

Told = list[tuple[str, Guest, object]]


class Visitor:
    """A guest; ``far`` is its own end."""

    def __init__(self, far: socket.socket, descriptor: int) -> None:
        self.far = far
        self.descriptor = descriptor


class RoomCase(TestCase):
    """An anteroom in a splicer."""

    timeout = 30

    def setUp(self) -> Any:
        """Start it, once the reactor runs: that takes descriptors too."""
        return deferLater(reactor, 0, self.begin)

    def begin(self) -> None:
        """Start it."""
        self.before = descriptors()
        self.told: Told = []
        self.splicer = Splicer(reactor, reactor, Patience())
        self.splicer.start()
        self.room = Anteroom(self.splicer, reactor, self, 10)
        self.front = listening()
        self.visitors: list[Visitor] = []

    def tearDown(self) -> None:
        """Stop; nothing must be left open."""
        self.room.dismiss()
        self.splicer.stop()
        self.front.close()
        for visitor in self.visitors:
            visitor.far.close()
        for word, guest, _ in self.told:
            if word in ("introduced", "waited", "talked"):
                os.close(guest.descriptor)
        self.assertEqual(self.room.guests, 0)
        self.assertEqual(descriptors(), self.before)

    def introduced(self, guest: Guest, header: Header) -> None:
        self.told.append(("introduced", guest, header))

    def misled(self, guest: Guest, reason: str) -> None:
        self.told.append(("misled", guest, reason))

    def waited(self, guest: Guest) -> None:
        self.told.append(("waited", guest, None))

    def talked(self, guest: Guest) -> None:
        self.told.append(("talked", guest, None))

    def vanished(self, guest: Guest) -> None:
        self.told.append(("vanished", guest, None))

    def visitor(self) -> Visitor:
        """Return a new connection."""
        far = socket.create_connection(self.front.getsockname())
        wire, _ = self.front.accept()
        wire.setblocking(False)
        found = Visitor(far, wire.detach())
        self.visitors.append(found)
        return found

    async def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        """Wait for something, with the reactor running."""
        end = reactor.seconds() + seconds
        while not condition():
            if reactor.seconds() > end:
                self.fail("waited too long")
            await deferLater(reactor, 0.002)

    def words(self) -> list[object]:
        """Return what was told, without the guests."""
        return [reason if word == "misled" else word for word, _, reason in self.told]


class SilenceTests(RoomCase):
    """keep_silent."""

    @asynchronous
    async def test_in_order(self) -> None:
        """Each is told of when its time is over, and not before."""
        begun = reactor.seconds()
        guests = [self.visitor() for _ in range(3)]
        for guest in guests:
            self.assertTrue(self.room.keep_silent(guest, 0.1))
        self.assertEqual(self.room.guests, 3)
        await self.until(lambda: len(self.told) == 3)
        self.assertGreaterEqual(reactor.seconds() - begun, 0.1)
        self.assertEqual(self.words(), ["waited"] * 3)
        self.assertEqual([guest for _, guest, _ in self.told], guests)

    @asynchronous
    async def test_ends(self) -> None:
        """Reset and end are the same; an event without a cause is none."""
        first, second, third = (self.visitor() for _ in range(3))
        for guest in (first, second, third):
            self.room.keep_silent(guest, 5.0)
        list(self.room._silent.waiting)[2].ready(1)
        self.assertEqual(self.told, [])
        reset(first.far)
        second.far.shutdown(socket.SHUT_WR)
        await self.until(lambda: len(self.told) == 2)
        self.assertEqual(self.words(), ["vanished"] * 2)
        third.far.send(b"x")
        await self.until(lambda: len(self.told) == 3)
        self.assertEqual(self.words()[2], "talked")

    def test_late_reactor(self) -> None:
        """What came before its time was over counts, however late we look."""
        guest = self.visitor()
        self.room.keep_silent(guest, 0.0)
        guest.far.send(b"x")
        self.room._sweeping.cancel()  # type: ignore[union-attr]
        self.room._sweep()
        self.assertEqual(self.words(), ["talked"])

    def test_on_account_of_another(self) -> None:
        """Who goes while another is told of is not told of twice."""
        guests = [self.visitor(), self.visitor()]
        for guest in guests:
            self.room.keep_silent(guest, 0.0)
        told = self.waited

        def waited(guest: Guest) -> None:
            told(guest)
            if guest is guests[0]:
                reset(guests[1].far)
                next(iter(self.room._silent.waiting)).ready(1)
                self.room.keep_silent(self.visitor(), 5.0)

        self.patch(self, "waited", waited)
        self.room._sweeping.cancel()  # type: ignore[union-attr]
        self.room._sweep()
        self.assertEqual(self.words(), ["waited", "vanished"])
        self.patch(self, "waited", told)

    def test_bound(self) -> None:
        """One too many is not let in."""
        self.room.most = 1
        self.assertTrue(self.room.keep_silent(self.visitor(), 5.0))
        guest = self.visitor()
        self.assertFalse(self.room.read_header(guest))
        os.close(guest.descriptor)

    def test_dismiss(self) -> None:
        """At the end who is silent is served, everybody else goes."""
        self.room.keep_silent(self.visitor(), 5.0)
        self.room.read_header(self.visitor())
        self.room.refuse(self.visitor().descriptor, b"554 no\r\n")
        self.room.dismiss()
        self.assertEqual(self.words(), ["waited", "no PROXY header in time"])
        self.room.dismiss()


class HeaderTests(RoomCase):
    """read_header."""

    @asynchronous
    async def test_ends(self) -> None:
        """Who only looks whether we are there, who ends within, who resets, who talks."""
        guests = [self.visitor() for _ in range(4)]
        for guest in guests:
            self.room.read_header(guest)
        next(iter(self.room._headers.waiting)).ready(1)
        guests[0].far.close()
        await self.until(lambda: len(self.told) == 1)
        guests[1].far.send(b"PROXY TCP4 ")
        guests[1].far.shutdown(socket.SHUT_WR)
        await self.until(lambda: len(self.told) == 2)
        reset(guests[2].far)
        await self.until(lambda: len(self.told) == 3)
        guests[3].far.send(b"EHLO")
        await self.until(lambda: len(self.told) == 4)
        self.assertEqual(
            self.words(), ["", "ended within its PROXY header", "", "not a PROXY header"]
        )

    @asynchronous
    async def test_whole_and_ended(self) -> None:
        """A whole header counts, also where the end is there already."""
        guest = self.visitor()
        guest.far.send(b"PROXY UNKNOWN\r\nrest")
        guest.far.close()
        self.room.read_header(guest)
        await self.until(lambda: self.told)
        self.assertEqual(self.words(), ["introduced"])
        self.assertEqual(os.read(guest.descriptor, 100), b"rest")


class RefusalTests(RoomCase):
    """refuse."""

    @asynchronous
    async def test_waits_for_the_end(self) -> None:
        """What the client still says is thrown away, until it ends."""
        guest = self.visitor()
        self.room.refuse(guest.descriptor, b"554 no\r\n")
        next(iter(self.room._leaving.waiting)).ready(1)
        for _ in range(3):
            guest.far.send(bytes(100_000))
            await deferLater(reactor, 0.01)
        self.assertEqual(guest.far.recv(100), b"554 no\r\n")
        self.assertEqual(guest.far.recv(100), b"")
        guest.far.close()
        await self.until(lambda: not self.room._leaving.waiting)

    @asynchronous
    async def test_not_for_long(self) -> None:
        """Nor for one that does not end."""
        self.patch(waiting, "LEAVING_TIME", 0.1)
        guest = self.visitor()
        self.room.refuse(guest.descriptor, b"554 no\r\n")
        await self.until(lambda: not self.room._leaving.waiting, 1.0)

    @asynchronous
    async def test_resets(self) -> None:
        """A reset ends it as well, before our reply or after."""
        guest = self.visitor()
        reset(guest.far)
        self.room.refuse(guest.descriptor, b"554 no\r\n")
        guest = self.visitor()
        self.room.refuse(guest.descriptor, b"554 no\r\n")
        reset(guest.far)
        await self.until(lambda: not self.room._leaving.waiting)

    def test_bound(self) -> None:
        """So many are waited for, and no more."""
        self.patch(waiting, "MAX_LEAVING", 1)
        for _ in range(3):
            guest = self.visitor()
            self.room.refuse(guest.descriptor, b"554 no\r\n")
            self.assertEqual(guest.far.recv(100), b"554 no\r\n")
        self.assertEqual(len(self.room._leaving.waiting), 1)


class ProbeTests(RoomCase):
    """Probe."""

    def begin(self) -> None:
        """Remember results."""
        super().begin()
        self.results: list[Failing | None] = []

    def probe(self, header: bytes = b"header") -> Probe:
        """Return a new probe."""
        return Probe(self.splicer, header, 0.0, lambda _, why: self.results.append(why))

    async def asked(self, said: bytes | None) -> list[Failing | None]:
        """Probe one that says so, and return what came of it; None: it resets."""
        self.results.clear()
        self.probe().start((socket.AF_INET, self.front.getsockname()))
        await deferLater(reactor, 0.02)
        wire, _ = self.front.accept()
        self.assertEqual(wire.recv(100), b"header")
        if said is None:
            reset(wire)
        else:
            wire.send(said)
            wire.close()
        await self.until(lambda: self.results)
        return self.results

    @asynchronous
    async def test_results(self) -> None:
        """Only 2xx is a greeting."""
        for said, why in (
            (b"220 here\r\n", None),
            (b"421 full\r\n", Failing.UNWILLING),
            (b"", Failing.CLOSED),
            (None, Failing.RESET),
        ):
            self.assertEqual(await self.asked(said), [why])

    @asynchronous
    async def test_refused(self) -> None:
        """Nobody listens."""
        nobody = listening()
        where = nobody.getsockname()
        nobody.close()
        self.probe().start((socket.AF_INET, where))
        await self.until(lambda: self.results)
        self.assertEqual(self.results, [Failing.REFUSED])

    def test_cannot_connect(self) -> None:
        """Where it cannot even be tried."""
        self.probe().start((socket.AF_UNIX, "/nowhere"))
        self.assertEqual(self.results, [Failing.UNREACHABLE])

    def test_late(self) -> None:
        """Before the connection stands, and after."""
        probe = self.probe()
        probe.start((socket.AF_INET, self.front.getsockname()))
        probe.expire()
        probe = self.probe()
        probe.start((socket.AF_INET, self.front.getsockname()))
        probe.ready(4)
        probe.expire()
        self.assertEqual(self.results, [Failing.TIMED_OUT, Failing.SILENT])
        probe.cancel()
