"""Checks run side by side, guarded; a session goes through the stages with what they found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.config.scanning import ScanAction
from mailsecure.counters import Counters
from mailsecure.errors import LocalFault
from mailsecure.scan.api import Unscannable
from mailsecure.scan.inspection import Inspection, Judgement
from mailsecure.scan.pipeline import Pipeline
from mailsecure.scan.values import AuthResult, Content, Facts, Finding, Special, Stage, Symbol
from mailsecure.scan.verdict import Policy
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.replies import Reply
from mailsecure.testing.workers import OctetsBody

A = Recipient("a@a.test", "a.test")
REFUSED = Symbol("LISTED", action=ScanAction.REJECT, reply="listed")


class Scripted:
    """A check that does what it is told: return symbols, raise, or wait."""

    def __init__(self, name: str, *stages: Stage) -> None:
        self.name = name
        self.stages = frozenset(stages or (Stage.DATA,))
        self.symbols: tuple[Symbol, ...] = ()
        self.fault: Exception | None = None
        self.waits: Deferred[None] | None = None
        self.seen: list[tuple[str, str, str]] = []
        self.cancelled = 0

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """See the class."""
        self.seen.append((stage.value, facts.helo, facts.reverse_path))
        if self.waits is not None:
            await self.waits
        if self.fault is not None:
            raise self.fault
        return Finding(self.symbols, (AuthResult(self.name, "pass"),))

    def hang(self) -> None:
        """Wait from now on."""

        def cancel(_: object) -> None:
            self.cancelled += 1

        self.waits = Deferred(cancel)


class PipelineTestCase(SynchronousTestCase):
    """Checks, a clock, and a session."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.facts = Facts("S1", "192.0.2.1")

    def pipeline(self, *checks: Scripted) -> Pipeline:
        """Return the pipeline of ``checks``, each with 15 s."""
        return Pipeline(self.clock, checks, 15.0, self.counters)

    def inspection(self, *checks: Scripted, limit: float = 60.0) -> Inspection:
        """Return that of a session."""
        policy = Policy.of(parse_config("", "t.ini"))
        return Inspection(self.clock, self.pipeline(*checks), policy, self.facts, limit)

    def data(self, inspection: Inspection, recipients: Sequence[Recipient] = (A,)) -> Any:
        """Give it a message; return the Deferred of the judgement."""

        async def anatomy() -> None:
            return None

        content = Content(1, "ID", OctetsBody(b"x"), 1, b"", b"", anatomy)
        return Deferred.fromCoroutine(inspection.data(content, recipients))


