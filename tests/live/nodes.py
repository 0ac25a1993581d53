"""A cluster of real daemons in network namespaces on one switch, judged from a client's.

:class:`ClusterTestCase` has a switch, some hosts and a client (:mod:`benchmarks.lan`), and
starts a :class:`Node`, the real daemon, on each host it is asked for.  The judge
(:mod:`benchmarks.judge`) connects to the virtual address every 5 ms; :meth:`watched` says
what it saw: who answered, in which order, and the longest time without an answer.  Who
owns the address by ARP is asked in the same namespace (:meth:`owners_by_arp`).

The switch can be told to lose what goes from one host to another (nftables in the bridge
family), all of it or a share, in one direction or both; its cables can be pulled.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.lan import Lan, Watch
from mailsecure.control.client import ask
from mailsecure.control.server import SOCKET_NAME

from .harness import Gateway, LiveTestCase, until

__all__ = ["ADDRESS", "SIX", "ClusterTestCase", "Node", "Seen"]

ADDRESS = "10.77.0.25"
SIX = "fd77::25"
KEY = "EjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vA="
#: Seconds between two attempts of the judge.
EVERY = 0.005
HOSTS = ["a", "b", "c", "client"]
PROGRAMS = ("ip", "nft", "arping")


class Node(Gateway):
    """The daemon on one host; ``virtual`` is what its ``[virtual:mail]`` holds besides."""

    def __init__(self, lan: Lan, host: str, key_file: Path, **options: Any) -> None:
        self.lan, self.host = lan, host
        self.key_file = key_file
        self.virtual: dict[str, str] = {}
        prefix = [*lan.command(host, []), *options.pop("prefix", ())]
        super().__init__(prefix=prefix, start=False, **options)

    def configure(self, **sections: str) -> None:
        """Write the ini of a node of the cluster."""
        node = f"name = {self.host}\nhostname = {self.host}.test\n" + sections.pop("node", "")
        cluster = f"key_file = {self.key_file}\ninterface = eth0\n" + sections.pop("cluster", "")
        domains = sections.pop("domains", "example.com = maildir:mail")
        smtp = "listen = tcp:25\n" + sections.pop("smtp", "")
        super().configure(node=node, cluster=cluster, domains=domains, smtp=smtp, **sections)

    def start(self, timeout: float = 20.0) -> float:
        """Start it, and wait until it takes mail."""
        began, mark = time.monotonic(), len(self.lines)
        self.launch()
        self.line(r"ready as", timeout, since=mark)
        self.seconds_to_start = time.monotonic() - began
        return self.seconds_to_start

    def report(self) -> dict[str, Any]:
        """Return what ``mailsecure cluster status --json`` says."""
        return self.command("cluster.status")

    def command(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Ask the daemon something over its socket."""
        for word, value in ask(self.state / SOCKET_NAME, request, arguments, timeout=10):
            if word == "done":
                return value
        raise AssertionError(f"{request} gave no answer")

    def role(self, group: str = "mail") -> str:
        """Return its role in a group."""
        found = {each["name"]: each["role"] for each in self.report()["groups"]}
        return found.get(group, "")

    def holds(self, address: str = ADDRESS) -> bool:
        """Say whether the host's kernel has the address."""
        return self.lan.holds(self.host, address)

    def changes(self) -> list[str]:
        """Return its changes of role, as the log has them."""
        found = (re.search(r"\S+: \w+ -> \w+: .*", line) for line in self.lines)
        return [match[0] for match in found if match]


@dataclass
class Seen:
    """What the judge saw: (when, who) for each answer; times are monotonic."""

    answers: list[tuple[float, str]] = field(default_factory=list)
    late: float = 0.0

    @property
    def owners(self) -> str:
        """Who answered, in order, without repetition: "a b"."""
        order: list[str] = []
        for _, name in self.answers:
            if order[-1:] != [name]:
                order.append(name)
        return " ".join(order)

    @property
    def gap(self) -> float:
        """The longest time between two answers, in seconds."""
        times = [when for when, _ in self.answers]
        return max((b - a for a, b in itertools.pairwise(times)), default=float("inf"))


