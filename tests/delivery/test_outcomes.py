"""From outcomes to settlements: every recipient is done or comes again, never both."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.delivery.api import Fate, Outcome
from mailsecure.delivery.bounces import Action
from mailsecure.delivery.outcomes import age, give_up, judge, status_of
from mailsecure.delivery.retry import RetryPolicy
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.smtp.replies import Reply
from mailsecure.spool.api import QueuedMessage, QueuedRecipient
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import MessageId

from .fakes import LATER, NO, OK, REPLIES

POLICY = RetryPolicy((300.0, 600.0), 86400.0, 14400.0)


def message(*notify: str, attempts: int = 0, warned: bool = False) -> QueuedMessage:
    """Return a message that arrived at 0, with a recipient for each of ``notify``."""
    recipients = [
        QueuedRecipient(
            index, Recipient(f"b{index}@x.example", "x.example", each), attempts, "", warned
        )
        for index, each in enumerate(notify)
    ]
    envelope = Envelope("a@s.example", ())
    return QueuedMessage(
        MessageId(1), envelope, Arrival(), 0.0, MemoryBody([b""]), "x.example", recipients
    )


class JudgeTests(SynchronousTestCase):
    """judge()."""

    def test_success(self) -> None:
        """Done; reported if asked for and nobody else will."""
        outcomes = [
            Outcome(0, Fate.RELAYED, OK, "hop"),
            Outcome(1, Fate.RELAYED, OK, "hop"),
            Outcome(2, Fate.DELIVERED, OK, "hop"),
            Outcome(3, Fate.RELAYED, OK, "hop", "", True),
        ]
        verdict = judge(message("", "SUCCESS", "SUCCESS", "SUCCESS"), outcomes, 9.0, POLICY, 0.5)
        self.assertEqual((verdict.done, verdict.retry, verdict.failed), ([0, 1, 2, 3], {}, 0))
        self.assertEqual(verdict.delivered, 4)
        told = [(each.recipient.mailbox, each.action) for each in verdict.reports]
        self.assertEqual(
            told, [("b1@x.example", Action.RELAYED), ("b3@x.example", Action.DELIVERED)]
        )
        self.assertEqual([line.status for line in verdict.lines], ["sent"] * 4)

    def test_failure(self) -> None:
        """Done, failed, reported."""
        verdict = judge(message(""), [Outcome(0, Fate.FAILED, NO, "hop")], 9.0, POLICY, 0.5)
        self.assertEqual((verdict.done, verdict.failed), ([0], 1))
        report = verdict.reports[0]
        self.assertEqual((report.action, report.status), (Action.FAILED, "5.1.1"))
        self.assertEqual(verdict.lines[0].status, "bounced")

    def test_deferral(self) -> None:
        """Comes again by the number of its attempts."""
        for attempts, expected in ((0, 300.0), (1, 600.0), (5, 600.0)):
            verdict = judge(
                message("", attempts=attempts),
                [Outcome(0, Fate.DEFERRED, LATER)],
                9.0,
                POLICY,
                0.5,
            )
            due, reply, counts = verdict.retry[0]
            self.assertAlmostEqual(due, 9.0 + expected)
            self.assertEqual((reply, counts), ("451 4.2.0 Mailbox busy", True))
            self.assertEqual((verdict.done, verdict.reports), ([], []))

    def test_not_before(self) -> None:
        """No retry comes before its next hop is tried again."""
        outcome = Outcome(0, Fate.DEFERRED, LATER)
        verdict = judge(message(""), [outcome], 9.0, POLICY, 0.5, 5000.0)
        self.assertEqual(verdict.retry[0][0], 5000.0)

    def test_expiry(self) -> None:
        """A deferral after the end is a failure."""
        verdict = judge(message(""), [Outcome(0, Fate.DEFERRED, LATER)], 86400.0, POLICY, 0.5)
        self.assertEqual((verdict.done, verdict.retry), ([0], {}))
        self.assertEqual(verdict.reports[0].status, "5.4.7")
        self.assertEqual((verdict.lines[0].status, verdict.lines[0].dsn), ("expired", "4.4.7"))

    def test_warning(self) -> None:
        """A delay is reported once."""
        outcome = [Outcome(0, Fate.DEFERRED, LATER)]
        verdict = judge(message(""), outcome, 14400.0, POLICY, 0.5)
        self.assertEqual(verdict.warned, [0])
        self.assertEqual(verdict.reports[0].action, Action.DELAYED)
        again = judge(message("", warned=True), outcome, 15000.0, POLICY, 0.5)
        self.assertEqual((again.warned, again.reports), ([], []))

    @given(
        st.lists(st.sampled_from(list(Fate)), max_size=6),
        st.sets(st.integers(0, 7)),
        st.floats(0, 200_000),
    )
    def test_everyone_once(self, fates: list[Fate], lost: set[int], now: float) -> None:
        """Every recipient is done or comes again; nobody else is."""
        outcomes = [
            Outcome(index, fate, REPLIES[fate])
            for index, fate in enumerate(fates)
            if index not in lost
        ]
        outcomes.append(Outcome(99, Fate.RELAYED, OK))
        verdict = judge(message(*[""] * len(fates)), outcomes, now, POLICY, 0.5)
        told = sorted([*verdict.done, *verdict.retry])
        self.assertEqual(told, list(range(len(fates))))
        self.assertEqual(len(verdict.lines), len(fates))
        self.assertEqual(len(verdict.done), verdict.delivered + verdict.failed)
        self.assertTrue(set(verdict.warned) <= set(verdict.retry))
        for index in lost & set(range(len(fates))):
            self.assertNotIn(index, verdict.succeeded)


class StatusTests(SynchronousTestCase):
    """status_of()."""

    def test_class_fits(self) -> None:
        """The class is that of what happened, the rest the next hop's."""
        self.assertEqual(status_of(Reply(550, "5.1.1", ""), "5"), "5.1.1")
        self.assertEqual(status_of(Reply(450, "4.7.1", ""), "5"), "5.7.1")
        self.assertEqual(status_of(Reply(550, "", ""), "5"), "5.0.0")


class UnattendedTests(SynchronousTestCase):
    """age() and give_up()."""

    def test_young(self) -> None:
        """Nothing happens to what is young, or was warned."""
        for now, warned in ((14399.0, False), (20000.0, True)):
            verdict = age(message("", warned=warned), now, POLICY, LATER)
            self.assertEqual((verdict.done, verdict.warned, verdict.reports), ([], [], []))

    def test_late(self) -> None:
        """A warning changes nothing else."""
        verdict = age(message(""), 14400.0, POLICY, LATER)
        self.assertEqual((verdict.done, verdict.retry, verdict.warned), ([], {}, [0]))
        self.assertEqual(verdict.reports[0].attempted, 0.0)

    def test_expired(self) -> None:
        """What expired fails with the next hop's last answer."""
        verdict = age(message("", ""), 86400.0, POLICY, LATER)
        self.assertEqual((verdict.done, verdict.failed), ([0, 1], 2))
        self.assertEqual(verdict.reports[0].answer, "451 4.2.0 Mailbox busy")

    def test_give_up(self) -> None:
        """The postmaster's reason is the answer."""
        verdict = give_up(message("", ""), "Go away", 10.0)
        self.assertEqual((verdict.done, verdict.failed), ([0, 1], 2))
        self.assertEqual(verdict.reports[0].answer, "554 5.7.1 Go away")