class Running(PipelineTestCase):
    """One stage."""

    def test_only_the_checks_of_the_stage(self) -> None:
        early, late = Scripted("early", Stage.MAIL), Scripted("late")
        pipeline = self.pipeline(early, late)
        self.successResultOf(pipeline.run(Stage.MAIL, self.facts))
        self.assertEqual((len(early.seen), len(late.seen)), (1, 0))
        self.assertTrue(pipeline.has(Stage.DATA))
        self.assertFalse(pipeline.has(Stage.RCPT))

    def test_side_by_side(self) -> None:
        slow, quick = Scripted("slow"), Scripted("quick")
        slow.hang()
        quick.symbols = (Symbol("Q", 1.0),)
        work = self.pipeline(slow, quick).run(Stage.DATA, self.facts)
        self.assertEqual(len(quick.seen), 1)
        self.clock.advance(3)
        assert slow.waits is not None
        slow.waits.callback(None)
        found = self.successResultOf(work)
        self.assertEqual(found.symbols, [Symbol("Q", 1.0, check="quick")])
        self.assertEqual(found.timings, [("quick", 0.0), ("slow", 3.0)])

    def test_a_late_check_is_cancelled_and_counts_as_failed(self) -> None:
        slow = Scripted("my-check")
        slow.hang()
        work = self.pipeline(slow).run(Stage.DATA, self.facts)
        self.clock.advance(14.9)
        self.assertNoResult(work)
        self.clock.advance(0.2)
        (symbol,) = self.successResultOf(work).symbols
        self.assertEqual((symbol.name, symbol.special), ("MY_CHECK_FAILED", Special.FAILURE))
        self.assertEqual(symbol.reason, "no answer within 15 s")
        self.assertEqual((slow.cancelled, self.counters.checks_failed), (1, 1))

    def test_an_engine_has_a_time_of_its_own(self) -> None:
        slow: Any = Scripted("engine")
        slow.limit = 30.0
        slow.hang()
        work = self.pipeline(slow).run(Stage.DATA, self.facts)
        self.clock.advance(30.9)
        self.assertNoResult(work)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(work).symbols[0].name, "ENGINE_FAILED")

    def test_a_fault_of_ours(self) -> None:
        check = Scripted("x")
        check.fault = LocalFault("the scanner is away")
        (symbol,) = self.successResultOf(self.pipeline(check).run(Stage.DATA, self.facts)).symbols
        self.assertEqual((symbol.reason, symbol.special), ("the scanner is away", Special.FAILURE))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_surprise_is_logged(self) -> None:
        check = Scripted("x")
        check.fault = ZeroDivisionError("secret of the message")
        (symbol,) = self.successResultOf(self.pipeline(check).run(Stage.DATA, self.facts)).symbols
        self.assertEqual((symbol.reason, symbol.special), ("unexpected error", Special.FAILURE))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unscannable_is_no_failure(self) -> None:
        check = Scripted("x")
        check.fault = Unscannable("too deep")
        (symbol,) = self.successResultOf(self.pipeline(check).run(Stage.DATA, self.facts)).symbols
        self.assertEqual(
            symbol, Symbol("UNSCANNABLE", 0.0, "too deep", special=Special.UNSCANNABLE, check="x")
        )
        self.assertEqual(self.counters.checks_failed, 0)

    def test_one_that_fails_spoils_nothing(self) -> None:
        bad, good = Scripted("bad"), Scripted("good")
        bad.fault, good.symbols = LocalFault("x"), (Symbol("G", 1.0),)
        names = [
            each.name
            for each in self.successResultOf(
                self.pipeline(bad, good).run(Stage.DATA, self.facts)
            ).symbols
        ]
        self.assertEqual(names, ["BAD_FAILED", "G"])


