"""The Master of a pair is drained under load, and put to work again: nobody sees it.

``mailsecure drain`` is run as a postmaster does, SIGTERM likewise, where it does the same;
:mod:`.test_drain` has what it means for a session.
"""

from __future__ import annotations

import os
import time

from tests.live import needs

from .cluster.balanced import Balanced, BalanceTestCase
from .cluster.crowd import Tally
from .harness import until
from .test_drain import GOODBYE, begin
from .wire import Closed


@needs(root=True, programs=["ip"])
class Pair(BalanceTestCase):
    """Two nodes, active-passive; a is Master when a test begins."""

    def setUp(self) -> None:
        """Begin in good order."""
        super().setUp()

        self.pair_of_them()
        self.a, self.b = self.cluster["a"], self.cluster["b"]

    def pair_of_them(self) -> None:
        """Have a cluster that all these tests share."""
        self.common(
            "two nodes, one of which stands by",
            lambda: Balanced("a", "b", cluster="topology = active-passive"),
        )

    def is_master(self, name: str) -> bool:
        """Say whether a node is Master."""
        return bool(self.cluster[name].group()["role"] == "master")

    def test_drain_under_load(self) -> None:
        """No session fails; b has them then; a says why it stands back, and comes back."""
        crowd = self.crowd()
        time.sleep(1)
        done = self.a.cli("drain", timeout=40)
        drained = time.monotonic()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue(self.is_master("b"))
        time.sleep(1.5)
        tally = crowd.stop()
        self.assertUnharmed(tally)
        self.moved(tally, drained)
        self.assertFalse(self.a.holds())
        page = self.a.cli("cluster", "status").stdout
        self.assertIn("stands back: this node drains", page)
        with self.cluster.wire(self.a.address) as wire:
            self.assertTrue(wire.reply().startswith(GOODBYE))
        self.assertEqual(self.a.cli("undrain").returncode, 0)
        until(lambda: self.is_master("a"), "a is Master again", tell=self.cluster.tell)

    def moved(self, tally: Tally, moment: float) -> None:
        """The sessions were a's before, and are b's since."""
        self.assertGreater(tally.since(0, moment)["a"], 50)
        after = tally.since(moment)
        self.assertEqual(after["a"], 0)
        self.assertGreater(after["b"], 50)

    def test_terminate_under_load(self) -> None:
        """SIGTERM: no session fails, either."""
        crowd = self.crowd()
        time.sleep(1)
        self.a.stop()
        stopped = time.monotonic()
        time.sleep(1.5)
        tally = crowd.stop()
        self.a.start()
        self.assertUnharmed(tally)
        self.moved(tally, stopped)

    def test_an_idle_session(self) -> None:
        """Who stays is told so in time: before the address moves."""
        for leave in (lambda: begin(self.a).communicate(timeout=30), self.a.stop):
            with self.cluster.wire() as wire:
                wire.hello()
                began = time.monotonic()
                leave()
                # Not after ten seconds: that is how long lost goodbyes are waited for.
                self.assertLess(time.monotonic() - began, 8)
                self.assertTrue(wire.reply().startswith(GOODBYE))
                with self.assertRaises(Closed):
                    wire.reply()
            self.assertTrue(self.is_master("b"))
            if self.a.runs:
                self.a.cli("undrain")
                until(lambda: self.is_master("a"), "a is Master again", tell=self.cluster.tell)

    def test_both(self) -> None:
        """b drains already, so a may not; when b is back it may."""
        self.assertTrue(self.b.cli("drain").stdout.endswith("drained\n"))
        done = self.a.cli("drain")
        self.assertEqual(done.returncode, os.EX_UNAVAILABLE, done.stdout)
        self.assertIn("nobody else could be Master of mail: this node stays at work", done.stderr)
        self.assertTrue(self.a.holds())
        self.assertEqual(set(self.sent(5).shares), {"a"})
        self.b.cli("undrain")
        until(lambda: not self.a.peer("b")["fitness"], "b is well", tell=self.cluster.tell)
        self.assertEqual(self.a.cli("drain").returncode, 0)
        self.assertTrue(self.b.holds())

    def test_the_last_one_serves(self) -> None:
        """A drained node whose Master dies takes the address, and mail."""
        self.assertEqual(self.b.cli("drain").returncode, 0)
        self.a.kill()
        until(lambda: self.is_master("b"), "b is Master", tell=self.cluster.tell)
        time.sleep(1)
        self.assertEqual(set(self.sent(5).shares), {"b"})
        self.assertIn("drained, but Master: nobody else is", self.b.cli("status").stdout)
