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
        """Held and traced where it was taken, by the client's address; limits are common."""
        malware = b"Subject: bad\r\n\r\n" + EICAR + b"\r\n"
        sent = [self.send(malware) for _ in range(6)]
        self.assertEqual({reply[:3] for _, reply in sent}, {"250"}, sent)
        self.assertEqual(sorted(node for node, _ in sent), ["a"] * 3 + ["b"] * 3)
        client = self.cluster.network.address(CLIENT)
        for node in (self.a, self.b):
            held = self.asked(node, "quarantine", "list")
            self.assertEqual(len(held), 3)
            self.assertEqual({each["client"] for each in held}, {client})

            def traced(node: Node = node) -> bool:
                found = self.asked(node, "trace", "--client", client)
                return [each["action"] for each in found] == ["quarantine"] * 3

            until(traced, "the history", 10, self.cluster.tell)
        # A restart, and the death of the other, cost nothing of what is held.
        self.b.kill()
        self.b.start()
        self.cluster.settle()
        name = self.asked(self.b, "quarantine", "list")[0]["id"]
        self.assertEqual(self.b.cli("quarantine", "release", name).returncode, 0)
        folder = self.b.directory / "Maildir" / "new"
        until(lambda: folder.is_dir() and list(folder.iterdir()), "the released one", 10)
        # Six of eight were sent, to both nodes together; each learns of the other's in time.
        clean = unique_message(500)[1]
        replies = [self.send(clean)[1][:3] for _ in range(2)]
        time.sleep(TOLD)
        replies += [self.send(clean)[1][:3] for _ in range(2)]
        self.assertEqual(replies, ["250", "250", "450", "450"])
