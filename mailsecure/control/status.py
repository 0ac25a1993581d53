"""What ``mailsecure status`` shows, gathered in one JSON object.

The shape, which ``status --json`` prints and programs may rely on (times are Unix
seconds, durations seconds)::

    version, host, pid, started, uptime, now
    sessions      number open now
    counters      {name: count since start}, as in mailsecure.counters
    rates         {name: [1 minute, 5 minutes, 15 minutes]}, counts a second
    reactor       {late: the worst lateness of the last minute}
    memory        resident octets;  descriptors  open ones
    spool         {well, full, why, messages, recipients, octets, oldest}
    quarantine    {messages, recipients, octets, oldest}: octets on disk; null if the spool
                  did not answer
    destinations  [{domain, recipients, due, oldest, in_flight, next_attempt, last_error}]
                  the longest queues first; at most 50, with ages for the first ten
    destinations_more   how many are left out
    problems      [{time, level, room, text}]  the last warnings and errors, newest first
    cluster       {groups, alarms} as in :class:`.api.Cluster`; null without a cluster
    scanning      what :class:`mailsecure.scan.scanner.Scanner` reports: {checks, engines, workers}
    history       what the history reports (:class:`mailsecure.records.api.History`), or null
    log           {failures, lost}

``oldest`` is the Unix time of arrival of the oldest message, or null.  A spool that does
not answer within two seconds, or fails, is reported as such, not waited for.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from .. import __version__
from ..counters import Counters
from ..errors import LocalFault
from ..records.api import History
from ..spool.api import Backlog, Filter, QuarantineFilter, Spool
from ..world import World
from .api import Cluster, Drain, Scheduler
from .logfile import LogFile
from .vitals import Vitals, memory_octets, open_descriptors

__all__ = ["Status"]

_SPOOL_TIMEOUT = 2.0
_MOST_DESTINATIONS = 50
_WITH_AGE = 10


@dataclass(frozen=True, slots=True)
class Status:
    """Gathers the status; calling it is what :class:`~.api.Desk` asks for.

    ``sessions`` returns how many sessions are open.
    """

    world: World
    hostname: str
    counters: Counters
    vitals: Vitals
    spool: Spool
    scheduler: Scheduler
    sessions: Callable[[], int]
    log: LogFile
    cluster: Cluster | None = None
    drain: Drain | None = None
    scanning: Callable[[], dict[str, Any]] | None = None
    history: History | None = None

    async def __call__(self) -> dict[str, Any]:
        """Return the object that the module's text describes."""
        now = self.world.wall()
        status: dict[str, Any] = {
            "version": __version__,
            "host": self.hostname,
            "pid": os.getpid(),
            "started": self.vitals.started,
            "uptime": now - self.vitals.started,
            "now": now,
            "sessions": self.sessions(),
            "counters": self.counters.values(),
            "rates": self.vitals.rates(),
            "reactor": {"late": self.vitals.lateness()},
            "memory": memory_octets(),
            "descriptors": open_descriptors(),
            "cluster": self._cluster(),
            "drain": None if self.drain is None else self.drain.report(),
            "scanning": None if self.scanning is None else self.scanning(),
            "history": None if self.history is None else await self.history.report(),
            "problems": [
                {"time": when, "level": level, "room": room, "text": text}
                for when, level, room, text in reversed(self.log.recent)
            ],
            "log": {"failures": self.log.failures, "lost": self.log.lost},
        }
        health = self.spool.health()
        spool = {"well": health.well, "full": health.full, "why": health.why}
        queue = Deferred.fromCoroutine(self._queue())
        queue.addTimeout(_SPOOL_TIMEOUT, self.world.clock)
        try:
            totals, quarantine, destinations, more = await queue
        except (LocalFault, DeferredTimeout) as fault:
            silent = isinstance(fault, DeferredTimeout)
            spool["queue"] = "the spool did not answer in time" if silent else str(fault)
            totals, quarantine, destinations, more = {}, None, [], 0
        return status | {
            "spool": spool | totals,
            "quarantine": quarantine,
            "destinations": destinations,
            "destinations_more": more,
        }

    def _cluster(self) -> dict[str, Any] | None:
        if self.cluster is None:
            return None
        report = self.cluster.report()
        return {"groups": report["groups"], "alarms": report["alarms"]}

    async def _queue(
        self,
    ) -> tuple[dict[str, Any], dict[str, Any] | None, list[dict[str, Any]], int]:
        """Return the totals, the quarantine's, the longest queues, and how many are left out."""
        messages, recipients, octets = await self.spool.totals()
        backlog = sorted(await self.spool.backlog(), key=lambda each: -each.recipients)
        known = {each.domain: each for each in self.scheduler.snapshot()}
        destinations = []
        for place, each in enumerate(backlog[:_MOST_DESTINATIONS]):
            aged = place < _WITH_AGE
            oldest = await self._oldest(Filter(destination=each.domain)) if aged else None
            destinations.append(_destination(each, known.get(each.domain), oldest))
        totals = {
            "messages": messages,
            "recipients": recipients,
            "octets": octets,
            "oldest": await self._oldest(Filter()),
        }
        more = max(0, len(backlog) - _MOST_DESTINATIONS)
        return totals, await self._quarantine(), destinations, more

    async def _quarantine(self) -> dict[str, Any]:
        messages, recipients, octets = await self.spool.quarantine_totals()
        oldest = await self.spool.quarantined(QuarantineFilter(), 1)
        return {
            "messages": messages,
            "recipients": recipients,
            "octets": octets,
            "oldest": oldest[0].arrived if oldest else None,
        }

    def _oldest(self, filter: Filter) -> Awaitable[float | None]:
        found = self.spool.find(filter, 1)
        return found.addCallback(lambda listings: listings[0].arrived if listings else None)


def _destination(backlog: Backlog, known: Any, oldest: float | None) -> dict[str, Any]:
    return {
        "domain": backlog.domain,
        "recipients": backlog.recipients,
        "due": backlog.due,
        "oldest": oldest,
        "in_flight": known.in_flight if known else 0,
        "next_attempt": max(backlog.due, known.next_attempt) if known else backlog.due,
        "last_error": known.last_error if known else "",
    }
