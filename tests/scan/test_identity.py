"""Proves which names and senders are believed."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.scan.checks.identity import (
    MAX_NAMES,
    IdentityCheck,
    IdentityMaker,
    own_addresses,
)
from mailsecure.scan.checks.naming import own_names
from mailsecure.scan.values import Facts, Finding, Stage
from mailsecure.testing.resolver import SERVFAIL

from .world import Scene, stranger

INI = """
[node]
hostname = mx.us.example
[domains]
us.example = lmtp://10.0.0.5
.us.example = lmtp://10.0.0.5
* = mx
[identity]
"""
REVERSE = "1.2.0.192.in-addr.arpa"


class Case(SynchronousTestCase):
    """A check with a DNS in our hands."""

    def setUp(self) -> None:
        self.make()

    def make(self, settings: str = "") -> None:
        self.scene = Scene(INI + settings)
        self.zone = self.scene.zone
        self.check: IdentityCheck = IdentityMaker(lambda config: {"198.51.100.25"}).make(
            self.scene.site()
        )

    def run_check(self, stage: Stage, facts: Facts | None = None, **known: object) -> Finding:
        facts = facts or stranger(**known)
        return self.successResultOf(Deferred.fromCoroutine(self.check.check(stage, facts)))

    def assert_symbol(
        self, finding: Finding, name: str, action: ScanAction | None = None, status: str = ""
    ) -> None:
        (symbol,) = finding.symbols
        self.assertEqual((symbol.name, symbol.action), (name, action))
        self.assertTrue(symbol.reply.startswith(status), symbol.reply)
        self.assertTrue(symbol.score > 0 or action is ScanAction.TEMPFAIL)

    def test_trusted(self) -> None:
        """Our own clients are not checked."""
        for stage in self.check.stages:
            self.assertEqual(self.run_check(stage, helo="mx.us.example", trusted=True), Finding())
        self.assertEqual(self.scene.resolver.questions, [])


class ReverseTests(Case):
    """CONNECT."""

    def result(self, finding: Finding) -> str:
        (result,) = finding.results
        self.assertEqual(result.method, "iprev")
        self.assertEqual(result.properties, (("policy.iprev", "192.0.2.1"),))
        return result.result

    def test_confirmed(self) -> None:
        """The first name that leads back is the client's."""
        self.zone[REVERSE] = {"PTR": ["liar.example.", "MX.Example.net.", "other.example"]}
        self.zone["liar.example"] = {"A": ["192.0.2.9"]}
        self.zone["mx.example.net"] = {"A": ["192.0.2.7", "192.0.2.1"]}
        self.zone["other.example"] = {"A": ["192.0.2.1"]}
        facts = stranger()
        finding = self.run_check(Stage.CONNECT, facts)
        self.assertEqual((self.result(finding), finding.symbols), ("pass", ()))
        self.assertEqual(facts.name, "mx.example.net")
        self.assertEqual(finding.results[0].comment, "mx.example.net")

    def test_ipv6(self) -> None:
        """IPv6 clients have names, too; how an address is written does not matter."""
        pointer = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        self.zone[pointer] = {"PTR": ["mx.example.net"]}
        self.zone["mx.example.net"] = {"A": ["192.0.2.1"], "AAAA": ["2001:DB8:0::1"]}
        facts = stranger(client="2001:db8::1")
        self.run_check(Stage.CONNECT, facts)
        self.assertEqual(facts.name, "mx.example.net")

    def test_none(self) -> None:
        """No name: a score, and a refusal only if the ini wants one."""
        finding = self.run_check(Stage.CONNECT)
        self.assert_symbol(finding, "RDNS_NONE")
        self.assertEqual(self.result(finding), "permerror")
        self.make("require_reverse_dns = yes")
        finding = self.run_check(Stage.CONNECT)
        self.assert_symbol(finding, "RDNS_NONE", ScanAction.REJECT, "5.7.25 Your address 192.0.2.1")

    def test_forged(self) -> None:
        """A name that does not lead back is not the client's."""
        for settings, action in (("", None), ("require_reverse_dns = yes", ScanAction.REJECT)):
            self.make(settings)
            self.zone[REVERSE] = {"PTR": ["mail.bank.example"]}
            self.zone["mail.bank.example"] = {"A": ["192.0.2.9"]}
            facts = stranger()
            finding = self.run_check(Stage.CONNECT, facts)
            self.assert_symbol(finding, "RDNS_FORGED", action)
            self.assertEqual((self.result(finding), facts.name), ("fail", ""))

    def test_rubbish(self) -> None:
        """What is no host's name is passed over, and never looked up."""
        self.zone[REVERSE] = {"PTR": ["a b.example", "[192.0.2.1]", "x\r\ny", "�.example", ""]}
        finding = self.run_check(Stage.CONNECT)
        self.assert_symbol(finding, "RDNS_NONE")
        self.assertEqual(len(self.scene.resolver.questions), 1)

    def test_many(self) -> None:
        """Of a hundred names some are looked up."""
        self.zone[REVERSE] = {"PTR": [f"h{number}.example" for number in range(100)]}
        self.run_check(Stage.CONNECT)
        self.assertEqual(len(self.scene.resolver.questions), 1 + MAX_NAMES)

    def test_fault(self) -> None:
        """The DNS's trouble is not the client's, unless a name is required: then later."""
        for broken in (REVERSE, "mx.example.net"):
            for settings in ("", "require_reverse_dns = yes"):
                self.make(settings)
                self.zone[REVERSE] = {"PTR": ["mx.example.net"]}
                self.zone[broken] = SERVFAIL
                finding = self.run_check(Stage.CONNECT)
                self.assertEqual(self.result(finding), "temperror")
                if settings:
                    self.assert_symbol(finding, "RDNS_FAULT", ScanAction.TEMPFAIL, "4.7.25 ")
                else:
                    self.assertEqual(finding.symbols, ())

    def test_no_address(self) -> None:
        """A client without an address is not looked up."""
        self.assertEqual(self.run_check(Stage.CONNECT, client="unix"), Finding())