class Inspecting(PipelineTestCase):
    """A session."""

    def rcpt(self, inspection: Inspection) -> Any:
        """Ask about a recipient; return the Deferred."""
        return Deferred.fromCoroutine(inspection.rcpt(A, ()))

    def test_stages_begin_with_their_facts(self) -> None:
        check = Scripted("all", *Stage)
        inspection = self.inspection(check)
        inspection.connected()
        inspection.helo("mx.b.test", True)
        inspection.mail("b@b.test", "b.test", 10, False)
        self.assertIsNone(self.successResultOf(self.rcpt(inspection)))
        judgement: Judgement = self.successResultOf(self.data(inspection))
        self.assertEqual(
            check.seen,
            [
                ("connect", "", ""),
                ("helo", "mx.b.test", ""),
                ("mail", "mx.b.test", "b@b.test"),
                ("rcpt", "mx.b.test", "b@b.test"),
                ("data", "mx.b.test", "b@b.test"),
            ],
        )
        self.assertEqual(len(judgement.results), 5)
        self.assertEqual(len(judgement.timings), 5)

    def test_rcpt_waits_for_the_early_checks(self) -> None:
        check = Scripted("x", Stage.CONNECT)
        check.hang()
        check.symbols = (REFUSED,)
        inspection = self.inspection(check)
        inspection.connected()
        asked = self.rcpt(inspection)
        again = self.rcpt(inspection)
        self.assertNoResult(asked)
        assert check.waits is not None
        check.waits.callback(None)
        for each in (asked, again):
            reply, symbols = self.successResultOf(each)
            self.assertEqual(reply, Reply(550, "5.7.1", "listed"))
            self.assertEqual([symbol.name for symbol in symbols], ["LISTED"])

    def test_what_was_found_early_counts_at_data(self) -> None:
        early, late = Scripted("early", Stage.CONNECT, Stage.RCPT), Scripted("late")
        early.symbols, late.symbols = (Symbol("E", 4.0),), (Symbol("L", 2.0),)
        inspection = self.inspection(early, late)
        inspection.connected()
        self.successResultOf(self.rcpt(inspection))
        judgement = self.successResultOf(self.data(inspection))
        self.assertEqual(judgement.verdict.score, 10.0)

    def test_who_was_refused_does_not_count_at_data(self) -> None:
        check = Scripted("x", Stage.RCPT)
        inspection = self.inspection(check)
        check.symbols = (Symbol("G", 4.0, action=ScanAction.TEMPFAIL),)
        self.assertIsNotNone(self.successResultOf(self.rcpt(inspection)))
        check.symbols = ()
        self.assertIsNone(self.successResultOf(self.rcpt(inspection)))
        self.assertEqual(self.successResultOf(self.data(inspection)).verdict.score, 0)

    def test_a_transaction_is_forgotten_and_the_client_is_not(self) -> None:
        client, mail = Scripted("c", Stage.CONNECT), Scripted("m", Stage.MAIL)
        client.symbols, mail.symbols = (Symbol("C", 1.0),), (Symbol("M", 2.0),)
        inspection = self.inspection(client, mail, Scripted("d"))
        inspection.connected()
        inspection.mail("b@b.test", "b.test", 0, False)
        self.facts.notes["m"], self.facts.client_notes["c"] = 1, 2
        self.assertEqual(self.successResultOf(self.data(inspection)).verdict.score, 3)
        inspection.reset()
        self.assertEqual((self.facts.notes, self.facts.client_notes), ({}, {"c": 2}))
        self.assertEqual(self.successResultOf(self.data(inspection)).verdict.score, 1)

    def test_helo_again_and_tls(self) -> None:
        helo = Scripted("h", Stage.HELO)
        helo.symbols = (Symbol("H", 1.0),)
        inspection = self.inspection(helo, Scripted("d"))
        inspection.helo("one", False)
        inspection.helo("two", True)
        self.assertEqual(self.successResultOf(self.data(inspection)).verdict.score, 1)
        inspection.started_tls("TLSv1.3")
        self.assertEqual((self.facts.helo, self.facts.tls), ("", "TLSv1.3"))
        self.assertEqual(self.successResultOf(self.data(inspection)).verdict.score, 0)

    def test_all_together_take_no_longer_than_the_limit(self) -> None:
        slow, quick = Scripted("slow"), Scripted("quick")
        slow.hang()
        quick.symbols = (Symbol("Q", 1.0),)
        judging = self.data(self.inspection(slow, quick, limit=5.0))
        self.clock.advance(5.1)
        verdict = self.successResultOf(judging).verdict
        self.assertIs(verdict.action, ScanAction.TEMPFAIL)
        self.assertEqual({each.name for each in verdict.symbols}, {"Q", "SCAN_LATE"})
        self.assertEqual(slow.cancelled, 1)

    def test_closing_ends_what_runs(self) -> None:
        check = Scripted("x", Stage.CONNECT)
        check.hang()
        inspection = self.inspection(check)
        inspection.connected()
        inspection.close()
        self.assertEqual(check.cancelled, 1)
        self.assertEqual(self.counters.checks_failed, 0)

    def test_stages_without_checks_cost_nothing(self) -> None:
        inspection = self.inspection(Scripted("d"))
        inspection.connected()
        self.assertIsNone(self.successResultOf(self.rcpt(inspection)))
