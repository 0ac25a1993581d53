"""Peers and Masters fail, drain and stop under load, and clients do not see it.

Three nodes share the sessions of twenty clients that never rest.  Whatever happens to a
peer, nobody has an error but those whose session that very peer had; every message that
was acknowledged is in a Maildir in the end, once its node is back.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.live import needs

from .cluster.balanced import BalanceTestCase, Misled
from .cluster.crowd import Tally
from .cluster.nodes import Node
from .cluster.rogue import SLOW
from .harness import until

PROGRAMS = ["ip"]
#: `connect_timeout`, and what a busy machine adds.
GREETED = 2.0 + 1.0
#: For how long a new Master may be waited for: its SYN is sent again after one second, and
#: after two more.
TOLD = 4.0


class FaultTestCase(BalanceTestCase):
    """What is asked of a crowd that met a fault."""

    def master(self, name: str) -> None:
        """Wait until a node is Master."""
        until(
            lambda: self.cluster[name].group()["role"] == "master",
            f"{name} is Master",
            tell=self.cluster.tell,
        )

    def is_in(self, name: str, at: str = "a", timeout: float = 10.0) -> None:
        """Wait until a node is given sessions."""
        until(
            lambda: self.cluster.gets_sessions(name, at), f"{name} is in", timeout,
            self.cluster.tell,
        )  # fmt: skip

    def assertOnlyThose(self, tally: Tally, victim: str, began: float) -> None:
        """Only sessions that ``victim`` had then failed."""
        strange = [
            each
            for each in tally.failed
            if each.node != victim or each.began > began or not each.greeted
        ]
        self.assertEqual(strange, [], tally)
        self.assertLess(tally.slowest_greeting, GREETED)


@needs(root=True, programs=PROGRAMS)
class Ends(FaultTestCase):
    """Nodes are killed and stopped; each test begins with a as Master, b and c as peers."""

    def setUp(self) -> None:
        """Begin in good order."""
        super().setUp()
        self.three()
        self.a, self.b, self.c = (self.cluster[name] for name in "abc")

    def test_kill_a_peer(self) -> None:
        """kill -9: its own sessions break, no others; it comes back and gets its share again."""
        crowd = self.crowd()
        self.cluster.had("b")
        began = time.monotonic()
        self.b.kill()
        killed = time.monotonic()
        time.sleep(1)
        back = time.monotonic()
        self.b.start()
        self.is_in("b")
        there = time.monotonic()
        self.cluster.had("b")
        tally = crowd.stop()
        self.assertOnlyThose(tally, "b", killed)
        self.assertGreater(tally.since(0, began)["b"], 20)
        self.assertEqual(tally.since(killed + 0.1, back)["b"], 0, tally)
        self.assertGreater(tally.since(there)["b"], 20, tally)
        self.assertNothingLost(tally)

    def test_freeze_a_peer(self) -> None:
        """SIGSTOP: others take what it does not; SIGCONT: its sessions go on, and new ones come."""
        crowd = self.crowd()
        self.cluster.had("b")
        stopped = time.monotonic()
        self.b.signal(signal.SIGSTOP)
        self.addCleanup(self.b.signal, signal.SIGCONT)
        time.sleep(3)
        frozen = time.monotonic()
        self.b.signal(signal.SIGCONT)
        self.is_in("b")
        there = time.monotonic()
        self.cluster.had("b")
        tally = crowd.stop()
        # Not even those that it had.
        self.assertEqual(tally.failed, [], tally)
        self.assertLess(tally.slowest_greeting, GREETED)
        self.assertGreater(sum(tally.since(stopped + 0.5, frozen).values()), 50, tally)
        self.assertGreater(tally.since(there)["b"], 20, tally)
        self.assertNothingLost(tally)

    def test_kill_the_master(self) -> None:
        """kill -9: clients that try again get through; nothing that had its 250 is lost."""
        crowd = self.crowd(again=True)
        self.cluster.had("a", "b", "c")
        began = time.monotonic()
        self.a.kill()
        self.master("b")
        time.sleep(1)
        self.cluster.had("b", "c", at="b")
        tally = crowd.stop()
        late = [each for each in tally.failed if each.began > began + TOLD]
        early = [each for each in tally.failed if each.ended < began]
        self.assertEqual(late + early, [], tally)
        after = tally.since(began + 1)
        self.assertGreater(after["b"], 20, tally)
        self.assertGreater(after["c"], 20, tally)
        # Whoever tried again has got through: each session brought one message.
        well = len(tally.sessions) - len(tally.failed)
        self.assertGreaterEqual(len(tally.acknowledged), well)
        self.a.start()
        self.assertNothingLost(tally)

    def test_terminate_a_peer(self) -> None:
        """SIGTERM of a peer under load: no session fails."""
        tally = self.while_working(self.b.stop)
        self.assertUnharmed(tally)
        self.assertGreater(tally.shares["b"], 20)

    def test_terminate_the_master(self) -> None:
        """SIGTERM of the Master under load: no session fails, the next Master goes on."""
        tally = self.while_working(self.a.stop)
        self.assertUnharmed(tally)
        self.master("b")
        self.assertGreater(tally.shares["a"], 20)

    def while_working(self, act: Callable[[], object], sessions: int = 30, **options: Any) -> Tally:
        """Return how clients fared that worked before, during and after it.

        Before it each node has so many sessions, and then each that is still at work.
        """
        crowd = self.crowd(**options)
        self.cluster.had("a", "b", "c", sessions=sessions)
        act()
        well = [each for each in self.cluster.nodes.values() if self.works(each)]
        (master, *_) = until(
            lambda: [each.host for each in well if each.group()["role"] == "master"],
            "there is a Master",
            tell=self.cluster.tell,
        )
        self.cluster.had(*(each.host for each in well), sessions=sessions, at=master)
        time.sleep(0.5)
        return crowd.stop()

    def works(self, node: Node) -> bool:
        """Say whether a node takes sessions."""
        return node.runs and bool(node.status()["drain"]["state"] == "working")

    def drain(self, node: Node, *options: str) -> str:
        """Do what a postmaster does; return what he is told."""
        done = node.cli("drain", *options, timeout=40)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_drain_a_peer(self) -> None:
        """drain: no session fails, and it gets none; undrain: it gets its share again."""
        crowd = self.crowd()
        self.cluster.had("b")
        began = time.monotonic()
        self.assertIn("drained", self.drain(self.b))
        drained = time.monotonic()
        self.assertEqual(self.b.status()["sessions"], 0)
        self.cluster.had("a", "c")
        undrained = time.monotonic()
        done = self.b.cli("undrain")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.is_in("b")
        there = time.monotonic()
        self.cluster.had("b")
        tally = crowd.stop()
        self.assertUnharmed(tally)
        self.assertGreater(tally.since(0, began)["b"], 20)
        self.assertEqual(tally.since(drained, undrained)["b"], 0)
        self.assertGreater(tally.since(there)["b"], 20)

    def test_drain_the_master(self) -> None:
        """drain: no session fails, another is Master, and shares without it."""
        drained: list[float] = []

        def act() -> None:
            self.assertIn("drained", self.drain(self.a))
            drained.append(time.monotonic())
            self.assertEqual(self.b.group()["role"], "master")

        tally = self.while_working(act)
        self.assertUnharmed(tally)
        after = tally.since(drained[0])
        self.assertEqual(after["a"], 0)
        self.assertGreater(after["b"], 20)
        self.assertGreater(after["c"], 20)
        self.assertFalse(self.a.holds())
        self.assertEqual(self.a.cli("undrain").returncode, 0)
        self.master("a")

    def test_drain_the_master_of_slow_sessions(self) -> None:
        """Nor does one fail that brings a message now and then, for more than a second."""
        tally = self.while_working(partial(self.drain, self.a), 6, messages=3, hold=0.4)
        self.assertUnharmed(tally)
        self.master("b")
        self.assertEqual(len(tally.acknowledged), 3 * len(tally.sessions))

    def test_drain_with_a_long_session(self) -> None:
        """A session that does not end is told 421 when the time is up, and drain ends."""
        self.cluster.weigh(a=0, b=1, c=0)
        with self.cluster.wire() as wire:
            self.assertTrue(wire.reply().startswith("220 b."))
            self.assertTrue(wire.command("EHLO client.test").startswith("250"))
            began = time.monotonic()
            self.assertIn("drained", self.drain(self.b, "--timeout", "2s"))
            self.assertGreater(time.monotonic() - began, 1.5)
            self.assertLess(time.monotonic() - began, 6)
            self.assertTrue(wire.reply().startswith("421 4.3.2"))
        # Nobody else has a weight, and b takes nothing: the Master has to.
        self.assertEqual(set(self.sent(20).shares), {"a"})

    def test_address_lost(self) -> None:
        """Sessions at an address that has moved are dead, and are not kept until they time out."""
        self.cluster.weigh(a=1, b=0, c=1)
        self.cluster.idle()
        with self.cluster.wire() as one, self.cluster.wire() as other:
            self.assertEqual({one.reply()[4], other.reply()[4]}, {"a", "c"})
            self.assertEqual(self.a.status()["sessions"], 1)
            self.assertEqual(self.a.cluster()["balance"]["spliced"], 1)
            self.a.resign(60)
            self.addCleanup(self.a.resign, 1)
            self.master("b")
            until(lambda: not self.a.status()["sessions"], "a's session ends", 8)
            until(lambda: not self.a.cluster()["balance"]["spliced"], "that with c ends", 3)
            until(lambda: not self.c.status()["sessions"], "c knows", 3)

    def test_drain_alone(self) -> None:
        """A Master whom nobody could follow says so, and stays at work."""
        self.b.kill()
        self.c.kill()
        until(lambda: not self.a.peer("b")["alive"], "b is missed", 5)
        until(lambda: not self.a.peer("c")["alive"], "c is missed", 5)
        done = self.a.cli("drain", "--timeout", "2s")
        self.assertEqual(done.returncode, os.EX_UNAVAILABLE, done.stdout)
        self.assertIn("nobody else could be Master of mail: this node stays at work", done.stderr)
        self.assertTrue(self.a.holds())
        self.assertEqual(set(self.sent(5).shares), {"a"})


@needs(root=True, programs=PROGRAMS)
class Rogues(FaultTestCase):
    """The peer c is well, but its port for sessions of others is not."""

    def setUp(self) -> None:
        """Begin in good order, with c's port as it should be."""
        super().setUp()
        cluster = self.common("three nodes, one of them misled", Misled)
        if self.ejections():
            # Who was out waits longer the next time; a new Master has no memory.
            cluster["a"].kill()
            cluster.settle()
        self.rogue = cluster.rogue

    def misbehaves(self, *manners: str) -> Tally:
        """Let c's port do so, one after another, under load; then be well, and asked again."""
        ejections = self.ejections()
        crowd = self.crowd()
        self.cluster.had("c")
        before = dict(self.rogue.met)
        for number, manner in enumerate(manners, 1):
            self.rogue.manner = manner
            until(
                partial(self.was_out, ejections + number),
                f"c is out: {manner}",
                tell=self.cluster.tell,
            )
            self.assertFalse(self.cluster.gets_sessions("c"))
            # Who is out is not asked by every client: those on their way, and probes.
            time.sleep(0.6)
            asked = self.rogue.met.get(manner, 0) - before.get(manner, 0)
            self.assertLess(asked, 60)
            self.rogue.manner = "pass"
            self.is_in("c", timeout=20)
        there = time.monotonic()
        self.cluster.had("c")
        tally = crowd.stop()
        self.assertEqual(tally.failed, [], tally)
        self.assertLess(tally.slowest_greeting, GREETED)
        self.assertGreater(tally.since(there)["c"], 10, tally)
        self.assertNothingLost(tally)
        return tally

    def ejections(self) -> int:
        """Return how often c was put out."""
        return int(self.cluster.shown("c").get("ejections", 0))

    def was_out(self, times: int) -> bool:
        """Say whether c was put out so many times."""
        return self.ejections() >= times

    def test_reset(self) -> None:
        """A reset before the banner."""
        self.misbehaves("reset")

    def test_silent(self) -> None:
        """It accepts, and says nothing."""
        self.misbehaves("silent")

    def test_refused(self) -> None:
        """Nobody listens."""
        self.misbehaves("refuse")

    def test_slow(self) -> None:
        """Its banner comes too late: the clients are with others by then."""
        self.assertGreater(SLOW, GREETED)
        self.misbehaves("slow")

    def test_unwilling(self) -> None:
        """It says 421, or what is no SMTP."""
        self.misbehaves("unwilling", "babble")

    def test_closes(self) -> None:
        """It closes or resets when it has heard who comes."""
        self.misbehaves("close", "hear and reset")

    def test_all_peers(self) -> None:
        """Nobody else is any use: the Master has them all, within the time."""
        self.cluster.weigh(a=0, b=0, c=1)
        self.assertEqual(set(self.sent(20).shares), {"c"})
        self.rogue.manner = "silent"
        tally = self.sent(20)
        self.assertEqual(set(tally.shares), {"a"})
        self.assertLess(tally.slowest_greeting, GREETED)
