"""The check ``authentication``: SPF at MAIL, DKIM, ARC and DMARC at DATA."""

from __future__ import annotations

import dkim
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.scan.api import Unscannable
from mailsecure.scan.checks.authentication import authentication
from mailsecure.scan.private_keys import key_record, load_key, new_key, written
from mailsecure.scan.values import NOTHING, Facts, Finding, Stage
from mailsecure.testing.resolver import SERVFAIL, FakeResolver, Zone

from .auth_site import NOW, content_of, site_with

PEM = written(new_key(2048))
RECORD = key_record(load_key(PEM))
ZONE: Zone = {
    "example.com": {"TXT": ["v=spf1 ip4:192.0.2.1 exp=why.example.com -all"]},
    "why.example.com": {"TXT": ["Ask %{o}\u00e9 of %{i}"]},
    "soft.example": {"TXT": ["v=spf1 ~all"]},
    "loop.example": {"TXT": ["v=spf1 include:loop.example"]},
    "mx.example.com": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "broken.example": SERVFAIL,
    "mail._domainkey.example.com": {"TXT": [RECORD]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject; sp=quarantine; np=reject"]},
    "there.example.com": {"MX": ["10 mx.example.com"]},
    "_dmarc.look.example": {"TXT": ["v=DMARC1; p=none"]},
    "_dmarc.two.example": {"TXT": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]},
    "_dmarc.late.example": SERVFAIL,
}
MESSAGE = b"From: A <a@example.com>\r\nTo: b@example.org\r\nSubject: x\r\n\r\nHello.\r\n"


def signed(message: bytes = MESSAGE, domain: bytes = b"example.com", **more: object) -> bytes:
    """Return ``message`` with a signature of dkimpy's."""
    field = dkim.sign(
        message, b"mail", domain, PEM.encode(), canonicalize=(b"relaxed", b"relaxed"), **more
    )
    return bytes(field) + message


class Base(SynchronousTestCase):
    """Runs the check."""

    ini = ""

    def setUp(self) -> None:
        self.resolver = FakeResolver(dict(ZONE))
        self.facts = Facts("s", "192.0.2.1", helo="mx.example.com", reverse_path="a@example.com")
        # dkimpy signs by the clock of this machine.
        self.now = NOW

    def check(self, stage: Stage, ini: str = "") -> Finding:
        self.site = site_with(self.resolver, ini or self.ini, self.now)
        check = authentication.make(self.site)
        self.assertEqual((check.name, stage in check.stages), ("authentication", True))
        return self.successResultOf(Deferred.fromCoroutine(check.check(stage, self.facts)))

    def names(self, finding: Finding) -> list[str]:
        return [each.name for each in finding.symbols]

    def at_data(self, message: bytes, ini: str = "") -> Finding:
        self.facts.content = content_of(message)
        return self.check(Stage.DATA, ini)


