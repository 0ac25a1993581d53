"""Scores and actions become a verdict, for each recipient and for all of them together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.config.scanning import ScanAction
from mailsecure.scan.values import Special, Symbol
from mailsecure.scan.verdict import Policy, judge, reasons, refusal
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.replies import Reply

A, B = Recipient("a@a.test", "a.test"), Recipient("b@b.test", "b.test")
PROFILES = """
[profile:strict]
recipients = a.test
quarantine = 2
reject = 3
[profile:boss]
recipients = boss@a.test
reject = never
[profile:below]
recipients = .a.test
tag = 1
[profile:none]
recipients = abuse@b.test
scan = no
"""


def policy(text: str = "") -> Policy:
    """Return the policy of an ini."""
    return Policy.of(parse_config(text, "t.ini"))


def scored(score: float) -> list[Symbol]:
    """Return what comes to ``score``."""
    return [Symbol("X", score)]


class Judging(SynchronousTestCase):
    """At the end of DATA."""

    def action(self, symbols: list[Symbol], ini: str = "") -> ScanAction:
        """Return what is done with a message for one."""
        return judge(symbols, [A], policy(ini)).strictest

    def test_thresholds(self) -> None:
        for score, action in (
            (-3, ScanAction.ACCEPT),
            (4.99, ScanAction.ACCEPT),
            (5, ScanAction.TAG),
            (9.99, ScanAction.TAG),
            (10, ScanAction.QUARANTINE),
            (15, ScanAction.REJECT),
            (1000, ScanAction.REJECT),
        ):
            self.assertIs(self.action(scored(score)), action, score)

    def test_scores_add_up_without_the_dust_of_floats(self) -> None:
        self.assertIs(self.action([Symbol("A", 0.1)] * 50), ScanAction.TAG)

    def test_never(self) -> None:
        ini = "[scan]\nreject = never\nquarantine = never\ntag = 1\n"
        self.assertIs(self.action(scored(1e6), ini), ScanAction.TAG)
        self.assertEqual(judge(scored(1), [A], policy(ini)).levels, (("tag", 1.0),))

    def test_the_ini_sets_scores(self) -> None:
        ini = "[scan]\nscores = X 0\n"
        verdict = judge(scored(20), [A], policy(ini))
        self.assertEqual((verdict.score, verdict.strictest), (0, ScanAction.ACCEPT))
        self.assertEqual(verdict.symbols[0].score, 0)

    def test_specials(self) -> None:
        for special, action in (
            (Special.MALWARE, ScanAction.REJECT),
            (Special.UNSCANNABLE, ScanAction.QUARANTINE),
            (Special.ENCRYPTED, ScanAction.TAG),
            (Special.FAILURE, ScanAction.TEMPFAIL),
        ):
            self.assertIs(self.action([Symbol("X", special=special)]), action)
        self.assertIs(
            self.action([Symbol("X", special=Special.FAILURE)], "[scan]\non_failure = accept\n"),
            ScanAction.ACCEPT,
        )

    def test_an_action_of_its_own_goes_before_the_special_one(self) -> None:
        symbol = Symbol("X", special=Special.FAILURE, action=ScanAction.ACCEPT)
        self.assertIs(self.action([symbol]), ScanAction.ACCEPT)

    def test_the_strictest_wins(self) -> None:
        late = Symbol("LATE", special=Special.FAILURE)
        self.assertIs(self.action([late, Symbol("V", special=Special.MALWARE)]), ScanAction.REJECT)
        self.assertIs(self.action([late, *scored(10)]), ScanAction.TEMPFAIL)
        held = Symbol("Q", action=ScanAction.QUARANTINE)
        self.assertIs(self.action([held, *scored(5)]), ScanAction.QUARANTINE)

    def test_the_reply(self) -> None:
        reply = judge(scored(15), [A], policy()).reply
        self.assertEqual(reply, Reply(554, "5.7.1", "Message refused"))
        late = Symbol("X", special=Special.FAILURE, reply="not told: wrong class")
        reply = judge([late], [A], policy()).reply
        self.assertEqual(reply, Reply(451, "4.7.1", "not told: wrong class"))
        own = Symbol("D", action=ScanAction.REJECT, reply="5.7.26 No\r\n\x7fway")
        reply = judge([*scored(3), own], [A], policy()).reply
        self.assertEqual(reply, Reply(554, "5.7.26", "No ?way"))
        other = Symbol("D", action=ScanAction.REJECT, reply="4.7.26 x")
        reply = judge([other], [A], policy()).reply
        self.assertEqual(reply, Reply(554, "5.7.1", "4.7.26 x"))
        self.assertIsNone(judge(scored(5), [A], policy()).reply)

    def test_discard(self) -> None:
        symbol = Symbol("X", action=ScanAction.DISCARD)
        verdict = judge([symbol], [A, B], policy())
        self.assertIs(verdict.action, ScanAction.DISCARD)
        self.assertEqual(verdict.outcomes, dict.fromkeys(("a@a.test", "b@b.test"), verdict.action))
        self.assertIsNone(verdict.reply)


class Recipients(SynchronousTestCase):
    """Where recipients differ."""

    def outcomes(self, symbols: list[Symbol], ini: str = PROFILES) -> tuple[str, str, str]:
        """Return the answer's action, and that of a@a.test and b@b.test."""
        verdict = judge(symbols, [A, B], policy(ini))
        return (
            verdict.action.value,
            verdict.outcomes["a@a.test"].value,
            verdict.outcomes["b@b.test"].value,
        )

    def test_each_gets_his_own(self) -> None:
        self.assertEqual(self.outcomes(scored(1)), ("accept", "accept", "accept"))
        self.assertEqual(self.outcomes(scored(2)), ("accept", "quarantine", "accept"))

    def test_refused_for_one_is_held_for_him(self) -> None:
        self.assertEqual(self.outcomes(scored(3)), ("accept", "quarantine", "accept"))
        self.assertEqual(self.outcomes(scored(6)), ("accept", "quarantine", "tag"))
        self.assertEqual(self.outcomes(scored(15)), ("reject", "reject", "reject"))

    def test_a_symbol_about_one(self) -> None:
        mine = Symbol("X", 20, recipients=frozenset({"b@b.test"}))
        self.assertEqual(self.outcomes([mine]), ("accept", "accept", "quarantine"))

    def test_who_cannot_be_judged_puts_all_off(self) -> None:
        late = Symbol("X", action=ScanAction.TEMPFAIL, recipients=frozenset({"b@b.test"}))
        self.assertEqual(self.outcomes([late]), ("tempfail", "tempfail", "tempfail"))
        self.assertEqual(self.outcomes([late, *scored(15)])[0], "reject")

    def test_refused_and_forgotten(self) -> None:
        gone = Symbol("X", action=ScanAction.DISCARD, recipients=frozenset({"b@b.test"}))
        self.assertEqual(self.outcomes([gone, *scored(3)])[0], "reject")
        self.assertEqual(self.outcomes([gone]), ("accept", "accept", "discard"))

    def test_the_most_exact_profile(self) -> None:
        found = policy(PROFILES)
        for mailbox, reject in (
            ("A@a.test", 3),
            ("Boss@A.test", float("inf")),
            ("x@sub.a.test", 15),
            ("x@b.test", 15),
            ("x@", 15),
        ):
            thresholds = found.thresholds_for(mailbox)
            assert thresholds is not None
            self.assertEqual(thresholds.reject, reject, mailbox)
        below = found.thresholds_for("x@deep.sub.a.test")
        assert below is not None
        self.assertEqual(below.tag, 1)
        self.assertIsNone(found.thresholds_for("abuse@b.test"))

    def test_who_is_not_scanned(self) -> None:
        abuse = Recipient("abuse@b.test", "b.test")
        verdict = judge([Symbol("V", special=Special.MALWARE)], [abuse], policy(PROFILES))
        self.assertEqual((verdict.action, verdict.levels), (ScanAction.ACCEPT, ()))
        self.assertIsNone(
            refusal([Symbol("X", action=ScanAction.REJECT)], abuse.mailbox, policy(PROFILES))
        )

    @given(
        st.lists(
            st.builds(
                Symbol,
                st.sampled_from(["A", "B"]),
                st.floats(-20, 20),
                action=st.none() | st.sampled_from(ScanAction),
                special=st.none() | st.sampled_from(Special),
                recipients=st.none() | st.frozensets(st.sampled_from(["a@a.test", "b@b.test"])),
            )
        )
    )
    def test_what_always_holds(self, symbols: list[Symbol]) -> None:
        verdict = judge(symbols, [A, B], policy(PROFILES))
        outcomes = set(verdict.outcomes.values())
        refused = verdict.action in (ScanAction.REJECT, ScanAction.TEMPFAIL)
        self.assertEqual(verdict.reply is not None, refused)
        if verdict.action is ScanAction.ACCEPT:
            self.assertFalse(outcomes & {ScanAction.REJECT, ScanAction.TEMPFAIL})
        else:
            self.assertEqual(outcomes, {verdict.action})
        self.assertIn(verdict.strictest, outcomes)


