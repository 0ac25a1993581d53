"""Proves what people and Prometheus are shown of the sharing out of sessions."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.cluster_tables import cluster_page
from mailsecure.control.metrics import Figures
from mailsecure.counters import Counters

from .fakes import NOON, report
from .test_cluster_tables import EVIL, SHOWN, printed


def row(**more):
    """Return what is said of one node."""
    return {
        "state": "in",
        "why": "",
        "until": None,
        "weight": 100.0,
        "factor": 1.0,
        "share_wanted": 0.5,
        "share_had": 0.499,
        "sessions": 12,
        "sessions_total": 12345,
        "octets_in": 10**9,
        "octets_out": 10**6,
        "failures": {},
        "ejections": 0,
    } | more


def balance(**more):
    """Return the report of a balancer."""
    nodes = {"mx1": row(), "mx2": row(share_had=0.501)}
    return {
        "balance": "round-robin",
        "draining": False,
        "spliced": 12,
        "waiting": 0,
        "nodes": nodes,
    } | more


class PageTests(SynchronousTestCase):
    """The part of the page for people."""

    def page(self, **more):
        page = printed(cluster_page(report() | {"balance": balance(**more)}))
        return page.partition("every node hears every other\n")[2]

    def test_all_is_well(self):
        self.assertEqual(
            self.page(),
            f"""
sessions at virtual addresses, round-robin: 12 with others through this node
SHARES       WANTED     HAD   NOW   IN ALL   FAILED   TIMES OUT
{"─" * 66}
mx1 (this)    50.0%   49.9%    12   12,345        0           0
mx2           50.0%   50.1%    12   12,345        0           0
""",
        )

    def test_one_is_out(self):
        gone = row(
            state="out",
            why="refused",
            until=NOON + 4,
            share_wanted=0,
            failures={"refused": 3, "no greeting in time": 1},
            ejections=2,
        )
        page = self.page(nodes={"mx1": row(factor=0.3), "mx2": gone})
        self.assertIn("0   30% of its weight, for its load\n", page)
        self.assertIn(
            "mx2            0.0%   49.9%    12   12,345        4           2   out: ", page
        )
        self.assertIn("\nmx2 failed: refused: 3, no greeting in time: 1\n", page)
        self.assertIn("\nmx2 is not asked again before 2026-11-22 12:00:04 UTC\n", page)

    def test_draining(self):
        page = self.page(draining=True, waiting=7)
        self.assertIn("through this node, 7 not yet decided\nthis node gives itself none", page)

    def test_text_of_others(self):
        page = self.page(nodes={EVIL: row(state="out", why=EVIL, failures={EVIL: 1})})
        self.assertEqual(page.count(SHOWN), 4)
        self.assertNotIn("\x1b", page)


class FiguresTests(SynchronousTestCase):
    """:class:`Figures` with a balancer."""

    def test_figures(self):
        nodes = {"mx1": row(), "mx2": row(state="out", failures={"refused": 3}, share_wanted=0)}
        found = balance(nodes=nodes, waiting=5)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Figures(Counters(), {}, None, lambda: found))
        page = generate_latest(registry).decode()
        families = list(text_string_to_metric_families(page))
        samples = {
            (each.name.removeprefix("mailsecure_balancer_"), *each.labels.values()): each.value
            for family in families
            for each in family.samples
        }
        for family in families:
            self.assertTrue(family.documentation, family.name)
        for name, labels, value in (
            ("sessions_total", ["mx1"], 12345),
            ("sessions_open", ["mx1"], 12),
            ("octets_in_total", ["mx2"], 10**9),
            ("octets_out_total", ["mx2"], 10**6),
            ("ejections_total", ["mx1"], 0),
            ("share_wanted", ["mx1"], 0.5),
            ("share_wanted", ["mx2"], 0),
            ("weight", ["mx1"], 100),
            ("in", ["mx1"], 1),
            ("in", ["mx2"], 0),
            ("failures_total", ["mx2", "refused"], 3),
            ("waiting", [], 5),
        ):
            self.assertEqual(samples[name, *labels], value, (name, labels))
