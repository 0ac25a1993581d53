"""Real daemons in namespaces on a switch: whatever happens, one of them owns the address.

Every scenario ends with one owner, judged from a client on the same switch: by connecting,
by ARP, and by sending a message.  How long the address did not answer is asserted with a
wide margin, because machines that run tests are busy; ``benchmarks/failover.py`` measures.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.live import needs

from .harness import until
from .nodes import ADDRESS, PROGRAMS, SIX, ClusterTestCase

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
#: Much longer than a takeover takes, much shorter than a master down interval at 1 s.
SOON = 0.5


@needs(root=True, programs=PROGRAMS)
class Failures(ClusterTestCase):
    """A Master ends, in each way that there is."""

    def test_killed(self) -> None:
        """kill -9: known by the link, before an advertisement is missed."""
        a, _ = self.pair()
        with self.watched() as seen:
            a.kill()
            time.sleep(2.5)
        self.assertEqual(seen.owners, "a b")
        self.assertLess(seen.gap, SOON)
        self.assertOneOwner("b")
        a.restart()
        self.assertOneOwner("a")

    def test_stopped(self) -> None:
        """SIGSTOP: its kernel lets go when the lease is over; SIGCONT: it looks first."""
        a, b = self.pair()
        a.signal(signal.SIGSTOP)
        until(lambda: b.role() == "master", "b takes over", 5)
        until(lambda: not a.holds(), "a's lease runs out", 3)
        self.assertFalse(a.holds(SIX))
        self.assertTrue(b.holds(SIX))
        self.answered_by("b")
        time.sleep(1)
        with self.watched() as seen:
            a.signal(signal.SIGCONT)
            time.sleep(2)
        self.assertIn(seen.owners, ("b", "b a"))
        self.assertOneOwner("a")
        self.assertTrue(any("stood still" in each for each in a.changes()), a.changes())

    def test_terminated(self) -> None:
        """SIGTERM: the heir speaks before the address leaves."""
        a, _ = self.pair()
        with self.watched() as seen:
            self.assertIn(a.stop(), (0, -signal.SIGTERM))
            time.sleep(0.5)
        self.assertEqual(seen.owners, "a b")
        self.assertLess(seen.gap, 0.2)
        self.assertFalse(a.holds())

    def test_cable(self) -> None:
        """The Master's cable is pulled: no word from it, and it drops the address itself."""
        a, _ = self.pair()
        with self.watched() as seen:
            self.lan.cable("a", up=False)
            time.sleep(2)
        self.assertEqual(seen.owners, "a b")
        self.assertLess(seen.gap, 0.38 + SOON)
        self.assertFalse(a.holds())
        a.line(r"no part in the election: interface eth0 is down")
        self.lan.cable("a", up=True)
        self.assertOneOwner("a")

    def test_interface_down(self) -> None:
        """The Master's interface is switched off, and on again."""
        a, _ = self.pair()
        self.on("a", "ip", "link", "set", "eth0", "down")
        self.answered_by("b")
        self.assertFalse(a.holds())
        self.on("a", "ip", "link", "set", "eth0", "up")
        self.assertOneOwner("a")

    def test_two_best_die(self) -> None:
        """Of three, one after another."""
        a, b = self.node("a", 200), self.node("b", 150)
        self.node("c", 100)
        self.master("a")
        self.acquainted()
        with self.watched() as seen:
            a.kill()
            time.sleep(0.02)
            b.kill()
            time.sleep(2.5)
        self.assertTrue(seen.owners.endswith("c"), seen.owners)
        self.assertLess(seen.gap, 0.38 + SOON)
        self.nodes = {"c": self.nodes["c"]}
        self.assertOneOwner("c")

    def test_restarts(self) -> None:
        """start_as = master takes over at its first word, backup at the other's next."""
        for start_as in ("master", "backup"):
            for host in "ab":
                if host in self.nodes:
                    self.nodes[host].kill()
            a = self.node("a", 200, f"start_as = {start_as}")
            self.node("b", 50)
            self.master("a")
            a.kill()
            self.master("b")
            with self.watched() as seen:
                a.restart()
                self.master("a")
                time.sleep(0.5)
            self.assertEqual(seen.owners, "b a")
            self.assertLess(seen.gap, SOON)
            expected = "started as Master" if start_as == "master" else "preempts b"
            self.assertIn(expected, a.changes()[-1])
            self.assertOneOwner("a")

    def test_frozen_backup(self) -> None:
        """A Backup that was stopped reads what waited before it believes its timer."""
        _, b = self.pair()
        b.signal(signal.SIGSTOP)
        time.sleep(2)
        b.signal(signal.SIGCONT)
        time.sleep(1)
        self.assertEqual(len(b.changes()), 1, b.changes())
        self.assertOneOwner("a")


