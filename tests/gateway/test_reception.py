"""Proves that a session is the same whichever way it comes in, and who is turned away."""

from __future__ import annotations

import contextlib
import os
import socket
from ipaddress import ip_address

from mailsecure.entrance import Connection, Screening
from mailsecure.gateway.passed import ends_of
from mailsecure.proxyproto.binary import encode_block
from mailsecure.proxyproto.text import encode_line
from mailsecure.proxyproto.values import Header, Inet, Transport, Unix

from .house import Caller, House, HouseTestCase, ini

CLIENT, HERE = Inet(ip_address("198.51.100.7"), 4711), Inet(ip_address("192.0.2.25"), 25)
SIX = Inet(ip_address("2001:db8::7"), 4712), Inet(ip_address("2001:db8::25"), 25)
HEADER = Header(2, False, Transport.STREAM, CLIENT, HERE)
HEADER6 = Header(2, False, Transport.STREAM, *SIX)


def descriptors() -> int:
    """Return how many sockets this process has."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{each}").startswith("socket:")
    return count


class BlockedTests(HouseTestCase):
    """``[smtp] blocked``, and the other refusals at connect."""

    async def test_blocked(self) -> None:
        """554 5.7.1, counted, and one line in the log."""
        house = await self.open_house(ini("blocked = 127.0.0.0/8", "127.0.0.1"))
        caller = self.call()
        self.assertTrue((await caller.reply()).startswith(b"554 5.7.1 "))
        await caller.gone()
        caller.close()
        await self.until(lambda: not house.gateway.count_sessions())
        self.assertEqual(house.counters.sessions_refused, 1)
        (line,) = self.lines
        self.assertIn("reject CONNECT from [127.0.0.1]: 554 5.7.1", line)
        self.assertIn("reason=blocked", line)

    async def test_reload(self) -> None:
        """A reload blocks, and lets in again."""
        house = await self.open_house(ini("blocked = 192.0.2.0/24"))
        for smtp, code in (("blocked = 127.0.0.1", b"554"), ("", b"220")):
            house.reconfigure(ini(smtp))
            self.assertEqual((await self.call().reply())[:3], code)

    async def test_full(self) -> None:
        """One session too many is told so, and leaves no count behind."""
        house = await self.open_house(ini("max_sessions = 1\nmax_sessions_per_client = 1"))
        first = self.call()
        self.assertEqual((await first.reply())[:3], b"220")
        second = self.call()
        self.assertEqual((await second.reply())[:9], b"421 4.7.0")
        await second.gone()
        second.close()
        self.assertEqual(len(self.said("reason=the gateway is full")), 1)
        await first.ask(b"QUIT")
        await self.until(lambda: not house.gateway.count_sessions())
        self.assertEqual((await self.call().reply())[:3], b"220")

    async def test_too_many(self) -> None:
        """So many sessions for each client, unless it may relay."""
        house = await self.open_house(ini("max_sessions_per_client = 1"))
        self.assertEqual((await self.call().reply())[:3], b"220")
        self.assertEqual((await self.call().reply())[:3], b"421")
        house.reconfigure(ini("max_sessions_per_client = 1", "127.0.0.1"))
        self.assertEqual((await self.call().reply())[:3], b"220")


class ProxyTests(HouseTestCase):
    """``[smtp] proxy_protocol``, on ports of Twisted's."""

    async def open(self, smtp: str = "", networks: str = "") -> House:
        return await self.open_house(ini(f"proxy_protocol = 127.0.0.1\n{smtp}", networks))

    async def test_both_versions(self) -> None:
        """The client is whom the header names: to policy, in the log, in what is kept."""
        house = await self.open(networks="198.51.100.0/24")
        for block in (encode_line(HEADER), encode_block(HEADER), encode_block(HEADER, True)):
            caller = self.call()
            caller.say(block)
            self.assertEqual((await caller.reply())[:3], b"220")
            self.assertEqual((await caller.send_mail(b"x@far.test"))[:3], b"250")
            await caller.ask(b"QUIT")
            message = house.taken.pop()
            self.assertEqual(message.arrival.client, "198.51.100.7")
            await self.until(lambda: self.said("end=quit"))
            self.assertIn("client=[198.51.100.7]:4711 helo", self.said("end=quit")[0])
            self.lines.clear()

    async def test_six(self) -> None:
        """IPv6; an IPv4 address in the mapped form is an IPv4 address."""
        house = await self.open()
        mapped = Inet(ip_address("::ffff:198.51.100.9"), 9), SIX[1]
        for ends, address in ((SIX, "2001:db8::7"), (mapped, "198.51.100.9")):
            caller = self.call()
            caller.say(encode_block(Header(2, False, Transport.STREAM, *ends)))
            await caller.reply()
            await caller.send_mail()
            self.assertEqual(house.taken.pop().arrival.client, address)

    async def test_own_address(self) -> None:
        """Mail to postmaster at our address literal: the one that the client connected to."""
        await self.open()
        caller = self.call()
        caller.say(encode_block(HEADER))
        await caller.reply()
        self.assertEqual((await caller.send_mail(b"postmaster@[192.0.2.25]"))[:3], b"250")
        self.assertEqual((await caller.send_mail(b"postmaster@[127.0.0.1]"))[:3], b"550")

    async def test_any_chunks(self) -> None:
        """Octet by octet, and with the client's first octets behind it."""
        await self.open()
        for block in (encode_line(HEADER), encode_block(HEADER)):
            slow = self.call()
            for octet in block:
                slow.say(bytes([octet]))
                await self.turn(0.001)
            self.assertEqual((await slow.reply())[:3], b"220")
            fast = self.call()
            fast.say(block + b"EHLO client.test\r\nNOOP\r\n")
            for code in (b"220", b"250", b"250"):
                self.assertEqual((await fast.reply())[:3], code)

    async def test_early_talker(self) -> None:
        """Silence counts from the end of the header."""
        house = await self.open("greeting_delay = 2s")
        hasty, patient = self.call(), self.call()
        hasty.say(encode_block(HEADER) + b"EHLO client.test\r\n")
        self.assertEqual((await hasty.reply())[:9], b"554 5.5.0")
        patient.say(encode_line(HEADER))
        await self.until(house.gateway.count_sessions)
        await self.turn()
        self.assertEqual(patient.look(), b"")
        house.clock.advance(2)
        self.assertEqual((await patient.reply())[:3], b"220")
        self.assertEqual(house.counters.early_talkers, 1)

    async def test_nobody(self) -> None:
        """LOCAL, UNKNOWN, and ends that are none of IP: the connection's own addresses."""
        await self.open()
        unix = Header(2, False, Transport.STREAM, Unix(b"/a"), Unix(b"/b"))
        for block in (
            b"PROXY UNKNOWN\r\n",
            encode_block(Header(2, True)),
            encode_block(Header(2, False, Transport.UNSPEC)),
            encode_block(unix),
        ):
            caller = self.call()
            caller.say(block)
            self.assertEqual((await caller.reply())[:3], b"220")
            await caller.ask(b"QUIT")
            await self.until(lambda: self.said("end=quit"))
            self.assertIn("client=[127.0.0.1]:", self.said("end=quit")[0])
            self.lines.clear()

    async def test_bad(self) -> None:
        """Rubbish, SMTP, and silence: closed without a word, and one line."""
        house = await self.open()
        for data, reason in (
            (b"EHLO client.test\r\n", "not a PROXY header"),
            (b"PROXY TCP4 1.2.3.4 nonsense\r\n", "too few or too many words"),
            (b"PROXY TCP4 " + b"1" * 200, "too long"),
            (encode_block(HEADER)[:-1] + b"", "no PROXY header in time"),
            (b"", "no PROXY header in time"),
        ):
            caller = self.call()
            caller.say(data)
            if "time" in reason:
                await self.turn()
                house.clock.advance(4.9)
                await self.turn()
                self.assertFalse(caller.ended)
                house.clock.advance(0.2)
            self.assertEqual(await caller.gone(), b"")
            (line,) = self.lines
            self.assertIn(f"proxy [127.0.0.1]: {reason}" if "time" in reason else reason, line)
            self.lines.clear()
        self.assertEqual(house.counters.sessions_opened, 0)

    async def test_goes(self) -> None:
        """Who only looks if we are up is no news; who goes within the header is."""
        house = await self.open()
        self.call().close()
        half = self.call()
        half.say(b"PROXY TCP4")
        await self.turn()
        half.close()
        await self.until(lambda: self.lines)
        (line,) = self.lines
        self.assertIn("ended within its PROXY header", line)
        self.assertEqual(house.clock.getDelayedCalls()[1:], [])

    async def test_strangers(self) -> None:
        """From anybody else a header is rubbish; a reload says who may send one."""
        house = await self.open_house(ini("proxy_protocol = 192.0.2.0/24"))
        for block in (encode_line(HEADER), encode_block(HEADER)):
            caller = self.call()
            await caller.reply()
            caller.say(block)
            self.assertEqual((await caller.reply())[:1], b"5")
        house.reconfigure(ini("proxy_protocol = 127.0.0.1"))
        caller = self.call()
        await self.turn()
        self.assertEqual(caller.look(), b"")
        caller.say(encode_line(HEADER))
        self.assertEqual((await caller.reply())[:3], b"220")

    async def test_limits(self) -> None:
        """Clients are counted and blocked as whom the proxy names."""
        await self.open("blocked = 198.51.100.7\nmax_sessions_per_client = 1")
        other = Header(2, False, Transport.STREAM, Inet(ip_address("198.51.100.8"), 1), HERE)
        for header, code in ((HEADER, b"554"), (other, b"220"), (other, b"421"), (HEADER6, b"220")):
            caller = self.call()
            caller.say(encode_block(header))
            self.assertEqual((await caller.reply())[:3], code)

    async def test_tls(self) -> None:
        """On listen_tls the header comes before TLS; a client without a proxy has none."""
        path = self.certificate()
        tls = f"listen_tls = tcp:0:interface=127.0.0.1\ntls_certificate = {path}"
        house = await self.open(tls)
        port = int(house.gateway.listening[1].rpartition(":")[2])
        caller = self.call(port)
        caller.say(encode_line(HEADER))
        await caller.start_tls()
        self.assertEqual((await caller.reply())[:3], b"220")
        self.assertEqual((await caller.send_mail())[:3], b"250")
        self.assertEqual(house.taken[0].arrival.client, "198.51.100.7")
        self.assertEqual(house.taken[0].arrival.protocol, "ESMTPS")
        house.reconfigure(ini(tls))
        caller = self.call(port)
        await caller.start_tls()
        self.assertEqual((await caller.reply())[:3], b"220")

    async def test_starttls(self) -> None:
        """STARTTLS behind a proxy."""
        await self.open(f"tls_certificate = {self.certificate()}")
        caller = self.call()
        caller.say(encode_line(HEADER))
        await caller.reply()
        await caller.ask(b"EHLO client.test")
        await caller.ask(b"STARTTLS")
        await caller.start_tls()
        self.assertEqual((await caller.ask(b"EHLO client.test"))[:3], b"250")

    async def test_stop(self) -> None:
        """Who waits when we stop is cut off, without a line."""
        house = await self.open()
        caller = self.call()
        caller.say(b"PROXY")
        await self.turn()
        await house.close()
        self.assertEqual(await caller.gone(), b"")
        self.assertEqual(self.lines, [])
        self.assertEqual(house.clock.getDelayedCalls(), [])


