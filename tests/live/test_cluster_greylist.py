"""What one node learnt of strangers, all nodes know: greylisting, and how much was sent.

Two nodes, active-passive, each asked at its own address by one client.
"""

from __future__ import annotations

import time

from tests.live import needs

from .cluster.nodes import DOMAIN, WITNESS, ClusterTestCase, Node
from .harness import until
from .wire import Wire

#: Until all nodes know what happened at one: a few times what it takes.
TOLD = 0.8
JUDGE = "10.77.0.14"


@needs(root=True, programs=["ip"])
class SharedTables(ClusterTestCase):
    """One client, two nodes."""

    def nodes(self, checks: str, **sections: str) -> tuple[Node, Node]:
        """Start two nodes with some checks."""
        each = {"scan": f"checks = {checks}", "relay": f"networks = {JUDGE}", **sections}
        cluster = self.own("a", "b", each=dict.fromkeys("ab", each))
        a, b = cluster["a"], cluster["b"]
        until(lambda: a.linked("b") and b.linked("a"), "links", 10)
        return a, b

    def replies(self, node: Node, sender: str = "s@client.test", mails: int = 1) -> list[str]:
        """Send some mail to a node; return the last reply of each."""
        with self.cluster.network.inside(WITNESS, lambda: Wire(node.address)) as wire:
            wire.hello("mx.client.test")
            said = []
            for _ in range(mails):
                replies = wire.transact(b"Subject: x\r\n\r\nx\r\n", f"a@{DOMAIN}", sender=sender)
                said.append(replies[-1] if len(replies) > 3 else replies[1])
            wire.command("QUIT")
        return said

    def test_who_waited_at_one_passes_at_the_other(self) -> None:
        """Also after a node was away; and what it learnt survives kill -9."""
        a, b = self.nodes("greylist", greylist="delay = 4s\ntrust_after = 0")
        (reply,) = self.replies(a)
        self.assertTrue(reply.startswith("450 4.7.1"), reply)
        waited = time.monotonic()
        time.sleep(TOLD)
        (reply,) = self.replies(b)
        self.assertTrue(reply.startswith("450 4.7.1"), reply)
        # For so long since it was at a, not since it was at b.
        time.sleep(max(0.0, waited + 4.2 - time.monotonic()))
        (reply,) = self.replies(b)
        self.assertTrue(reply.startswith("250"), reply)
        time.sleep(TOLD)
        (reply,) = self.replies(a)
        self.assertTrue(reply.startswith("250"), reply)
        # A node that was away is told everything when it is back.
        b.kill()
        b.directory.joinpath("state", "greylist.db").unlink(missing_ok=True)
        b.start()
        until(lambda: b.linked("a"), "the link", 10)
        time.sleep(TOLD)
        (reply,) = self.replies(b)
        self.assertTrue(reply.startswith("250"), reply)

    def test_what_is_sent_to_both_adds_up(self) -> None:
        """A sender's messages count wherever they were sent."""
        a, b = self.nodes("rates", rates="sender_messages = 6\nwindow = 10m")
        self.assertEqual([each[:3] for each in self.replies(a, mails=4)], ["250"] * 4)
        time.sleep(TOLD)
        said = [each[:3] for each in self.replies(b, mails=4)]
        self.assertEqual(said, ["250", "250", "450", "450"])
        # Another sender has his own.
        self.assertEqual([each[:3] for each in self.replies(b, "other@client.test")], ["250"])
