"""An hour's worth of hellos, a hundred a second: no drift, no leak, no flap."""

from __future__ import annotations

import time

from tests.live import needs

from .cluster.nodes import ClusterTestCase

#: Hellos of an hour at one a second, and seconds between two here.
HELLOS = 3600
INTERVAL = 0.01


@needs(root=True, programs=["ip", "chrt"])
class Soak(ClusterTestCase):
    """Two nodes that have nothing else to do."""

    def test_an_hour(self) -> None:
        """All are said, on time and taken; memory and roles stay as they were.

        A machine that gives a node no time for 40 ms has it step down, as it should.  So
        the nodes come before everybody else here, and what is left of that is no flap.
        """
        first = {"prefix": ["chrt", "-f", "10"]}
        cluster = self.own(
            "a", "b", virtual="advertisement_interval = 10ms", options={"a": first, "b": first}
        )
        nodes = (cluster["a"], cluster["b"])
        time.sleep(3)
        before = [(node.cluster(), node.memory()) for node in nodes]
        changes, began = self.changes(), time.monotonic()
        time.sleep(HELLOS * INTERVAL)
        took = time.monotonic() - began
        for node, (report, memory) in zip(nodes, before, strict=True):
            now = node.cluster()
            said = now["hellos_sent"] - report["hellos_sent"]
            self.assertGreater(said, 0.9 * took / INTERVAL)
            self.assertLess(said, 1.2 * took / INTERVAL)
            self.assertEqual(now["drops"], {})
            self.assertLess(node.memory() - memory, 2 << 20)
        if not cluster["a"].matching("stood still"):
            self.assertEqual(self.changes(), changes)
        self.assertEqual(cluster.deliver(), "a")