@needs(root=True, programs=PROGRAMS if LIBRARIES else (*PROGRAMS, "libfaketime"))
class Clocks(ClusterTestCase):
    """A node's wall clock is set; the monotonic one is not."""

    def test_an_hour(self) -> None:
        """Forward and back: no change of role, and status says how far it is off."""
        lie = self.temporary_directory() / "lie"
        lie.write_text("+0\n")
        lied_to = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(lie),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        a = self.node("a", 200, environment=lied_to)
        b = self.node("b", 50)
        self.master("a")
        self.acquainted()
        changes = len(a.changes()) + len(b.changes())
        for step in (3600, -3600, 0):
            new = lie.with_suffix(".new")
            new.write_text(f"{step:+d}\n")
            new.rename(lie)
            time.sleep(2)
            (row,) = [row for row in b.report()["nodes"] if row["node"] == "a"]
            self.assertAlmostEqual(row["clock_offset"], step, delta=1)
        self.assertEqual(len(a.changes()) + len(b.changes()), changes, self._tails())
        self.assertOneOwner("a")


@needs(root=True, programs=PROGRAMS)
class Soak(ClusterTestCase):
    """An hour's worth of hellos, a hundred a second."""

    interval = "10ms"

    def test_hour(self) -> None:
        """No drift, no leak, no flap, nothing dropped.

        A machine that gives a node no time for 40 ms has it step down, as it should; the
        nodes come before everybody else here, and what is left of that is no flap.
        """
        a, b = self.pair(prefix=("chrt", "-f", "10"))
        changes = len(a.changes()) + len(b.changes())
        time.sleep(3)
        before = [(node.report(), node.memory()) for node in (a, b)]
        began = time.monotonic()
        time.sleep(37)
        took = time.monotonic() - began
        for node, (report, memory) in zip((a, b), before, strict=True):
            now = node.report()
            said = now["hellos_sent"] - report["hellos_sent"]
            self.assertGreater(said, 0.9 * took / 0.01)
            self.assertLess(said, 1.2 * took / 0.01)
            self.assertEqual(now["drops"], {})
            self.assertLess(node.memory() - memory, 2 << 20)
        if not any("stood still" in each for each in a.changes()):
            self.assertEqual(len(a.changes()) + len(b.changes()), changes, self._tails())
        self.assertOneOwner("a")


