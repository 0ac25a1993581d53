"""Two nodes that say hello once in a while: what a long interval changes.

Three intervals without a word are four seconds here, so nothing hangs on a machine that has
other things to do.
"""

from __future__ import annotations

import signal

from tests.live import needs

from .cluster.nodes import ADDRESS, ClusterTestCase
from .harness import until

PROGRAMS = ["ip"]


@needs(root=True, programs=PROGRAMS)
class LongIntervals(ClusterTestCase):
    """Two nodes at an advertisement interval of more than a second."""

    def setUp(self) -> None:
        """Begin with a pair in good order."""
        super().setUp()
        self.pair("1400ms")
        self.a, self.b = self.cluster["a"], self.cluster["b"]

    def test_two_masters_are_an_alarm(self) -> None:
        """a sees that b is Master too: in the status, in its exit code, in the log."""
        mark = len(self.a.lines)
        self.cluster.network.cut(["a"], ["b"], both=False)
        until(lambda: self.a.group()["two_masters"], "two Masters seen", 15, self.cluster.tell)
        self.assertIn("mail: more than one Master: a, b", self.a.cluster()["alarms"])
        self.assertEqual(self.a.cli("cluster", "status", "--check").returncode, 2)
        self.a.line(r"mail: more than one Master: a, b", since=mark)
        self.cluster.network.heal()
        self.a.line(r"mail: one Master again", since=mark, timeout=10)
        self.cluster.await_owner("a", timeout=15)
        self.assertEqual(self.a.cli("cluster", "status", "--check").returncode, 0)

    def test_stopped_master_lets_go_first(self) -> None:
        """A lease ends before anybody takes over: SIGSTOP never makes two owners."""
        began = self.moment()
        self.a.signal(signal.SIGSTOP)
        self.addCleanup(self.a.signal, signal.SIGCONT)
        self.cluster.await_owner("b", timeout=15)
        record = self.cluster.judge.since(began)
        self.keep(record)
        self.assertEqual(record.doubles(ADDRESS), [])
        self.assertLess(record.gap(ADDRESS), 4 * 1.4 + 0.5)
