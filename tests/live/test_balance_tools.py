"""Real tools around a cluster that shares its sessions: HAProxy before it, swaks through it.

And a message of 100 MB to a peer that reads slowly; and who comes to ``peer_listen`` without
being a Master that passes on a session: he gets not one octet.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from mailsecure.cluster.hello import decode
from mailsecure.cluster.keys import Key, parse_keys
from mailsecure.proxyproto.sealing import Sealer
from tests.live import needs

from .certificates import Authority
from .cluster.balanced import Balanced, BalanceTestCase, Misled, is_open
from .cluster.forger import Forger
from .cluster.network import Network, ip
from .cluster.nodes import ADDRESS, CLIENT, DOMAIN, WITNESS, Node, new_key
from .cluster.rogue import PEER_PORT
from .harness import program, until
from .load import unique_message
from .wire import Closed, Wire

PROGRAMS = ["ip"]
#: Of the clients' host: its own, and two more, of which the second is blocked.
OTHER, BLOCKED = "10.77.0.114", "10.77.0.115"
TLS_PORT = 465
ELSEWHERE = "elsewhere.test"
MEGA = 1 << 20
#: What each node says besides its share: TLS, large messages, who is who.
SMTP = """\
listen_tls = tcp:{tls_port}
tls_certificate = {certificate}
tls_key = {key}
max_message_size = 150M
blocked = {blocked}
proxy_protocol = {proxy}
"""

HAPROXY = """\
global
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
PROXIED = """\
listen {name}
    bind :{port}
    server it {address}:{to} {option}
"""


def _proxy(network: Network) -> str:
    return network.address(WITNESS)


class Equipped(Misled):
    """Three nodes with TLS, behind a proxy if one likes; OTHER may send anywhere."""

    def __init__(self, **options: Any) -> None:
        self._papers = Path(tempfile.mkdtemp(prefix="mailsecure-papers-"))
        self._papers.chmod(0o755)
        self.authority = Authority(self._papers)
        identity = self.authority.identity("mx.test", ADDRESS)
        for path in self._papers.iterdir():
            path.chmod(0o644)
        # Hosts have the numbers 11, 12, … in the order of their names.
        smtp = SMTP.format(
            tls_port=TLS_PORT,
            certificate=identity.certificate,
            key=identity.key,
            blocked=BLOCKED,
            proxy="10.77.0.15",
        )
        each = {
            name: {
                "smtp": smtp,
                "relay": f"networks = {OTHER}",
                "domains": f"* = maildir:{self._papers}/elsewhere-{name}",
            }
            for name in "abc"
        }
        super().__init__(each=each, **options)
        assert _proxy(self.network) == "10.77.0.15"
        for address in (OTHER, BLOCKED):
            space = self.network.space(CLIENT)
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")

    def close(self) -> None:
        """End it all."""
        super().close()
        shutil.rmtree(self._papers, ignore_errors=True)