@needs(root=True, programs=PROGRAMS)
class Networks(ClusterTestCase):
    """The network between the nodes is bad."""

    def test_partition(self) -> None:
        """Both are Master while they cannot hear each other; healed, the better one."""
        a, b = self.pair()
        self.lose("a", "b")
        self.lose("b", "a")
        until(lambda: b.role() == "master", "b takes over on its side", 5)
        self.assertEqual(a.role(), "master")
        self.heal()
        until(lambda: b.role() == "backup", "b steps down", 2)
        self.assertOneOwner("a")

    def test_one_direction(self) -> None:
        """Whoever cannot be heard is not Master beside another."""
        a, b = self.pair()
        for sender, receiver in (("a", "b"), ("b", "a")):
            self.lose(sender, receiver)
            time.sleep(3)
            masters = [node for node in (a, b) if node.role() == "master"]
            self.assertEqual(len(masters), 1)
            changes = len(a.changes()) + len(b.changes())
            time.sleep(2)
            self.assertEqual(len(a.changes()) + len(b.changes()), changes)
            hears = {row["node"]: row for row in a.report()["nodes"]}
            deaf = receiver if sender == "a" else "a"
            self.assertNotIn(sender, hears[deaf]["hears"])
            self.heal()
            self.assertOneOwner("a")

    def test_loss(self) -> None:
        """A third of everything between them for 20 s: no change of role."""
        a, b = self.pair()
        changes = len(a.changes()) + len(b.changes())
        for sender, receiver in (("a", "b"), ("b", "a")):
            self.lose(sender, receiver, 30)
        time.sleep(20)
        self.heal()
        self.assertEqual(len(a.changes()) + len(b.changes()), changes, self._tails())
        self.assertOneOwner("a")

    def test_unicast(self) -> None:
        """Where there is no multicast, to each other's addresses."""
        self.on_switch("nft", "add rule bridge faults pass ip daddr 224.0.0.0/4 drop")
        addresses = {host: self.lan.address(host) for host in "ab"}
        a = self.node("a", 200, cluster=f"unicast_peers = {addresses['b']}")
        self.node("b", 50, cluster=f"unicast_peers = {addresses['a']}")
        self.master("a")
        self.acquainted()
        a.kill()
        self.assertOneOwner("b")

    def test_ipv6(self) -> None:
        """Hellos, links and the address itself by IPv6."""
        for number, host in enumerate(self.hosts):
            words = ("ip", "address", "add", f"fd77::1{number}/64", "dev", "eth0", "nodad")
            self.on(host, *words)
        six = {"cluster": "group = [ff02::2525]:5025", "smtp": r"listen = tcp6:25:interface=\:\:"}
        a, _ = self.node("a", 200, **six), self.node("b", 50, **six)
        self.master("a")
        self.acquainted()
        self.assertIn("220 a.", self.greeting(SIX))
        a.kill()
        with self.quicker_than(3):
            until(lambda: "220 b." in self.greeting(SIX), "b answers", 5)
        self.assertRegex(self.send(SIX), "queued as")


