"""The limits of a client are those of the cluster, not of each of its nodes.

Two nodes, active-passive, each asked at its own address by one client.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.live import needs

from .cluster.nodes import DOMAIN, WITNESS, ClusterTestCase, Node
from .harness import until
from .wire import Wire

PROGRAMS = ["ip"]
#: Until all nodes know what happened at one.
TOLD = 0.6
#: From where the judge probes: relay networks have no limits.
JUDGE = "10.77.0.14"
LIMITS = "max_sessions_per_client = 10\nmessage_rate = 6\ngreeting_delay = 1s"


@needs(root=True, programs=PROGRAMS)
class Limits(ClusterTestCase):
    """One client, two nodes."""

    def setUp(self) -> None:
        """Begin with two nodes that know nobody."""
        super().setUp()
        sections = {"smtp": LIMITS, "relay": f"networks = {JUDGE}"}
        cluster = self.own("a", "b", each=dict.fromkeys("ab", sections))
        self.a, self.b = cluster["a"], cluster["b"]
        self.wires = ExitStack()
        self.addCleanup(self.wires.close)

    def connect(self, node: Node) -> Wire:
        """Connect from a host that is not the prober."""
        wire = self.cluster.network.inside(WITNESS, lambda: Wire(node.address))
        return self.wires.enter_context(wire)

    def greeted(self, node: Node, count: int) -> list[Wire]:
        """Have so many sessions at a node."""
        wires = [self.connect(node) for _ in range(count)]
        for wire in wires:
            self.assertTrue(wire.reply().startswith("220 "))
        return wires

    def refused(self, node: Node) -> None:
        """One session more is too many, as soon as the node knows of all."""

        def told() -> bool:
            with self.connect(node) as wire:
                return wire.reply().startswith("421 4.7.0")

        until(told, f"{node.host} refuses", TOLD, self.cluster.tell)

    def has_room(self, node: Node) -> None:
        """One session more is welcome, as soon as the node knows that others are over."""

        def greeted() -> bool:
            wire = self.connect(node)
            if wire.reply().startswith("220 "):
                return True
            wire.close()
            return False

        until(greeted, f"{node.host} greets", TOLD, self.cluster.tell)

    def mail(self, wire: Wire) -> str:
        """Send a small message; return the last reply."""
        for line in ("MAIL FROM:<s@client.test>", f"RCPT TO:<a@{DOMAIN}>", "DATA"):
            said = wire.command(line)
            if said[0] not in "23":
                return said
        wire.send(b"Subject: limits\r\n\r\nbody\r\n.\r\n")
        return wire.reply()

    def test_sessions(self) -> None:
        """Sessions at one node count at the other, until they end, or their node does."""
        at_a = self.greeted(self.a, 6)
        self.greeted(self.b, 4)
        self.refused(self.a)
        self.refused(self.b)
        at_a.pop().close()
        self.has_room(self.b)
        self.refused(self.b)
        self.a.kill()
        until(lambda: not self.b.peer("a")["alive"], "a is missed", 5)
        self.has_room(self.b)
        self.greeted(self.b, 4)
        self.refused(self.b)
        # Whoever comes back is told.
        self.a.start()
        until(lambda: self.b.linked("a"), "a is back", 5)
        self.refused(self.a)

    def test_rate(self) -> None:
        """Messages to one node use up what may be sent to the other."""
        (at_a,), (at_b,) = self.greeted(self.a, 1), self.greeted(self.b, 1)
        for wire in (at_a, at_b):
            self.assertTrue(wire.command("EHLO client.test").startswith("250"))
        for _ in range(6):
            self.assertTrue(self.mail(at_a).startswith("250"))
        time.sleep(TOLD)
        self.assertTrue(self.mail(at_b).startswith("450 4.7.1"))

    def test_known(self) -> None:
        """A client that sent mail to one node is greeted without delay by the other."""
        (at_a,) = self.greeted(self.a, 1)
        began = time.monotonic()
        self.greeted(self.b, 1)
        self.assertGreater(time.monotonic() - began, 0.9)
        self.assertTrue(at_a.command("EHLO client.test").startswith("250"))
        self.assertTrue(self.mail(at_a).startswith("250"))
        time.sleep(TOLD)
        began = time.monotonic()
        self.greeted(self.b, 1)
        self.assertLess(time.monotonic() - began, 0.5)
