"""What a stranger on the network says changes nothing; it is counted, and told at a bounded rate.

He hears every hello, and sends what he likes under any address, but has not the key.
The lines are those of the attacks that a cluster must bear: forged, replayed, truncated and
oversized datagrams, and a node that has another's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from ipaddress import ip_address

from mailsecure.cluster.hello import Rejected, decode, encode
from mailsecure.cluster.keys import parse_keys
from mailsecure.cluster.values import GroupHello, Hello, Role
from tests.live import needs

from .cluster.forger import Forger, Overheard
from .cluster.nodes import ADDRESS, WITNESS, ClusterTestCase, new_key
from .harness import until

PROGRAMS = ["ip"]


@needs(root=True, programs=PROGRAMS)
class Stranger(ClusterTestCase):
    """Each test begins with a as Master and b as Backup; no role may change."""

    def setUp(self) -> None:
        """Begin with a pair in good order, and a stranger beside it."""
        super().setUp()
        self.pair()
        self.a, self.b = self.cluster["a"], self.cluster["b"]
        self.forger = Forger(self.cluster.network, WITNESS)
        self.addCleanup(self.forger.close)
        self.ring = parse_keys((self.a.directory / "cluster.key").read_text())

    def overhear(self, seconds: float = 0.5) -> list[Overheard]:
        """Return hellos of a, the Master."""
        found = self.forger.overhear(seconds)
        mine = [each for each in found if each.source == self.a.address[0]]
        self.assertGreater(len(mine), 2, found)
        return mine

    def say(self, octets: bytes) -> None:
        """Say it as if from the Master, which its own kernel does not believe, and as ourselves."""
        self.forger.say(octets, self.a.address[0])
        self.forger.say(octets)

    def nothing_happens(
        self, act: Callable[[], None], reasons: Collection[str], at: str = "ab"
    ) -> None:
        """Let the stranger act; he is ignored, and counted under these reasons ``at`` nodes."""
        before = {(n, r): self.cluster[n].drops(r) for n in at for r in reasons}
        marks = {name: len(self.cluster[name].lines) for name in "ab"}
        began, changes = self.moment(), self.changes()
        act()
        time.sleep(0.5)
        self.unchanged(began, changes)
        for (name, reason), number in before.items():
            self.assertGreater(self.cluster[name].drops(reason), number, f"{reason} at {name}")
        for name, mark in marks.items():
            told = self.cluster[name].matching(r"cluster\[.*ignored", since=mark)
            self.assertLessEqual(len(told), max(1, len(reasons)), told)
        self.assertEqual(self.cluster.deliver(), "a")

    def forged(self, hello: Hello, priority: int, **changes: object) -> Hello:
        """Return a hello that claims the group with a priority."""
        groups = (GroupHello("mail", Role.MASTER, priority, 0.1),)
        sequence = hello.sequence + 1_000_000
        return replace(hello, groups=groups, sequence=sequence, **changes)  # type: ignore[arg-type]

    def test_forged(self) -> None:
        """Priorities 255, 256 and 0 in a's name, signed with another key, or badly with ours."""
        other = parse_keys(new_key()).keys[0]
        hello = decode(self.overhear()[-1].octets, self.ring)

        def act() -> None:
            for _ in range(20):
                for priority in (255, 256, 0):
                    said = self.forged(hello, priority)
                    self.say(encode(said, other))
                    signed = encode(said, self.ring.keys[0])
                    self.say(signed[:-1] + bytes([signed[-1] ^ 1]))
                time.sleep(0.02)

        self.nothing_happens(act, ["other cluster", "bad signature"])

    def test_changed_in_every_octet(self) -> None:
        """A hello of the Master, its sequence raised or any other octet changed."""
        genuine = self.overhear()[-1].octets

        def act() -> None:
            for position in range(len(genuine)):
                changed = bytearray(genuine)
                changed[position] ^= 0x55
                self.assertRaises(Rejected, decode, bytes(changed), self.ring)
                self.say(bytes(changed))
                time.sleep(0.001)

        self.nothing_happens(act, ["malformed", "other version", "other cluster", "bad signature"])

    def test_replayed(self) -> None:
        """Every hello of the last seconds, again and again, from both nodes."""
        heard = self.forger.overhear(2)

        def act() -> None:
            for _ in range(5):
                for each in heard:
                    self.forger.say(each.octets, each.source)
                time.sleep(0.2)

        self.nothing_happens(act, ["replayed"])

    def test_resignation_replayed(self) -> None:
        """a resigned once, and what it said then is said again: a stays Master now."""
        self.forger.listen()
        self.a.resign(3.0)
        self.cluster.await_owner("b")
        said = [each for each in self.forger.heard() if each.source == self.a.address[0]]
        self.assertIn(0, [self.priority(each.octets) for each in said])
        self.cluster.settle()

        def act() -> None:
            for each in said * 5:
                self.forger.say(each.octets, each.source)

        self.nothing_happens(act, ["replayed"], at="b")

    def test_earlier_life_replayed(self) -> None:
        """What the Master said before it was killed does not bring it back, nor its address."""
        heard = self.forger.overhear(2)
        self.a.kill()
        self.cluster.await_owner("b")
        began, changes = self.moment(), self.b.group()["changes"]
        for each in heard * 3:
            self.forger.say(each.octets, each.source)
            time.sleep(0.01)
        time.sleep(0.5)
        record = self.cluster.judge.since(began)
        self.keep(record)
        self.assertEqual(self.b.group()["changes"], changes)
        self.assertEqual(record.owners(ADDRESS), ["b"])
        self.assertLess(record.gap(ADDRESS), 0.2)
        self.assertFalse(self.b.peer("a")["alive"])
        # The true one is believed as soon as it is back.
        began = self.moment()
        self.a.start()
        self.took_over(began, ["b", "a"], 0.15)

    def test_stranger_with_the_key(self) -> None:
        """A well-signed hello of a node that never hears us proves nothing."""
        hello = decode(self.overhear()[-1].octets, self.ring)
        place = ip_address("10.77.0.99")
        stranger = {"node": "x", "incarnation": 12345, "address": place, "heard": ()}

        def act() -> None:
            for number in range(50):
                said = replace(self.forged(hello, 255, **stranger), sequence=number + 1)
                self.forger.say(encode(said, self.ring.keys[0]), "10.77.0.99")
                time.sleep(0.02)

        self.nothing_happens(act, [])
        self.assertEqual(self.b.peer("x"), {})

    def test_truncated_and_long(self) -> None:
        """Every beginning of a hello, one with a tail, 1,400 to 65,507 octets of anything."""
        genuine = self.overhear()[-1].octets

        def act() -> None:
            for length in range(len(genuine)):
                self.say(genuine[:length])
                time.sleep(0.001)
            self.say(genuine + b"\0")
            for length in (1399, 1400, 1401, 2048, 2049, 9000, 65507):
                for content in (b"\0", b"\xff", genuine):
                    self.forger.say_much((content * length)[:length])
                time.sleep(0.01)

        self.nothing_happens(act, ["malformed", "bad signature"])

    def test_flood(self) -> None:
        """Thousands of forged datagrams in a second: the log says so once, the Master stays."""
        hello = decode(self.overhear()[-1].octets, self.ring)
        other = parse_keys(new_key()).keys[0]
        said = encode(self.forged(hello, 255), other)

        def act() -> None:
            until_then = time.monotonic() + 1.5
            while time.monotonic() < until_then:
                for _ in range(5):
                    self.forger.say(said)
                time.sleep(0.002)

        self.nothing_happens(act, ["other cluster"])

    def priority(self, octets: bytes) -> int:
        """Return the priority that a hello says."""
        return decode(octets, self.ring).groups[0].priority


@needs(root=True, programs=PROGRAMS)
class SameName(ClusterTestCase):
    """Two nodes have one name."""

    def test_alarm(self) -> None:
        """The third node calls itself b: b says so, and a stays Master."""
        cluster = self.own("a", "b", "c", each={"c": {"node": "name = b"}}, start=False)
        cluster.start("a", "b")
        cluster.await_owner("a")
        began, changes = self.moment(), cluster["a"].group()["changes"]
        mark = len(cluster["b"].lines)
        cluster["c"].start()

        def alarmed() -> bool:
            return any("our name" in each for each in cluster["b"].cluster()["alarms"])

        until(alarmed, "b is alarmed", 5, cluster.tell)
        cluster["b"].line(r"our own name: \[node\] name must differ", since=mark)
        time.sleep(1)
        record = cluster.judge.since(began)
        self.keep(record)
        self.assertEqual(cluster["a"].group()["changes"], changes)
        self.assertEqual(record.owners(ADDRESS), ["a"])
        self.assertEqual(record.claimants(ADDRESS), {"a"})
        cluster["c"].stop()
        cluster["a"].kill()
        cluster.await_owner("b")
        self.assertEqual(cluster.deliver(), "b")