@needs(root=True, programs=PROGRAMS)
class Words(ClusterTestCase):
    """What a postmaster says, and what is said to him."""

    def test_resign_and_takeover(self) -> None:
        """By command, without a moment's silence, and back by themselves."""
        a, b = self.pair()
        with self.watched() as seen:
            done = a.cli("cluster", "resign", "--for", "3s")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.master("b")
            time.sleep(0.3)
        self.assertEqual(seen.owners, "a b")
        self.assertLess(seen.gap, 0.2)
        self.assertEqual(a.report()["groups"][0]["effective_priority"], 1)
        self.master("a")
        done = b.cli("cluster", "takeover", "mail", "--for", "2s")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^mail: Master until \S+ \S+ UTC\n$")
        self.assertOneOwner("b") if b.role() == "master" else self.fail("it did not take over")
        self.master("a")

    def test_status(self) -> None:
        """The page for people names the Master and who hears whom."""
        _, b = self.pair()
        page = b.cli("cluster", "status").stdout
        self.assertIn("mail: backup", page)
        self.assertIn("Master is a", page)
        self.assertIn("every node hears every other", page)
        self.assertEqual(b.cli("cluster", "status", "--check").returncode, 0)
        self.lose("b", "a")
        until(lambda: "a does not hear b" in b.cli("cluster", "status").stdout, "said", 10)

    def test_priority(self) -> None:
        """Lowered by a reload: the other takes over; raised again: back."""
        a, _ = self.pair()
        a.reload(**self.sections(20, "", {}))
        self.assertOneOwner("b")
        a.reload(**self.sections(200, "", {}))
        self.assertOneOwner("a")

    def test_notify(self) -> None:
        """The command is run on each change, with what changed."""
        folder = self.temporary_directory()
        script = folder / "changed"
        script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/log\n')
        script.chmod(0o755)
        a = self.node("a", 200, f"notify = {script}")
        self.master("a")
        a.stop()
        self.assertEqual(
            (folder / "log").read_text().splitlines(),
            [
                "mail init backup started",
                "mail backup master nobody else is Master",
                "mail master init stopped",
            ],
        )

    def test_two_groups(self) -> None:
        """Each node is Master of one; the one that is left, of both."""
        sections = {}
        for host, first, second in (("a", 200, 50), ("b", 50, 200)):
            other = (
                f"addresses = 10.77.0.26\npriority = {second}\n"
                f"advertisement_interval = {self.interval}\n"
            )
            sections[host] = {"virtual:other": other}
            self.node(host, first, **sections[host])
        self.master("a")
        until(lambda: self.nodes["b"].role("other") == "master", "b is Master of the other", 5)
        self.acquainted()
        self.assertFalse(self.nodes["a"].holds("10.77.0.26"))
        self.nodes["b"].kill()
        until(lambda: self.nodes["a"].holds("10.77.0.26"), "a has both", 5)
        self.assertTrue(self.nodes["a"].holds())

    def test_new_group(self) -> None:
        """A reload adds a group, changes its addresses, and takes it away."""
        a, _ = self.pair()
        more = f"addresses = 10.77.0.26\nadvertisement_interval = {self.interval}\n"
        mail = self.sections(200, "", {})
        a.reload(**mail, **{"virtual:more": more})
        until(lambda: a.holds("10.77.0.26"), "the new group is held", 5)
        a.reload(**mail, **{"virtual:more": more.replace(".26", ".26 10.77.0.27")})
        until(lambda: a.holds("10.77.0.27"), "so is its new address", 5)
        self.assertTrue(a.holds("10.77.0.26"))
        a.reload(**mail)
        until(lambda: not a.holds("10.77.0.26"), "the group is gone", 5)
        self.assertOneOwner("a")

    def test_keys(self) -> None:
        """A new key comes in without a gap: added, used, the old one dropped."""
        a, b = self.pair()
        own = b.directory / "own.key"
        own.write_bytes(self.key_file.read_bytes())
        own.chmod(0o600)
        b.key_file = own
        b.reload(**self.sections(50, "", {}))
        changes = len(a.changes()) + len(b.changes())
        self.assertEqual(a.cli("cluster", "keygen", "--add").returncode, 0)
        own.write_bytes(self.key_file.read_bytes())
        for step in ("", "--use-new", "--drop-old"):
            for node in (a, b):
                if step:
                    self.assertEqual(node.cli("cluster", "keygen", step).returncode, 0)
                self.assertEqual(node.cli("reload").returncode, 0)
            time.sleep(0.7)
        self.assertEqual(len(a.changes()) + len(b.changes()), changes, self._tails())
        self.acquainted()
        self.assertEqual(a.key_file.read_text().split()[-3:], own.read_text().split()[-3:])
        self.assertOneOwner("a")


