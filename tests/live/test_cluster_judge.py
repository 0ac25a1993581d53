"""The judge sees what there is to see, and the switch does what it is told.

Without a daemon: two hosts greet whoever comes, and the test moves the address itself,
rightly and wrongly.  A judge who cannot see two owners or a gap would prove nothing.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
import unittest
from contextlib import suppress

from tests.live import needs

from .cluster.network import PREFIX, Network, ip
from .cluster.nodes import ADDRESS, CLIENT, WITNESS
from .cluster.record import Record, Watch

SIX = "fd77::25"


@needs(root=True, programs=["ip"])
class Judge(unittest.TestCase):
    """Hosts a and b greet; nobody has the address at first."""

    def setUp(self) -> None:
        """Make the network, and have both hosts greet."""
        self.network = Network(["a", "b", CLIENT, WITNESS])
        self.addCleanup(self.network.close)
        for host in "ab":
            port = self.network.inside(host, _port)
            self.addCleanup(port.close)
            threading.Thread(target=_greet, args=(port, host), daemon=True).start()
        self.watch = Watch(self.network, [ADDRESS, SIX])
        self.addCleanup(self.watch.close)

    def move(self, verb: str, host: str) -> None:
        """Add the addresses to a host or delete them, and announce nothing."""
        for address, more in ((f"{ADDRESS}/32", []), (f"{SIX}/128", ["nodad"])):
            last = more if verb == "add" else []
            words = ("address", verb, address, "dev", "eth0", *last)
            ip("-n", self.network.space(host), *words)

    def seen(self, seconds: float) -> Record:
        """Return what is seen in the next ``seconds``."""
        began = time.monotonic()
        time.sleep(seconds)
        return self.watch.since(began)

    def test_one_owner(self) -> None:
        """Nobody, then a: the first answer, every answer, and one owner by ARP."""
        record = self.seen(0.3)
        for address in (ADDRESS, SIX):
            self.assertEqual(record.owners(address), [])
            self.assertEqual(record.gap(address), record.ended - record.began)
            self.assertEqual(record.claimants(address), set())
        self.move("add", "a")
        self.watch.until(lambda seen: seen.gap(ADDRESS) < 0.1, "a answers")
        record = self.seen(0.5)
        for address in (ADDRESS, SIX):
            self.assertEqual(record.owners(address), ["a"], record)
            self.assertLess(record.gap(address), 0.1)
            self.assertEqual(record.claimants(address), {"a"})
            self.assertEqual(record.doubles(address), [])
            self.assertGreater(len(record.answers(address)), 50)

    def test_two_owners(self) -> None:
        """b takes the address while a has it: both answer every question."""
        self.move("add", "a")
        self.watch.until(lambda seen: seen.gap(ADDRESS) < 0.1, "a answers")
        began = time.monotonic()
        self.move("add", "b")
        time.sleep(0.5)
        record = self.watch.since(began)
        for address in (ADDRESS, SIX):
            self.assertEqual(record.claimants(address), {"a", "b"}, record)
            self.assertGreater(record.doubled(address), 0.3)
            self.assertLess(record.doubled(address), 0.8)
        self.move("delete", "a")
        record = self.seen(0.3)
        self.assertEqual(record.claimants(ADDRESS), {"b"})
        self.assertEqual(record.doubles(ADDRESS), [])
        self.assertIn("b answers", str(record))

    def test_nothing_announced(self) -> None:
        """The address moves and nobody is told: the client goes on asking a, in vain.

        So the judge's questions, asked on another host, do not mend the client's cache.
        """
        self.move("add", "a")
        self.watch.until(lambda seen: seen.gap(ADDRESS) < 0.1, "a answers")
        began = time.monotonic()
        self.move("delete", "a")
        self.move("add", "b")
        time.sleep(1)
        record = self.watch.since(began + 0.1)
        self.assertEqual(record.claimants(ADDRESS), {"b"}, record)
        self.assertEqual(record.answers(ADDRESS), [], record)
        self.assertGreater(record.gap(ADDRESS), 0.8)

    def test_switch(self) -> None:
        """Loss, delay, doubles, and one direction: of what is sent, so much comes, so late."""
        sender = self.network.inside("a", _udp)
        receiver = self.network.inside("b", _udp)
        self.addCleanup(sender.close)
        self.addCleanup(receiver.close)
        place = (self.network.address("b"), receiver.getsockname()[1])

        def come(fault: dict[str, dict[str, float]]) -> list[tuple[int, float]]:
            self.network.faults(fault)
            sent = {}
            for number in range(400):
                sent[number] = time.monotonic()
                sender.sendto(str(number).encode(), place)
                time.sleep(0.0005)
            found = []
            with suppress(TimeoutError):
                while True:
                    number = int(receiver.recv(100))
                    found.append((number, time.monotonic() - sent[number]))
            return found

        self.assertEqual(len(come({})), 400)
        self.assertTrue(200 < len(come({"a>b": {"loss": 0.3}})) < 350)
        self.assertEqual(len(come({"b>a": {"loss": 1.0}})), 400)
        self.assertEqual(come({"a>*": {"loss": 1.0}}), [])
        self.assertEqual(len(come({"*>b": {"double": 1.0}})), 800)
        late = [number for number, _ in come({"*>*": {"delay": 0.01, "jitter": 0.05}})]
        self.assertEqual(sorted(late), list(range(400)))
        self.assertNotEqual(late, sorted(late))
        self.network.heal()

    def test_nothing_remains(self) -> None:
        """What is closed leaves no namespace behind; nor do those of dead processes stay."""
        child = subprocess.Popen(["true"])
        child.wait(10)
        dead = f"{PREFIX}-{child.pid}-a"
        ip("netns", "add", dead)
        other = Network(["d"])
        try:
            self.assertNotIn(dead, ip("netns", "list"))
            self.assertIn(other.space("d"), ip("netns", "list"))
        finally:
            other.close()
        self.assertNotIn(other.space("d"), ip("netns", "list"))


def _port() -> socket.socket:
    port = socket.socket(socket.AF_INET6)
    port.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    port.bind(("::", 25))
    port.listen(1000)
    return port


def _udp() -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    found.bind(("0.0.0.0", 0))
    found.settimeout(0.3)
    return found


def _greet(port: socket.socket, name: str) -> None:
    """Greet everybody in the name of a host, and hang up, until the port is closed."""
    with suppress(OSError):
        while True:
            wire, _ = port.accept()
            with wire, suppress(OSError):
                wire.sendall(f"220 {name}.test ESMTP\r\n".encode())