class ToolTestCase(BalanceTestCase):
    """Tests of three well equipped nodes, a as Master."""

    cluster: Equipped

    def setUp(self) -> None:
        """Begin in good order, with a message."""
        super().setUp()
        self.cluster = self.common("three nodes with TLS", Equipped)
        self.a, self.b, self.c = (self.cluster[name] for name in "abc")
        self.unique, self.content = unique_message()
        self.marks = {name: len(self.cluster[name].lines) for name in "abc"}

    def run_swaks(self, *options: str, well: bool = True) -> str:
        """Send this test's message with swaks from the clients' host; return what it says."""
        done = subprocess.run(
            [
                *self.cluster.network.command(CLIENT),
                *("swaks", "--helo", "client.test", "--from", "s@client.test"),
                *("--to", f"a@{DOMAIN}", "--timeout", "20", "--body", "hello"),
                *("--header", f"X-Unique: {self.unique}", *options),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        told = done.stdout + done.stderr
        self.assertEqual(done.returncode == 0, well, told)
        return told

    def arrived(self, node: Node) -> str:
        """Wait for this test's message in a node's Maildir; return its first Received field."""
        return _received(self.cluster, node, self.unique)

    def session_line(self, node: Node, client: str) -> str:
        """Wait for a line that a node wrote of a client's session since the test began."""
        pattern = rf"session \S+ client=\[{re.escape(client)}\]"
        return node.line(pattern, since=self.marks[node.host]).string


def _received(cluster: Balanced, node: Node, unique: str) -> str:
    folder = node.directory / "Maildir" / "new"

    def find() -> bytes:
        for path in folder.iterdir() if folder.is_dir() else ():
            text = path.read_bytes()
            if unique.encode() in text:
                return text
        return b""

    text = until(find, f"{unique} in {node.host}'s Maildir", tell=cluster.tell)
    found = re.search(rb"^Received: (.*(?:\n[ \t].*)*)", text, re.MULTILINE)
    assert found is not None, text[:500]
    return " ".join(found[1].decode().split())


@needs(root=True, programs=[*PROGRAMS, "swaks"])
class Through(ToolTestCase):
    """All sessions go through a to b."""

    def setUp(self) -> None:
        """Let only b have sessions."""
        super().setUp()
        self.cluster.weigh(a=0, b=100, c=0)
        self.client = self.cluster.network.address(CLIENT)

    def test_plain(self) -> None:
        """b knows the client, who sees nothing of a; a tells of the way."""
        told = self.run_swaks("--server", ADDRESS)
        self.assertIn("220 b.test", told)
        self.assertIn(
            f"from client.test ([{self.client}]) by b.test with ESMTP", self.arrived(self.b)
        )
        self.assertIn("via=a", self.session_line(self.b, self.client))
        self.a.line(rf"{re.escape(self.client)}: with b for", since=self.marks["a"])

    def test_starttls(self) -> None:
        """swaks -tls: the certificate is b's, a cannot read what is said."""
        told = self.run_swaks(
            *("--server", ADDRESS, "-tls", "--tls-verify", "--tls-sni", "mx.test"),
            *("--tls-ca-path", str(self.cluster.authority.path)),
        )
        self.assertIn("TLS started with cipher TLSv1", told)
        self.assertRegex(
            self.arrived(self.b),
            rf"\(\[{re.escape(self.client)}\]\) by b.test with ESMTPS \(TLSv1",
        )

    def test_implicit_tls(self) -> None:
        """swaks --tls-on-connect: TLS from the first octet, also on the way to b."""
        told = self.run_swaks("--server", ADDRESS, "--port", str(TLS_PORT), "--tls-on-connect")
        self.assertIn("TLS started with cipher TLSv1", told)
        self.assertRegex(
            self.arrived(self.b),
            rf"\(\[{re.escape(self.client)}\]\) by b.test with ESMTPS \(TLSv1",
        )
        self.assertIn("via=a", self.session_line(self.b, self.client))

    def test_implicit_tls_at_home(self) -> None:
        """And where the Master keeps it."""
        self.cluster.weigh(a=100, b=0)
        self.run_swaks("--server", ADDRESS, "--port", str(TLS_PORT), "--tls-on-connect")
        self.assertIn("by a.test with ESMTPS (TLSv1", self.arrived(self.a))

    def test_policy(self) -> None:
        """Who may relay, and who is blocked, is told by the client's address."""
        elsewhere = ("--server", ADDRESS, "--to", f"x@{ELSEWHERE}")
        self.assertIn("220 b.test", self.run_swaks(*elsewhere, "--local-interface", OTHER))
        told = self.run_swaks(*elsewhere, well=False)
        self.assertRegex(told, r"<\*\* 55[04]")
        self.assertIn("220 b.test", told)

    def test_blocked(self) -> None:
        """A blocked client is refused by the Master; no peer hears of it."""
        told = self.run_swaks("--server", ADDRESS, "--local-interface", BLOCKED, well=False)
        self.assertIn("554 5.7.1", told)
        self.a.line(re.escape(BLOCKED), since=self.marks["a"])
        time.sleep(0.2)
        self.assertEqual(self.b.matching(re.escape(BLOCKED), since=self.marks["b"]), [])


@needs(root=True, programs=PROGRAMS)
class Bulk(ToolTestCase):
    """All sessions go through a to c, at the pace of the rogue before it."""

    #: Octets of the message, and octets a second that c's port reads.
    SIZE, PACE = 100 * MEGA, 25 * MEGA

    def setUp(self) -> None:
        """Let only c have sessions."""
        super().setUp()
        self.cluster.weigh(a=0, b=0, c=100)

    def test_hundred_megabytes(self) -> None:
        """Written as fast as it goes, read slowly: it arrives, and a keeps nothing of it."""
        self.cluster.rogue.pace = self.PACE
        line = b"x" * 70 + b"\r\n"
        block = line * (MEGA // len(line))
        blocks = self.SIZE // len(block)
        before = self.a.memory()
        seen: list[int] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                seen.append(self.a.memory())

        with self.cluster.wire(timeout=60) as wire:
            self.assertTrue(wire.reply().startswith("220 c."))
            self.assertTrue(wire.command("EHLO client.test").startswith("250"))
            for text in ("MAIL FROM:<s@client.test>", f"RCPT TO:<a@{DOMAIN}>", "DATA"):
                self.assertIn(wire.command(text)[:3], ("250", "354"))
            watcher = threading.Thread(target=look, daemon=True)
            watcher.start()
            began = time.monotonic()
            wire.send(f"Subject: {self.unique}\r\n\r\n".encode())
            for _ in range(blocks):
                wire.send(block)
            wire.send(b".\r\n")
            reply = wire.reply()
            took = time.monotonic() - began
            over.set()
            watcher.join()
            self.assertTrue(reply.startswith("250 2.0.0"), reply)
            wire.command("QUIT")
        self.assertGreater(took, 0.7 * self.SIZE / self.PACE)
        self.assertLess(max(seen) - before, 4 * MEGA, [each - before for each in seen])

        def counted() -> bool:
            return int(self.cluster.shown("c")["octets_in"]) > blocks * len(block)

        until(counted, "a counts its octets", 5, self.cluster.tell)
        self.assertEqual(self.digest(), hashlib.sha256(block * blocks).hexdigest())

    def digest(self) -> str:
        """Return that of the body of this test's message in c's Maildir."""
        folder = self.c.directory / "Maildir" / "new"

        def find() -> bytes:
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.stat().st_size > self.SIZE // 2:
                    return path.read_bytes()
            return b""

        text = until(find, "the message in c's Maildir", 30, self.cluster.tell)
        head, _, body = text.partition(b"\n\n")
        self.assertIn(self.unique.encode(), head)
        self.addCleanup(shutil.rmtree, folder.parent)
        return hashlib.sha256(body.replace(b"\n", b"\r\n")).hexdigest()


class Haproxy:
    """HAProxy on a host, that passes each of its ports on to a place; ``close`` it."""

    def __init__(self, network: Network, host: str, places: Sequence[tuple[int, str, str]]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="mailsecure-haproxy-"))
        config = self._directory / "haproxy.cfg"
        listens = (
            PROXIED.format(name=f"port{port}", port=port, address=place, to=25, option=option)
            for port, place, option in places
        )
        config.write_text(HAPROXY + "".join(listens))
        self._process = subprocess.Popen(
            [*network.command(host), program("haproxy"), "-db", "-f", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._address = network.address(host)

        def listens_now() -> bool:
            with suppress(OSError), socket.socket() as probe:
                probe.settimeout(1)
                # Whom it passes on to has no part in this: the connection is not used.
                probe.connect((self._address, places[-1][0]))
                return True
            return False

        until(lambda: network.inside(CLIENT, listens_now), "HAProxy listens", 5, self._told)

    def _told(self) -> str:
        if self._process.poll() is None or self._process.stderr is None:
            return ""
        return self._process.stderr.read()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._directory, ignore_errors=True)


@needs(root=True, programs=[*PROGRAMS, "haproxy", "swaks"])
class BehindHaproxy(ToolTestCase):
    """The client connects to HAProxy, on a host that ``proxy_protocol`` names."""

    #: Ports: to the virtual address with v1 and v2, to a's own address, and with nothing.
    V1, V2, OWN_V1, OWN_V2, BARE = 2501, 2502, 2503, 2504, 2505

    def setUp(self) -> None:
        """Have HAProxy in front of a."""
        super().setUp()
        network = self.cluster.network
        self.proxy, self.client = network.address(WITNESS), network.address(CLIENT)
        own = self.a.address[0]
        haproxy = Haproxy(
            network,
            WITNESS,
            [
                (self.V1, ADDRESS, "send-proxy"),
                (self.V2, ADDRESS, "send-proxy-v2"),
                (self.OWN_V1, own, "send-proxy"),
                (self.OWN_V2, own, "send-proxy-v2"),
                (self.BARE, own, ""),
            ],
        )
        self.addCleanup(haproxy.close)

    def through(self, port: int, node: Node, *options: str) -> None:
        """Send a message through HAProxy's port; the node that has it knows the client."""
        self.unique, _ = unique_message()
        told = self.run_swaks("--server", self.proxy, "--port", str(port), *options)
        self.assertIn(f"220 {node.host}.test", told)
        received = self.arrived(node)
        self.assertIn(f"from client.test ([{self.client}]) by {node.host}.test", received)
        self.session_line(node, self.client)

    def test_here(self) -> None:
        """v1 and v2, at a's own address and at the virtual one: the client is who he is."""
        self.cluster.weigh(a=100, b=0, c=0)
        for port in (self.V1, self.V2, self.OWN_V1, self.OWN_V2):
            self.through(port, self.a)
            self.through(port, self.a, "-tls")

    def test_passed_on(self) -> None:
        """At the virtual address the session is shared out, and the peer knows the client, too."""
        self.cluster.weigh(a=0, b=100, c=0)
        for port in (self.V1, self.V2):
            self.through(port, self.b)
        for port in (self.OWN_V1, self.OWN_V2):
            self.through(port, self.a)

    def test_policy(self) -> None:
        """Who may relay, and who is blocked, is told by the client's address."""
        for weights in ({"a": 100, "b": 0, "c": 0}, {"a": 0, "b": 100, "c": 0}):
            self.cluster.weigh(**weights)
            for port in (self.V1, self.V2):
                where = ("--server", self.proxy, "--port", str(port))
                elsewhere = (*where, "--to", f"x@{ELSEWHERE}")
                self.run_swaks(*elsewhere, "--local-interface", OTHER)
                self.assertRegex(self.run_swaks(*elsewhere, well=False), r"<\*\* 55[04]")
                told = self.run_swaks(*where, "--local-interface", BLOCKED, well=False)
                self.assertIn("554 5.7.1", told)

    def test_without_header(self) -> None:
        """From there, who sends none is no client at all: closed after a while, without a word."""
        with self.cluster.wire((self.proxy, self.BARE)) as wire:
            began = time.monotonic()
            wire.send(b"EHLO client.test\r\n")
            self.assertEqual(wire.rest(), [])
            self.assertLess(time.monotonic() - began, 7)

    def test_from_elsewhere(self) -> None:
        """A header of somebody whom nobody named is rubbish."""
        for place in (ADDRESS, self.a.address[0]):
            with self.cluster.wire((place, 25)) as wire:
                wire.reply()
                said = wire.command(f"PROXY TCP4 {OTHER} {ADDRESS} 1234 25")
                self.assertTrue(said.startswith("5"), said)
                self.assertEqual(wire.rest(), [])


@needs(root=True, programs=[*PROGRAMS, "haproxy", "swaks"])
class PassiveBehindHaproxy(BalanceTestCase):
    """The same without active-active: one node's ordinary ports."""

    def test_both_versions(self) -> None:
        """v1 and v2: log, Received and policy have the client's address."""
        each = {
            "smtp": f"proxy_protocol = 10.77.0.15\nblocked = {BLOCKED}",
            "relay": f"networks = {OTHER}",
        }
        cluster = self.alone("a", cluster="topology = active-passive\n", each={"a": each})
        network, a = cluster.network, cluster["a"]
        space = network.space(CLIENT)
        ip("-n", space, "address", "add", f"{BLOCKED}/24", "dev", "eth0")
        haproxy = Haproxy(
            network, WITNESS, [(2501, ADDRESS, "send-proxy"), (2502, ADDRESS, "send-proxy-v2")]
        )
        self.addCleanup(haproxy.close)
        client = network.address(CLIENT)
        for port in (2501, 2502):
            unique, content = unique_message()
            place = (network.address(WITNESS), port)
            with cluster.wire(place) as wire:
                self.assertTrue(wire.hello().startswith("250"))
                self.assertTrue(wire.transact(content, f"a@{DOMAIN}")[-1].startswith("250"))
                wire.command("QUIT")
            self.assertIn(f"([{client}])", _received(cluster, a, unique))
            with cluster.wire(place, source=BLOCKED) as wire:
                self.assertTrue(wire.reply().startswith("554 5.7.1"))
        a.line(rf"client=\[{re.escape(client)}\]")


@needs(root=True, programs=PROGRAMS)
class PeerDoor(ToolTestCase):
    """Strangers at b's ``peer_listen``; the true Master's sessions go on meanwhile."""

    def setUp(self) -> None:
        """Know what a stranger on the same network can know, and what only nodes do."""
        super().setUp()
        self.place = (self.b.address[0], PEER_PORT)
        forger = Forger(self.cluster.network, WITNESS)
        self.addCleanup(forger.close)
        ring = parse_keys((self.b.directory / "cluster.key").read_text())
        self.key = ring.keys[0]
        hellos = [decode(each.octets, ring) for each in forger.overhear(0.5)]
        self.incarnations = {each.node: each.incarnation for each in hellos}

    def sealer(self, key: Key | None = None) -> Sealer:
        """Return one as a node of the name x would have it."""
        key = key or self.key
        return Sealer(key.id, key.derived(b"proxy"), "x", 0x1234567 + time.monotonic_ns())

    def header(self, sealer: Sealer, to: str = "b", client: str = OTHER) -> bytes:
        """Return a header for a node, that names a client."""
        own = IPv4Address(ADDRESS)
        return sealer.proxy(self.incarnations[to], ip_address(client), 1234, own, 25)

    def stranger(self, timeout: float = 15.0) -> Wire:
        """Connect from the clients' host."""
        return self.cluster.wire(self.place, timeout=timeout)

    def answered(self, octets: bytes) -> list[str]:
        """Return what comes back, to the end."""
        with self.stranger() as wire:
            wire.send(octets)
            return wire.rest()

    def greeted(self, wire: Wire) -> None:
        """Check that the session is open, and that the client is believed."""
        self.assertTrue(wire.reply().startswith("220 b."))
        self.assertTrue(wire.command("EHLO client.test").startswith("250"))
        self.assertTrue(wire.command("MAIL FROM:<s@client.test>").startswith("250"))
        self.assertTrue(wire.command(f"RCPT TO:<x@{ELSEWHERE}>").startswith("250"))
        wire.command("QUIT")

    def test_genuine(self) -> None:
        """What this class makes is right: a node's header is believed, whoever sends it."""
        with self.stranger() as wire:
            wire.send(self.header(self.sealer()))
            self.greeted(wire)

    def test_no_header(self) -> None:
        """Commands, TLS, nonsense: closed without a word."""
        for octets in (b"EHLO client.test\r\n", b"\r\n\r\n", b"\x16\x03\x01\x02\x00", bytes(300)):
            self.assertEqual(self.answered(octets), [], octets[:20])

    def test_version_one(self) -> None:
        """v1 has no seal."""
        self.assertEqual(self.answered(f"PROXY TCP4 {OTHER} {ADDRESS} 1 25\r\n".encode()), [])
        self.assertEqual(self.answered(b"PROXY UNKNOWN\r\n"), [])

    def test_without_seal(self) -> None:
        """v2 as HAProxy makes it, with and without a client."""
        signature = b"\r\n\r\n\0\r\nQUIT\n"
        ends = IPv4Address(OTHER).packed + IPv4Address(ADDRESS).packed + struct.pack("!HH", 1, 25)
        for head in (b"\x21\x11" + struct.pack("!H", len(ends)) + ends, b"\x20\0\0\0"):
            self.assertEqual(self.answered(signature + head), [])

    def test_foreign_key(self) -> None:
        """A seal made with another key, under its own name or under ours."""
        foreign = parse_keys(new_key()).keys[0]
        self.assertEqual(self.answered(self.header(self.sealer(foreign))), [])
        named = Sealer(self.key.id, foreign.derived(b"proxy"), "a", 1)
        self.assertEqual(self.answered(self.header(named)), [])
        self.assertEqual(self.answered(named.local(self.incarnations["b"])), [])

    def test_changed(self) -> None:
        """A genuine header with one octet changed: the client's address, the count, the name."""
        for position in (12, 16, 17, 24, 35, 60, -1):
            octets = bytearray(self.header(self.sealer()))
            octets[position] ^= 0x01
            self.assertEqual(self.answered(bytes(octets)), [], position)

    def test_replayed(self) -> None:
        """A header that the Master sent, caught on the wire: worth nothing a second time."""
        self.cluster.weigh(a=0, b=100, c=0)
        wire = self.cluster.network.inside("b", _sniffer)
        self.addCleanup(wire.close)
        with self.cluster.wire() as client:
            self.assertTrue(client.reply().startswith("220 b."))
            caught = _caught(wire)
            self.assertTrue(client.command("QUIT").startswith("221"))
        self.assertTrue(caught.startswith(b"\r\n\r\n\0\r\nQUIT\n"))
        self.assertEqual(self.answered(caught), [])
        # Nor is it at another node, or when b has started anew.
        with self.cluster.wire((self.c.address[0], PEER_PORT)) as other:
            other.send(caught)
            self.assertEqual(other.rest(), [])
        self.b.kill()
        self.b.start()
        self.assertEqual(self.answered(caught), [])

    def test_for_another(self) -> None:
        """A header made for c, with the right key, is none for b."""
        self.assertEqual(self.answered(self.header(self.sealer(), to="c")), [])

    def test_split(self) -> None:
        """A header may come in any pieces: octet by octet, or with commands behind it."""
        with self.stranger() as wire:
            wire.send_octets(self.header(self.sealer()))
            self.greeted(wire)
        with self.stranger() as wire:
            header = self.header(self.sealer())
            wire.send(header[:5])
            time.sleep(0.3)
            wire.send(header[5:] + b"NOOP\r\n")
            self.assertTrue(wire.reply().startswith("220"))
            self.assertTrue(wire.reply().startswith("250"))

    def test_late(self) -> None:
        """Nothing, or half a header, for five seconds: closed without a word, late or not."""
        began = time.monotonic()
        with self.stranger() as nothing, self.stranger() as half:
            header = self.header(self.sealer())
            half.send(header[:30])
            time.sleep(3)
            self.assertTrue(is_open(nothing))
            self.assertTrue(is_open(half))
            for wire in (nothing, half):
                with self.assertRaises(Closed):
                    wire.reply()
            self.assertGreater(time.monotonic() - began, 4)
            self.assertLess(time.monotonic() - began, 7)
            half.send(header[30:])
            with self.assertRaises(Closed):
                half.reply()

    def test_probe(self) -> None:
        """LOCAL: greeted, closed after a while at the latest; it is no session."""
        self.cluster.idle()
        with self.stranger() as wire:
            wire.send(self.sealer().local(self.incarnations["b"]))
            self.assertTrue(wire.reply().startswith("220 b."))
            self.assertEqual(self.b.status()["sessions"], 0)
            wire.send(b"EHLO client.test\r\nMAIL FROM:<s@client.test>\r\n")
            self.assertEqual([each for each in wire.rest() if not each.startswith("221")], [])

    def test_many(self) -> None:
        """Hundreds that say nothing do not keep the Master's sessions out, nor fill the log."""
        self.cluster.weigh(a=0, b=100, c=0)
        mark = len(self.b.lines)
        strangers = [self.stranger() for _ in range(300)]
        try:
            for each in strangers[::3]:
                each.send(b"\r\n\r\n")
            self.assertEqual(set(self.sent(30).shares), {"b"})
        finally:
            for each in strangers:
                each.close()
        self.assertLess(len(self.b.matching("refused .* at peer_listen", since=mark)), 4)


def _sniffer() -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    wire.bind(("eth0", 0x0800))
    wire.settimeout(0.5)
    return wire


def _caught(wire: socket.socket) -> bytes:
    """Return what the first segment with data to ``peer_listen`` says."""
    while True:
        frame = wire.recv(2048)
        if frame[23] != socket.IPPROTO_TCP:
            continue
        tcp = 14 + 4 * (frame[14] & 15)
        port = struct.unpack_from("!H", frame, tcp + 2)[0]
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        said = frame[tcp + 4 * (frame[tcp + 12] >> 4) : end]
        if port == PEER_PORT and said:
            return said