class FrontTests(HouseTestCase):
    """What the load balancer is offered."""

    async def open(self, smtp: str = "", networks: str = "", tls: bool = False) -> House:
        if tls:
            smtp += "\nlisten_tls = tcp:0:interface=127.0.0.1"
            smtp += f"\ntls_certificate = {self.certificate()}"
        return await self.open_house(ini(smtp, networks), balanced=True)

    async def accepted(self, number: int = 0) -> tuple[Caller, socket.socket]:
        """Return a caller, and its connection at an entrance."""
        entrance = self.house.gateway.front.entrances[number]
        host, port = entrance.wire.getsockname()
        caller = self.call(port, host)
        wires: list[socket.socket] = []

        def accept() -> bool:
            try:
                wires.append(entrance.wire.accept()[0])
            except BlockingIOError:
                return False
            return True

        await self.until(accept)
        wires[0].setblocking(False)
        return caller, wires[0]

    def connection(
        self, wire: socket.socket, tls: bool = False, client: str = "198.51.100.7"
    ) -> Connection:
        return Connection(wire.detach(), socket.AF_INET, tls, (client, 4711), ("192.0.2.25", 25))

    async def test_entrances(self) -> None:
        """TCP's endpoints are sockets; those of Unix stay Twisted's."""
        path = self.mktemp()
        house = await self.open_house(
            ini(
                f"listen = tcp:0:interface=127.0.0.1\n    unix:{os.path.abspath(path)}\n"
                f"listen_tls = tcp6:0:interface=\\:\\:1\ntls_certificate = {self.certificate()}"
            ),
            balanced=True,
        )
        four, six = house.gateway.front.entrances
        self.assertEqual((four.tls, six.tls), (False, True))
        self.assertEqual(four.wire.getblocking(), False)
        self.assertEqual((four.wire.family, six.wire.family), (socket.AF_INET, socket.AF_INET6))
        shown = house.gateway.listening
        self.assertEqual(shown[0], f"127.0.0.1:{four.wire.getsockname()[1]}")
        self.assertIn("unix", shown[1].lower())
        self.assertEqual(shown[2], f"[::1]:{six.wire.getsockname()[1]}")

    async def test_adopt(self) -> None:
        """The session is ours; its ends are as told; it was counted once."""
        house = await self.open("max_sessions_per_client = 1\ngreeting_delay = 2s")
        front = house.gateway.front
        caller, wire = await self.accepted()
        screening = front.screen(("198.51.100.7", 4711))
        self.assertEqual(screening, Screening(b"", 2.0, "198.51.100.7"))
        front.adopt(self.connection(wire), screening)
        self.assertEqual((await caller.reply())[:3], b"220")
        self.assertEqual(front.screen(("198.51.100.7", 1)).refusal[:9], b"421 4.7.0")
        self.assertEqual((await caller.send_mail(b"postmaster@[192.0.2.25]"))[:3], b"250")
        self.assertEqual(house.taken[0].arrival.client, "198.51.100.7")
        await caller.ask(b"QUIT")
        await caller.gone()
        await self.until(lambda: self.said("end=quit"))
        self.assertEqual(house.counters.sessions_opened, 2)
        again = front.screen(("198.51.100.7", 2))
        self.assertEqual((again.refusal, again.delay), (b"", 0.0))

    async def test_descriptor(self) -> None:
        """The descriptor that was given is closed, and no other is left over."""
        house = await self.open()
        caller, wire = await self.accepted()
        before = descriptors()
        descriptor = wire.fileno()
        house.gateway.front.adopt(self.connection(wire), Screening(b"", 0.0, ""))
        self.assertEqual(descriptors(), before)
        self.assertRaises(OSError, os.fstat, descriptor)
        await caller.reply()
        await caller.ask(b"QUIT")
        await self.until(lambda: not house.gateway.count_sessions())
        self.assertEqual(descriptors(), before - 1)

    async def test_gone(self) -> None:
        """A client that is gone already: counted out, and nothing is left over."""
        house = await self.open("max_sessions_per_client = 1")
        front = house.gateway.front
        caller, wire = await self.accepted()
        screening = front.screen(("198.51.100.7", 4711))
        caller.reset_it()
        await self.turn()
        before = descriptors()
        front.adopt(self.connection(wire), screening)
        self.assertEqual(descriptors(), before - 1)
        self.assertEqual(front.screen(("198.51.100.7", 4711)).refusal, b"")
        self.assertEqual(house.gateway.count_sessions(), 0)

    async def test_full(self) -> None:
        """No room is what we say when we are to have it, not when it could go elsewhere."""
        house = await self.open("max_sessions = 1\nmax_sessions_per_client = 1")
        front = house.gateway.front
        first, wire = await self.accepted()
        front.adopt(self.connection(wire, client="192.0.2.1"), front.screen(("192.0.2.1", 1)))
        await first.reply()
        second, wire = await self.accepted()
        screening = front.screen(("198.51.100.7", 2))
        self.assertEqual(screening.refusal, b"")
        front.adopt(self.connection(wire), screening)
        self.assertEqual((await second.reply())[:9], b"421 4.7.0")
        await second.gone()
        second.close()
        await self.until(lambda: house.gateway.count_sessions() == 1)
        self.assertEqual(front.screen(("198.51.100.7", 2)).refusal, b"")

    async def test_screen(self) -> None:
        """Blocked, unlimited, and who has sent mail before."""
        house = await self.open("blocked = 192.0.2.0/24\ngreeting_delay = 1s", "203.0.113.0/24")
        front = house.gateway.front
        refused = front.screen(("192.0.2.1", 1))
        self.assertEqual((refused.refusal[:9], refused.key), (b"554 5.7.1", ""))
        (line,) = self.lines
        self.assertIn("reject CONNECT from [192.0.2.1]: 554 5.7.1", line)
        self.assertEqual(house.counters.sessions_refused, 1)
        self.assertEqual(front.screen(("203.0.113.5", 1)), Screening(b"", 0.0, ""))
        self.assertEqual(front.screen(("2001:db8:1:2::3", 1)).key, "2001:db8:1:2::/64")

    async def test_left(self) -> None:
        """A session that went elsewhere is counted until it is over, and not as one of ours."""
        house = await self.open("max_sessions_per_client = 1")
        front = house.gateway.front
        screening = front.screen(("192.0.2.1", 1))
        self.assertEqual(house.gateway.count_sessions(), 0)
        self.assertTrue(front.screen(("192.0.2.1", 2)).refusal)
        front.left(screening)
        self.assertFalse(front.screen(("192.0.2.1", 3)).refusal)
        front.left(Screening(b"", 0.0, ""))

    async def test_talked_early(self) -> None:
        """Refused, logged, and counted out."""
        house = await self.open("max_sessions_per_client = 1\ngreeting_delay = 1s")
        front = house.gateway.front
        reply = front.talked_early(("192.0.2.1", 1), front.screen(("192.0.2.1", 1)))
        self.assertEqual(reply[:9], b"554 5.5.0")
        self.assertEqual(house.counters.early_talkers, 1)
        self.assertEqual(len(self.said("reject COMMAND from [192.0.2.1]: 554 5.5.0")), 1)
        self.assertEqual(len(self.said("end=early talker")), 1)
        self.assertFalse(front.screen(("192.0.2.1", 2)).refusal)

    async def test_proxies(self) -> None:
        """It is told whose connections begin with a header."""
        house = await self.open("proxy_protocol = 192.0.2.80/30")
        front = house.gateway.front
        self.assertTrue(front.expects_header("192.0.2.81"))
        self.assertFalse(front.expects_header("192.0.2.1"))
        house.reconfigure(ini())
        self.assertFalse(front.expects_header("192.0.2.81"))

    async def test_tls(self) -> None:
        """TLS from the start: the silence is ours to keep."""
        house = await self.open("greeting_delay = 1s", tls=True)
        caller, wire = await self.accepted(1)
        front = house.gateway.front
        front.adopt(self.connection(wire, True), front.screen(("198.51.100.7", 1)))
        await caller.start_tls()
        await self.turn()
        self.assertEqual(caller.look(), b"")
        house.clock.advance(1)
        self.assertEqual((await caller.reply())[:3], b"220")
        self.assertEqual((await caller.send_mail())[:3], b"250")
        self.assertEqual(house.taken[0].arrival.client, "198.51.100.7")

    async def test_stopping(self) -> None:
        """While we stop, who comes to us is told so."""
        house = await self.open()
        staying, wire = await self.accepted()
        front = house.gateway.front
        front.adopt(self.connection(wire), front.screen(("192.0.2.1", 1)))
        await staying.reply()
        staying.say(b"EHLO a\r\nMAIL FROM:<a@b.test>\r\n")
        await self.until(lambda: b"2.1.0" in staying.look())
        late, wire = await self.accepted()
        stopping = house.gateway.stopService()
        screening = front.screen(("192.0.2.1", 1))
        front.adopt(self.connection(wire), screening)
        self.assertEqual((await late.reply())[:9], b"421 4.3.2")
        staying.say(b"QUIT\r\n")

        def stopped() -> bool:
            house.clock.advance(0.05)
            return bool(stopping.called)

        await self.until(stopped)


class EndsTests(HouseTestCase):
    """:func:`ends_of`."""

    def test_ends(self) -> None:
        """Both ends of IP, or none."""
        self.assertEqual(ends_of(HEADER), (("198.51.100.7", 4711), ("192.0.2.25", 25)))
        for ends in ((None, None), (CLIENT, Unix(b"")), (Unix(b""), HERE)):
            self.assertIsNone(ends_of(Header(2, False, Transport.STREAM, *ends)))
