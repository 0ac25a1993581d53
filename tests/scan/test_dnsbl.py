"""Proves that lists in the DNS count as the ini weighs them, and that sick ones do no harm."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.scan.checks.dnsbl import DnsblCheck, DnsblMaker
from mailsecure.scan.checks.dnslists import FAILURES, FIRST_REST
from mailsecure.scan.values import Facts, Finding, Stage
from mailsecure.testing.resolver import SERVFAIL
from mailsecure.world import DnsAbsent

from .world import Scene, stranger

LISTS = """
[dnsbl]
lists = zen.spamhaus.org=127.0.0.2-11 6
    bl.example.org 3
    list.dnswl.org=127.0-255.0-255.1-3 -4
sender_lists = dbl.example.org 5
"""


class SilentResolver:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.waiting: dict[str, Deferred[list[str]]] = {}

    async def ipv4(self, name: str) -> list[str]:
        wait = self.waiting[name] = Deferred()
        return await wait

    async def txt(self, name: str) -> list[bytes]:
        wait: Deferred[list[bytes]] = Deferred()
        return await wait


class DnsblTests(SynchronousTestCase):
    """:class:`DnsblCheck` with a DNS in our hands."""

    def setUp(self) -> None:
        self.scene = Scene(LISTS)
        self.check = DnsblMaker().make(self.scene.site())

    def list(self, question: str, *answers: str, txt: str = "") -> None:
        self.scene.zone[question] = {"A": list(answers)} | ({"TXT": [txt]} if txt else {})

    def run_check(self, stage: Stage, facts: Facts | None = None) -> Finding:
        work = Deferred.fromCoroutine(self.check.check(stage, facts or stranger()))
        return self.successResultOf(work)

    def names(self, finding: Finding) -> list[str]:
        return [symbol.name for symbol in finding.symbols]

    def test_unknown(self) -> None:
        """Who is on no list gives no symbol; all lists were asked."""
        facts = stranger()
        self.assertEqual(self.run_check(Stage.CONNECT, facts).symbols, ())
        self.assertEqual(
            {name for _, name in self.scene.resolver.questions},
            {
                "1.2.0.192.zen.spamhaus.org",
                "1.2.0.192.bl.example.org",
                "1.2.0.192.list.dnswl.org",
            },
        )
        self.assertEqual(facts.client_notes["dnsbl"], 0.0)

    def test_listed(self) -> None:
        """A listing adds its score, and below the limit refuses nobody."""
        self.list("1.2.0.192.zen.spamhaus.org", "127.0.0.4")
        facts = stranger()
        finding = self.run_check(Stage.CONNECT, facts)
        (symbol,) = finding.symbols
        self.assertEqual((symbol.name, symbol.score), ("DNSBL_ZEN_SPAMHAUS_ORG", 6.0))
        self.assertEqual(symbol.reason, "192.0.2.1 (127.0.0.4)")
        self.assertIsNone(symbol.action)
        self.assertEqual(facts.client_notes["dnsbl"], 6.0)

    def test_refused(self) -> None:
        """From the sum on the client is refused, with the lists and the words of the worst."""
        self.list("1.2.0.192.zen.spamhaus.org", "127.0.0.4", txt="see\r\n\x1b[1mhttps://x\x7f")
        self.list("1.2.0.192.bl.example.org", "127.0.0.2")
        symbol = self.run_check(Stage.CONNECT).symbols[-1]
        self.assertEqual((symbol.name, symbol.action), ("DNSBL_REFUSED", ScanAction.REJECT))
        self.assertEqual(symbol.score, 0.0)
        self.assertEqual(
            symbol.reply,
            "5.7.1 192.0.2.1 is listed by zen.spamhaus.org, bl.example.org: see ?[1mhttps://x?",
        )

    def test_white_outweighs(self) -> None:
        """What a list of the good takes off may save a client."""
        self.list("1.2.0.192.zen.spamhaus.org", "127.0.0.4")
        self.list("1.2.0.192.bl.example.org", "127.0.0.2")
        self.list("1.2.0.192.list.dnswl.org", "127.0.5.2")
        facts = stranger()
        finding = self.run_check(Stage.CONNECT, facts)
        self.assertEqual(
            {symbol.name: symbol.score for symbol in finding.symbols},
            {
                "DNSBL_ZEN_SPAMHAUS_ORG": 6.0,
                "DNSBL_BL_EXAMPLE_ORG": 3.0,
                "DNSWL_LIST_DNSWL_ORG": -4.0,
            },
        )
        self.assertEqual(facts.client_notes["dnsbl"], 5.0)

    def test_ipv6(self) -> None:
        """IPv6 clients are asked about by nibbles."""
        nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
        self.list(f"{nibbles}.bl.example.org", "127.0.0.2")
        finding = self.run_check(Stage.CONNECT, stranger(client="2001:db8::1%eth0"))
        self.assertEqual(self.names(finding), ["DNSBL_BL_EXAMPLE_ORG"])

    def test_nobody_is_asked(self) -> None:
        """About private addresses and our own clients nobody is asked."""
        for facts in (
            stranger(client="10.0.0.1"),
            stranger(client="::1"),
            stranger(client="unix"),
            stranger(trusted=True),
        ):
            self.assertEqual(self.run_check(Stage.CONNECT, facts).symbols, ())
        self.assertEqual(self.run_check(Stage.MAIL, stranger(trusted=True)).symbols, ())
        self.assertEqual(self.scene.resolver.questions, [])

    def test_broken_list(self) -> None:
        """A list that fails says nothing; the others count; after a while it is left alone."""
        self.list("1.2.0.192.bl.example.org", "127.0.0.2")
        question = "1.2.0.192.zen.spamhaus.org"
        self.scene.zone[question] = SERVFAIL
        for _ in range(FAILURES + 3):
            self.assertEqual(self.names(self.run_check(Stage.CONNECT)), ["DNSBL_BL_EXAMPLE_ORG"])
        asked = self.scene.resolver.questions
        self.assertEqual(asked.count(("A", question)), FAILURES)
        self.assertEqual(self.check.counts()["zen.spamhaus.org"], FAILURES)
        self.scene.clock.advance(FIRST_REST)
        self.list(question, "127.0.0.2")
        self.assertIn("DNSBL_ZEN_SPAMHAUS_ORG", self.names(self.run_check(Stage.CONNECT)))

    def test_blocked_resolver(self) -> None:
        """The error codes of a list are never a listing."""
        self.list("1.2.0.192.bl.example.org", "127.255.255.254")
        for _ in range(FAILURES + 1):
            self.assertEqual(self.run_check(Stage.CONNECT).symbols, ())
        self.assertEqual(self.check.counts()["bl.example.org"], FAILURES)

    def test_late(self) -> None:
        """What is not there in time counts for nothing; what is there counts."""
        silent = SilentResolver()
        object.__setattr__(self.scene.world, "resolver", silent)
        check = DnsblCheck(self.scene.site())
        work = Deferred.fromCoroutine(check.check(Stage.CONNECT, stranger()))
        silent.waiting["1.2.0.192.zen.spamhaus.org"].callback(["127.0.0.2"])
        silent.waiting["1.2.0.192.list.dnswl.org"].errback(DnsAbsent("no"))
        self.assertNoResult(work)
        self.scene.clock.advance(5.0)
        self.assertEqual(self.names(self.successResultOf(work)), ["DNSBL_ZEN_SPAMHAUS_ORG"])

    def test_late_reason(self) -> None:
        """Nobody waits long for a list's own words."""
        silent = SilentResolver()
        object.__setattr__(self.scene.world, "resolver", silent)
        check = DnsblCheck(self.scene.site())
        work = Deferred.fromCoroutine(check.check(Stage.CONNECT, stranger()))
        for zone in ("zen.spamhaus.org", "bl.example.org"):
            silent.waiting[f"1.2.0.192.{zone}"].callback(["127.0.0.2"])
        silent.waiting["1.2.0.192.list.dnswl.org"].errback(DnsAbsent("no"))
        self.assertNoResult(work)
        self.scene.clock.advance(2.0)
        reply = self.successResultOf(work).symbols[-1].reply
        self.assertEqual(reply, "5.7.1 192.0.2.1 is listed by zen.spamhaus.org, bl.example.org")

    def test_cancelled(self) -> None:
        """A session that ends leaves nothing behind."""
        silent = SilentResolver()
        object.__setattr__(self.scene.world, "resolver", silent)
        check = DnsblCheck(self.scene.site())
        work = Deferred.fromCoroutine(check.check(Stage.CONNECT, stranger()))
        work.addErrback(lambda _: None)
        work.cancel()
        self.assertIsNone(self.successResultOf(work))
        self.assertEqual(self.scene.clock.getDelayedCalls(), [])
        self.assertEqual(set(check.counts().values()), {0})

    def test_sender(self) -> None:
        """At MAIL the lists of domains are asked about the reverse-path and the HELO name."""
        self.list("example.net.dbl.example.org", "127.0.1.2")
        self.list("mx.example.net.dbl.example.org", "127.0.1.2")
        (symbol,) = self.run_check(Stage.MAIL).symbols
        self.assertEqual((symbol.name, symbol.score), ("DNSBL_DBL_EXAMPLE_ORG", 5.0))
        self.assertEqual(symbol.reason, "example.net (127.0.1.2), mx.example.net (127.0.1.2)")

    def test_strange_names(self) -> None:
        """Literals, addresses, words and nonsense are not asked about."""
        for helo in ("[192.0.2.1]", "192.0.2.1", "localhost", "a..b", "x y", "mail."):
            self.run_check(Stage.MAIL, stranger(helo=helo, sender_domain=""))
        self.assertEqual(self.scene.resolver.questions, [])
        self.run_check(Stage.MAIL, stranger(helo="MX.Example.NET.", sender_domain="[192.0.2.1]"))
        self.assertEqual(self.scene.resolver.questions, [("A", "mx.example.net.dbl.example.org")])

    def test_client_and_sender_together(self) -> None:
        """The sum of both may refuse, however early MAIL came."""
        self.list("example.net.dbl.example.org", "127.0.1.2", txt="bad domain")
        silent = SilentResolver()
        resolver = self.scene.world.resolver
        object.__setattr__(self.scene.world, "resolver", silent)
        check = DnsblCheck(self.scene.site())
        facts = stranger()
        connect = Deferred.fromCoroutine(check.check(Stage.CONNECT, facts))
        check._senders._resolver = resolver
        mail = Deferred.fromCoroutine(check.check(Stage.MAIL, facts))
        self.assertNoResult(mail)
        for question, wait in silent.waiting.items():
            if "bl.example" in question:
                wait.callback(["127.0.0.2"])
            else:
                wait.errback(DnsAbsent("no"))
        self.assertEqual(self.names(self.successResultOf(connect)), ["DNSBL_BL_EXAMPLE_ORG"])
        symbols = self.successResultOf(mail).symbols
        self.assertEqual(
            [each.name for each in symbols], ["DNSBL_DBL_EXAMPLE_ORG", "DNSBL_REFUSED"]
        )
        self.assertEqual(
            symbols[-1].reply, "5.7.1 example.net is listed by dbl.example.org: bad domain"
        )

    def test_no_second_refusal(self) -> None:
        """A client that is refused already is not refused for its sender, too."""
        self.list("1.2.0.192.zen.spamhaus.org", "127.0.0.4")
        self.list("1.2.0.192.bl.example.org", "127.0.0.2")
        self.list("example.net.dbl.example.org", "127.0.1.2")
        facts = stranger()
        self.run_check(Stage.CONNECT, facts)
        self.assertEqual(self.names(self.run_check(Stage.MAIL, facts)), ["DNSBL_DBL_EXAMPLE_ORG"])

    def test_short_of_time(self) -> None:
        """A timeout that is longer than a check may take does not make the check late."""
        self.scene = Scene(LISTS + "timeout = 1m\n[scan]\ncheck_timeout = 10s\n")
        object.__setattr__(self.scene.world, "resolver", SilentResolver())
        check = DnsblMaker().make(self.scene.site())
        work = Deferred.fromCoroutine(check.check(Stage.CONNECT, stranger()))
        self.scene.clock.advance(8.0)
        self.assertEqual(self.successResultOf(work).symbols, ())

    def test_gone_while_waiting(self) -> None:
        """A transaction that ends while the client is still looked up leaves nothing behind."""
        self.list("example.net.dbl.example.org", "127.0.1.2")
        silent = SilentResolver()
        resolver = self.scene.world.resolver
        object.__setattr__(self.scene.world, "resolver", silent)
        check = DnsblCheck(self.scene.site())
        facts = stranger()
        connect = Deferred.fromCoroutine(check.check(Stage.CONNECT, facts))
        check._senders._resolver = resolver
        mail = Deferred.fromCoroutine(check.check(Stage.MAIL, facts))
        mail.addErrback(lambda _: None)
        mail.cancel()
        self.scene.clock.advance(5.0)
        self.assertEqual(self.successResultOf(connect).symbols, ())

    def test_contradiction(self) -> None:
        """A limit that everybody reaches is a mistake in the ini."""
        with self.assertRaises(ValueError):
            DnsblMaker().make(Scene("[dnsbl]\nreject = 0\n").site())

    def test_no_lists(self) -> None:
        """Without lists there is nothing to do at any stage."""
        self.assertEqual(DnsblCheck(Scene().site()).stages, frozenset())
        self.assertEqual(self.check.stages, {Stage.CONNECT, Stage.MAIL})
