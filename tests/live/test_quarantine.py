"""What is held, in the real daemon, by the real command: seen, released once, deleted.

The daemon finds the held messages in its spool when it starts, put there as the gateway
would have.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace

from mailsecure.config.load import parse_config
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import NewMessage, Quarantine
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import IdSource, id_name
from mailsecure.spool.packing import packed
from mailsecure.spool.storage import Storage

from .harness import Gateway, LiveTestCase, until
from .held import held_uniques
from .load import is_intact, unique_message
from .sinks import Sink

TRACE = b"Received: from a (b)\r\n\tby c; Mon, 23 Nov 2026 12:00:00 +0000\r\n"


class Held(LiveTestCase):
    """Three held messages: a small one, a large one, and one that is held for one of two."""

    def setUp(self) -> None:
        """Start a daemon on a spool that holds them."""
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.close)
        self.node = self.gateway(domains=f"example.com = {self.sink.route}")
        self.node.stop()
        self.names: list[str] = []
        self.uniques: list[str] = []
        self.seed(self.node)
        self.node.start()
        # The one that is queued for somebody as well.
        self.sink.wait(1)
        self.assertEqual(self.sink.clear()[0].recipients, ("b@example.com",))

    def seed(self, node: Gateway) -> None:
        """Have them in the spool, as the gateway would, an age ago."""
        ids, now = IdSource(time.time, random.SystemRandom()), time.time() - 40 * 86400
        settings = replace(parse_config("", "test.ini").spool, min_free=0)
        storage = Storage(node.state, settings)
        storage.open()
        for octets, mailboxes, held in (
            (300, ["a@example.com", "b@example.com"], {0, 1}),
            (900_000, ["a@example.com"], {0}),
            (5000, ["a@example.com", "b@example.com"], {0}),
        ):
            unique, content = unique_message(octets)
            body = MemoryBody([TRACE, content])
            message = NewMessage(
                ids.draw(),
                Envelope("m@evil.test", tuple(Recipient(m, "example.com") for m in mailboxes)),
                Arrival("192.0.2.1", "evil\x1b[31m", "ESMTP", "S1"),
                now,
                packed(body, node.state) if len(held) == len(mailboxes) else body,
                now,
                Quarantine(
                    frozenset(held), "score of 22.5", 22.5, (("VIRUS", 20.0, "Eicar"),), unique
                ),
            )
            storage.commit([message], [])
            self.names.append(id_name(message.id))
            self.uniques.append(unique)
            now += 1
        storage.close()

    def command(self, *arguments: str, code: int = 0) -> str:
        """Run ``mailsecure quarantine …``; return what it printed."""
        done = self.node.cli("quarantine", *arguments)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout if code == 0 else done.stderr

    def listed(self, *filters: str) -> list[str]:
        """Return the names of what is held."""
        lines = self.command("list", "--json", *filters).splitlines()
        return [json.loads(line)["id"] for line in lines]

    def test_seen(self) -> None:
        """list, show and status tell what there is; a terminal is told nothing by a peer."""
        small, large, mixed = self.names
        self.assertEqual(self.listed(), [mixed, large, small])
        self.assertEqual(self.listed("--recipient", "b@example.com"), [small])
        self.assertEqual(
            self.listed("--reason", "virus", "--older", "30d", "--limit", "1"), [mixed]
        )
        self.assertEqual(self.listed("--since", "1d"), [])
        text = self.command("list") + self.command("show", large)
        self.assertIn("evil\\x1b[31m", text)
        self.assertNotIn("\x1b", text)
        full = self.node.cli("quarantine", "show", large, "--full").stdout
        self.assertTrue(is_intact(full.replace("\n", "\r\n").encode().partition(b"+0000\r\n")[2]))
        quarantine = self.node.status()["quarantine"]
        self.assertEqual((quarantine["messages"], quarantine["recipients"]), (3, 4))
        self.assertLess(quarantine["octets"], 100_000)
        self.assertEqual(self.node.queued(), 0)
        self.assertIn("quarantine, messages: 3", self.node.cli("status").stdout)

    def test_released_once(self) -> None:
        """It arrives whole, with its envelope, for whom it was released, once."""
        small, large, mixed = self.names
        out = self.command("release", small, "--recipient", "b@example.com", "--reason", "fine")
        self.assertEqual(out, "1 message released, for 1 recipient.\n")
        (taken,) = self.sink.wait(1)
        self.assertEqual((taken.sender, taken.recipients), ("m@evil.test", ("b@example.com",)))
        self.assertTrue(taken.content.startswith(TRACE))
        self.node.line(f"{small}: released from quarantine by .* reason=fine")
        self.assertIn("nothing in the quarantine", self.command("release", "0" * 13, code=66))
        self.command("release", large, mixed)
        self.sink.wait(3)
        self.node.stop()
        self.node.restart()
        self.node.settle()
        found = [
            (each.recipients, is_intact(each.content[len(TRACE) :])) for each in self.sink.taken()
        ]
        self.assertEqual(sorted(found), [
            (("a@example.com",), True), (("a@example.com",), True), (("b@example.com",), True),
        ])  # fmt: skip
        self.assertEqual(self.listed(), [small])

    def test_next_hop_away(self) -> None:
        """What is released while its next hop is away waits for it, however old it is."""
        small, *_ = self.names
        self.sink.down()
        self.command("release", small)
        until(
            lambda: "refused" in self.node.cli("queue", "list").stdout,
            "a first attempt",
            20,
            self.node.tail,
        )
        self.assertEqual(self.node.queued(), 1)
        self.sink.up()
        self.node.cli("queue", "flush")
        self.assertEqual(self.sink.wait(1)[0].recipients, ("a@example.com", "b@example.com"))

    def test_deleted_and_kept(self) -> None:
        """What is deleted is gone; the rest survives a kill, and is whole."""
        small, large, mixed = self.names
        self.assertIn("needs --all", self.command("delete", code=64))
        self.command("delete", "--recipient", "b@example.com")
        self.command("delete", mixed)
        self.assertEqual(self.listed(), [large, small])
        self.node.kill()
        self.assertEqual(held_uniques(self.node.state), set(self.uniques[:2]))
        self.node.start()
        self.command("delete", "--all")
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.sink.taken(), [])