class HeloTests(Case):
    """HELO."""

    def test_known(self) -> None:
        """A name with any of A, AAAA and MX is fine."""
        for records in ({"A": ["192.0.2.1"]}, {"AAAA": ["2001:db8::1"]}, {"MX": ["0 ."]}):
            self.zone["mx.example.net"] = records
            self.assertEqual(self.run_check(Stage.HELO), Finding())

    def test_unknown(self) -> None:
        """One without is not; one that cannot be looked up may be."""
        self.assert_symbol(self.run_check(Stage.HELO), "HELO_UNRESOLVED")
        self.zone["mx.example.net"] = SERVFAIL
        self.assertEqual(self.run_check(Stage.HELO), Finding())

    def test_literal(self) -> None:
        """A true address literal is fine, a false one is not; nobody is asked."""
        self.assertEqual(self.run_check(Stage.HELO, helo="[192.0.2.1]"), Finding())
        self.assert_symbol(self.run_check(Stage.HELO, helo="[192.0.2.2]"), "HELO_LITERAL_FALSE")
        self.assert_symbol(self.run_check(Stage.HELO, helo="pc"), "HELO_NOT_FQDN")
        self.assertEqual(self.scene.resolver.questions, [])

    def test_forged(self) -> None:
        """Who calls himself as we are called is refused, or only scored if the ini says so."""
        for helo in ("mx.us.example", "us.example", "[198.51.100.25]", "localhost"):
            finding = self.run_check(Stage.HELO, helo=helo)
            self.assert_symbol(finding, "HELO_FORGED", ScanAction.REJECT, "5.7.1 ")
        self.make("reject_forged_helo = no")
        self.assert_symbol(self.run_check(Stage.HELO, helo="us.example"), "HELO_FORGED")

    def test_a_domain_of_ours_elsewhere(self) -> None:
        """Our web server, in another house, bears our bare name: the DNS says that it may."""
        self.zone["us.example"] = {"A": ["203.0.113.80", "192.0.2.1"]}
        self.assertEqual(self.run_check(Stage.HELO, helo="us.example"), Finding())
        self.zone["us.example"] = {"A": ["203.0.113.80"]}
        finding = self.run_check(Stage.HELO, helo="us.example")
        self.assert_symbol(finding, "HELO_FORGED", ScanAction.REJECT, "5.7.1 ")
        self.zone["us.example"] = SERVFAIL
        self.assert_symbol(self.run_check(Stage.HELO, helo="us.example"), "HELO_FORGED")
        self.zone["localhost"] = {"A": ["192.0.2.1"]}
        finding = self.run_check(Stage.HELO, helo="localhost")
        self.assert_symbol(finding, "HELO_FORGED", ScanAction.REJECT, "5.7.1 ")