class SpfTests(Base):
    """At MAIL."""

    def test_pass(self) -> None:
        finding = self.check(Stage.MAIL)
        self.assertEqual(self.names(finding), ["SPF_PASS"])
        told = [(each.method, each.result, each.properties) for each in finding.results]
        self.assertEqual(
            told,
            [
                ("spf", "pass", (("smtp.mailfrom", "example.com"),)),
                ("spf", "pass", (("smtp.helo", "mx.example.com"),)),
            ],
        )
        self.assertEqual(self.facts.notes["spf"]["mailfrom"]["result"], "pass")
        # What is short is evaluated here.
        self.assertEqual(self.site.workers.done, [])

    def test_what_is_long_goes_to_a_worker(self) -> None:
        record = "v=spf1 " + "ip4:203.0.113.9 " * 150 + "ip4:192.0.2.1 -all"
        self.resolver.zone["example.com"] = {"TXT": [record]}
        finding = self.check(Stage.MAIL)
        self.assertEqual(self.names(finding), ["SPF_PASS"])
        # One round: what the record names was looked up ahead.
        self.assertEqual(self.site.workers.done, ["jobs.spf:evaluate"])

    def test_fail(self) -> None:
        self.facts.client = "192.0.2.2"
        finding = self.check(Stage.MAIL)
        self.assertEqual(self.names(finding), ["SPF_FAIL", "SPF_HELO_FAIL"])
        self.assertIsNone(finding.symbols[0].action)
        finding = self.check(Stage.MAIL, "[authentication]\nspf_reject = yes\n")
        symbol = finding.symbols[0]
        self.assertIs(symbol.action, ScanAction.REJECT)
        self.assertEqual(symbol.reply, "SPF: 192.0.2.2 is not allowed to send mail of example.com")

    def test_explanation(self) -> None:
        """The owner's words stand in the reply as his, and never break out of it."""
        self.resolver.zone["why.example.com"] = {"TXT": ["Ask %{o} of\r\n250 %{i}"]}
        self.facts.client = "192.0.2.2"
        finding = self.check(Stage.MAIL, "[authentication]\nspf_reject = yes\n")
        self.assertTrue(
            finding.symbols[0].reply.endswith(
                "example.com explains: Ask example.com of?250 192.0.2.2"
            ),
            finding.symbols[0].reply,
        )

    def test_null_reverse_path(self) -> None:
        """RFC 7208 §2.4: HELO stands for it."""
        self.facts.reverse_path = ""
        finding = self.check(Stage.MAIL)
        (told,) = finding.results
        self.assertEqual(told.properties, (("smtp.helo", "mx.example.com"),))
        self.assertEqual(self.facts.notes["spf"]["identity"], "helo")

    def test_others(self) -> None:
        for domain, symbol in (
            ("soft.example", "SPF_SOFTFAIL"),
            ("nothing.example", "SPF_NONE"),
            ("broken.example", "SPF_TEMPERROR"),
            ("loop.example", "SPF_PERMERROR"),
            ("[192.0.2.1]", "SPF_NONE"),
        ):
            self.facts.reverse_path = f"a@{domain}"
            self.assertEqual(self.names(self.check(Stage.MAIL)), [symbol], domain)

    def test_no_record_no_worker(self) -> None:
        self.facts.reverse_path, self.facts.helo = "a@nothing.example", "nothing.example"
        self.assertEqual(self.names(self.check(Stage.MAIL)), ["SPF_NONE"])
        self.assertEqual(self.site.workers.done, [])

    def test_odd_clients(self) -> None:
        self.facts.client = "::ffff:192.0.2.1"
        self.assertEqual(self.names(self.check(Stage.MAIL)), ["SPF_PASS"])
        self.facts.client = "unknown"
        self.assertEqual(self.names(self.check(Stage.MAIL)), ["SPF_NONE"])

    def test_not_asked(self) -> None:
        self.assertEqual(self.check(Stage.MAIL, "[authentication]\nspf = no\n"), NOTHING)
        self.facts.trusted = True
        self.assertEqual(self.check(Stage.MAIL), NOTHING)
        self.assertEqual(self.at_data(MESSAGE), NOTHING)
        self.assertEqual(self.resolver.questions, [])

    def test_endless(self) -> None:
        """A record that needs a new look-up for each answer ends as a permerror."""
        terms = " ".join(f"exists:%{{i}}.{i}.example" for i in range(9))
        self.resolver.zone["deep.example"] = {"TXT": [f"v=spf1 {terms} -all"]}
        for i in range(9):
            self.resolver.zone[f"192.0.2.2.{i}.example"] = SERVFAIL if i == 8 else {"A": []}
        self.facts.reverse_path, self.facts.client = "a@deep.example", "192.0.2.2"
        self.facts.helo = "x"
        self.assertEqual(self.names(self.check(Stage.MAIL)), ["SPF_PERMERROR"])


