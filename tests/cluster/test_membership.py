"""Whose hello counts: proof by fresh echoes, every sort of replay, bounded tables, what is seen.

The nodes here say real hellos, in which the network is the test: it delivers what it likes,
when it likes, and as often.  The last case lets Hypothesis be the attacker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.hello import MOST_HEARD, Drop, Rejected, decode, encode
from mailsecure.cluster.keys import Key, KeyRing
from mailsecure.cluster.membership import (
    ALIVE,
    DEAF,
    FORGET,
    FRESH,
    NAMES,
    NOTED,
    PEERS,
    REMEMBERED,
    REPLACED,
    Accepted,
    Membership,
    Noted,
)
from mailsecure.cluster.values import (
    CLAIMED,
    RESIGNED,
    STANDING_BACK,
    Fitness,
    GroupHello,
    Heard,
    Hello,
    Role,
    View,
)
from mailsecure.config.model import NodeRole

_incarnations = count(1000)

NEW = Accepted(new=True, deaf=False)
AGAIN = Accepted(new=False, deaf=False)
DEAF_AGAIN = Accepted(new=False, deaf=True)
DEAF_AND_BACK = Accepted(new=False, deaf=True, back=True)

#: What :func:`say` says where a test does not care.
HELLO = Hello(
    node="",
    address=IPv4Address("192.0.2.1"),
    link_port=5025,
    incarnation=0,
    sequence=0,
    wall=0.0,
    uptime=0.0,
    interval=1.0,
    version="1",
    role=NodeRole.BOTH,
    weight=100,
    load=0,
    fitness=Fitness.FIT,
    policy_revision=0,
    asks=False,
    groups=(),
    heard=(),
)


def life(name: str, interval: float = 1.0) -> Membership:
    """Return a node that starts now."""
    return Membership(name, interval, next(_incarnations))


def say(node: Membership, now: float, **more: Any) -> Hello:
    """Return what ``node`` says at ``now``."""
    hello = replace(
        HELLO,
        node=node.node,
        incarnation=node.incarnation,
        sequence=node.next_sequence(now),
        interval=node.interval,
        heard=node.heard(now),
    )
    return replace(hello, **more)


def hear(node: Membership, now: float, hello: Hello) -> Accepted | Noted | Drop:
    """Return what ``node`` makes of ``hello``: the outcome, or why it was rejected."""
    try:
        return node.receive(now, 0.0, hello, "192.0.2.99")
    except Rejected as rejected:
        return rejected.reason


def meet(first: Membership, second: Membership, now: float) -> None:
    """Let the two adopt each other at ``now``."""
    hear(second, now, say(first, now))
    hear(first, now, say(second, now))
    hear(second, now, say(first, now))


class MeetingTests(SynchronousTestCase):
    """How nodes prove themselves to each other."""

    def test_round_trip(self) -> None:
        """The first hello is noted, the answer proves its sender, the answer to that too."""
        us, peer = life("us"), life("peer")
        self.assertEqual(hear(peer, 0.1, say(us, 0.0)), Noted())
        self.assertEqual(hear(us, 0.3, say(peer, 0.2)), NEW)
        self.assertEqual(hear(peer, 0.5, say(us, 0.4)), NEW)
        self.assertEqual(hear(us, 1.3, say(peer, 1.2)), AGAIN)
        self.assertEqual(us.drops, {})

    def test_own(self) -> None:
        """Our own hello, come back or reflected, is ignored; another of our name is told."""
        us, other = life("us"), life("us")
        self.assertEqual(hear(us, 0.0, say(us, 0.0)), Drop.OWN)
        self.assertEqual(hear(us, 0.0, say(other, 0.0)), Drop.SAME_NAME)
        self.assertEqual(us.heard(0.0), ())
        self.assertEqual(us.drops, {Drop.OWN: 1, Drop.SAME_NAME: 1})

    def test_what_proves_nothing(self) -> None:
        """Only an echo of what we said, and not long ago, proves anything."""
        us, peer = life("us"), life("peer")
        for _ in range(REMEMBERED + 5):
            us.next_sequence(100.0)
        mine = us.incarnation
        for heard in (
            Heard(mine + 1, 20, 0.0),
            Heard(mine, 0, 0.0),
            Heard(mine, 5, 0.0),
            Heard(mine, REMEMBERED + 6, 0.0),
        ):
            self.assertEqual(hear(us, 100.0, say(peer, 0.0, heard=(heard,))), Noted())
        oldest = (Heard(mine, 6, 0.0),)
        self.assertEqual(hear(us, 100.0 + FRESH + 0.1, say(peer, 0.0, heard=oldest)), Drop.STRANGE)
        self.assertIsInstance(hear(us, 100.0 + FRESH, say(peer, 0.0, heard=oldest)), Accepted)

    def test_one_who_hears_nothing(self) -> None:
        """Who proves nothing for long is echoed still, but need not be answered at once."""
        us, peer = life("us"), life("peer")
        for second in range(FRESH + 1):
            self.assertEqual(hear(us, second, say(peer, second)), Noted())
        hello = say(peer, FRESH + 1)
        self.assertEqual(hear(us, FRESH + 1, hello), Drop.STRANGE)
        self.assertEqual(us.heard(FRESH + 2), (Heard(peer.incarnation, hello.sequence, 1.0),))
        self.assertEqual(us.drops, {Drop.STRANGE: 1})

    def test_echo(self) -> None:
        """We echo the last sequence of each, and how long ago; not who fell silent."""
        us, peer, stranger = life("us"), life("peer"), life("stranger")
        meet(us, peer, 0.0)
        hello = say(peer, 1.0)
        hear(us, 1.0, hello)
        strange = say(stranger, 1.5, interval=2.0)
        hear(us, 1.5, strange)
        expected = Heard(peer.incarnation, hello.sequence, 1.0)
        noted = Heard(stranger.incarnation, strange.sequence, 0.5)
        self.assertEqual(us.heard(2.0), (expected, noted))
        self.assertEqual(len(us.heard(1.0 + ALIVE)), 2)
        self.assertEqual(us.heard(1.1 + ALIVE)[0].incarnation, stranger.incarnation)
        self.assertEqual(us.heard(1.6 + 2 * ALIVE), ())

    def test_a_clock_that_stands(self) -> None:
        """Nothing is said to have been heard in the future."""
        us, peer = life("us"), life("peer")
        hear(us, 5.0, say(peer, 5.0))
        self.assertEqual(us.heard(4.9)[0].held, 0.0)


class ReplayTests(SynchronousTestCase):
    """What was recorded and is sent again."""

    def setUp(self) -> None:
        self.us, self.peer = life("us"), life("peer")
        meet(self.us, self.peer, 0.0)

    def test_twice(self) -> None:
        """A hello counts once, and not after a later one."""
        first, second = say(self.peer, 1.0), say(self.peer, 1.1)
        self.assertEqual(hear(self.us, 1.2, second), AGAIN)
        self.assertEqual(hear(self.us, 1.2, second), Drop.REPLAYED)
        self.assertEqual(hear(self.us, 1.2, first), Drop.REPLAYED)
        self.assertEqual(self.us.drops, {Drop.REPLAYED: 2})

    def test_noted_twice(self) -> None:
        """It is noted once, too; a replay keeps nothing noted for longer."""
        hello = say(life("stranger"), 1.0)
        self.assertEqual(hear(self.us, 1.0, hello), Noted())
        self.assertEqual(hear(self.us, 4.0, hello), Drop.REPLAYED)
        self.assertNotIn(hello.incarnation, {each.incarnation for each in self.us.heard(5.5)})

    def test_restart(self) -> None:
        """After a restart of a peer nothing of its earlier life counts, heard before or not."""
        heard, kept_back = say(self.peer, 1.0), say(self.peer, 1.1)
        hear(self.us, 1.0, heard)
        again = life("peer")
        self.assertEqual(hear(self.us, 2.0, say(again, 2.0)), Noted())
        hear(again, 2.1, say(self.us, 2.1))
        self.assertEqual(hear(self.us, 2.2, say(again, 2.2)), NEW)
        for hello in (heard, kept_back):
            self.assertEqual(hear(self.us, 2.3, hello), Drop.REPLAYED)
        self.assertEqual(self.us.peers(2.3)[0].incarnations, 2)
        self.assertEqual(hear(self.us, 3.0, say(again, 3.0)), AGAIN)

    def test_a_life_that_nobody_heard(self) -> None:
        """A hello of a life that was over before it reached us does not put out the next."""
        us, short, again = life("us"), life("peer"), life("peer")
        hear(short, 0.0, say(us, 0.0))
        kept_back = say(short, 0.1)
        hear(again, 0.5, say(us, 0.5))
        self.assertEqual(hear(us, 0.6, say(again, 0.6)), NEW)
        self.assertEqual(hear(us, 0.7, kept_back), Noted())
        self.assertEqual(hear(us, 0.8, say(again, 0.8)), AGAIN)

    def test_our_restart(self) -> None:
        """What was said to our earlier life proves nothing to this one."""
        recorded = [say(self.peer, second) for second in (1.0, 2.0)]
        us = life("us")
        for _ in range(9):
            us.next_sequence(2.5)
        for hello in recorded:
            self.assertEqual(hear(us, 3.0, hello), Noted())
        hear(self.peer, 3.1, say(us, 3.1))
        self.assertEqual(hear(us, 3.2, say(self.peer, 3.2)), NEW)

    def test_a_restart_kept_back(self) -> None:
        """Who keeps back all that a new life says can speak for the old one, not for long."""
        us, old = self.us, self.peer
        hear(old, 1.0, say(us, 1.0))
        kept_back = say(old, 1.1)
        new = life("peer")
        # The new life is made to hear what we said before it was born, and no more.
        early = say(us, 0.9)
        us.next_sequence(0.9)
        hear(old, 1.0, say(us, 1.0))
        kept_back = say(old, 1.1)
        hear(new, 2.0, early)
        self.assertEqual(hear(us, 2.1, say(new, 2.1)), NEW)
        # The old one was replaced, so it does not come back while the new one speaks ...
        self.assertEqual(hear(us, 2.2, kept_back), Drop.REPLAYED)
        # ... nor when that has been silent, as its echo is stale by then.
        self.assertEqual(hear(us, 2.2 + FRESH, kept_back), Drop.REPLAYED)

    def test_a_hidden_life(self) -> None:
        """If the old life had been kept back whole, the new one is believed again after."""
        us, old, new = life("us"), life("peer"), life("peer")
        early = say(us, 0.0)
        hear(old, 0.1, say(us, 0.1))
        kept_back = say(old, 0.2)
        hear(new, 1.0, early)
        self.assertEqual(hear(us, 1.0, say(new, 1.0)), NEW)
        self.assertEqual(hear(us, 1.1, kept_back), NEW)
        for second in range(2, FRESH + 2):
            hear(new, second, say(us, second))
            self.assertEqual(hear(us, second, say(new, second)), Drop.REPLAYED)
        hear(new, FRESH + 2, say(us, FRESH + 2))
        self.assertEqual(hear(us, FRESH + 2, say(new, FRESH + 2)), NEW)
        self.assertEqual(hear(us, FRESH + 2, kept_back), Drop.REPLAYED)

    def test_an_older_echo(self) -> None:
        """What was echoed once under a name is remembered, whatever is echoed later."""
        us, old, new = self.us, self.peer, life("peer")
        sequences = [us.next_sequence(0.5) for _ in range(3)]
        echoes = [(Heard(us.incarnation, sequence, 0.0),) for sequence in sequences]
        for echo in (echoes[2], echoes[0]):
            self.assertEqual(hear(us, 1.0, say(old, 1.0, heard=echo)), AGAIN)
        self.assertEqual(hear(us, 1.1, say(new, 1.1, heard=echoes[1])), Noted())

    def test_many_lives(self) -> None:
        """However many lives a peer had, no hello of any of them counts again."""
        recorded = []
        for start in range(1, 3 * REPLACED):
            peer = life("peer")
            meet(self.us, peer, start)
            hello = say(peer, start + 0.5)
            self.assertEqual(hear(self.us, start + 0.5, hello), AGAIN)
            recorded.append(hello)
        for hello in recorded:
            self.assertNotIsInstance(hear(self.us, 3 * REPLACED, hello), Accepted)
        self.assertEqual(self.us.peers(99.0)[0].incarnations, 3 * REPLACED)

    def test_late(self) -> None:
        """What a living peer said counts late, in order, but its sender is deaf then."""
        kept_back = [say(self.peer, 1.0), say(self.peer, 1.1)]
        for second in (2.0, 4.0):
            self.us.next_sequence(second)
        self.assertEqual(hear(self.us, DEAF + 0.5, kept_back[0]), DEAF_AND_BACK)
        self.assertEqual(hear(self.us, DEAF + 0.6, kept_back[1]), DEAF_AGAIN)
        self.assertEqual(hear(self.us, DEAF + 0.7, kept_back[0]), Drop.REPLAYED)

    def test_two_of_one_name(self) -> None:
        """Of two living nodes with one name the last to start is known, while it speaks."""
        first, second = self.peer, life("peer")
        meet(self.us, second, 1.0)
        for now in range(2, 20):
            hello = say(self.us, now)
            hear(first, now, hello)
            hear(second, now, hello)
            self.assertEqual(hear(self.us, now, say(first, now)), Drop.REPLAYED)
            self.assertEqual(hear(self.us, now, say(second, now)), AGAIN)
        for now in range(20, 20 + FRESH):
            hear(first, now, say(self.us, now))
            self.assertEqual(hear(self.us, now, say(first, now)), Drop.REPLAYED)
        hear(first, 30.0, say(self.us, 30.0))
        self.assertEqual(hear(self.us, 30.0, say(first, 30.0)), NEW)

    def test_forgotten(self) -> None:
        """A peer that is forgotten comes back by proving itself, not by a replay."""
        recorded = [say(self.peer, 1.0), say(self.peer, 1.1)]
        hear(self.us, 1.0, recorded[0])
        self.us.forget(1.0 + FORGET)
        self.assertEqual(len(self.us.peers(2.0)), 1)
        self.us.forget(1.1 + FORGET)
        self.assertEqual(self.us.peers(2.0), ())
        for hello in recorded:
            self.assertEqual(hear(self.us, 2.0 + FORGET, hello), Noted())
        self.us.interval = 100.0
        hear(self.us, 700.0, say(self.peer, 700.0, heard=(Heard(self.us.incarnation, 2, 0.0),)))
        self.us.forget(700.0 + 10 * 100.0)
        self.assertEqual(len(self.us.peers(700.0)), 1)


class MeasureTests(SynchronousTestCase):
    """What is measured of a peer."""

    def test_round_trip(self) -> None:
        """The way there and back, without the time that the peer held our hello."""
        us, peer = life("us"), life("peer")
        hear(peer, 10.002, say(us, 10.0))
        hello = say(peer, 10.5, wall=5000.0)
        us.receive(10.504, 4000.0, hello, "192.0.2.2")
        (seen,) = us.peers(10.504)
        self.assertAlmostEqual(seen.round_trip, 0.006)
        self.assertAlmostEqual(seen.clock_offset, 1000.003)
        self.assertEqual(seen.source, "192.0.2.2")

    def test_never_negative(self) -> None:
        """A peer that says it held our hello for longer than it was away took no time."""
        us, peer = life("us"), life("peer")
        us.next_sequence(0.0)
        hear(us, 1.0, say(peer, 1.0, heard=(Heard(us.incarnation, 1, 30.0),)))
        self.assertEqual(us.peers(1.0)[0].round_trip, 0.0)

    def test_deaf(self) -> None:
        """A peer whose last echo of us grows old does not hear us; until it does again."""
        us, peer = life("us"), life("peer")
        meet(us, peer, 0.0)
        for second in range(1, DEAF + 1):
            us.next_sequence(second)
            self.assertEqual(hear(us, second, say(peer, second)), AGAIN)
        self.assertEqual(hear(us, DEAF + 0.1, say(peer, DEAF + 0.1)), DEAF_AGAIN)
        self.assertTrue(us.peers(5.0)[0].deaf)
        silent = say(peer, 6.0, heard=())
        self.assertEqual(hear(us, 6.0, silent), DEAF_AGAIN)
        hear(peer, 7.0, say(us, 7.0))
        self.assertEqual(hear(us, 7.1, say(peer, 7.1)), AGAIN)
        self.assertFalse(us.peers(7.1)[0].deaf)

    def test_alive(self) -> None:
        """A peer is alive for four intervals of its own, or until its process ends."""
        us, peer = life("us", 0.1), life("peer", 2.0)
        meet(us, peer, 0.0)
        self.assertTrue(us.peers(2.0 * ALIVE)[0].alive)
        self.assertFalse(us.peers(2.0 * ALIVE + 0.1)[0].alive)
        us.gone("peer")
        us.gone("nobody")
        self.assertFalse(us.peers(0.1)[0].alive)
        self.assertEqual(us.heard(0.1), ())
        hear(us, 1.0, say(peer, 1.0))
        self.assertTrue(us.peers(1.0)[0].alive)


class BoundTests(SynchronousTestCase):
    """Every table is bounded."""

    def peers(self, us: Membership, now: float, number: int) -> list[Membership]:
        """Return so many nodes that ``us`` has adopted."""
        nodes = [life(f"peer{each:02}") for each in range(number)]
        for node in nodes:
            meet(us, node, now)
        return nodes

    def test_peers(self) -> None:
        """There is no room for another peer before one was silent for long enough."""
        us, late = life("us"), life("late")
        nodes = self.peers(us, 0.0, PEERS)
        for node in nodes[1:]:
            hear(us, FRESH, say(node, FRESH))
        hear(late, FRESH, say(us, FRESH))
        self.assertEqual(hear(us, FRESH, say(late, FRESH)), Drop.TOO_MANY)
        hear(us, FRESH + 0.2, say(late, FRESH + 0.2))
        self.assertEqual(us.drops, {Drop.TOO_MANY: 1})
        self.assertEqual(len(us.peers(FRESH)), PEERS)
        self.assertEqual({each.node for each in us.peers(11)} & {"peer00", "late"}, {"late"})

    def test_alive_peers_stay(self) -> None:
        """A peer of long intervals is not taken for silent."""
        us, late = life("us", 0.1), life("late")
        self.peers(us, 0.0, PEERS)
        us.next_sequence(2.0)
        hello = say(late, 2.0, heard=(Heard(us.incarnation, 3 * PEERS, 0.0),))
        for sequence in range(1, REMEMBERED):
            hello = replace(hello, sequence=sequence, heard=(Heard(us.incarnation, sequence, 0),))
            outcome = hear(us, 2.0, hello)
            if outcome is Drop.TOO_MANY:
                break
        self.assertEqual(outcome, Drop.TOO_MANY)

    def test_names(self) -> None:
        """Of too many names the one unheard for longest is not noted any more."""
        us = life("us")
        nodes = [life(f"stranger{each}") for each in range(NAMES + 1)]
        for node in nodes[:-1]:
            hear(us, 0.0, say(node, 0.0))
        hear(us, 0.1, say(nodes[0], 0.1))
        hear(us, 0.2, say(nodes[-1], 0.2))
        heard = [each.incarnation for each in us.heard(0.2)]
        expected = [nodes[-1], nodes[0], *reversed(nodes[2:-1])]
        self.assertEqual(heard, [each.incarnation for each in expected[:MOST_HEARD]])

    def test_incarnations(self) -> None:
        """Of too many of one name too; no name crowds out another."""
        us, other = life("us"), life("other")
        hear(us, 0.0, say(other, 0.0))
        nodes = [life("peer") for _ in range(NOTED + 3)]
        for node in nodes:
            hear(us, 0.0, say(node, 0.0))
        heard = [each.incarnation for each in us.heard(0.2)]
        expected = [nodes[-1], other, *reversed(nodes[3:-1])]
        self.assertEqual(heard, [each.incarnation for each in expected])

    def test_a_flood(self) -> None:
        """Whatever comes, a hello can hold whom we echo, and all peers are among them."""
        us = life("us")
        nodes = self.peers(us, 0.0, PEERS)
        for number in range(3 * NAMES * NOTED):
            hear(us, 0.5, say(life(f"name{number % (2 * NAMES)}"), 0.5))
            hear(us, 0.5, say(life("peer01"), 0.5))
        heard = [each.incarnation for each in us.heard(1.0)]
        self.assertEqual(len(heard), MOST_HEARD)
        self.assertLessEqual({each.incarnation for each in nodes}, set(heard))


class ViewTests(SynchronousTestCase):
    """What an election sees."""

    OURS = IPv4Address("192.0.2.5")

    def view(self, others: Iterable[tuple[str, dict[str, Any]]], master: str | None = None) -> View:
        """Return what we see at priority 100, given what the others say."""
        us = life("us")
        for name, said in others:
            node = life(name)
            meet(us, node, 0.0)
            role, priority = said.pop("role", Role.BACKUP), said.pop("priority", 50)
            group = GroupHello(said.pop("group", "mail"), role, priority, 1.0)
            hear(us, 0.0, say(node, 0.0, groups=(GroupHello("web", role, 1, 1.0), group), **said))
        return us.view("mail", 0.0, 100, self.OURS, master)

    def test_alone(self) -> None:
        """Nobody else: we are the heir, and nobody is there to take over."""
        alone = View(heir=True, heard=True, others=False)
        self.assertEqual(self.view([]), alone)
        for said in (
            {"priority": RESIGNED},
            {"role": Role.INIT, "priority": 255},
            {"group": "other", "priority": 255},
            {"priority": 255, "node_role": NodeRole.SCANNER},
        ):
            us, node = life("us"), life("peer")
            meet(us, node, 0.0)
            group = GroupHello(
                str(said.get("group", "mail")),
                Role(said.get("role", Role.BACKUP)),
                int(str(said["priority"])),
                1.0,
            )
            role = NodeRole(said.get("node_role", NodeRole.BOTH))
            hear(us, 0.0, say(node, 0.0, groups=(group,), role=role))
            self.assertEqual(us.view("mail", 0.0, 100, self.OURS, None), alone)

    def test_heir(self) -> None:
        """The heir is who outranks all but the Master: by priority, then by address."""
        lower, higher = IPv4Address("192.0.2.4"), IPv4Address("192.0.2.10")
        for expected, said in (
            (True, {"priority": 99, "address": higher}),
            (True, {"priority": STANDING_BACK}),
            (True, {"priority": 100, "address": lower}),
            (False, {"priority": 100, "address": higher}),
            (False, {"priority": 100, "address": IPv6Address("::1")}),
            (False, {"priority": 101, "address": lower}),
            (False, {"priority": CLAIMED}),
        ):
            self.assertEqual(self.view([("peer", said)]), View(expected, True, True), said)
        master = ("best", {"priority": 200, "role": Role.MASTER})
        self.assertEqual(self.view([master]), View(False, True, True))
        self.assertEqual(self.view([master], "best"), View(True, True, True))
        second = ("second", {"priority": 150})
        self.assertEqual(
            self.view([("best", {"priority": 200, "role": Role.MASTER}), second], "best"),
            View(False, True, True),
        )

    def test_deaf(self) -> None:
        """One candidate that does not hear us is enough."""
        us, peer = life("us"), life("peer")
        meet(us, peer, 0.0)
        groups = (GroupHello("mail", Role.BACKUP, 50, 1.0),)
        hear(us, 9.0, say(peer, 9.0, groups=groups))
        self.assertEqual(us.view("mail", 9.0, 100, self.OURS, None), View(True, False, True))
        hear(us, 9.0, say(peer, 9.0, groups=()))
        self.assertEqual(us.view("mail", 9.0, 100, self.OURS, None), View(True, True, False))

    def test_silent(self) -> None:
        """Who is not alive is no candidate."""
        us, peer = life("us"), life("peer")
        meet(us, peer, 0.0)
        hear(us, 0.0, say(peer, 0.0, groups=(GroupHello("mail", Role.BACKUP, 255, 1.0),)))
        self.assertEqual(us.view("mail", 1.0, 100, self.OURS, None), View(False, True, True))
        self.assertEqual(us.view("mail", 4.1, 100, self.OURS, None), View(True, True, False))


class SeenTests(SynchronousTestCase):
    """What status and links are told."""

    def test_peers(self) -> None:
        """Everything that a peer says of itself, in the order of names, and who hears whom."""
        us, first, second = life("us"), life("a"), life("b")
        meet(us, second, 0.0)
        meet(us, first, 0.0)
        meet(first, second, 0.0)
        stranger = Heard(1, 1, 0.0)
        hear(us, 1.0, say(second, 1.0))
        hello = say(first, 1.0, load=7, weight=3, fitness=Fitness.SPOOL, uptime=4.0, version="2")
        hello = replace(hello, heard=(*hello.heard, stranger), role=NodeRole.DIRECTOR)
        hear(us, 1.0, hello)
        seen = us.peers(3.0)
        self.assertEqual([each.node for each in seen], ["a", "b"])
        for field in ("address", "link_port", "version", "role", "weight", "load", "groups"):
            self.assertEqual(getattr(seen[0], field), getattr(hello, field))
        self.assertEqual((seen[0].fitness, seen[0].uptime), (Fitness.SPOOL, 4.0))
        self.assertEqual((seen[0].last_heard, seen[0].source), (2.0, "192.0.2.99"))
        self.assertEqual([each.hears for each in seen], [("b", "us"), ("a", "us")])
        self.assertEqual([each.incarnations for each in seen], [1, 1])
        hear(us, 3.0, say(second, 3.0, heard=()))
        self.assertEqual(us.peers(3.0)[1].hears, ())

    def test_places(self) -> None:
        """Links go to the address and port that a peer says, if it takes links."""
        us, first, second = life("us"), life("a"), life("b")
        for node in (first, second):
            meet(us, node, 0.0)
        hear(us, 1.0, say(first, 1.0, link_port=0))
        hear(us, 1.0, say(second, 1.0, link_port=26, address=IPv6Address("2001:db8::1")))
        self.assertEqual(us.places(), {"b": ("2001:db8::1", 26)})


class Attacker(RuleBasedStateMachine):
    """Two nodes, and between them somebody who records, keeps back, and sends again.

    He cannot sign; so all that comes to a node is what one of them said once.  Nodes
    restart as they like.
    """

    KEY = Key(bytes(32))
    RING = KeyRing((KEY,))

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = [life("left"), life("right")]
        self.born = {each.incarnation: 0.0 for each in self.nodes}
        #: Of each side: datagrams, with the incarnation that said it and when.
        self.said: list[list[tuple[bytes, int, float]]] = [[], []]
        self.reset(0)
        self.reset(1)

    def reset(self, side: int) -> None:
        """Forget what is known of what the node of ``side`` accepted."""
        fresh: dict[int, set[bytes]] = {side: set()}
        self.taken = getattr(self, "taken", {}) | fresh
        self.adopted = getattr(self, "adopted", {}) | {side: 0}
        self.proven = getattr(self, "proven", {}) | {side: 0}
        self.times = getattr(self, "times", {}) | {side: dict[int, float]()}

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 1.0, 4.5, 9.0, 11.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        """Some time passes."""
        self.now += seconds

    @rule(side=st.integers(0, 1))
    def speaks(self, side: int) -> None:
        """A node says hello; nobody but the attacker hears it yet."""
        node = self.nodes[side]
        hello = say(node, self.now)
        self.times[side][hello.sequence] = self.now
        self.said[side].append((encode(hello, self.KEY), node.incarnation, self.now))

    @rule(side=st.integers(0, 1))
    def restarts(self, side: int) -> None:
        """A node ends and starts again."""
        self.nodes[side] = life(self.nodes[side].node)
        self.born[self.nodes[side].incarnation] = self.now
        self.reset(side)

    @rule(side=st.integers(0, 1), back=st.integers(0, 3) | st.integers(0, 30))
    def delivers(self, side: int, back: int) -> None:
        """The attacker sends something recorded from one side to the other."""
        if back < len(self.said[side]):
            self.deliver(1 - side, *self.said[side][-1 - back])

    @rule(side=st.integers(0, 1))
    def floods(self, side: int) -> None:
        """The attacker sends all that he has of one side to the other."""
        for each in self.said[side]:
            self.deliver(1 - side, *each)

    @rule(side=st.integers(0, 1))
    def whispers(self, side: int) -> None:
        """A node starts again and hears the other; the attacker keeps back what it says."""
        self.restarts(side)
        self.speaks(1 - side)
        self.delivers(1 - side, 0)
        self.speaks(side)

    @rule(side=st.integers(0, 1), rounds=st.integers(1, 3))
    def starts_anew(self, side: int, rounds: int) -> None:
        """A node starts again and the attacker lets the two talk for a while."""
        self.restarts(side)
        self.lets_pass(rounds)

    @rule(side=st.integers(0, 1))
    def reflects(self, side: int) -> None:
        """The attacker sends a node what it said itself."""
        if self.said[side]:
            outcome = self.hear(side, self.said[side][-1][0])
            assert outcome in (Drop.OWN, Drop.SAME_NAME)

    @rule(rounds=st.integers(1, 3))
    def lets_pass(self, rounds: int) -> None:
        """The attacker lets the two talk for a while."""
        for _ in range(rounds):
            self.now += 1.0
            for side in (0, 1):
                self.speaks(side)
                self.delivers(side, 0)

    def hear(self, side: int, datagram: bytes) -> Accepted | Noted | Drop:
        """Give a datagram to a node."""
        return hear(self.nodes[side], self.now, decode(datagram, self.RING))

    def deliver(self, side: int, datagram: bytes, incarnation: int, made: float) -> object:
        """Give a datagram of the other node to a node, and see that it may count."""
        outcome = self.hear(side, datagram)
        if not isinstance(outcome, Accepted):
            return outcome
        assert datagram not in self.taken[side], "counted twice"
        self.taken[side].add(datagram)
        assert outcome.new or incarnation == self.adopted[side]
        assert not outcome.new or self.now - made <= FRESH, "adopted by something old"
        assert incarnation >= self.proven[side], "a dead incarnation came back"
        self.adopted[side] = incarnation
        for each in decode(datagram, self.RING).heard:
            sent = self.times[side].get(each.sequence, -1.0)
            if each.incarnation == self.nodes[side].incarnation and sent > self.born[incarnation]:
                # It echoes what was said after its birth: all earlier lives are over for good.
                self.proven[side] = incarnation
        if self.now - made > FRESH:
            assert outcome.deaf, "something old that does not look old"
        return outcome

    def teardown(self) -> None:
        """When the attacker has gone, the two believe each other within FRESH intervals."""
        outcomes: list[object] = []
        for _ in range(FRESH + 3):
            self.now += 1.0
            outcomes = []
            for side in (0, 1):
                self.speaks(side)
                outcomes.append(self.deliver(1 - side, *self.said[side][-1]))
        assert outcomes == [AGAIN, AGAIN], outcomes


class AttackTests(SynchronousTestCase):
    """The attacker's best try."""

    def test_attacker(self) -> None:
        """Whatever he records and sends again, nothing counts that should not."""
        run_state_machine_as_test(
            Attacker,
            settings=settings(max_examples=150, stateful_step_count=40, deadline=None),
        )