class SenderTests(Case):
    """MAIL."""

    def test_fine(self) -> None:
        """A domain with an MX, or with an address, can be answered."""
        for records in (
            {"MX": ["10 mx.example.net"]},
            {"A": ["192.0.2.1"]},
            {"AAAA": ["2001:db8::1"]},
        ):
            self.zone["example.net"] = records
            self.assertEqual(self.run_check(Stage.MAIL), Finding())

    def test_not_asked(self) -> None:
        """The null reverse-path, address literals and our own domains are not looked up."""
        for domain in ("", "[192.0.2.1]", "us.example"):
            self.assertEqual(self.run_check(Stage.MAIL, sender_domain=domain), Finding())
        self.assertEqual(self.scene.resolver.questions, [])

    def test_unanswerable(self) -> None:
        """A domain that does not exist, or says that it takes no mail, is refused."""
        finding = self.run_check(Stage.MAIL)
        self.assert_symbol(finding, "SENDER_NO_MX", ScanAction.REJECT, "5.1.8 ")
        self.zone["example.net"] = {"MX": ["0 ."], "A": ["192.0.2.1"]}
        finding = self.run_check(Stage.MAIL)
        self.assert_symbol(finding, "SENDER_NO_MX", ScanAction.REJECT, "5.7.27 ")
        self.make("require_sender_domain = no")
        self.assert_symbol(self.run_check(Stage.MAIL), "SENDER_NO_MX")

    def test_fault(self) -> None:
        """What cannot be looked up now comes again, if it must be known."""
        self.zone["example.net"] = SERVFAIL
        finding = self.run_check(Stage.MAIL)
        self.assert_symbol(finding, "SENDER_DNS_FAULT", ScanAction.TEMPFAIL, "4.1.8 ")
        self.zone["example.net"] = {"CNAME": ["target.example"]}
        real = self.scene.resolver.mx

        async def mx(domain: str) -> object:
            self.zone["target.example"] = {}
            try:
                return await real(domain)
            finally:
                self.zone["target.example"] = SERVFAIL

        self.patch(self.scene.resolver, "mx", mx)
        finding = self.run_check(Stage.MAIL)
        self.assert_symbol(finding, "SENDER_DNS_FAULT", ScanAction.TEMPFAIL, "4.1.8 ")
        self.make("require_sender_domain = no")
        self.zone["example.net"] = SERVFAIL
        self.assertEqual(self.run_check(Stage.MAIL), Finding())


class SilentTests(SynchronousTestCase):
    """A DNS that does not answer."""

    def test_in_time(self) -> None:
        """It counts as the DNS's fault, well before the check would be late."""
        for stage, ini, wanted in (
            (Stage.CONNECT, "", []),
            (Stage.CONNECT, "[identity]\nrequire_reverse_dns = yes", ["RDNS_FAULT"]),
            (Stage.HELO, "", []),
            (Stage.MAIL, "", ["SENDER_DNS_FAULT"]),
        ):
            scene = Scene(ini)

            async def silent(name: str) -> object:
                wait: Deferred[object] = Deferred()
                return await wait

            for method in ("ptr", "ipv4", "ipv6", "mx"):
                self.patch(scene.resolver, method, silent)
            check = IdentityMaker().make(scene.site())
            work = Deferred.fromCoroutine(check.check(stage, stranger()))
            self.assertNoResult(work)
            scene.clock.advance(scene.config.scan.check_timeout * 0.45)
            symbols = self.successResultOf(work).symbols
            self.assertEqual([each.name for each in symbols], wanted)


class OursTests(SynchronousTestCase):
    """Who we are."""

    def test_names(self) -> None:
        """Our host and our domains, but not all that is below one."""
        config = Scene(INI).config
        self.assertEqual(own_names(config), {"mx.us.example", "us.example"})

    def test_addresses(self) -> None:
        """This machine's, and those that it may hold."""
        ini = (
            "[cluster]\nkey_file = /k\ninterface = lo\n"
            "[virtual:mail]\naddresses = 192.0.2.25 2001:db8::25/64\n"
        )
        found = own_addresses(Scene(ini).config)
        self.assertLess({"192.0.2.25", "2001:db8::25", "127.0.0.1"}, found)
