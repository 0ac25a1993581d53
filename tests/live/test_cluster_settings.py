"""What a postmaster does to a running cluster, and what a machine refuses it.

The wall clock is set, keys are changed, a command is run on each change of role; a node
may not move addresses, or finds its address taken.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from functools import partial
from pathlib import Path

from tests.live import missing, needs

from .cluster.network import ip
from .cluster.nodes import ADDRESS, USER, ClusterTestCase, Node
from .harness import until
from .test_clock import LIBRARIES

PROGRAMS = ["ip", "setpriv"]
HOUR = 3600
TOLD = 0.15


@needs(root=True, programs=PROGRAMS)
class Settings(ClusterTestCase):
    """Two nodes that many tests share."""

    def setUp(self) -> None:
        """Begin with a pair in good order."""
        super().setUp()
        self.pair()
        self.a, self.b = self.cluster["a"], self.cluster["b"]

    def test_notify(self) -> None:
        """The command gets group, roles and reason; one that hangs holds up nothing."""
        told = self.cluster.directory / "told"
        told.unlink(missing_ok=True)
        script = self.cluster.directory / "role-changed"
        script.write_text(f'#!/bin/sh\necho "$0-$$ $*" >> {told}\nexec sleep 20\n')
        script.chmod(0o755)
        self.b.change("virtual:mail", f"notify = {script} one")
        began = self.moment()
        self.a.kill()
        self.took_over(began, ["a", "b"], TOLD)
        until(lambda: told.exists() and told.read_text(), "the command", 5, self.cluster.tell)
        words = told.read_text().split(" ", 1)[1]
        self.assertEqual(words, "one mail backup master a is gone\n")
        # It hangs now, and the next change of role waits for nothing.
        began = self.moment()
        self.a.start()
        self.took_over(began, ["b", "a"], TOLD)

    def test_key_rotation(self) -> None:
        """keygen --add, --use-new, --drop-old, each on all nodes in turn: nothing happens."""
        key_file = self.a.directory / "cluster.key"
        before = key_file.read_text()
        strange = self.a.drops("other cluster")
        began, changes = self.moment(), self.changes()
        for step in ("--add", "--use-new", "--drop-old"):
            done = self.a.cli("cluster", "keygen", step)
            self.assertEqual(done.returncode, 0, done.stderr)
            shutil.copy(key_file, self.b.directory / "cluster.key")
            for node in (self.a, self.b):
                node.request("reload")
                time.sleep(0.3)
        self.unchanged(began, changes)
        self.assertNotIn(before.split()[-1], key_file.read_text())
        # Not only did nobody notice: the nodes do hear each other with the new key.
        self.cluster.settle()
        self.assertEqual(self.a.drops("other cluster"), strange)
        began = self.moment()
        self.a.kill()
        self.took_over(began, ["a", "b"], TOLD)

    def test_another_key(self) -> None:
        """A node with another key is in another cluster; the right key brings it back."""
        changes = self.b.group()["changes"]
        key_file = self.b.directory / "cluster.key"
        before = key_file.read_text()
        self.addCleanup(key_file.write_text, before)
        key_file.write_text(before[::-1].strip("=\n") + "=\n")
        if self.b.cli("cluster", "status").returncode:
            self.fail("b does not answer")
        self.b.request("reload")
        until(lambda: self.b.drops("other cluster"), "a's hellos are strange to b", 5)
        until(lambda: self.a.drops("other cluster"), "b's are strange to a", 5)
        key_file.write_text(before)
        self.b.request("reload")
        self.cluster.settle()
        self.assertGreaterEqual(self.b.group()["changes"], changes)
        self.assertEqual(self.cluster.deliver(), "a")

    def test_bad_reload(self) -> None:
        """An ini with a mistake changes nothing, and the address stays."""
        began, changes = self.moment(), self.changes()
        mark = len(self.a.lines)
        self.a.configure(**{"virtual:mail": "priority = 300"})
        self.assertNotEqual(self.a.cli("reload").returncode, 0)
        self.assertEqual(self.a.group()["priority"], 200)
        self.unchanged(began, changes)
        self.assertEqual(self.a.matching("->", since=mark), [])

    def test_status_on_any_node(self) -> None:
        """Both nodes show the same cluster, as a table and as JSON."""
        for node, other in ((self.a, self.b), (self.b, self.a)):
            shown = node.cluster()
            self.assertEqual([each["node"] for each in shown["nodes"]], [node.host, other.host])
            self.assertEqual(shown["groups"][0]["master"], "a")
            until(lambda: node.peer(other.host)["round_trip"], "an answer over the link")  # noqa: B023
            peer = node.peer(other.host)
            self.assertEqual(peer["hears"], [node.host])
            self.assertLess(peer["last_hello"], 0.5)
            self.assertLess(abs(peer["clock_offset"]), 0.5)
            self.assertTrue(0 < peer["round_trip"] < 0.5)
            page = node.cli("cluster", "status")
            self.assertEqual(page.returncode, 0, page.stderr)
            for word in ("a", "b", "mail", ADDRESS, "master", "backup"):
                self.assertIn(word, page.stdout)


@needs(root=True, programs=PROGRAMS)
class Machines(ClusterTestCase):
    """Clusters of which one node's machine is peculiar."""

    def test_stepped_clock(self) -> None:
        """The Master's wall clock an hour forward, an hour back, and right again."""
        if missing(programs=() if LIBRARIES else ("libfaketime",)):
            self.skipTest("libfaketime is not installed")
        lie = self.temporary_directory() / "lie"
        _step(lie, 0)
        fake = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(lie),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            # With these it holds up threads for longer than a Master may be silent.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }
        cluster = self.own("a", "b", options={"a": {"environment": fake}})
        began, changes = self.moment(), self.changes()
        for offset in (HOUR, -HOUR, 0):
            _step(lie, offset)
            until(partial(self.offset, offset), f"b sees {offset} s", 5, cluster.tell)
            time.sleep(0.7)
            self.assertEqual(cluster.deliver(), "a")
        self.unchanged(began, changes)
        # The monotonic clock was left alone, by libfaketime too.
        self.assertLess(cluster["a"].peer("a")["uptime"], 60)
        _step(lie, HOUR)
        began = self.moment()
        cluster["a"].kill()
        self.took_over(began, ["a", "b"], TOLD)

    def offset(self, seconds: float) -> bool:
        """Say whether b sees a's clock so far beside its own."""
        offset: float = self.cluster["b"].peer("a")["clock_offset"]
        return abs(offset - seconds) < 5

    def test_without_the_right(self) -> None:
        """The better one may not set addresses: it says so, and takes no part."""
        prefix = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
        cluster = self.own("a", "b", options={"a": {"prefix": prefix}}, start=False)
        cluster.start("a", "b")
        cluster["a"].line(r"mail: no part in the election: .*CAP_NET_ADMIN", timeout=5)
        cluster.await_owner("b")
        self.assertEqual(cluster["a"].group()["role"], "init")
        self.assertIn("CAP_NET_ADMIN", cluster["a"].group()["fault"])
        self.assertEqual(cluster.deliver(), "b")
        # It is no heir either.
        cluster["b"].kill()
        time.sleep(1)
        self.assertEqual(cluster["a"].group()["role"], "init")
        self.assertEqual(cluster.judge.lately(0.3).answers(ADDRESS), [])

    def test_as_an_ordinary_user(self) -> None:
        """A daemon that gave root up for good still moves addresses, and reads its keys."""
        as_user = {name: {"node": f"user = {USER}"} for name in "ab"}
        cluster = self.own("a", "b", each=as_user, start=False)
        for node in cluster.nodes.values():
            node.give(USER)
        cluster.start("a", "b")
        cluster.settle()
        uids = Path(f"/proc/{cluster['a'].pid}/status").read_text()
        user = pwd.getpwnam(USER).pw_uid
        self.assertIn(f"Uid:\t{user}\t{user}\t{user}\t{user}", uids)
        began = self.moment()
        cluster["a"].kill()
        self.took_over(began, ["a", "b"], TOLD)
        began = self.moment()
        cluster["a"].start()
        self.took_over(began, ["b", "a"], TOLD)
        cluster["a"].request("reload")
        cluster.settle()

    def test_address_is_taken(self) -> None:
        """The address stands on the interface for another reason: no start, in plain words."""
        cluster = self.own("a", start=False)
        node = cluster["a"]
        ip("-n", cluster.network.space("a"), "address", "add", f"{ADDRESS}/32", "dev", "eth0")
        self.assertEqual(self.refused(node), os.EX_UNAVAILABLE)
        node.line(rf"\[virtual:mail\]: {ADDRESS}/32 already stands on eth0 for another reason")
        self.assertTrue(node.holds())
        ip("-n", cluster.network.space("a"), "address", "delete", f"{ADDRESS}/32", "dev", "eth0")
        node.start()
        cluster.await_owner("a")

    def test_leftover(self) -> None:
        """What an earlier life left behind is removed, and no reason not to start."""
        cluster = self.own("a", "b", start=False)
        words = ("address", "add", f"{ADDRESS}/32", "dev", "eth0")
        lease = ("valid_lft", "50", "preferred_lft", "50")
        ip("-n", cluster.network.space("b"), *words, *lease)
        cluster.start("b")
        cluster["b"].line(rf"removed {ADDRESS}/32 from eth0: left behind")
        cluster.start("a")
        cluster.await_owner("a")
        self.assertFalse(cluster["b"].holds())

    def test_key_file_for_all_to_read(self) -> None:
        """A key that others can read is refused, in plain words."""
        cluster = self.own("a", start=False)
        (cluster["a"].directory / "cluster.key").chmod(0o644)
        self.assertNotEqual(self.refused(cluster["a"]), 0)
        cluster["a"].line(r"cluster\.key.*(read|0?600)")

    def refused(self, node: Node) -> int:
        """Start a node that cannot start; return its exit code."""
        node.launch()
        return node.wait()


def _step(lie: Path, seconds: int) -> None:
    """Set the faked wall clock so far beside the true time."""
    new = lie.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.rename(lie)
