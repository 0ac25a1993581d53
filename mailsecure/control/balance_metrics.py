"""The load balancer's figures for Prometheus, made of what ``cluster status`` shows.

:mod:`.metrics` asks for them at each scrape.  The label ``peer`` is a node, this one among
them; the shape of the report is :mod:`mailsecure.balancer.report`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["balance_figures"]

_COUNTS = {
    "sessions": ("sessions_total", "Sessions at virtual addresses that the node was given."),
    "octets_in": ("octets_in", "Octets from clients to the node, in sessions that are over."),
    "octets_out": ("octets_out", "Octets from the node to clients, in sessions that are over."),
    "ejections": ("ejections", "How often the node was put out because it failed."),
}
_GAUGES = {
    "sessions_open": ("sessions", "Sessions open now: with a peer, through this node; or its own."),
    "share_wanted": ("share_wanted", "The part of the sessions that the node is to get, 0 to 1."),
    "weight": ("weight", "The weight that counts now."),
}


def balance_figures(report: dict[str, Any]) -> Iterator[Any]:
    """Yield the metrics of a report."""
    nodes: dict[str, dict[str, Any]] = report["nodes"]
    for name, (key, meaning) in _COUNTS.items():
        yield _family(CounterMetricFamily, name, meaning, {n: v[key] for n, v in nodes.items()})
    for name, (key, meaning) in _GAUGES.items():
        yield _family(GaugeMetricFamily, name, meaning, {n: v[key] for n, v in nodes.items()})
    there = {name: each["state"] == "in" for name, each in nodes.items()}
    yield _family(GaugeMetricFamily, "in", "1 while the node may get sessions.", there)
    failures = CounterMetricFamily(
        "mailsecure_balancer_failures",
        "Sessions and probes that the node did not take.",
        labels=["peer", "reason"],
    )
    for name, each in nodes.items():
        for why, count in each["failures"].items():
            failures.add_metric([name, why], count)
    yield failures
    yield GaugeMetricFamily(
        "mailsecure_balancer_waiting",
        "Connections of which it is not decided yet who gets them.",
        report["waiting"],
    )


def _family(kind: Any, name: str, meaning: str, values: dict[str, float]) -> Any:
    family = kind(f"mailsecure_balancer_{name}", meaning, labels=["peer"])
    for peer, value in values.items():
        family.add_metric([peer], float(value))
    return family
