"""Proves what a client reads: the checks of this package in a session's way through the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.counters import Counters
from mailsecure.scan.finding import find_makers
from mailsecure.scan.inspection import Inspection
from mailsecure.scan.pipeline import Pipeline
from mailsecure.scan.values import Facts
from mailsecure.scan.verdict import Policy
from mailsecure.smtp.envelope import Recipient
from mailsecure.world import World

from .world import Scene

INI = """
[node]
hostname = mx.us.example
[domains]
us.example = lmtp://10.0.0.5
[dnsbl]
lists = bl.example.org 8
    wl.example.org -3
[rates]
sender_recipients = 3
"""
USER = Recipient("u@us.example", "us.example")


class StrangerTests(SynchronousTestCase):
    """Four checks, side by side."""

    def setUp(self) -> None:
        self.patch(
            World, "in_thread", lambda world, call, *arguments: maybeDeferred(call, *arguments)
        )
        self.scene = Scene(INI, state=Path(self.mktemp()))
        self.scene.state.mkdir()
        self.scene.zone.update(
            {
                "1.2.0.192.in-addr.arpa": {"PTR": ["mx.example.net"]},
                "mx.example.net": {"A": ["192.0.2.1"]},
                "example.net": {"MX": ["10 mx.example.net"]},
            }
        )
        makers, site = find_makers(None), self.scene.site()
        checks: list[Any] = [
            makers[name].make(site) for name in ("identity", "dnsbl", "greylist", "rates")
        ]
        for check in checks[2:]:
            self.successResultOf(Deferred.fromCoroutine(check.start()))
            self.addCleanup(lambda check=check: Deferred.fromCoroutine(check.stop()))
        self.pipeline = Pipeline(self.scene.clock, checks, 15.0, Counters())

    def session(self, helo: str = "mx.example.net", domain: str = "example.net") -> Inspection:
        facts = Facts("s1", "192.0.2.1")
        policy = Policy.of(self.scene.config)
        inspection = Inspection(self.scene.clock, self.pipeline, policy, facts, 60.0)
        inspection.connected()
        inspection.helo(helo, True)
        inspection.mail(f"a@{domain}", domain, 0, False)
        return inspection

    def rcpt(self, inspection: Inspection) -> str:
        refused = self.successResultOf(Deferred.fromCoroutine(inspection.rcpt(USER, ())))
        return (
            "" if refused is None else f"{refused[0].code} {refused[0].enhanced} {refused[0].text}"
        )

    def test_comes_again(self) -> None:
        """An honest stranger waits once, then is let in under its confirmed name."""
        self.assertEqual(
            self.rcpt(self.session()), "450 4.7.1 Greylisted, come again in 300 seconds"
        )
        self.scene.clock.advance(300)
        session = self.session()
        self.assertEqual(self.rcpt(session), "")
        self.assertEqual(session.facts.name, "mx.example.net")

    def test_listed(self) -> None:
        """Who is listed is refused before anything else is asked of it."""
        self.scene.zone["1.2.0.192.bl.example.org"] = {"A": ["127.0.0.2"], "TXT": ["spam!"]}
        self.assertEqual(
            self.rcpt(self.session()), "550 5.7.1 192.0.2.1 is listed by bl.example.org: spam!"
        )

    def test_well_known(self) -> None:
        """Whom a list of the good knows does not wait; too much is too much."""
        self.scene.zone["1.2.0.192.wl.example.org"] = {"A": ["127.0.0.2"]}
        session = self.session()
        for _ in range(3):
            self.assertEqual(self.rcpt(session), "")
        self.assertEqual(
            self.rcpt(session), "450 4.7.1 Too much mail from this sender, come again later"
        )

    def test_liars(self) -> None:
        """Who uses our name, or a domain that does not exist, is refused."""
        self.assertTrue(
            self.rcpt(self.session(helo="us.example")).startswith("550 5.7.1 You are not")
        )
        self.assertTrue(
            self.rcpt(self.session(domain="nowhere.example")).startswith("550 5.1.8 Sender address")
        )
