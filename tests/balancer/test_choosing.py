"""The pool gives sessions to whom it may, in their shares, and knows why it gives others none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.balancer.choosing import SETTLING, Change, Member, Pool, Rules, time_for
from mailsecure.balancer.report import report
from mailsecure.balancer.values import Failing
from mailsecure.cluster.values import Fitness
from mailsecure.config.model import Balance

from .fakes import backend


class PoolCase(SynchronousTestCase):
    """Ourselves and two peers."""

    rules = Rules(adaptive=False)

    def setUp(self) -> None:
        """All are there from the start, with equal weights."""
        self.now = 100.0
        self.pool = Pool(self.rules)
        self.nodes = [backend("me", 0), backend("a"), backend("b")]
        self.assertEqual(self.update(), [Change(name, "") for name in ("me", "a", "b")])

    def update(self) -> list[Change]:
        """Tell the pool of the nodes."""
        return self.pool.update(self.now, self.nodes)

    def change(self, node: str, **changes: Any) -> list[Change]:
        """Let a node be different."""
        self.nodes = [
            replace(each, **changes) if each.node == node else each for each in self.nodes
        ]
        return self.update()

    def picks(self, count: int, *without: str) -> dict[str, int]:
        """Give out sessions that are over at once; return who got how many."""
        found: dict[str, int] = {}
        for _ in range(count):
            member = self.pool.pick(self.now, without)
            name = "me" if member is None else member.name
            found[name] = found.get(name, 0) + 1
            if member is not None:
                self.pool.ended(member, 1, 2)
        return found

    def member(self, name: str = "a") -> Member:
        """Return a member."""
        return self.pool.members[name]


class ChoosingTests(PoolCase):
    """Who may have sessions."""

    def test_shares(self) -> None:
        """Each its share; a change of weight counts at once."""
        self.assertEqual(self.picks(6), {"me": 2, "a": 2, "b": 2})
        self.assertEqual(self.change("a", weight=2), [])
        self.assertEqual(self.picks(8), {"me": 2, "a": 4, "b": 2})
        self.assertEqual(self.change("me", weight=0), [])
        self.assertEqual(self.picks(6), {"a": 4, "b": 2})
        self.assertEqual((self.member().octets_in, self.member().octets_out), (10, 20))

    def test_why_not(self) -> None:
        """Each reason is told once, and its end."""
        for changes, back, why in (
            ({"alive": False}, {"alive": True}, "not heard"),
            ({"port": 0}, {"port": 1}, "takes no sessions of others"),
            ({"fitness": Fitness.SPOOL}, {"fitness": Fitness.FIT}, "its spool is not well"),
        ):
            self.assertEqual(self.change("a", **changes), [Change("a", why)])
            self.assertEqual(self.update(), [])
            # A weight that changes meanwhile is that with which it comes back.
            self.assertEqual(self.change("a", weight=1), [])
            self.assertEqual(self.picks(4), {"me": 2, "b": 2})
            self.assertEqual(self.change("a", **back), [Change("a", "")])
            self.assertEqual(self.picks(6), {"me": 2, "a": 2, "b": 2})

    def test_weight_while_out(self) -> None:
        """Who comes back has the weight of now."""
        self.change("a", alive=False)
        self.change("a", weight=2)
        self.change("a", alive=True)
        self.assertEqual(self.picks(4), {"me": 1, "a": 2, "b": 1})

    def test_ourselves(self) -> None:
        """The same goes for us, where another can have the session."""
        why = [Change("me", "overloaded")]
        self.assertEqual(self.change("me", fitness=Fitness.OVERLOADED), why)
        self.assertEqual(self.picks(4), {"a": 2, "b": 2})
        self.assertEqual(self.picks(2, "a", "b"), {"me": 2})
        self.assertEqual(self.change("me", fitness=Fitness.FIT), [Change("me", "")])
        self.assertEqual(self.pool.drain(self.now, True), [Change("me", "draining")])
        self.assertTrue(self.pool.draining)
        self.assertEqual(self.picks(4), {"a": 2, "b": 2})
        self.assertEqual(self.pool.drain(self.now, False), [Change("me", "")])

    def test_draining_before_anything(self) -> None:
        """It may be told before who is there."""
        pool = Pool(self.rules)
        self.assertEqual(pool.drain(self.now, True), [])
        changes = pool.update(self.now, self.nodes)
        self.assertEqual(changes[0], Change("me", "draining"))

    def test_forgotten(self) -> None:
        """A node that the cluster forgets is gone; what comes of it later harms nothing."""
        member = self.pool.pick(self.now, ("b", "me"))
        assert member is not None
        self.nodes = [each for each in self.nodes if each.node != "a"]
        self.assertEqual(self.update(), [Change("a", "forgotten")])
        self.assertEqual(self.pool.failed(self.now, member, Failing.RESET), [])
        self.assertEqual(self.pool.probed(self.now, member, None), [])
        self.assertEqual(self.picks(4), {"me": 2, "b": 2})

    def test_tried(self) -> None:
        """Who was tried is left out."""
        self.assertEqual(self.picks(3, "a"), {"me": 2, "b": 1})

    def test_limit(self) -> None:
        """A peer has at most so many sessions at once, also when it comes back; not we."""
        self.pool.reconfigure(self.now, Rules(adaptive=False, peer_sessions=1))
        held = [self.pool.pick(self.now, ("me",)) for _ in range(3)]
        self.assertEqual([each and each.name for each in held], ["a", "b", None])
        self.change("a", alive=False)
        self.change("a", alive=True)
        self.assertIsNone(self.pool.pick(self.now, ("me",)))
        first = held[0]
        assert first is not None
        self.pool.ended(first, 0, 0)
        self.assertIs(self.pool.pick(self.now, ("me",)), first)

    def test_least_sessions(self) -> None:
        """Our own sessions are those that we are told of."""
        self.pool.reconfigure(self.now, Rules(Balance.LEAST_SESSIONS, adaptive=False))
        picks = [self.pool.pick(self.now, here=here) for here in (5, 5, 5, 0)]
        names = [each and each.name for each in picks]
        self.assertEqual((sorted(map(str, names[:2])), names[3]), (["a", "b"], None))
        self.pool.drain(self.now, True)
        self.assertIsNotNone(self.pool.pick(self.now))

    @given(st.lists(st.sampled_from(["a", "b", "x", "y"]), max_size=30))
    def test_coming_and_going(self, events: list[str]) -> None:
        """Whoever comes and goes: the picker has exactly those that may have sessions."""
        nodes = {"a": backend("a"), "b": backend("b")}
        pool = Pool(self.rules)
        for now, event in enumerate(events, 10):
            if event in nodes:
                nodes[event] = replace(nodes[event], alive=not nodes[event].alive)
            else:
                member = pool.pick(now, ("me",))
                if member is not None:
                    why = Failing.OURS if event == "x" else Failing.REFUSED
                    pool.failed(now, member, why)
            pool.update(now, [backend("me", 0), *nodes.values()])
            there = {name for name, each in pool.members.items() if each.why == ""}
            self.assertEqual(set(pool.picker.nodes), there)
            self.assertTrue(all(each.open == 0 for each in pool.members.values()))


class SlowStartTests(PoolCase):
    """Who starts with a part of its weight."""

    rules = Rules(slow_start=10.0, adaptive=False)

    def weight(self, name: str) -> float:
        """Return what counts now."""
        return self.pool.picker.weight(name, self.now)

    def test_at_our_start(self) -> None:
        """Those that are there, or are heard soon, have their whole weight."""
        self.now += SETTLING - 1
        self.nodes.append(backend("c"))
        self.update()
        self.assertEqual([self.weight(each) for each in ("me", "a", "c")], [1.0] * 3)

    def test_new(self) -> None:
        """Who comes later, or comes back, rises to it."""
        self.now += SETTLING
        self.nodes.append(backend("c"))
        self.change("a", alive=False)
        self.change("a", alive=True)
        self.change("b", incarnation=2)
        self.assertEqual([self.weight(each) for each in ("a", "b", "c")], [0.1] * 3)
        self.now += 5
        self.assertEqual(self.weight("c"), 0.5)
        self.now += 5
        self.assertEqual(self.weight("c"), 1.0)


class HealthTests(PoolCase):
    """Failures, probes, loads."""

    def take(self, name: str = "a") -> Member:
        """Give a peer a session."""
        member = self.pool.pick(self.now, {"me", "a", "b"} - {name})
        assert member is not None
        return member

    def eject(self) -> None:
        """Let a peer fail."""
        member = self.take()
        changes = self.pool.failed(self.now, member, Failing.SILENT)
        self.assertEqual(changes, [Change("a", "no greeting in time")])
        self.assertEqual(member.open, 0)

    def test_out_and_back(self) -> None:
        """Out at once; a hello since, its time, and a probe bring it back."""
        self.eject()
        self.assertEqual(self.picks(4), {"me": 2, "b": 2})
        self.assertEqual(self.pool.to_probe(self.now + 1), [])
        self.now += 0.5
        self.change("a", heard=self.now)
        self.assertEqual(self.pool.to_probe(self.now), [])
        self.now += 0.5
        self.assertEqual(self.pool.to_probe(self.now), [self.member()])
        self.assertEqual(self.pool.to_probe(self.now), [])
        self.assertEqual(self.update(), [])
        self.assertEqual(self.pool.probed(self.now, self.member(), None), [Change("a", "")])
        self.assertEqual(self.picks(6), {"me": 2, "a": 2, "b": 2})
        self.assertEqual(self.member().health.ejections, 1)

    def test_no_probe(self) -> None:
        """Who could not have a session anyway is not probed."""
        self.eject()
        self.now += 2
        for changes, back in (
            ({"alive": False}, {"alive": True}),
            ({"port": 0}, {"port": 1}),
            ({"fitness": Fitness.DRAINING}, {"fitness": Fitness.FIT}),
        ):
            self.change("a", heard=self.now, **changes)
            self.assertEqual(self.pool.to_probe(self.now), [])
            self.change("a", **back)
        self.assertEqual(self.pool.to_probe(self.now), [self.member()])

    def test_probe_fails(self) -> None:
        """It waits for longer, and says what it was now."""
        self.eject()
        self.now += 1
        self.change("a", heard=self.now)
        self.pool.to_probe(self.now)
        changes = self.pool.probed(self.now, self.member(), Failing.REFUSED)
        self.assertEqual(changes, [Change("a", "refused")])
        self.assertEqual(self.member().health.until, self.now + 2)
        failures = {Failing.SILENT: 1, Failing.REFUSED: 1}
        self.assertEqual(self.member().failures, failures)

    def test_probe_without_means(self) -> None:
        """A probe that we could not send is sent later, and counted nowhere."""
        self.eject()
        self.now += 1
        self.change("a", heard=self.now)
        self.pool.to_probe(self.now)
        self.assertEqual(self.pool.probed(self.now, self.member(), Failing.OURS), [])
        self.now += 2
        self.change("a", heard=self.now)
        self.assertEqual(self.pool.to_probe(self.now), [self.member()])
        self.assertEqual(self.member().failures, {Failing.SILENT: 1})

    def test_new_start(self) -> None:
        """A peer that started anew is probed at once."""
        self.eject()
        self.now += 0.1
        self.change("a", heard=self.now, incarnation=2)
        self.assertEqual(self.pool.to_probe(self.now), [self.member()])

    def test_ours(self) -> None:
        """Our own want does not put a peer out, and is counted."""
        self.assertEqual(self.pool.failed(self.now, self.take(), Failing.OURS), [])
        self.assertEqual(self.member().failures, {Failing.OURS: 1})
        self.assertEqual(self.picks(3), {"me": 1, "a": 1, "b": 1})

    def test_load(self) -> None:
        """A node that reports a high load gets less, if that is wanted; then more again."""
        self.pool.reconfigure(self.now, Rules(adaptive=True))
        for _ in range(40):
            self.now += 1
            self.change("a", load=1000)
        self.assertEqual(self.picks(210)["a"], 10)
        self.pool.reconfigure(self.now, Rules(adaptive=False))
        self.assertEqual(self.picks(210)["a"], 70)
        self.pool.reconfigure(self.now, Rules(adaptive=True))
        for _ in range(40):
            self.now += 1
            self.change("a", load=0)
        self.assertEqual(self.picks(210)["a"], 70)


class ReportTests(PoolCase):
    """What is shown."""

    def shown(self) -> dict[str, Any]:
        """Return the report, at noon; we have seven sessions."""
        return report(self.pool, self.now, 43200.0, 7)

    def test_nodes(self) -> None:
        """Sessions, shares, failures, states."""
        member = self.pool.pick(self.now, ("me", "b"))
        assert member is not None
        self.pool.greeted(member)
        self.pool.stays()
        self.pool.stays()
        found = self.shown()
        self.assertEqual((found["balance"], found["draining"]), ("round-robin", False))
        nodes = found["nodes"]
        self.assertEqual([nodes[name]["sessions"] for name in nodes], [7, 1, 0])
        self.assertEqual([nodes[name]["sessions_total"] for name in nodes], [2, 1, 0])
        self.assertEqual([nodes[name]["share_had"] for name in nodes], [2 / 3, 1 / 3, 0.0])
        self.assertEqual([nodes[name]["share_wanted"] for name in nodes], [1 / 3] * 3)
        self.assertEqual([nodes[name]["state"] for name in nodes], ["in"] * 3)
        self.assertEqual((nodes["a"]["weight"], nodes["a"]["factor"]), (1, 1.0))

    def test_out(self) -> None:
        """Who is out, until when, and probed."""
        self.pool.reconfigure(self.now, Rules())
        member = self.pool.pick(self.now, ("me", "b"))
        assert member is not None
        self.pool.failed(self.now, member, Failing.REFUSED)
        self.now += 0.25
        found = self.shown()["nodes"]["a"]
        self.assertEqual((found["state"], found["why"]), ("out", "refused"))
        self.assertEqual(found["until"], 43200.75)
        self.assertEqual((found["weight"], found["share_wanted"]), (0.0, 0.0))
        self.assertEqual((found["failures"], found["ejections"]), ({"refused": 1}, 1))
        self.now += 1
        self.change("a", heard=self.now)
        self.pool.to_probe(self.now)
        found = self.shown()["nodes"]["a"]
        self.assertEqual((found["state"], found["until"]), ("being probed", None))

    def test_the_last_minute(self) -> None:
        """What was before it counts no more."""
        self.assertEqual(self.pool.shares_had(), {"me": 0.0, "a": 0.0, "b": 0.0})
        for second in range(200):
            self.now += 1
            self.pool.sample(self.now)
            if second < 100:
                self.pool.stays()
            else:
                self.pool.greeted(self.member())
            if second == 99:
                self.assertEqual(self.pool.shares_had()["me"], 1.0)
        self.assertEqual(self.pool.shares_had(), {"me": 0.0, "a": 1.0, "b": 0.0})
        self.assertEqual(self.member().lately, 61)


class TimeTests(SynchronousTestCase):
    """time_for."""

    @given(st.floats(0.02, 60.0), st.lists(st.floats(0.0, 1.0), max_size=9))
    def test_within(self, whole: float, used: list[float]) -> None:
        """Tries end in time and in number, however long each takes."""
        left, tries = whole, 0
        for part in used:
            within = time_for(tries, left)
            self.assertLessEqual(within, left / 2)
            if not within:
                break
            left -= within * part
            tries += 1
        self.assertLessEqual(tries, 3)
        self.assertGreater(left, 0)

    def test_halves(self) -> None:
        """Half of what is left; nothing where that is too short, or three were asked."""
        self.assertEqual([time_for(tries, 2.0) for tries in range(4)], [1.0, 1.0, 1.0, 0.0])
        self.assertEqual([time_for(0, left) for left in (0.05, 0.03, 0, -1)], [0.025, 0, 0, 0])
