"""Proves that the cluster's figures are what Prometheus reads, by name, label and value."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.metrics import Figures
from mailsecure.counters import Counters

from .fakes import NOON, FakeCluster, group, node

EVIL = 'evil"\n\x1b[31m\\'


class ClusterFiguresTests(SynchronousTestCase):
    """:class:`Figures` with a cluster."""

    def page(self, cluster):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Figures(Counters(), {}, cluster))
        return generate_latest(registry).decode()

    def samples(self, cluster):
        """Return {(name, label): value} of what the cluster says."""
        families = list(text_string_to_metric_families(self.page(cluster)))
        for family in families:
            self.assertTrue(family.documentation, family.name)
        return {
            (each.name.removeprefix("mailsecure_cluster_"), *each.labels.values()): each.value
            for family in families
            for each in family.samples
            if each.name.startswith("mailsecure_cluster_")
        }

    def test_no_cluster(self):
        self.assertEqual(self.samples(None), {})

    def test_groups(self):
        found = self.samples(
            FakeCluster(
                groups=[
                    group(),
                    group("b", role="backup", effective_priority=1, changes=7),
                    group("c", role="init", two_masters=True),
                ]
            )
        )
        for name, label, value in (
            ("role", "mail", 2),
            ("role", "b", 1),
            ("role", "c", 0),
            ("two_masters", "mail", 0),
            ("two_masters", "c", 1),
            ("priority", "mail", 200),
            ("priority", "b", 1),
            ("role_since_seconds", "mail", NOON - 7200),
            ("role_changes_total", "mail", 1),
            ("role_changes_total", "b", 7),
        ):
            self.assertEqual(found[name, label], value, (name, label))

    def test_nodes(self):
        found = self.samples(
            FakeCluster(
                nodes=[
                    node("mx2", ["mx1"]),
                    node("mx3", ["mx2"], link={"up": False, "round_trip": None}),
                    node("mx4", [], alive=False, link=None, last_hello=60.0, clock_offset=-2.5),
                ]
            )
        )
        self.assertFalse([key for key in found if "mx1" in key])
        for name, *values in (
            ("peer_alive", 1, 1, 0),
            ("peer_deaf", 0, 1, 0),
            ("peer_hello_seconds", 0.04, 0.04, 60),
            ("peer_round_trip_seconds", 0.0004, 0.0004, 0.0004),
            ("peer_clock_offset_seconds", 0.003, 0.003, -2.5),
            ("peer_link_up", 1, 0, 0),
        ):
            self.assertEqual([found[name, f"mx{n}"] for n in (2, 3, 4)], values, name)

    def test_counts(self):
        found = self.samples(
            FakeCluster(drops={"bad signature": 3, "replayed": 9}, send_failures=4)
        )
        self.assertEqual(found["drops_total", "bad signature"], 3)
        self.assertEqual(found["drops_total", "replayed"], 9)
        self.assertEqual(found["hellos_sent_total",], 72600)
        self.assertEqual(found["hellos_received_total",], 72590)
        self.assertEqual(found["send_failures_total",], 4)

    def test_a_name_cannot_forge_a_figure(self):
        forged = 'x"} 1\nmailsecure_cluster_role{group="mail"} 0\n#'
        cluster = FakeCluster(nodes=[node(forged), node(EVIL)])
        found = self.samples(cluster)
        self.assertEqual(found["role", "mail"], 2)
        self.assertEqual(found["peer_alive", forged], 1)
        self.assertEqual(found["peer_alive", EVIL], 1)
        lines = self.page(cluster).split("\n")
        self.assertEqual(sum(line.startswith("mailsecure_cluster_role{") for line in lines), 1)
