"""The scheduler in all weathers: in any order of events each recipient ends exactly once.

Next hops answer late, defer, refuse, fall and come back; the spool answers late and fails
at settlements; a postmaster flushes, wakes and reloads.  Nothing crashes, so nothing may
be delivered twice, and in the end everything was delivered or returned.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery.api import Fate
from mailsecure.delivery.routes import Routes
from mailsecure.spool.api import Filter, QueuedMessage, SpoolBroken

from . import fakes
from .fakes import Station, down

HOST = Route(RouteKind.SMTP, host="10.0.0.5", port=25)
OTHER = Route(RouteKind.SMTP, host="10.0.0.6", port=25)
OPTIONS = "concurrency = 3\nmax_connections = 7\nretry = 1m 2m\nexpire = 1d"


class Weather:
    """Decides by chance; fine from ``until`` (seconds of the clock) on."""

    def __init__(self, rng: random.Random, until: float) -> None:
        self.rng = rng
        self.until = until
        self.station: Station

    def __call__(self, message: QueuedMessage) -> Any:
        clock = self.station.clock
        fine = clock.seconds() >= self.until
        if message.domain == "sender.example":
            return Fate.RELAYED
        choices: list[Any] = [Fate.RELAYED, Fate.RELAYED, Fate.DELIVERED]
        if not fine:
            choices += [Fate.DEFERRED, Fate.FAILED, down(), down()]
        result = self.rng.choice(choices)
        if self.rng.random() < 0.5:
            return result
        late: Deferred[Any] = Deferred()
        clock.callLater(self.rng.choice([0, 1, 20]), late.callback, result)
        return late


class WeatherTests(SynchronousTestCase):
    """One long random day after another."""

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 1 << 32))
    def test_each_once(self, seed: int) -> None:
        """Every recipient is delivered or returned, once, and the spool is empty."""
        rng = random.Random(seed)
        weather = Weather(rng, 1800.0)
        table = {"d0.example": HOST, "d1.example": HOST, "*": Route(RouteKind.MX)}
        station = weather.station = Station(weather, OPTIONS, table)
        station.start()
        sent: list[tuple[int, str]] = []
        for _ in range(rng.randint(10, 60)):
            for _ in range(rng.randint(0, 12)):
                some = {f"b@d{rng.randrange(5)}.example" for _ in range(rng.randint(1, 3))}
                message = station.new(*sorted(some))
                station.spool.put(message)
                if rng.random() < 0.9:
                    station.scheduler.take(message)
                sent += [(message.id, mailbox) for mailbox in some]
            station.spool.slow = rng.random() < 0.5
            station.spool.fault = SpoolBroken("I/O error") if rng.random() < 0.1 else None
            self.command(rng, station, table)
            station.clock.advance(rng.choice([0, 0, 0.5, 5, 30]))
            station.spool.answer()
        station.spool.slow = False
        station.spool.fault = None
        station.spool.answer()
        station.pass_time(4 * 3600, 15)
        self.assertEqual(station.spool.rows, {})
        took = Counter(each for each in station.transport.delivered if each[1][0] == "b")
        self.assertEqual(set(took.values()) - {1}, set())
        self.assertLessEqual(set(took), set(sent))
        self.assertEqual(station.counters.failed, len(sent) - len(took))
        returned = [each for each in station.transport.delivered if each[1][0] == "a"]
        self.assertEqual(len(returned), station.counters.bounces_sent)
        stopped = station.scheduler.stop()
        station.pass_time(1)
        self.successResultOf(stopped)
        self.assertEqual(station.clock.getDelayedCalls(), [])

    def command(self, rng: random.Random, station: Station, table: dict[str, Route]) -> None:
        """Do what a postmaster might do just now."""
        choice = rng.random()
        scheduler = station.scheduler
        if choice < 0.05:
            scheduler.wake()
        elif choice < 0.1:
            scheduler.flush(Filter(destination=rng.choice(["", "d0.example", "d3.example"])))
        elif choice < 0.15:
            table["d1.example"] = rng.choice([HOST, OTHER])
            scheduler.reconfigure(Routes(table), fakes.settings(OPTIONS))
        elif choice < 0.2:
            scheduler.kick()