class Refusing(SynchronousTestCase):
    """At RCPT."""

    def test_what_is_refused(self) -> None:
        symbols = [*scored(3), Symbol("L", action=ScanAction.REJECT, reply="listed")]
        refused = refusal(symbols, "b@b.test", policy())
        assert refused is not None
        self.assertEqual(refused[0], Reply(550, "5.7.1", "listed"))
        self.assertEqual([each.name for each in refused[1]], ["X", "L"])

    def test_what_is_put_off(self) -> None:
        grey = Symbol("G", action=ScanAction.TEMPFAIL, reply="come again")
        refused = refusal([grey], "b@b.test", policy())
        assert refused is not None
        self.assertEqual(refused[0], Reply(450, "4.7.1", "come again"))

    def test_what_waits_for_the_message(self) -> None:
        for symbol in (
            *scored(100),
            Symbol("Q", action=ScanAction.QUARANTINE),
            Symbol("D", action=ScanAction.DISCARD),
            Symbol("L", action=ScanAction.REJECT, recipients=frozenset({"a@a.test"})),
        ):
            self.assertIsNone(refusal([symbol], "b@b.test", policy()), symbol)


class Reasons(SynchronousTestCase):
    """For listings."""

    def test_the_weightiest_first(self) -> None:
        symbols = [
            Symbol("GOOD", -3),
            Symbol("SOME", 2, "why"),
            Symbol("V", 0, "Eicar", special=Special.MALWARE),
            Symbol("MORE", 4),
            Symbol("NOTHING"),
        ]
        self.assertEqual(reasons(symbols, policy()), "V (Eicar), MORE, SOME (why)")
