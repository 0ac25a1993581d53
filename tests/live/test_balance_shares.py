"""Sessions at the virtual address are shared out by weight, to the session.

Three nodes and a host with real clients; each session brings a message, which must be in
the Maildir of the node that took it.  Who had a session is told by the greeting's host,
and by ``mailsecure cluster status``.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Mapping

from mailsecure.balancer.choosing import SETTLING
from tests.live import needs

from .cluster.balanced import BalanceTestCase
from .cluster.crowd import Tally
from .cluster.nodes import ADDRESS, CLIENT, DOMAIN
from .harness import program, until
from .wire import Wire

PROGRAMS = ["ip", "smtp-source"]
SESSIONS = 2000


@needs(root=True, programs=PROGRAMS)
class Shares(BalanceTestCase):
    """Each test begins with three nodes of equal weights, a as Master."""

    def setUp(self) -> None:
        """Begin in good order."""
        super().setUp()
        self.three()
        self.a, self.b, self.c = (self.cluster[name] for name in "abc")

    def totals(self) -> Counter[str]:
        """Return how many sessions each node had, as the Master tells."""
        return Counter({name: self.cluster.shown(name)["sessions_total"] for name in "abc"})

    def shared_out(self, sessions: int, **weights: int) -> Tally:
        """Send so many messages; all arrive, shared out by weight, and the Master says so."""
        before = self.totals()
        tally = self.sent(sessions)
        self.assertShares(tally, weights)
        self.assertEqual(self.totals() - before, tally.shares)
        for name in "abc":
            wanted = self.cluster.shown(name)["share_wanted"]
            self.assertAlmostEqual(wanted, weights[name] / sum(weights.values()), places=6)
        return tally

    def test_one_to_one(self) -> None:
        """(1, 1): the Master and a peer; the third has weight 0."""
        self.cluster.weigh(a=1, b=1, c=0)
        self.shared_out(SESSIONS, a=1, b=1, c=0)

    def test_three_to_one(self) -> None:
        """(3, 1): two peers; the Master has weight 0 and only directs."""
        self.cluster.weigh(a=0, b=3, c=1)
        self.shared_out(SESSIONS, a=0, b=3, c=1)

    def test_two_hundred_to_fifty(self) -> None:
        """(200, 50)."""
        self.cluster.weigh(a=200, b=50, c=0)
        self.shared_out(SESSIONS, a=200, b=50, c=0)

    def test_five_three_two(self) -> None:
        """(5, 3, 2): over the many, and over the first ten that come one by one."""
        self.cluster.weigh(a=5, b=3, c=2)
        self.shared_out(SESSIONS, a=5, b=3, c=2)
        few = self.sent(10, at_once=1)
        self.assertShares(few, {"a": 5, "b": 3, "c": 2}, within=0.1)

    def test_smtp_source(self) -> None:
        """Postfix's own load: 500 sessions, 20 at once, a message each."""
        self.cluster.weigh(a=5, b=3, c=2)
        before = self.totals()
        done = subprocess.run(
            [
                *self.cluster.network.command(CLIENT),
                *(program("smtp-source"), "-s", "20", "-m", "500", "-l", "2000"),
                *("-f", "s@client.test", "-t", f"a@{DOMAIN}", "-S", "of smtp-source", ADDRESS),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        shares = self.totals() - before
        self.assertEqual(shares, {"a": 250, "b": 150, "c": 100})

        def delivered() -> Counter[str]:
            found: Counter[str] = Counter()
            for name in "abc":
                for path in (self.cluster[name].directory / "Maildir" / "new").glob("*"):
                    found[name] += b"\nSubject: of smtp-source" in path.read_bytes()
            return found

        until(lambda: delivered() == shares, "all of it in the Maildirs", tell=self.cluster.tell)

    def test_one_to_none(self) -> None:
        """(1, 0): the Master keeps them all."""
        self.cluster.weigh(a=1, b=0, c=0)
        tally = self.shared_out(SESSIONS, a=1, b=0, c=0)
        self.assertEqual(set(tally.shares), {"a"})

    def test_nobody_has_a_weight(self) -> None:
        """(0, 0, 0): somebody has to; it is the Master."""
        self.cluster.weigh(a=0, b=0, c=0)
        self.assertEqual(set(self.sent(50).shares), {"a"})

    def test_weight_while_it_runs(self) -> None:
        """`cluster weight` counts from the next session on, without a fault; nodes know it."""
        crowd = self.crowd()
        self.cluster.had("a", "b", "c")
        self.weigh("b", "300")
        self.cluster.await_weights({"a": 100, "b": 300, "c": 100})
        changed = time.monotonic()
        self.cluster.had("a", "c", sessions=100)
        told = time.monotonic()
        tally = crowd.stop()
        self.assertUnharmed(tally)
        self.assertParts(tally.since(changed, told), {"a": 1, "b": 3, "c": 1})
        self.assertIn("300", self.a.cli("cluster", "weight").stdout)
        self.assertTrue(self.a.peer("b")["overridden"])

    def test_weight_outlives_the_master(self) -> None:
        """The new Master knows the weights that were told, also of a node that starts anew."""
        self.weigh("b", "1")
        self.weigh("c", "3")
        told = {"b": 1, "c": 3}
        self.cluster.await_weights(told)
        self.a.kill()
        until(lambda: self.b.group()["role"] == "master", "b is Master", tell=self.cluster.tell)
        self.c.stop()
        self.c.start()
        until(lambda: self.cluster.gets_sessions("c", "b"), "c is in again", tell=self.cluster.tell)
        self.assertEqual({name: self.b.peer(name)["weight"] for name in told}, told)
        tally = self.sent(200)
        self.assertParts(tally.shares, {"b": 1, "c": 3})
        # What is told away counts no more.
        self.weigh("b", "default", at="b")
        self.weigh("c", "default", at="b")
        self.assertParts(self.sent(200).shares, {"b": 1, "c": 1})

    def weigh(self, name: str, weight: str, at: str = "a") -> None:
        """Do what a postmaster does."""
        done = self.cluster[at].cli("cluster", "weight", name, weight)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def assertParts(self, shares: Mapping[str, int], weights: Mapping[str, int]) -> None:
        """Sessions under way at the ends of a count make a small difference."""
        sessions, total = sum(shares.values()), sum(weights.values())
        self.assertGreater(sessions, 100)
        self.assertLessEqual(set(shares), set(weights), shares)
        for name, weight in weights.items():
            wanted = sessions * weight / total
            self.assertAlmostEqual(shares[name], wanted, delta=20 + 0.01 * sessions, msg=shares)

    def test_least_sessions(self) -> None:
        """`balance = least-sessions`: who ends sessions sooner gets more of them."""
        self.a.change("cluster", "balance = least-sessions")
        self.cluster.weigh(b=200)
        self.cluster.idle()
        wires: list[tuple[str, Wire]] = []

        def connect(count: int) -> None:
            for _ in range(count):
                wire = self.cluster.wire()
                self.addCleanup(wire.close)
                wires.append((wire.reply()[4:].split(".")[0], wire))

        connect(40)
        self.assertEqual(Counter(name for name, _ in wires), {"a": 10, "b": 20, "c": 10})
        # All of b's end: it is given the next ones until it has its part again.
        for name, wire in wires:
            if name == "b":
                wire.command("QUIT")
                wire.close()
        wires[:] = [each for each in wires if each[0] != "b"]
        until(lambda: self.cluster.shown("b")["sessions"] == 0, "b has none", 5)
        connect(20)
        self.assertEqual(Counter(name for name, _ in wires), {"a": 10, "b": 20, "c": 10})

    def test_own_address(self) -> None:
        """A node's own address is its own: nothing is shared there."""
        for _ in range(6):
            with self.cluster.wire(self.a.address) as wire:
                self.assertTrue(wire.reply().startswith("220 a."))
            with self.cluster.wire(self.b.address) as wire:
                self.assertTrue(wire.reply().startswith("220 b."))

    def test_nodes_come_and_go(self) -> None:
        """A node nobody knew gets its share once it is heard; it stops, and nobody notices."""
        self.c.stop()
        crowd = self.crowd()
        self.cluster.had("a", "b", sessions=100)
        came = time.monotonic()
        self.c.start()
        until(lambda: self.cluster.gets_sessions("c"), "c is in", tell=self.cluster.tell)
        there = time.monotonic()
        self.cluster.had("a", "b", "c", sessions=100)
        went = time.monotonic()
        self.c.stop()
        gone = time.monotonic()
        self.cluster.had("a", "b", sessions=100)
        tally = crowd.stop()
        self.assertUnharmed(tally)
        self.assertParts(tally.since(0, came), {"a": 1, "b": 1})
        self.assertParts(tally.since(there, went), {"a": 1, "b": 1, "c": 1})
        self.assertParts(tally.since(gone), {"a": 1, "b": 1})


@needs(root=True, programs=PROGRAMS)
class Roles(BalanceTestCase):
    """Clusters in which not all nodes do the same."""

    def test_directors_and_a_scanner(self) -> None:
        """Directors without a weight only direct; a scanner works, and never is Master."""
        director, scanner = {"cluster": "role = director"}, {"cluster": "role = scanner"}
        cluster = self.alone(scanners=["c"], each={"a": director, "b": director, "c": scanner})
        self.assertEqual(set(self.sent(200).shares), {"c"})
        cluster["a"].kill()
        until(lambda: cluster["b"].group()["role"] == "master", "b is Master", tell=cluster.tell)
        self.assertEqual(set(self.sent(200).shares), {"c"})
        cluster["b"].kill()
        until(lambda: not cluster["b"].holds(), "nobody has the address", 5)
        time.sleep(1.5)
        self.assertFalse(cluster["c"].holds())
        self.assertEqual(cluster["c"].cluster()["groups"], [])
        with self.cluster.wire(cluster["c"].address) as wire:
            self.assertTrue(wire.reply().startswith("220 c."))

    def test_active_passive(self) -> None:
        """Without active-active the Master has them all, whatever the weights."""
        cluster = self.alone("a", "b", cluster="topology = active-passive\n")
        self.assertEqual(set(self.sent(200).shares), {"a"})
        cluster["a"].kill()
        until(lambda: cluster["b"].group()["role"] == "master", "b is Master", tell=cluster.tell)
        self.assertEqual(set(self.sent(200).shares), {"b"})
        self.assertIsNone(cluster["b"].cluster()["balance"])

    def test_slow_start(self) -> None:
        """With slow_start a node that came back rises to its share."""
        cluster = self.alone("a", "b", cluster="slow_start = 2s\n")
        cluster["b"].stop()
        crowd = self.crowd(at_once=10)
        # Who is here within so many seconds was here before.
        time.sleep(SETTLING)
        cluster["b"].start()
        until(lambda: cluster.gets_sessions("b"), "b is in", tell=cluster.tell)
        came = time.monotonic()
        time.sleep(3.5)
        tally = crowd.stop()
        self.assertUnharmed(tally)
        begun, risen = tally.since(came, came + 0.5), tally.since(came + 2.2)
        self.assertGreater(begun["b"], 0)
        self.assertLess(begun["b"], 0.35 * begun["a"])
        self.assertAlmostEqual(risen["b"] / risen["a"], 1, delta=0.2)
