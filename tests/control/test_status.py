"""Proves that the status is whole, and comes even when the spool does not answer."""

import json
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Log, LogColour, LogFormat, LogLevel
from mailsecure.control.logfile import LogFile
from mailsecure.control.status import Status
from mailsecure.control.vitals import Vitals
from mailsecure.counters import Counters
from mailsecure.spool.api import Health, SpoolBroken

from .fakes import NOON, FakeCluster, FakeScheduler, FakeSpool, group, listing, world


class StatusTests(SynchronousTestCase):
    """:class:`Status` over fakes."""

    def setUp(self):
        self.clock = Clock()
        self.now = NOON
        self.spool = FakeSpool(
            [listing(0), listing(1, 3), listing(2, 2, domain="example.net")],
        )
        outside = world(self.clock, lambda: self.now)
        counters = Counters()
        vitals = Vitals(outside, counters)
        vitals.startService()
        settings = Log(
            file=self.mktemp(), format=LogFormat.TEXT, level=LogLevel.INFO, colour=LogColour.NO
        )
        log = LogFile(settings, "mx1", self.clock)
        log.open()
        self.addCleanup(log.close)
        Logger(namespace="queue", observer=log).warn("disk at {free}", free="3M")
        Logger(namespace="queue", observer=log).error("disk full")
        self.status = Status(
            outside,
            "mx1.example.com",
            counters,
            vitals,
            self.spool,
            FakeScheduler(),
            lambda: 12,
            log,
        )

    def asked(self):
        return Deferred.fromCoroutine(self.status())

    def test_all_of_it(self):
        self.now += 60
        status = self.successResultOf(self.asked())
        json.dumps(status)
        self.assertEqual(status["uptime"], 60)
        self.assertEqual(status["sessions"], 12)
        self.assertEqual(
            status["spool"],
            {
                "well": True,
                "full": False,
                "why": "",
                "messages": 3,
                "recipients": 6,
                "octets": 6144,
                "oldest": NOON - 3600,
            },
        )
        self.assertEqual(
            status["quarantine"],
            {"messages": 5, "recipients": 7, "octets": 4096, "oldest": NOON - 3591},
        )
        first, second = status["destinations"]
        self.assertEqual((first["domain"], first["recipients"]), ("example.com", 4))
        self.assertEqual((first["in_flight"], first["next_attempt"]), (3, NOON + 120))
        self.assertEqual(second["domain"], "example.net")
        self.assertEqual(second["oldest"], NOON - 3598)
        self.assertEqual((second["in_flight"], second["next_attempt"]), (0, NOON + 60))
        self.assertEqual([each["text"] for each in status["problems"]], ["disk full", "disk at 3M"])

    def test_the_cluster_in_brief(self):
        self.assertIsNone(self.successResultOf(self.asked())["cluster"])
        cluster = FakeCluster(alarms=["mx2 does not hear us"])
        self.status = replace(self.status, cluster=cluster)
        self.assertEqual(
            self.successResultOf(self.asked())["cluster"],
            {"groups": [group()], "alarms": ["mx2 does not hear us"]},
        )

    def test_an_empty_queue(self):
        self.spool.listings = []
        status = self.successResultOf(self.asked())
        self.assertIs(status["spool"]["oldest"], None)
        self.assertEqual(status["destinations"], [])

    def test_a_quarantine_that_does_not_answer(self):
        self.spool.quarantined = lambda *_: Deferred()
        asked = self.asked()
        self.clock.advance(2)
        status = self.successResultOf(asked)
        self.assertEqual(status["spool"]["queue"], "the spool did not answer in time")
        self.assertIs(status["quarantine"], None)

    def test_an_empty_quarantine(self):
        self.spool.quarantined = lambda *_: succeed([])
        status = self.successResultOf(self.asked())
        self.assertIs(status["quarantine"]["oldest"], None)

    def test_many_destinations_are_cut(self):
        self.spool.listings = [listing(n, domain=f"d{n}.example") for n in range(60)]
        status = self.successResultOf(self.asked())
        self.assertEqual(len(status["destinations"]), 50)
        self.assertEqual(status["destinations_more"], 10)
        self.assertEqual(sum(each["oldest"] is not None for each in status["destinations"]), 10)

    def test_a_broken_spool(self):
        self.spool.fault = SpoolBroken("fdatasync failed")
        self.spool.healthy = Health(False, False, "fdatasync failed")
        status = self.successResultOf(self.asked())
        self.assertEqual(status["spool"]["queue"], "fdatasync failed")
        self.assertIs(status["quarantine"], None)
        self.assertFalse(status["spool"]["well"])

    def test_a_silent_spool(self):
        self.spool.totals = Deferred
        asked = self.asked()
        self.assertNoResult(asked)
        self.clock.advance(2)
        status = self.successResultOf(asked)
        self.assertEqual(status["spool"]["queue"], "the spool did not answer in time")
