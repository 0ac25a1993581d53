"""A cluster that shares its sessions judges them alike, whichever node has them.

Two nodes, active-active.  Clients come to the virtual address, and half of them are spliced
to the other node, which must see who they really are.
"""

from __future__ import annotations

import json
import time
from typing import Any

from mailsecure.testing.messages import EICAR
from tests.live import needs

from .cluster.balanced import BalanceTestCase
from .cluster.nodes import CLIENT, DOMAIN, Node
from .harness import until
from .load import unique_message

NODES = "ab"
MALWARE = b"Subject: bad\r\n\r\n" + EICAR + b"\r\n"
#: Until all nodes know what happened at one.
TOLD = 0.8
#: Replies to a transaction whose only recipient is refused: to MAIL, RCPT and DATA.
REFUSED = 3


@needs(root=True, programs=["ip"])
class Judged(BalanceTestCase):
    """What strangers send, at the virtual address."""

    def setUp(self) -> None:
        """Start two nodes that hold malware and count what a network sends."""
        super().setUp()
        sections = {
            "scan": "checks = markers rates\nmalware = quarantine",
            "rates": "network_messages = 8\nwindow = 10m",
            "records": "enabled = yes",
        }
        cluster = self.alone(*NODES, each=dict.fromkeys(NODES, sections))
        cluster.settle()
        self.a, self.b = cluster["a"], cluster["b"]

    def send(self, message: bytes) -> tuple[str, str]:
        """Send a message in a session of its own; return the node's name and the reply."""
        with self.cluster.wire() as wire:
            node = wire.reply().split()[1][0]
            wire.command("EHLO mx.client.test")
            replies = wire.transact(message, f"a@{DOMAIN}", sender="s@client.test")
            wire.command("QUIT")
        return node, replies[-1] if len(replies) > REFUSED else replies[1]

    def asked(self, node: Node, *arguments: str) -> list[dict[str, Any]]:
        """Return what a command of the postmaster's lists, as JSON, one a line."""
        done = node.cli(*arguments, "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_whoever_has_the_session(self) -> None:
        """All nodes know what each held, by the client's address; limits are common."""
        nodes = self.hold(6)
        client = self.cluster.network.address(CLIENT)
        for node in (self.a, self.b):
            held = self.asked(node, "quarantine", "list")
            self.assertEqual([each["node"] for each in held], nodes[::-1])
            self.assertEqual({each["client"] for each in held}, {client})
            self.assertEqual(len(self.asked(node, "quarantine", "list", "--node", "b")), 3)

            def traced(node: Node = node) -> bool:
                found = self.asked(node, "trace", "--client", client)
                return [each["node"] for each in found] == nodes

            until(traced, "the history", 10, self.cluster.tell)
        # Six of eight were sent, to both nodes together; each learns of the other's in time.
        clean = unique_message(500)[1]
        replies = [self.send(clean)[1][:3] for _ in range(2)]
        time.sleep(TOLD)
        replies += [self.send(clean)[1][:3] for _ in range(2)]
        self.assertEqual(replies, ["250", "250", "450", "450"])

    def test_let_out_from_elsewhere(self) -> None:
        """At a, what b holds is shown whole, explained, and let out; b knows who did it."""
        self.hold(2)
        held = {each["node"]: each["id"] for each in self.asked(self.a, "quarantine", "list")}
        at_a, at_b = held["a"], held["b"]
        whole = self.a.cli("quarantine", "show", at_b, "--full")
        self.assertEqual(whole.stdout.partition("Subject: ")[2].splitlines()[0], "bad")
        self.assertIn(EICAR.decode(), whole.stdout)

        def explained() -> bool:
            return "EICAR" in self.a.cli("why", at_b).stdout

        until(explained, "why", 10, self.cluster.tell)
        done = self.a.cli("quarantine", "release", at_b, "--reason", "asked for")
        self.assertEqual(done.stdout, "1 message released, for 1 recipient.\n", done.stderr)
        folder = self.b.directory / "Maildir" / "new"
        until(lambda: folder.is_dir() and list(folder.iterdir()), "the released one", 10)
        self.b.line(rf"{at_b}: released from quarantine by root \(uid 0\) on a .*asked for")
        again = self.a.cli("quarantine", "release", at_b)
        self.assertEqual(again.returncode, 66, again.stdout)
        # The death of a node costs nothing of what it holds, and is told.
        self.send(MALWARE)
        self.send(MALWARE)
        self.b.kill()
        until(lambda: not self.a.linked("b"), "b is missed", 5)
        alone = self.a.cli("quarantine", "list")
        self.assertIn(at_a, alone.stdout)
        self.assertEqual(alone.stderr, "Not asked: b, which is not linked.\n")
        everything = self.a.cli("quarantine", "delete", "--all")
        self.assertEqual(everything.returncode, 75, everything.stdout)
        self.assertIn("b is not linked: do it again there.", everything.stderr)
        self.b.start()
        self.cluster.settle()
        left = self.asked(self.a, "quarantine", "list")
        self.assertEqual([each["node"] for each in left], ["b"])

    def hold(self, sessions: int) -> list[str]:
        """Send malware; all of it is held, half of it at each node.  Return who had which."""
        sent = [self.send(MALWARE) for _ in range(sessions)]
        self.assertEqual({reply[:3] for _, reply in sent}, {"250"}, sent)
        nodes = [node for node, _ in sent]
        self.assertEqual(nodes.count("a"), nodes.count("b"))
        return nodes
