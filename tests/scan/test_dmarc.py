"""DMARC: records, organisations, alignment, policies."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.dmarc import (
    Claim,
    Discovery,
    DmarcBroken,
    Outcome,
    Policy,
    Published,
    Record,
    discover,
    evaluate,
    find_record,
    organisation,
)

REJECT = Record(Policy.REJECT, Policy.REJECT)
NOTHING = Claim("none", "")
SUFFIXES = PublicSuffixList()


def related(one: str, other: str) -> bool:
    return organisation(one, SUFFIXES.privatesuffix) == organisation(other, SUFFIXES.privatesuffix)


def judged(
    record: Record | None = REJECT,
    spf: Claim = NOTHING,
    dkim: tuple[Claim, ...] = (),
    domain: str = "mail.example.com",
    inherited: bool = False,
    fault: bool = False,
    exists: bool = True,
    chance: float = 0.0,
) -> Outcome:
    found = Discovery(record, inherited, fault)
    return evaluate(domain, found, (spf, dkim), related, exists, chance)


class RecordTests(SynchronousTestCase):
    """Records in the DNS."""

    def test_records(self) -> None:
        full = "v=DMARC1; p=none; sp=quarantine; np=reject; adkim=s; aspf=S; pct=20; rua=mailto:a@b"
        wanted = Record(Policy.NONE, Policy.QUARANTINE, Policy.REJECT, True, True, 20)
        self.assertEqual(find_record(["v=spf1 -all", full]), wanted)
        self.assertEqual(find_record(["v = DMARC1 ;p=Reject"]), REJECT)
        for text in ("v=DMARC1; p=reject; pct=200", "v=DMARC1; p=reject; pct=x; np=maybe"):
            self.assertEqual(find_record([text]), REJECT)

    def test_no_records(self) -> None:
        for text in ("", "v=DMARC", "p=reject; v=DMARC1", "v=dmarc1; p=none", "v=DMARC10; p=none"):
            self.assertIsNone(find_record([text]), text)
        self.assertIsNone(find_record([]))

    def test_broken_records(self) -> None:
        for texts in (
            ["v=DMARC1; p=none", "v=DMARC1; p=none"],
            ["v=DMARC1"],
            ["v=DMARC1; p=maybe"],
            ["v=DMARC1; p=none; sp=maybe"],
            ["v=DMARC1; p"],
            ["v=DMARC1; p=none; p=reject"],
        ):
            self.assertRaises(DmarcBroken, find_record, texts)

    def test_reports_only(self) -> None:
        """RFC 7489 §6.6.3: without a policy, but with rua, it is p=none."""
        for text in ("v=DMARC1; rua=mailto:a@b.c", "v=DMARC1; p=reject; sp=x; rua=mailto:a@b.c"):
            self.assertEqual(find_record([text]), Record(Policy.NONE, Policy.NONE))

    @given(st.text(st.sampled_from("v=DMARC1;pcts n0x"), max_size=40))
    def test_anything(self, text: str) -> None:
        with contextlib.suppress(DmarcBroken):
            find_record([f"v=DMARC1;{text}"])

    def test_discovery(self) -> None:
        own, parent = "v=DMARC1; p=none", "v=DMARC1; p=reject"
        record = Record(Policy.NONE, Policy.NONE)
        none = Published(["v=spf1 -all"])
        self.assertEqual(discover(Published([own]), Published([parent])), Discovery(record))
        self.assertEqual(discover(none, Published([parent])), Discovery(REJECT, True))
        self.assertEqual(discover(none, none), Discovery(None))
        self.assertEqual(
            discover(Published(None), Published([parent])), Discovery(None, fault=True)
        )
        self.assertEqual(discover(none, Published(None)), Discovery(None, fault=True))
        self.assertEqual(discover(Published([own]), Published(None)), Discovery(record))

    def test_organisations(self) -> None:
        for domain, wanted in (
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("com", "com"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("x.unknown-suffix", "x.unknown-suffix"),
        ):
            self.assertEqual(organisation(domain, SUFFIXES.privatesuffix), wanted)


class AlignmentTests(SynchronousTestCase):
    """Who speaks for whom."""

    def test_relaxed(self) -> None:
        for name in ("mail.example.com", "example.com", "other.example.com", "EXAMPLE.com."):
            for claims in ({"spf": Claim("pass", name)}, {"dkim": (Claim("pass", name),)}):
                self.assertEqual(judged(**claims).result, "pass", name)
        for name in ("example.org", "com", "ample.com", "example.com.evil.example", ""):
            for claims in ({"spf": Claim("pass", name)}, {"dkim": (Claim("pass", name),)}):
                self.assertEqual(judged(**claims).result, "fail", name)

    def test_suffixes_are_no_organisation(self) -> None:
        """Two customers of one registry have nothing to do with each other."""
        spf = Claim("pass", "evil.co.uk")
        self.assertEqual(judged(spf=spf, domain="bank.co.uk").result, "fail")

    def test_strict(self) -> None:
        strict = Record(Policy.REJECT, Policy.REJECT, strict_dkim=True, strict_spf=True)
        for name, result in (("mail.example.com", "pass"), ("example.com", "fail")):
            self.assertEqual(judged(strict, spf=Claim("pass", name)).result, result)
            self.assertEqual(judged(strict, dkim=(Claim("pass", name),)).result, result)
        half = Record(Policy.REJECT, Policy.REJECT, strict_dkim=True)
        self.assertEqual(judged(half, spf=Claim("pass", "example.com")).result, "pass")

    def test_only_a_pass_counts(self) -> None:
        for result in ("fail", "softfail", "neutral", "none", "permerror", "policy"):
            claim = Claim(result, "example.com")
            self.assertEqual(judged(spf=claim, dkim=(claim,)).result, "fail", result)

    def test_one_is_enough(self) -> None:
        good, bad = Claim("pass", "example.com"), Claim("fail", "example.com")
        self.assertEqual(judged(spf=bad, dkim=(bad, good)).result, "pass")
        self.assertEqual(judged(spf=good, dkim=(bad,)).result, "pass")

    def test_faults_of_the_dns(self) -> None:
        """What could have been a pass is no reason to refuse for good."""
        late = Claim("temperror", "example.com")
        self.assertEqual(judged(spf=late).result, "temperror")
        self.assertEqual(judged(dkim=(late,)).disposition, Policy.NONE)
        self.assertEqual(judged(spf=Claim("temperror", "example.org")).result, "fail")
        self.assertEqual(judged(spf=late, dkim=(Claim("pass", "example.com"),)).result, "pass")
        unknown = judged(None, fault=True)
        self.assertEqual((unknown.result, unknown.reason), ("temperror", "policy unknown"))
        self.assertEqual(judged(None, spf=Claim("pass", "example.com"), fault=True).reason, "")

    def test_no_policy(self) -> None:
        self.assertEqual(judged(None), Outcome("mail.example.com", "none"))


class PolicyTests(SynchronousTestCase):
    """What the owner asks for."""

    def test_subdomains(self) -> None:
        record = Record(Policy.NONE, Policy.QUARANTINE, Policy.REJECT)
        self.assertEqual(judged(record).disposition, Policy.NONE)
        self.assertEqual(judged(record, inherited=True).disposition, Policy.QUARANTINE)
        missing = judged(record, inherited=True, exists=False)
        self.assertEqual(missing.disposition, Policy.REJECT)
        plain = Record(Policy.NONE, Policy.QUARANTINE)
        self.assertEqual(judged(plain, inherited=True, exists=False).policy, Policy.QUARANTINE)

    def test_percent(self) -> None:
        """RFC 7489 §6.6.4: who is spared gets the next milder policy."""
        for policy, milder in (
            (Policy.REJECT, Policy.QUARANTINE),
            (Policy.QUARANTINE, Policy.NONE),
            (Policy.NONE, Policy.NONE),
        ):
            record = Record(policy, policy, percent=20)
            self.assertEqual(judged(record, chance=19.9).disposition, policy)
            spared = judged(record, chance=20.0)
            self.assertEqual((spared.disposition, spared.policy), (milder, policy))
        self.assertEqual(
            judged(Record(Policy.REJECT, Policy.REJECT, percent=0)).disposition, Policy.QUARANTINE
        )

    def test_testing(self) -> None:
        """Who only tests has each failure taken one step milder (RFC 9989)."""
        for text, disposition in (
            ("v=DMARC1; p=reject; t=y", Policy.QUARANTINE),
            ("v=DMARC1; p=quarantine; t=Y", Policy.NONE),
            ("v=DMARC1; p=reject; t=n", Policy.REJECT),
        ):
            outcome = judged(find_record([text]))
            self.assertEqual((outcome.result, outcome.disposition), ("fail", disposition))
        self.assertEqual(judged(find_record(["v=DMARC1; p=reject; t=y"])).reason, "spared by t=y")

    def test_a_pass_asks_for_nothing(self) -> None:
        outcome = judged(spf=Claim("pass", "example.com"))
        self.assertEqual((outcome.policy, outcome.disposition), (Policy.REJECT, Policy.NONE))
