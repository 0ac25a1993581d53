"""The cluster's figures for Prometheus, made of what ``cluster status`` shows.

:mod:`.metrics` asks for them at each scrape.  The label ``group`` is a virtual group,
``node`` another node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["cluster_figures"]

_ROLES = {"init": 0, "backup": 1, "master": 2}
_Row = dict[str, Any]

#: Name, meaning, and the value of a group.
_GROUPS: tuple[tuple[str, str, Callable[[_Row], float]], ...] = (
    (
        "role",
        "This node in the group: 0 takes no part, 1 Backup, 2 Master.",
        lambda each: _ROLES[each["role"]],
    ),
    ("two_masters", "1 while more than one Master is heard.", lambda each: each["two_masters"]),
    ("priority", "The effective priority.", lambda each: each["effective_priority"]),
    ("role_since_seconds", "Unix time of the last change of role.", lambda each: each["since"]),
)
#: The same of another node.
_NODES: tuple[tuple[str, str, Callable[[_Row], float]], ...] = (
    ("peer_alive", "1 while the node is heard.", lambda each: each["alive"]),
    ("peer_deaf", "1 while the node is heard and does not hear us.", lambda each: each["deaf"]),
    ("peer_hello_seconds", "How long ago the node was heard.", lambda each: each["last_hello"]),
    ("peer_round_trip_seconds", "There and back, by hello.", lambda each: each["round_trip"]),
    ("peer_clock_offset_seconds", "Its clock less ours.", lambda each: each["clock_offset"]),
    (
        "peer_link_up",
        "1 while there is a link.",
        lambda each: bool(each["link"] and each["link"]["up"]),
    ),
)
#: What is counted of the node itself.
_COUNTS = (
    ("hellos_sent", "Hello datagrams said."),
    ("hellos_received", "Hello datagrams that came, whether they counted or not."),
    ("send_failures", "Hello datagrams that could not be sent."),
)


def cluster_figures(report: dict[str, Any]) -> Iterator[Any]:
    """Yield the metrics of a report, whose shape is :class:`.api.Cluster`'s."""
    for name, meaning, value in _GROUPS:
        yield _gauges(name, meaning, "group", {g["name"]: value(g) for g in report["groups"]})
    changes = CounterMetricFamily(
        "mailsecure_cluster_role_changes", "Changes of role.", labels=["group"]
    )
    for group in report["groups"]:
        changes.add_metric([group["name"]], group["changes"])
    yield changes
    hearers = {name for each in report["nodes"] if each["self"] for name in each["heard_by"]}
    others = {
        each["node"]: each | {"deaf": each["alive"] and each["node"] not in hearers}
        for each in report["nodes"]
        if not each["self"]
    }
    for name, meaning, value in _NODES:
        yield _gauges(name, meaning, "node", {node: value(each) for node, each in others.items()})
    drops = CounterMetricFamily(
        "mailsecure_cluster_drops", "Datagrams that were ignored.", labels=["reason"]
    )
    for reason, count in report["drops"].items():
        drops.add_metric([reason], count)
    yield drops
    for name, meaning in _COUNTS:
        yield CounterMetricFamily(f"mailsecure_cluster_{name}", meaning, report[name])


def _gauges(name: str, meaning: str, label: str, values: dict[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"mailsecure_cluster_{name}", meaning, labels=[label])
    for each, value in values.items():
        family.add_metric([each], float(value))
    return family