class ClusterTestCase(LiveTestCase):
    """Hosts a, b, c on a switch, and a client."""

    interval = "100ms"
    hosts = HOSTS
    tag = "live"

    def setUp(self) -> None:
        """Make the network."""
        super().setUp()
        self.lan = Lan(self.tag, list(self.hosts))
        self.lan.__enter__()
        self.addCleanup(self.lan.__exit__, None, None, None)
        self.on_switch("nft", "add", "table", "bridge", "faults")
        hook = "{ type filter hook forward priority 0; }"
        self.on_switch("nft", f"add chain bridge faults pass {hook}")
        self.key_file = self.temporary_directory() / "cluster.key"
        self.key_file.write_text(KEY + "\n")
        self.key_file.chmod(0o600)
        self.nodes: dict[str, Node] = {}

    def on_switch(self, *words: str) -> None:
        """Run a program on the switch."""
        self.on("switch", *words)

    def on(self, host: str, *words: str) -> str:
        """Run a program on a host; return what it prints."""
        done = subprocess.run(
            self.lan.command(host, list(words)),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        self.assertEqual(done.returncode, 0, f"{words}: {done.stdout}{done.stderr}")
        return done.stdout

    # -- nodes

    def node(
        self, host: str, priority: int, virtual: str = "", start: bool = True, **sections: Any
    ) -> Node:
        """Make a node with ``priority``; options of its group in ``virtual``."""
        node = Node(self.lan, host, self.key_file, **self.sections(priority, virtual, sections))
        self.addCleanup(node.close)
        self.told(node)
        self.nodes[host] = node
        if start:
            node.start()
        return node

    def sections(self, priority: int, virtual: str, sections: dict[str, Any]) -> dict[str, Any]:
        """Return the sections of a node."""
        mail = (
            f"addresses = {ADDRESS} {SIX}\npriority = {priority}\n"
            f"advertisement_interval = {self.interval}\n{virtual}"
        )
        return {"virtual:mail": mail, **sections}

    def pair(self, **sections: Any) -> tuple[Node, Node]:
        """Start a (200) and b (50), and wait until a is Master and b knows it."""
        pair = self.node("a", 200, **sections), self.node("b", 50, **sections)
        self.master("a")
        self.acquainted()
        return pair

    def acquainted(self) -> None:
        """Wait until every node that runs hears all others, and is linked to them."""

        def all_linked() -> bool:
            running = [each for each in self.nodes.values() if each.process.poll() is None]
            for each in running:
                others = [row for row in each.report()["nodes"] if not row["self"] and row["alive"]]
                linked = [row for row in others if row["link"]["up"] and row["heard_by"]]
                if len(others) != len(running) - 1 or len(linked) != len(others):
                    return False
            return True

        until(all_linked, "all nodes know each other", 10)

    def master(self, host: str, timeout: float = 10.0, among: str = "abc") -> None:
        """Wait until this node and no other is Master."""

        def alone() -> bool:
            roles = {
                name: node.role()
                for name, node in self.nodes.items()
                if name in among and node.process is not None and node.process.poll() is None
            }
            return [name for name, role in roles.items() if role == "master"] == [host]

        until(alone, f"{host} is the only Master", timeout, self._tails)

    def _tails(self) -> str:
        return "\n".join(f"{name}: {node.changes()}" for name, node in self.nodes.items())

    # -- faults

    def lose(self, sender: str, receiver: str, percent: int = 100) -> None:
        """Lose what goes from one host to another, or a share of it."""
        share = "" if percent == 100 else f"numgen random mod 100 < {percent} "
        rule = f'iifname "p-{sender}" oifname "p-{receiver}" {share}drop'
        self.on_switch("nft", f"add rule bridge faults pass {rule}")

    def heal(self) -> None:
        """Lose nothing any more."""
        self.on_switch("nft", "flush chain bridge faults pass")

    # -- the judge

    @contextmanager
    def watched(self, address: str = ADDRESS) -> Iterator[Seen]:
        """Watch the address from the client during the block; see it filled in after it."""
        watch = Watch(self.lan, "client", address, 25, EVERY)
        self.addCleanup(watch.close)
        seen = Seen()
        watch.go()
        time.sleep(0.3)
        try:
            yield seen
        finally:
            seen.answers, seen.late = watch.stop()
            watch.close()

    def answered_by(self, host: str, timeout: float = 10.0) -> None:
        """Wait until a connection to the address is greeted by ``host``."""
        until(lambda: self.greeting().startswith(f"220 {host}."), f"{host} greets", timeout)

    def greeting(self, address: str = ADDRESS) -> str:
        """Return what the address says to the client, "" if nothing."""
        script = (
            "import socket, sys\n"
            "try:\n wire = socket.create_connection((sys.argv[1], 25), 2)\n"
            " wire.settimeout(2)\n print(wire.recv(200).decode())\n"
            "except OSError:\n pass\n"
        )
        return self.on("client", "python3", "-c", script, address)

    def send(self, address: str = ADDRESS) -> str:
        """Send a message from the client through the address; return the last reply."""
        script = (
            "import json, smtplib, sys\n"
            "with smtplib.SMTP(sys.argv[1], 25, timeout=10) as client:\n"
            " client.ehlo()\n client.mail('a@example.org')\n client.rcpt('b@example.com')\n"
            " print(json.dumps(client.data('Subject: x\\r\\n\\r\\nx')[1].decode()))\n"
        )
        reply: str = json.loads(self.on("client", "python3", "-c", script, address))
        return reply

    def owners_by_arp(self, address: str = ADDRESS) -> set[str]:
        """Return the MACs that answer when the client asks for the address."""
        said = subprocess.run(
            self.lan.command("client", ["arping", "-c", "3", "-w", "1", "-I", "eth0", address]),
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        ).stdout
        return set(re.findall(r"\[([0-9A-Fa-f:]{17})\]", said))

    def assertOneOwner(self, host: str) -> None:
        """One node is Master, its kernel alone has the address, ARP says so, SMTP works."""
        self.master(host)

        def holding() -> list[str]:
            return [name for name, node in self.nodes.items() if node.holds()]

        # Who was killed loses the address when its lease runs out.
        until(lambda: holding() == [host], f"only {host} holds the address", 3)
        self.answered_by(host)
        mac = self.on(host, "cat", "/sys/class/net/eth0/address").strip()
        owners = {each.lower() for each in self.owners_by_arp()}
        self.assertEqual(owners, {mac})
        self.assertRegex(self.send(), r"queued as \w+")
