"""The network between the nodes fails in part; nobody is left with two owners, or none.

A switch of our own (:mod:`.cluster.switch`) loses, delays, doubles and reorders what the
nodes say, for each direction apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from tests.live import needs

from .cluster.network import ip
from .cluster.nodes import ADDRESS, CLIENT, WITNESS, ClusterTestCase, Node
from .cluster.record import Record
from .harness import until

PROGRAMS = ["ip"]
INTERVAL = 0.1
#: Two intervals, and what a busy machine adds.
HEALED = 2 * INTERVAL + 0.3
TOLD = 0.15
#: For how long a Master announces its address, from when it takes it.
BURST = 5.5
MISSED = 0.6
LOSS = 0.3
LOSSY_SECONDS = 20


@needs(root=True, programs=PROGRAMS)
class Partitions(ClusterTestCase):
    """Each test begins with a as Master and b as Backup, and ends with the network whole."""

    def setUp(self) -> None:
        """Begin with a pair in good order."""
        super().setUp()
        self.pair()
        self.a, self.b = self.cluster["a"], self.cluster["b"]
        self.network = self.cluster.network

    def test_master_cut_off(self) -> None:
        """Nobody hears the Master any more: the other serves; healed, the Master does again."""
        began = self.moment()
        self.network.cut(["a"], ["b", CLIENT, WITNESS])
        self.took_over(began, ["a", "b"], MISSED)
        healed = time.monotonic()
        self.network.heal()
        self.took_over(healed, ["b", "a"], MISSED)
        time.sleep(0.5)
        self.one_owner(self.cluster.judge.since(healed), healed + HEALED)

    def test_backup_cut_off(self) -> None:
        """Nobody hears the Backup: it thinks itself Master and yields when the network heals."""
        began = self.moment()
        self.network.cut(["b"], ["a", CLIENT, WITNESS])
        until(lambda: self.b.group()["role"] == "master", "b is Master on its side")
        time.sleep(0.3)
        healed = time.monotonic()
        self.network.heal()
        until(lambda: self.b.group()["role"] == "backup", "b yields", 2, self.cluster.tell)
        time.sleep(0.5)
        record = self.cluster.judge.since(began)
        self.keep(record)
        self.one_owner(record, healed + HEALED)
        # b may have been heard for a moment before it yielded.
        self.assertEqual(record.owners(ADDRESS)[-1], "a")
        self.assertLess(record.gap(ADDRESS), MISSED)
        self.assertEqual(self.cluster.deliver(), "a")

    def test_nodes_apart(self) -> None:
        """The nodes hear each other no more, and the judge hears both: until it heals only.

        When it heals, b lets go of what it announced; then a must announce itself again.
        """
        # Its announcements from when it became Master are over: they are no merit now.
        time.sleep(BURST)
        began = self.moment()
        self.network.cut(["a"], ["b"])
        until(lambda: self.b.group()["role"] == "master", "b is Master on its side")
        self.cluster.judge.until(lambda seen: seen.owners(ADDRESS) == ["b"], "b answers")
        healed = time.monotonic()
        self.network.heal()
        time.sleep(1.5)
        record = self.cluster.judge.since(began)
        self.keep(record)
        self.one_owner(record, healed + HEALED)
        self.assertLess(record.gap(ADDRESS), MISSED)
        self.assertEqual(self.cluster.deliver(), "a")

    def one_owner(self, record: Record, since: float) -> None:
        """Check that nobody had two answers since then, and that one host alone answered."""
        self.assertEqual([when - since for when in record.doubles(ADDRESS) if when > since], [])
        answered = {each.outcome for each in record.answers(ADDRESS) if each.began > since}
        self.assertEqual(answered, {"a"})

    # -- one direction

    def test_backup_not_heard(self) -> None:
        """a does not hear b: no reason for any change, but a reason to tell."""
        began, changes = self.moment(), self.changes()
        self.network.cut(["b"], ["a"], both=False)
        until(lambda: self.alarm(self.b, "a does not hear us"), "b tells", 5, self.cluster.tell)
        time.sleep(1)
        self.assertEqual(self.b.peer("a")["hears"], [])
        self.unchanged(began, changes)
        self.network.heal()
        until(lambda: not self.b.cluster()["alarms"], "no alarm any more", 5, self.cluster.tell)
        self.unchanged(began, changes)

    def test_master_not_heard(self) -> None:
        """b does not hear a: in the end one of them serves, and it stays so; healed, a does."""
        began = self.moment()
        self.network.cut(["a"], ["b"], both=False)
        self.cluster.await_owner("b")
        settled, changes = self.moment(), self.changes()
        time.sleep(2)
        self.assertEqual(self.changes(), changes)
        record = self.cluster.judge.since(settled)
        self.assertEqual(record.claimants(ADDRESS), {"b"})
        self.assertEqual(record.owners(ADDRESS), ["b"])
        self.assertEqual(self.cluster.deliver(), "b")
        record = self.cluster.judge.since(began)
        self.keep(record)
        self.assertLess(record.gap(ADDRESS), MISSED)
        # Three intervals and the skew time until b serves, as long until a steps down.
        self.assertLess(record.doubled(ADDRESS), 1.0)
        self.assertTrue(self.alarm(self.a, "b does not hear us"))
        healed = self.moment()
        self.network.heal()
        self.took_over(healed, ["b", "a"], TOLD)

    def alarm(self, node: Node, text: str) -> bool:
        """Say whether a node's status has this alarm."""
        return text in node.cluster()["alarms"]

    # -- a bad network

    def test_loss(self) -> None:
        """30 % of all that the nodes say to each other is lost, for 20 s: no change of role."""
        self.bad({"loss": LOSS}, LOSSY_SECONDS, ("a>b", "b>a"))

    def test_doubled_and_reordered(self) -> None:
        """Every second frame comes twice, each up to 2 intervals late: no change of role."""
        fault = {"double": 0.5, "delay": 0.01, "jitter": 2 * INTERVAL}
        self.bad(fault, 5, ("a>b", "b>a"))
        self.assertGreater(self.b.drops("replayed"), 0)

    def bad(self, fault: dict[str, float], seconds: float, where: Iterable[str]) -> None:
        """Have such a network for a time, and nothing else must happen."""
        began, changes = self.moment(), self.changes()
        self.network.faults(dict.fromkeys(where, fault))
        time.sleep(seconds)
        self.unchanged(began, changes)
        self.network.heal()
        self.assertEqual(self.cluster.deliver(), "a")


