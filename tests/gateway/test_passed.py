"""Proves that other nodes, and nobody else, pass sessions on to us, and that those are whole."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address

from mailsecure.errors import LocalFault
from mailsecure.gateway import doorstep, passed
from mailsecure.proxyproto.binary import encode_block
from mailsecure.proxyproto.sealing import SEAL, Sealer, Verifier
from mailsecure.proxyproto.text import encode_line
from mailsecure.proxyproto.values import Header, Inet, Tlv, Transport

from .house import Caller, House, HouseTestCase, ini

US, THEM = 4711, 815
KEY_ID, KEY = b"key1", b"k" * 32
CLIENT, HERE = ip_address("198.51.100.7"), ip_address("192.0.2.25")
CLIENT6, HERE6 = ip_address("2001:db8::7"), ip_address("2001:db8::25")
PLAIN = Header(2, False, Transport.STREAM, Inet(CLIENT, 1), Inet(HERE, 25))
#: Who guesses at the seal.
FALSE = encode_block(
    Header(2, False, Transport.STREAM, Inet(CLIENT, 1), Inet(HERE, 25), (Tlv(SEAL, bytes(70)),))
)


class PassedTests(HouseTestCase):
    """``[cluster] peer_listen``."""

    async def open(self, smtp: str = "", networks: str = "", **parts: object) -> House:
        """Return a house of a cluster; mx2 is the sender of :attr:`sealer`."""
        self.sealer = Sealer(KEY_ID, KEY, "mx2", THEM)
        verifier = Verifier(US, {KEY_ID: KEY}.get)
        address = parts.pop("address", ip_address("127.0.0.1"))
        return await self.open_house(
            ini(smtp, networks),
            verify_seal=verifier.verify,
            peer_address=lambda: address,
            **parts,
        )

    def peer(self) -> Caller:
        """Connect as a node would."""
        return self.call(self.house.gateway.peer_port)

    def header(self, port: int = 4711, tls: bool = False) -> bytes:
        """Return a good header."""
        return self.sealer.proxy(US, CLIENT, port, HERE, 25, tls)

    async def test_session(self) -> None:
        """The client and our own address are those of the header, in policy and everywhere."""
        house = await self.open("greeting_delay = 10s\nmax_sessions_per_client = 1")
        peers = [self.peer(), self.peer()]
        for peer in peers:
            peer.say(self.header())
            self.assertEqual((await peer.reply())[:3], b"220")
        self.assertEqual(house.gateway.count_sessions(), 2)
        first, second = peers
        self.assertEqual((await first.send_mail(b"postmaster@[192.0.2.25]"))[:3], b"250")
        self.assertEqual((await first.send_mail(b"x@far.test"))[:3], b"550")
        (message,) = house.taken
        self.assertEqual(message.arrival.client, "198.51.100.7")
        body = b"".join(message.body.pieces())
        self.assertIn(b"[198.51.100.7]", body)
        await first.ask(b"QUIT")
        await self.until(lambda: self.said("end=quit"))
        self.assertIn("client=[198.51.100.7]:4711 via=mx2 helo=<", self.said("end=quit")[0])
        # Neither was counted as the client's, so neither is counted out.
        front = house.gateway.front
        self.assertTrue(front.screen(("198.51.100.7", 1)).key)
        second.close()
        await self.until(lambda: not house.gateway.count_sessions())
        self.assertTrue(front.screen(("198.51.100.7", 1)).refusal)

    async def test_relay(self) -> None:
        """Who may relay at the Master may relay here, and nobody because of the Master."""
        await self.open(networks="198.51.100.0/24")
        peer = self.peer()
        peer.say(self.header())
        await peer.reply()
        self.assertEqual((await peer.send_mail(b"x@far.test"))[:3], b"250")
        self.house.reconfigure(ini(networks="127.0.0.1"))
        peer = self.peer()
        peer.say(self.header())
        await peer.reply()
        self.assertEqual((await peer.send_mail(b"x@far.test"))[:3], b"550")

    async def test_rates(self) -> None:
        """Messages are counted by the client's address."""
        await self.open("message_rate = 1")
        for code in (b"250", b"450"):
            peer = self.peer()
            peer.say(self.header())
            await peer.reply()
            await peer.ask(b"EHLO client.test")
            self.assertEqual((await peer.ask(b"MAIL FROM:<a@b.test>"))[:3], code)

    async def test_six(self) -> None:
        """IPv6, and one of each."""
        house = await self.open()
        for client, here, address in (
            (CLIENT6, HERE6, "2001:db8::7"),
            (CLIENT, HERE6, "198.51.100.7"),
        ):
            peer = self.peer()
            peer.say(self.sealer.proxy(US, client, 9, here, 25))
            await peer.reply()
            await peer.send_mail()
            self.assertEqual(house.taken.pop().arrival.client, address)

    async def test_split(self) -> None:
        """A header may come octet by octet, or with more behind it."""
        await self.open()
        slow = self.peer()
        for octet in self.header():
            self.assertEqual(slow.look(), b"")
            slow.say(bytes([octet]))
            await self.turn(0.001)
        self.assertEqual((await slow.reply())[:3], b"220")
        fast = self.peer()
        fast.say(self.header() + b"EHLO client.test\r\n")
        self.assertEqual((await fast.reply())[:3], b"220")
        self.assertEqual((await fast.reply())[:3], b"250")

    async def test_refused(self) -> None:
        """Whatever is no header with a good seal is cut off without a word."""
        house = await self.open(networks="127.0.0.1")
        used = self.header()
        before = self.peer()
        before.say(used)
        await before.reply()
        changed = bytearray(self.header())
        changed[16] ^= 1
        foreign = Sealer(KEY_ID, b"x" * 32, "mx2", THEM)
        unknown = Sealer(b"key9", KEY, "mx2", THEM)
        attempts = {
            "not a PROXY header": b"EHLO client.test\r\n",
            "not a PROXY header ": encode_line(PLAIN),
            "without one seal": encode_block(PLAIN),
            "another form": FALSE,
            "false seal": foreign.proxy(US, CLIENT, 1, HERE, 25),
            "key of another cluster": unknown.proxy(US, CLIENT, 1, HERE, 25),
            "false seal ": bytes(changed),
            "came before": used,
            "made for another node": self.sealer.proxy(US + 1, CLIENT, 1, HERE, 25),
            "too long": encode_block(Header(2, True, tlvs=(Tlv(5, bytes(2000)),))),
            "without addresses": self._without_addresses(),
        }
        for number, (reason, data) in enumerate(attempts.items(), 1):
            peer = self.peer()
            with contextlib.suppress(OSError):
                peer.say(data)
            self.assertEqual(await peer.gone(), b"", reason)
            self.assertEqual(house.counters.peer_refused, number)
            (line,) = self.said("peer_listen")
            self.assertIn(reason.strip(), line)
            self.assertIn("from [127.0.0.1]", line)
            self.lines.clear()
            house.clock.advance(10)
        self.assertEqual(house.counters.sessions_opened, 1)

    def _without_addresses(self) -> bytes:
        """Return a header of a node that is well sealed and names nobody."""
        return self.sealer._seal(0x21, 0x00, b"", US)

    async def test_bounded_log(self) -> None:
        """A flood costs a line every ten seconds, which says how many there were."""
        house = await self.open()
        for _ in range(30):
            peer = self.peer()
            peer.say(b"EHLO\r\n")
            await peer.gone()
        self.assertEqual(len(self.said("refused 1 connections at peer_listen")), 1)
        self.assertEqual(len(self.lines), 1)
        house.clock.advance(passed.LOG_INTERVAL)
        peer = self.peer()
        peer.say(b"EHLO\r\n")
        await peer.gone()
        self.assertEqual(len(self.said("refused 30 connections at peer_listen")), 1)
        self.assertEqual(house.counters.peer_refused, 31)

    async def test_late(self) -> None:
        """No header within five seconds, or half of one: cut off; one in time is not."""
        house = await self.open()
        silent, half, good = self.peer(), self.peer(), self.peer()
        header = self.header()
        half.say(header[:60])
        good.say(header[:60])
        await self.turn()
        house.clock.advance(4.9)
        good.say(header[60:])
        self.assertEqual((await good.reply())[:3], b"220")
        house.clock.advance(0.2)
        for peer in (silent, half):
            self.assertEqual(await peer.gone(), b"")
        self.assertEqual(len(self.said("no PROXY header in time")), 1)
        self.assertEqual(house.counters.peer_refused, 2)
        house.clock.advance(20)
        self.assertEqual((await good.ask(b"NOOP"))[:3], b"250")

    async def test_bounded_wait(self) -> None:
        """So many wait for their header; who waited longest goes, and a node still gets in."""
        self.patch(passed, "MOST_WAITING", 3)
        house = await self.open()
        attackers = []
        for _ in range(5):
            attackers.append(self.peer())
            await self.turn(0.02)
        await attackers[0].gone()
        await attackers[1].gone()
        self.assertFalse(any(each.look() or each.ended for each in attackers[2:]))
        self.assertEqual(len(self.said("too many others wait")), 1)
        self.assertEqual(house.counters.peer_refused, 2)
        node = self.peer()
        node.say(self.header())
        self.assertEqual((await node.reply())[:3], b"220")

    async def test_went(self) -> None:
        """Who connects and goes is no news; who goes within a header is."""
        house = await self.open()
        self.peer().close()
        await self.turn()
        self.assertEqual(house.counters.peer_refused, 0)
        half = self.peer()
        half.say(self.header()[:20])
        await self.turn()
        half.reset_it()
        await self.until(lambda: house.counters.peer_refused)
        self.assertEqual(len(self.said("ended within its PROXY header")), 1)

    async def test_probe(self) -> None:
        """Greeted, not a session, and closed after ten seconds."""
        house = await self.open()
        probe, polite = self.peer(), self.peer()
        for each in (probe, polite):
            each.say(self.sealer.local(US))
            self.assertEqual((await each.reply())[:12], b"220 mx.test ")
        polite.say(b"QUIT\r\n")
        self.assertEqual(await polite.gone(), b"")
        house.clock.advance(9.9)
        await self.turn()
        self.assertFalse(probe.look() or probe.ended)
        house.clock.advance(0.2)
        await probe.gone()
        self.assertEqual(house.gateway.count_sessions(), 0)
        self.assertEqual(house.counters.sessions_opened, 0)
        self.assertEqual(self.lines, [])

    async def test_probe_of_full(self) -> None:
        """421 where there is no room; so for a session, with TLS before its TLS begins."""
        path = self.certificate()
        house = await self.open(
            f"max_sessions = 1\nmax_sessions_per_client = 1\ntls_certificate = {path}"
        )
        first = self.peer()
        first.say(self.header())
        await first.reply()
        for data in (self.sealer.local(US), self.header(), self.header(tls=True)):
            peer = self.peer()
            peer.say(data)
            self.assertEqual((await peer.reply())[:9], b"421 4.7.0")
        self.assertEqual(house.counters.sessions_opened, 2)

    async def test_bounded_probes(self) -> None:
        """So many stay; the oldest goes."""
        self.patch(passed, "MOST_PROBES", 2)
        await self.open()
        probes = []
        for _ in range(3):
            probes.append(self.peer())
            probes[-1].say(self.sealer.local(US))
            await probes[-1].reply()
        await probes[0].gone()
        self.assertFalse(probes[1].look() or probes[1].ended)

    async def test_tls(self) -> None:
        """TLS from the start: ``+`` before it begins, which is for the node."""
        house = await self.open(f"tls_certificate = {self.certificate()}")
        peer = self.peer()
        peer.say(self.header(tls=True))
        self.assertEqual(await peer.octets(1), b"+")
        await self.turn()
        self.assertEqual(peer.look(), b"")
        await peer.start_tls()
        self.assertEqual((await peer.reply())[:3], b"220")
        self.assertEqual((await peer.send_mail())[:3], b"250")
        self.assertEqual(house.taken[0].arrival.protocol, "ESMTPS")
        self.assertEqual(house.taken[0].arrival.client, "198.51.100.7")
        await peer.ask(b"QUIT")
        peer.close()
        await self.until(lambda: self.said("via=mx2"))

    async def test_no_certificate(self) -> None:
        """Without one we do not take it."""
        await self.open()
        peer = self.peer()
        peer.say(self.header(tls=True))
        self.assertEqual((await peer.reply())[:9], b"421 4.3.2")
        await peer.gone()

    async def test_starttls(self) -> None:
        """STARTTLS in a session that was passed on."""
        house = await self.open(f"tls_certificate = {self.certificate()}")
        peer = self.peer()
        peer.say(self.header())
        await peer.reply()
        await peer.ask(b"EHLO client.test")
        await peer.ask(b"STARTTLS")
        await peer.start_tls()
        self.assertEqual((await peer.send_mail())[:3], b"250")
        self.assertEqual(house.taken[0].arrival.protocol, "ESMTPS")

    async def test_stop(self) -> None:
        """At the stop the port goes, who waits is cut off, sessions get their time."""
        house = await self.open()
        port = house.gateway.peer_port
        waiting, probe, session = self.peer(), self.peer(), self.peer()
        waiting.say(self.header()[:30])
        probe.say(self.sealer.local(US))
        session.say(self.header())
        await probe.reply()
        await session.reply()
        session.say(b"EHLO a\r\nMAIL FROM:<a@b.test>\r\n")
        await self.until(lambda: b"2.1.0" in session.look())
        stopping = house.gateway.stopService()
        await waiting.gone()
        await probe.gone()
        self.assertFalse(session.ended or stopping.called)
        with socket.socket() as late:
            self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)
        session.heard = b""
        self.assertEqual((await session.ask(b"QUIT"))[:3], b"221")
        await self.until(lambda: not house.gateway.count_sessions())

        def stopped() -> bool:
            house.clock.advance(0.05)
            return bool(stopping.called)

        await self.until(stopped)
        self.assertEqual(self.said("peer_listen"), [])
        self.assertEqual(house.clock.getDelayedCalls(), [])

    async def test_not_read_early(self) -> None:
        """Until the service starts, nobody is answered."""
        self.sealer = Sealer(KEY_ID, KEY, "mx2", THEM)
        verifier = Verifier(US, {KEY_ID: KEY}.get)
        house = self.house = House(
            self.path(),
            ini(),
            verify_seal=verifier.verify,
            peer_address=lambda: ip_address("127.0.0.1"),
        )
        await house.gateway.bind()
        peer = self.peer()
        peer.say(self.header())
        await self.turn()
        self.assertEqual(peer.look(), b"")
        house.gateway.startService()
        self.assertEqual((await peer.reply())[:3], b"220")
        peer.close()
        await house.close()

    async def test_alone(self) -> None:
        """Without a cluster there is no such port."""
        house = await self.open_house(ini())
        self.assertEqual(house.gateway.peer_port, 0)
        self.assertEqual(len(house.gateway.listening), 1)

    async def test_cannot(self) -> None:
        """Where it cannot be bound, the section, the option and the reason are told."""
        for address, reason in (
            ("192.0.2.99", "Cannot assign requested address"),
            ("2001:db8::99", "Cannot assign requested address"),
        ):
            house = self.house = House(
                self.path(),
                ini(),
                verify_seal=Verifier(US, {}.get).verify,
                peer_address=lambda at=address: ip_address(at),
            )
            shown = f"[{address}]" if ":" in address else address
            with self.assertRaises(LocalFault) as fault:
                await house.gateway.bind()
            self.assertEqual(
                str(fault.exception),
                f"[cluster] peer_listen: cannot listen on {shown}:0: {reason}",
            )
            await house.close()

    async def test_time(self) -> None:
        """What an attacker may take is what the standard's reader is given."""
        self.assertEqual(doorstep.HEADER_TIME, 5.0)
        longest = Sealer(KEY_ID, KEY, "n" * 63, THEM).proxy(US, CLIENT6, 1, HERE6, 2, True)
        self.assertEqual(len(longest), 182)
        self.assertLess(len(longest), passed.MAX_HEADER)
