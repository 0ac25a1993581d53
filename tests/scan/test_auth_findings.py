"""How what was found is called, and who vouches for whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.config.scanning import DmarcMode
from mailsecure.scan.auth_findings import (
    arc_finding,
    dkim_finding,
    dmarc_finding,
    spf_finding,
    vouched_for,
)
from mailsecure.scan.dmarc import Outcome, Policy


class FindingTests(SynchronousTestCase):
    """What the other tests do not reach through the check."""

    def test_strangers_words_are_shown_plain(self) -> None:
        found = {
            "result": "permerror",
            "domain": "a.example\r\nX: y",
            "mechanism": "",
            "problem": "caf\u00e9\n",
            "explanation": "",
        }
        finding = spf_finding(
            {"mailfrom": found, "helo": found, "identity": "mailfrom"}, "::1", True
        )
        self.assertEqual(finding.symbols[0].reason, "a.example?X: y: permerror for ::1 (caf?)")
        self.assertEqual(finding.results[1].properties, (("smtp.helo", "a.example?X: y"),))

    def test_spared(self) -> None:
        outcome = Outcome("a.example", "fail", Policy.REJECT, Policy.QUARANTINE, "spared by pct=5")
        finding = dmarc_finding(outcome, DmarcMode.ENFORCE, "")
        self.assertEqual(finding.symbols[0].name, "DMARC_QUARANTINE")
        self.assertEqual(finding.results[0].comment, "p=reject dis=quarantine, spared by pct=5")

    def test_changed_on_the_way(self) -> None:
        """What a forwarder has changed is no spam for it alone, whatever fails by that."""
        spf = {"result": "fail", "domain": "a.example", "problem": "", "mechanism": ""}
        signature = dict.fromkeys(("identity", "selector", "algorithm", "b", "key"), "")
        signature |= {"domain": "a.example", "reason": "body has changed"}
        found = [
            spf_finding({"mailfrom": spf, "helo": spf, "identity": "helo"}, "192.0.2.1", False),
            dkim_finding([{**signature, "result": "fail", "testing": False, "partial": False}], 0),
            arc_finding({"result": "fail", "reason": "body has changed", "sets": []}),
            dmarc_finding(Outcome("a.example", "fail"), DmarcMode.ENFORCE, ""),
        ]
        symbols = [symbol for finding in found for symbol in finding.symbols]
        self.assertEqual(
            [symbol.name for symbol in symbols], ["SPF_FAIL", "DKIM_FAIL", "ARC_FAIL", "DMARC_FAIL"]
        )
        tag = parse_config("", "test.ini").scan.tag
        self.assertLess(sum(symbol.score for symbol in symbols), tag)

    def test_policy_unknown_but_passed(self) -> None:
        """Without a record, but aligned: nothing to refuse, and nothing is put off."""
        finding = dmarc_finding(Outcome("a.example", "temperror"), DmarcMode.ENFORCE, "")
        self.assertEqual(finding.symbols, ())

    def test_a_seal_that_is_not_trusted_ends_it(self) -> None:
        good = "i=1; x; dmarc=pass header.from=a.example"
        inner = {"instance": 1, "domain": "good.example", "results": good}
        outer = {"instance": 2, "domain": "evil.example", "results": good}
        chain = {"result": "pass", "sets": [outer, inner]}
        self.assertEqual(vouched_for(chain, "a.example", ["good.example"]), "")
        outer["domain"], outer["results"] = "sub.good.example", "i=2; x; arc=pass"
        self.assertEqual(vouched_for(chain, "a.example", [".good.example"]), "good.example")
        self.assertEqual(vouched_for(chain, "b.example", ["good.example"]), "")