@needs(root=True, programs=PROGRAMS)
class Strangers(ClusterTestCase):
    """What somebody on the same network sends, without the key or with old datagrams."""

    def test_forged_and_replayed(self) -> None:
        """Ignored, counted by reason, logged at a bounded rate: no change of role."""
        a, b = self.pair()
        changes = len(a.changes()) + len(b.changes())
        recorded = self.record(20)
        flipped = [bytes([*each[:40], each[40] ^ 1, *each[41:]]) for each in recorded]
        other = [each[:6] + b"\1\2\3\4" + each[10:] for each in recorded]
        junk = [b"", b"x", recorded[0][:60], recorded[0] + b"x", b"\0" * 65_000]
        self.cast([*recorded, *flipped, *other, *junk] * 5)
        time.sleep(1)
        drops = a.report()["drops"]
        for reason in ("replayed", "bad signature", "other cluster", "malformed"):
            self.assertGreater(drops.get(reason, 0), 4, drops)
        self.assertEqual(len(a.changes()) + len(b.changes()), changes, self._tails())
        self.assertLess(len(a.matching("ignored .* datagrams")), 8)
        # After a restart of both, what their earlier lives said is worth nothing either.
        b.kill()
        b.restart()
        self.acquainted()
        changes = len(a.changes()) + len(b.changes())
        self.cast(recorded * 20)
        time.sleep(1)
        self.assertEqual(len(a.changes()) + len(b.changes()), changes, self._tails())
        self.assertOneOwner("a")

    def record(self, number: int) -> list[bytes]:
        """Return hellos as the client overhears them."""
        script = (
            "import base64, socket, struct, sys\n"
            "ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "ear.bind(('239.255.25.25', 5025))\n"
            "request = struct.pack('@4s4xi', socket.inet_aton('239.255.25.25'),\n"
            "                      socket.if_nametoindex('eth0'))\n"
            "ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)\n"
            "ear.settimeout(5)\n"
            f"for _ in range({number}):\n print(base64.b64encode(ear.recv(2048)).decode())\n"
        )
        said = self.on("client", "python3", "-c", script)
        return [base64.b64decode(line) for line in said.split()]

    def cast(self, datagrams: list[bytes]) -> None:
        """Send datagrams from the client to everybody."""
        script = (
            "import base64, socket, sys, time\n"
            "wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"here = socket.inet_aton('{self.lan.address('client')}')\n"
            "wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)\n"
            "for line in sys.stdin:\n"
            " data = base64.b64decode(line)\n"
            " for place in ('239.255.25.25', '10.77.0.11', '10.77.0.12'):\n"
            "  wire.sendto(data, (place, 5025))\n"
        )
        subprocess.run(
            self.lan.command("client", ["python3", "-c", script]),
            input="".join(base64.b64encode(each).decode() + "\n" for each in datagrams),
            text=True,
            timeout=60,
            check=True,
        )

    def test_same_name(self) -> None:
        """Two nodes of one name: an alarm that says so."""
        a, _ = self.pair()
        twin = self.node("c", 150, node="name = a\n", start=False)
        twin.configure(node="name = a\nhostname = c.test\n", **self.sections(150, "", {}))
        twin.start()
        a.line(r"from another node of our own name")
        self.assertIn("another node has our name", " ".join(a.report()["alarms"]))


@needs(root=True, programs=(*PROGRAMS, "setpriv"))
class Starts(ClusterTestCase):
    """Reasons not to take part, or not to start."""

    def test_no_capability(self) -> None:
        """Without CAP_NET_ADMIN it says so, and leaves the address to others."""
        drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
        a = self.node("a", 200, prefix=drop)
        a.line(r"no part in the election: CAP_NET_ADMIN is missing")
        self.node("b", 50)
        self.master("b")
        self.assertEqual(a.role(), "init")
        self.assertIn("CAP_NET_ADMIN", a.cli("cluster", "status").stdout)
        self.answered_by("b")

    def test_address_of_another(self) -> None:
        """An address that stands there for another reason: it does not start, and says why."""
        self.on("a", "ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        node = self.node("a", 200, start=False)
        node.launch()
        self.assertEqual(node.wait(), os.EX_UNAVAILABLE)
        node.line(rf"\[virtual:mail\]: {ADDRESS}/24 already stands on eth0")
        self.assertTrue(node.holds())

    def test_left_behind(self) -> None:
        """What an earlier crash left is removed."""
        words = ("ip", "address", "add", f"{ADDRESS}/32", "dev", "eth0", "valid_lft", "30")
        self.on("a", *words, "preferred_lft", "30")
        node = self.node("a", 200, "addresses = 10.77.0.26", start=False)
        node.configure(**self.sections(200, "", {}))
        node.start()
        node.line(r"removed 10\.77\.0\.25/32 from eth0: left behind")

    def test_no_interface(self) -> None:
        """It names what is missing."""
        node = self.node("a", 200, cluster="interface = eth9", start=False)
        node.launch()
        self.assertEqual(node.wait(), os.EX_UNAVAILABLE)
        node.line(r"\[cluster\] interface: there is no interface eth9")

    def test_open_key_file(self) -> None:
        """A key that others can read is no key."""
        self.key_file.chmod(0o644)
        node = self.node("a", 200, start=False)
        node.launch()
        self.assertEqual(node.wait(), os.EX_CONFIG)
        node.line(r"cluster\.key")
