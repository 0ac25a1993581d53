"""Proves that a gateway rests and works again, and how it says goodbye."""

from __future__ import annotations

import socket
import time

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from .house import Caller, HouseTestCase, ini, reactor


class RestTests(HouseTestCase):
    """What :mod:`mailsecure.draining` asks of a gateway."""

    async def caller(self) -> Caller:
        """Return a client that was greeted, and said EHLO."""
        caller = self.call()
        self.assertEqual((await caller.reply())[:3], b"220")
        await caller.ask(b"EHLO client.test")
        return caller

    async def goodbye(self, caller: Caller) -> None:
        """Somebody is told to go, and closes."""
        self.assertTrue((await caller.reply()).startswith(b"421 4.3.2"))
        caller.close()

    async def wait(self, done: Deferred[None], limit: float = 10.0) -> float:
        """Let the clock run until ``done``; return how long that was, by that clock."""
        clock, ends = self.house.clock, time.monotonic() + 10
        began = clock.seconds()
        while not done.called and clock.seconds() - began < limit:
            self.assertLess(time.monotonic(), ends)
            clock.advance(0.05)
            await deferLater(reactor, 0.002)
        return clock.seconds() - began

    def dismiss(self, limit: float) -> Deferred[None]:
        """Begin to say goodbye."""
        return Deferred.fromCoroutine(self.house.gateway.dismiss(limit))

    async def test_rest(self) -> None:
        """Who comes is told 421, who is here goes on, and later all is as before."""
        house = await self.open_house(ini())
        inside = await self.caller()
        for _ in range(2):
            house.gateway.rest(True)
            await self.goodbye(self.call())
            self.assertTrue((await inside.ask(b"MAIL FROM:<>")).startswith(b"250"))
            self.assertTrue((await inside.ask(b"RSET")).startswith(b"250"))
            house.gateway.rest(False)
            self.assertEqual((await self.call().reply())[:3], b"220")

    async def test_part(self) -> None:
        """Only who is in no transaction is told to go; others go on."""
        house = await self.open_house(ini())
        idle, busy = await self.caller(), await self.caller()
        await busy.ask(b"MAIL FROM:<>")
        self.assertEqual(house.gateway.count_unfinished(), 2)
        house.gateway.part()
        self.assertEqual(house.gateway.count_unfinished(), 1)
        await self.goodbye(idle)
        self.assertTrue((await busy.ask(b"RSET")).startswith(b"250"))
        self.assertEqual((await self.call().reply())[:3], b"220")

    async def test_dismiss(self) -> None:
        """A transaction may end; then that client is told, and it is done."""
        await self.open_house(ini())
        idle, busy = await self.caller(), await self.caller()
        await busy.ask(b"MAIL FROM:<>")
        done = self.dismiss(30)
        await self.goodbye(idle)
        await self.wait(done, 5)
        self.assertFalse(done.called)
        self.assertTrue((await busy.ask(b"RCPT TO:<postmaster>")).startswith(b"250"))
        busy.say(b"RSET\r\n")
        await self.wait(done, 0.2)
        self.assertTrue((await busy.reply()).startswith(b"250"))
        await self.goodbye(busy)
        self.assertLess(await self.wait(done), 5)

    async def test_dismiss_is_bounded(self) -> None:
        """Who does not end is told when the time is up, and who stays is cut off."""
        house = await self.open_house(ini())
        busy = await self.caller()
        await busy.ask(b"MAIL FROM:<>")
        self.assertLess(abs(await self.wait(self.dismiss(3), 20) - 4.5), 1)
        self.assertTrue((await busy.reply()).startswith(b"421 4.3.2"))
        await busy.gone()
        await self.until(lambda: not house.gateway.count_sessions())
        self.assertEqual((await self.call().reply())[:3], b"220")

    async def test_called_off(self) -> None:
        """Whoever is in a transaction stays, and may begin another."""
        house = await self.open_house(ini())
        busy = await self.caller()
        await busy.ask(b"MAIL FROM:<>")
        done = self.dismiss(30)
        await self.wait(done, 1)
        house.gateway.rest(False)
        self.assertTrue(done.called)
        await busy.ask(b"RSET")
        self.assertTrue((await busy.ask(b"MAIL FROM:<>")).startswith(b"250"))

    async def test_called_off_late(self) -> None:
        """Who comes after that is not cut off with those who did not go."""
        house = await self.open_house(ini())
        rude = await self.caller()
        done = self.dismiss(0)
        self.assertTrue((await rude.reply()).startswith(b"421"))
        house.gateway.rest(False)
        newcomer = await self.caller()
        await self.wait(done)
        await rude.gone()
        self.assertTrue((await newcomer.ask(b"NOOP")).startswith(b"250"))

    async def test_twice(self) -> None:
        """A stop that begins meanwhile has its own time, and ends both."""
        house = await self.open_house(ini())
        busy = await self.caller()
        await busy.ask(b"MAIL FROM:<>")
        first, second = self.dismiss(20), self.dismiss(1)
        self.assertLess(await self.wait(second, 10), 4)
        self.assertTrue((await busy.reply()).startswith(b"421"))
        busy.close()
        self.assertLess(await self.wait(first), 3)
        self.assertFalse(house.gateway.count_sessions())

    async def test_listeners(self) -> None:
        """The sockets at which clients arrive; those in the file system are not held back."""
        path = self.path().absolute()
        house = await self.open_house(ini(f"listen = tcp:0:interface=127.0.0.1\n unix:{path}"))
        (wire,) = house.gateway.listeners()
        self.assertEqual(wire.family, socket.AF_INET)
