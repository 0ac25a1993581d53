"""The figures of scanning and of the history for Prometheus, made of what ``status`` shows.

:mod:`.metrics` asks for them at each scrape.  The label ``engine`` is a scanner of the ini;
the shapes of the reports are those of :class:`mailsecure.scan.scanner.Scanner`,
:mod:`mailsecure.scan.engines.guard`, :mod:`mailsecure.scan.workers.pool` and
:meth:`mailsecure.records.service.RecordsService.figures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["history_figures", "scan_figures"]

_COUNTS = {
    "scanned": "Messages that the scanner judged.",
    "found": "Messages in which it found something.",
    "failures": "Messages that it could not judge.",
}
_GAUGES = {
    "busy": "Messages that are with the scanner now.",
    "waiting": "Messages that wait for it.",
}
_WORKERS = {
    "processes": "Processes that take messages apart.",
    "busy": "Of these, those that do.",
    "waiting": "Messages that wait for one.",
}
_HISTORY = {
    "waiting": "Events of the history that wait in memory.",
    "backlog_octets": "Octets of events that wait on disk for the database.",
    "octets": "Octets that the history takes.",
}
_KEYS = {"backlog_octets": "backlog"}
_EVENTS = {
    "written": "Events of the history that were written.",
    "lost": "Events of the history that were lost.",
}
_WORK = {
    "done": "Jobs of such processes that were done.",
    "unscannable": "Jobs that found a message that cannot be read.",
    "killed": "Processes that were killed.",
    "crashed": "Processes that ended by themselves.",
}


def scan_figures(report: dict[str, Any]) -> Iterator[Any]:
    """Yield the metrics of a report."""
    engines = {each["name"]: each for each in report["engines"]}
    if engines:
        for name, meaning in _COUNTS.items():
            yield _family(CounterMetricFamily, name, meaning, engines, name)
        for name, meaning in _GAUGES.items():
            yield _family(GaugeMetricFamily, name, meaning, engines, name)
        well = {name: {"well": each["state"] == "well"} for name, each in engines.items()}
        yield _family(GaugeMetricFamily, "well", "1 while the scanner answers.", well, "well")
        timed = {name: each for name, each in engines.items() if each["median"] is not None}
        meaning = "How long a message takes there, in the middle of the last ones."
        yield _family(GaugeMetricFamily, "seconds", meaning, timed, "median")
    counted = GaugeMetricFamily(
        "mailsecure_check_count", "What a check remembers or counts.", labels=["check", "what"]
    )
    for check, counts in report["counts"].items():
        for what, count in counts.items():
            counted.add_metric([check, what], float(count))
    yield counted
    workers = report["workers"]
    for name, meaning in _WORKERS.items():
        yield GaugeMetricFamily(f"mailsecure_workers_{name}", meaning, workers.get(name, 0))
    for name, meaning in _WORK.items():
        yield CounterMetricFamily(f"mailsecure_worker_jobs_{name}", meaning, workers.get(name, 0))


def history_figures(report: dict[str, Any]) -> Iterator[Any]:
    """Yield the metrics of the history's report; none before it has begun."""
    if not report:
        return
    yield GaugeMetricFamily(
        "mailsecure_history_away",
        "1 while the history's database cannot be written.",
        float(report["away_since"] > 0),
    )
    for name, meaning in _HISTORY.items():
        yield GaugeMetricFamily(
            f"mailsecure_history_{name}", meaning, report[_KEYS.get(name, name)]
        )
    for name, meaning in _EVENTS.items():
        yield CounterMetricFamily(f"mailsecure_history_{name}", meaning, report[name])


def _family(kind: Any, name: str, meaning: str, engines: dict[str, Any], key: str) -> Any:
    family = kind(f"mailsecure_engine_{name}", meaning, labels=["engine"])
    for engine, each in engines.items():
        family.add_metric([engine], float(each[key]))
    return family