class MessageTests(Base):
    """DKIM and DMARC at DATA."""

    def setUp(self) -> None:
        super().setUp()
        self.facts.client = "192.0.2.9"
        self.facts.notes["spf"] = {"mailfrom": {"result": "fail", "domain": "example.com"}}
        self.patch(dkim.time, "time", lambda: NOW)

    def test_signed(self) -> None:
        finding = self.at_data(signed())
        self.assertEqual(self.names(finding), ["DKIM_PASS", "DMARC_PASS"])
        self.assertEqual(
            [(each.method, each.result) for each in finding.results],
            [("dkim", "pass"), ("arc", "none"), ("dmarc", "pass")],
        )
        self.assertEqual(finding.results[0].comment, "2048-bit rsa key")
        self.assertEqual(finding.results[0].properties[0], ("header.d", "example.com"))
        self.assertEqual(self.site.workers.done, ["jobs.signatures:verify"])

    def test_changed(self) -> None:
        finding = self.at_data(signed().replace(b"Hello", b"Hullo"))
        self.assertEqual(self.names(finding), ["DKIM_FAIL", "DMARC_REJECT"])
        self.assertIn("body has changed", finding.results[0].comment)
        symbol = finding.symbols[1]
        self.assertIs(symbol.action, ScanAction.REJECT)
        self.assertEqual(symbol.reply, "Refused by the DMARC policy of example.com")

    def test_unsigned(self) -> None:
        """No worker is needed; the policy counts all the same."""
        finding = self.at_data(MESSAGE)
        self.assertEqual(self.names(finding), ["DMARC_REJECT"])
        self.assertEqual(self.site.workers.done, [])

    def test_modes(self) -> None:
        finding = self.at_data(MESSAGE, "[authentication]\ndmarc = score\n")
        self.assertEqual(self.names(finding), ["DMARC_REJECT"])
        self.assertIsNone(finding.symbols[0].action)
        self.assertGreater(finding.symbols[0].score, 5)
        finding = self.at_data(MESSAGE, "[authentication]\ndmarc = off\n")
        self.assertEqual((self.names(finding), len(finding.results)), ([], 2))
        finding = self.at_data(signed(), "[authentication]\ndkim = no\narc = no\n")
        self.assertEqual(self.names(finding), ["DMARC_REJECT"])

    def test_mailing_lists(self) -> None:
        """What a list has passed on is held, if it is one: RFC 9989 §7.4."""
        of_list = b"List-Id: <l.soft.example>\r\n" + MESSAGE
        passes = {"mailfrom": {"result": "pass", "domain": "soft.example"}}
        fails = {"mailfrom": {"result": "softfail", "domain": "soft.example"}}
        for message, spf, symbol, action in (
            (of_list, passes, "DMARC_QUARANTINE", ScanAction.QUARANTINE),
            (of_list.replace(b"-Id", b"-Post"), passes, "DMARC_QUARANTINE", ScanAction.QUARANTINE),
            (of_list, fails, "DMARC_REJECT", ScanAction.REJECT),
            (MESSAGE, passes, "DMARC_REJECT", ScanAction.REJECT),
        ):
            self.facts.notes["spf"] = spf
            finding = self.at_data(message)
            self.assertEqual(self.names(finding), [symbol])
            self.assertIs(finding.symbols[0].action, action)
        self.facts.notes["spf"] = fails
        self.resolver.zone["mail._domainkey.soft.example"] = {"TXT": [RECORD]}
        finding = self.at_data(signed(of_list, b"soft.example"))
        self.assertEqual(self.names(finding), ["DKIM_PASS", "DMARC_QUARANTINE"])
        self.assertIn("mailing list", finding.results[-1].comment)
        self.facts.notes["spf"] = passes
        look = self.at_data(of_list.replace(b"@example.com", b"@look.example"))
        self.assertEqual(self.names(look), ["DMARC_FAIL"])

    def test_policies(self) -> None:
        for domain, symbol, action in (
            ("there.example.com", "DMARC_QUARANTINE", ScanAction.QUARANTINE),
            # np: neither an address nor an MX.
            ("absent.example.com", "DMARC_REJECT", ScanAction.REJECT),
            ("look.example", "DMARC_FAIL", None),
            ("two.example", "DMARC_PERMERROR", None),
            ("late.example", "DMARC_TEMPERROR", ScanAction.TEMPFAIL),
        ):
            finding = self.at_data(MESSAGE.replace(b"@example.com", b"@" + domain.encode()))
            self.assertEqual(self.names(finding), [symbol], domain)
            self.assertIs(finding.symbols[0].action, action, domain)
        finding = self.at_data(MESSAGE.replace(b"@example.com", b"@nothing.example"))
        self.assertEqual((self.names(finding), finding.results[-1].result), ([], "none"))

    def test_spf_speaks(self) -> None:
        self.facts.notes["spf"] = {"mailfrom": {"result": "pass", "domain": "bounce.example.com"}}
        self.assertEqual(self.names(self.at_data(MESSAGE)), ["DMARC_PASS"])

    def test_spf_at_data(self) -> None:
        """Where nothing was asked at MAIL, as for a file, it is asked now."""
        self.facts.notes.clear()
        self.facts.client = "192.0.2.1"
        self.assertEqual(self.names(self.at_data(MESSAGE)), ["SPF_PASS", "DMARC_PASS"])
        self.facts.notes.clear()
        finding = self.at_data(MESSAGE, "[authentication]\nspf = no\n")
        self.assertEqual(self.names(finding), ["DMARC_REJECT"])

    def test_key_without_answer(self) -> None:
        """A fault of the DNS is no reason to refuse for good."""
        self.resolver.zone["mail._domainkey.example.com"] = SERVFAIL
        finding = self.at_data(signed())
        self.assertEqual(self.names(finding), ["DKIM_TEMPERROR", "DMARC_TEMPERROR"])
        self.assertIs(finding.symbols[1].action, ScanAction.TEMPFAIL)
        finding = self.at_data(signed(), "[authentication]\ndmarc = score\n")
        self.assertIsNone(finding.symbols[1].action)

    def test_authors(self) -> None:
        for header, symbols in (
            (b"To: x@y.z", ["FROM_MISSING"]),
            (b"From: nobody", ["FROM_UNREADABLE"]),
            (b"From: a@nothing.example\r\nFrom: b@example.com", ["FROM_SEVERAL", "DMARC_REJECT"]),
            (b"From: a@nothing.example, b@example.com", ["DMARC_REJECT"]),
            (b"From: " + b", ".join(b"a@%d.example" % i for i in range(9)), ["FROM_MANY"]),
        ):
            self.assertEqual(self.names(self.at_data(header + b"\r\n\r\nx\r\n")), symbols, header)

    def test_partial(self) -> None:
        """What anybody may add to (l=) speaks for nobody."""
        message = signed(length=True)
        self.assertEqual(self.names(self.at_data(message)), ["DKIM_PASS", "DMARC_PASS"])
        finding = self.at_data(message + b"More.\r\n")
        self.assertEqual(self.names(finding), ["DKIM_PARTIAL", "DMARC_REJECT"])
        self.assertEqual(finding.results[0].result, "policy")

    def test_test_mode(self) -> None:
        self.resolver.zone["mail._domainkey.example.com"] = {"TXT": [RECORD + "; t=y"]}
        finding = self.at_data(signed() + b"More.\r\n")
        self.assertEqual(finding.results[0].result, "neutral")
        self.assertEqual(finding.symbols[0].score, 0)
        self.assertIn("test mode", finding.results[0].comment)

    def test_many_signatures(self) -> None:
        message = MESSAGE
        for i in range(4):
            message = signed(message, f"{i}.example".encode())
        finding = self.at_data(message, "[authentication]\nmax_signatures = 2\n")
        self.assertEqual(self.names(finding), ["DKIM_INVALID", "DKIM_MANY", "DMARC_REJECT"])
        self.assertEqual([each.method for each in finding.results].count("dkim"), 2)

    def test_long_headers(self) -> None:
        """A long header is read by a worker only, one that is too long by nobody."""
        message = b"X: y\r\n" * 1000 + b"Z: " + b"z" * 40_000 + b"\r\n" + MESSAGE
        finding = self.at_data(signed(message))
        self.assertEqual(self.names(finding), ["DKIM_PASS", "DMARC_PASS"])
        self.assertEqual(len(self.site.workers.done), 2)
        for header in (
            b"X: y\r\n" * 2002,
            b"X: " + b"y" * 300_000 + b"\r\n",
            b"X:" * 2002 + b"\r\n",
        ):
            self.facts.content = content_of(header + MESSAGE)
            check = authentication.make(site_with(self.resolver))
            work = Deferred.fromCoroutine(check.check(Stage.DATA, self.facts))
            if len(header) > 5000:
                self.failureResultOf(work, Unscannable)

    def test_header_not_looked_at(self) -> None:
        """The gateway gives b"" for a header that is too long: no way round the policy."""
        content = content_of(b"X: " + b"y" * 300_000 + b"\r\n" + MESSAGE)
        content.header = b""
        self.facts.content = content
        check = authentication.make(site_with(self.resolver))
        work = Deferred.fromCoroutine(check.check(Stage.DATA, self.facts))
        self.failureResultOf(work, Unscannable)

    def test_no_header(self) -> None:
        for message in (b"\r\nFrom: a@example.com\r\n", b"From: a@example.com\r\n"):
            finding = self.at_data(message)
            wanted = "FROM_MISSING" if message.startswith(b"\r") else "DMARC_REJECT"
            self.assertEqual(self.names(finding), [wanted])