@needs(root=True, programs=PROGRAMS)
class ThreeNodes(ClusterTestCase):
    """Three nodes on one network."""

    def test_the_best_two_die(self) -> None:
        """The two best die one after another, and come back."""
        cluster = self.own("a", "b", "c")
        began = self.moment()
        cluster["a"].kill()
        self.took_over(began, ["a", "b"], TOLD)
        began = self.moment()
        cluster["b"].kill()
        self.took_over(began, ["b", "c"], TOLD)
        began = self.moment()
        cluster["b"].start()
        self.took_over(began, ["c", "b"], TOLD)
        began = self.moment()
        cluster["a"].start()
        self.took_over(began, ["b", "a"], TOLD)
        # All see all.
        cluster.settle()

    def test_cut_in_two(self) -> None:
        """Cut between a and b, both seen by c, who tells of it; healed, a is Master alone."""
        cluster = self.own("a", "b", "c")
        changes = self.changes()
        began = self.moment()
        cluster.network.cut(["a"], ["b"])
        time.sleep(2)
        # b hears nothing of a, but c does not leave a; whoever serves, it is for good.
        settled = self.changes()
        time.sleep(1)
        self.assertEqual(self.changes(), settled)
        self.assertEqual(settled["c"], changes["c"])
        healed = time.monotonic()
        cluster.network.heal()
        cluster.await_owner("a")
        record = cluster.judge.since(began)
        self.keep(record)
        self.assertEqual([w for w in record.doubles(ADDRESS) if w > healed + HEALED], [])
        self.assertLess(record.gap(ADDRESS), MISSED)
        self.assertEqual(cluster.deliver(), "a")


@needs(root=True, programs=PROGRAMS)
class OtherNetworks(ClusterTestCase):
    """Addresses of both kinds, several groups, no multicast."""

    def test_ipv6(self) -> None:
        """Hellos over IPv6, and an IPv6 address beside the other: both move, and back."""
        six = "fd77::25"
        cluster = self.own(
            "a",
            "b",
            addresses=[ADDRESS, six],
            cluster="group = [ff02::2525]:5025",
            each={name: {"smtp": "listen = tcp6:25"} for name in "ab"},
        )
        began = self.moment()
        cluster["a"].kill()
        for address in (six, ADDRESS):
            self.took_over(began, ["a", "b"], TOLD, address=address)
        until(lambda: not cluster["a"].holds(six), "the lease over", 2.2)
        began = self.moment()
        cluster["a"].start()
        for address in (six, ADDRESS):
            self.took_over(began, ["b", "a"], TOLD, address=address)
        # A source address that moves away would take connections with it.
        self.assertNotIn(six, self.source(six))

    def source(self, six: str) -> str:
        """Return with which address the Master would speak to the third host."""
        network = self.cluster.network
        self.assertTrue(self.cluster["a"].holds(six))
        words = ("-6", "route", "get", network.address(CLIENT, 6))
        return ip("-n", network.space("a"), *words).partition(" src ")[2]

    def test_two_groups(self) -> None:
        """Each node is Master of one address; when one dies the other has both."""
        second = "10.77.0.26"
        both = f"addresses = {second}\nadvertisement_interval = 100ms\n"
        cluster = self.own(
            "a",
            "b",
            each={
                "a": {"virtual:second": f"{both}priority = 50"},
                "b": {"virtual:second": f"{both}priority = 150"},
            },
            watched=[ADDRESS, second],
        )
        cluster.await_owner("b", address=second)
        began = self.moment()
        cluster["b"].kill()
        self.took_over(began, ["b", "a"], TOLD, address=second)
        self.assertEqual(cluster.judge.since(began).owners(ADDRESS), ["a"])
        began = self.moment()
        cluster["b"].start()
        self.took_over(began, ["a", "b"], TOLD, address=second)
        began = self.moment()
        cluster["a"].resign(group="mail")
        self.took_over(began, ["a", "b"], TOLD)
        self.assertEqual(cluster.judge.since(began).owners(second), ["b"])

    def test_unicast(self) -> None:
        """Where the network takes no multicast, the nodes know each other's addresses."""
        network = {"a": "unicast_peers = 10.77.0.12", "b": "unicast_peers = 10.77.0.11"}
        cluster = self.own("a", "b", each={n: {"cluster": text} for n, text in network.items()})
        began = self.moment()
        cluster["a"].kill()
        self.took_over(began, ["a", "b"], TOLD)
        began = self.moment()
        cluster["a"].start()
        self.took_over(began, ["b", "a"], TOLD)
