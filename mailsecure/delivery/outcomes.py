"""From what a transport reports to what the spool is told (pure).

:func:`judge` takes one attempt: done with those that were delivered or refused, another
attempt for the deferred (:mod:`.retry`), and for whom the sender is to be told something
(:mod:`.bounces`).  It also says what stands in the log, a line a recipient.

* A deferral of a message older than ``expire`` is its last: the recipient fails with
  5.4.7.  What was *held* did not expire meanwhile, and gets its attempt first.
* A delay is told once, with the first deferral after ``warn_after``.
* A transport that leaves a recipient out has a fault: the recipient is deferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..smtp.replies import Reply
from ..spool.values import QueuedMessage, QueuedRecipient
from .api import Fate, Outcome
from .bounces import Action, Report
from .retry import RetryPolicy

__all__ = ["INTERNAL_ERROR", "Line", "Verdict", "age", "give_up", "judge", "status_of"]

INTERNAL_ERROR = Reply(451, "4.3.0", "Internal error of this server")
EXPIRED_STATUS = "5.4.7"
#: A postmaster's decision: RFC 3463 §3.8 "delivery not authorized".
RETURNED_STATUS = "5.7.1"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log; ``status`` is sent, deferred, bounced or expired."""

    mailbox: str
    next_hop: str
    dsn: str
    status: str
    reply: str


@dataclass(slots=True)
class Verdict:
    """``done``, ``retry`` and ``warned`` as :class:`~..spool.api.Settlement` has them.

    ``reports`` are for the sender, before NOTIFY is asked; ``succeeded`` are those of
    ``done`` that were delivered.
    """

    done: list[int] = field(default_factory=list)
    retry: dict[int, tuple[float, str, bool]] = field(default_factory=dict)
    warned: list[int] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    succeeded: set[int] = field(default_factory=set)
    failed: int = 0

    @property
    def delivered(self) -> int:
        """How many recipients were delivered."""
        return len(self.succeeded)


def status_of(reply: Reply, digit: str) -> str:
    """Return the enhanced status code of ``reply`` in the class that fits: 2, 4 or 5.

    A next hop may give none (RFC 2034 is an extension), or one that contradicts its code.
    """
    if reply.enhanced:
        return digit + reply.enhanced[1:]
    return f"{digit}.0.0"


def judge(
    message: QueuedMessage,
    outcomes: Sequence[Outcome],
    now: float,
    policy: RetryPolicy,
    chance: float,
    not_before: float = 0.0,
) -> Verdict:
    """Return what one attempt came to.  ``chance`` is 0 to 1 (the schedule's jitter).

    ``not_before`` is when a next hop that is down is tried again: no retry comes earlier.
    """
    verdict = Verdict()
    by_index = {outcome.index: outcome for outcome in outcomes}
    for queued in message.recipients:
        outcome = by_index.get(queued.index)
        if outcome is None:
            outcome = Outcome(queued.index, Fate.DEFERRED, INTERNAL_ERROR)
        if outcome.fate is Fate.DEFERRED:
            if policy.expired(message.arrived, now):
                _expire(verdict, queued, outcome, now)
            else:
                due = policy.next_attempt(message.arrived, queued.attempts + 1, now, chance)
                _defer(verdict, message, queued, outcome, now, policy, max(due, not_before))
        elif outcome.fate is Fate.FAILED:
            _fail(verdict, queued, outcome, now)
        else:
            _succeed(verdict, queued, outcome, now)
    return verdict


def _report(
    queued: QueuedRecipient, action: Action, status: str, outcome: Outcome, now: float
) -> Report:
    return Report(queued.recipient, action, status, str(outcome.reply), outcome.next_hop, now)


def _line(queued: QueuedRecipient, outcome: Outcome, dsn: str, status: str) -> Line:
    return Line(queued.recipient.mailbox, outcome.next_hop, dsn, status, str(outcome.reply))


def _succeed(verdict: Verdict, queued: QueuedRecipient, outcome: Outcome, now: float) -> None:
    status = status_of(outcome.reply, "2")
    verdict.done.append(queued.index)
    verdict.succeeded.add(queued.index)
    verdict.lines.append(_line(queued, outcome, status, "sent"))
    # A next hop that knows DSN reports success itself (RFC 3461 §5.2.2).
    if outcome.fate is Fate.RELAYED and "SUCCESS" in queued.recipient.notify:
        action = Action.DELIVERED if outcome.final else Action.RELAYED
        verdict.reports.append(_report(queued, action, status, outcome, now))


def _fail(verdict: Verdict, queued: QueuedRecipient, outcome: Outcome, now: float) -> None:
    status = status_of(outcome.reply, "5")
    verdict.done.append(queued.index)
    verdict.failed += 1
    verdict.lines.append(_line(queued, outcome, status, "bounced"))
    verdict.reports.append(_report(queued, Action.FAILED, status, outcome, now))


def _expire(verdict: Verdict, queued: QueuedRecipient, outcome: Outcome, now: float) -> None:
    verdict.done.append(queued.index)
    verdict.failed += 1
    verdict.lines.append(_line(queued, outcome, "4.4.7", "expired"))
    verdict.reports.append(_report(queued, Action.FAILED, EXPIRED_STATUS, outcome, now))


def _defer(
    verdict: Verdict,
    message: QueuedMessage,
    queued: QueuedRecipient,
    outcome: Outcome,
    now: float,
    policy: RetryPolicy,
    due: float,
) -> None:
    status = status_of(outcome.reply, "4")
    verdict.retry[queued.index] = (due, str(outcome.reply), True)
    verdict.lines.append(_line(queued, outcome, status, "deferred"))
    if not queued.warned and policy.warning_due(message.arrived, now):
        verdict.warned.append(queued.index)
        verdict.reports.append(_report(queued, Action.DELAYED, status, outcome, now))


def age(message: QueuedMessage, now: float, policy: RetryPolicy, reply: Reply) -> Verdict:
    """Return what time alone did to a message whose next hop is down, without an attempt.

    ``reply`` is the next hop's last.  Recipients that expired fail; a delay is told.
    """
    verdict = Verdict()
    expired = policy.expired(message.arrived, now)
    warn = policy.warning_due(message.arrived, now)
    for queued in message.recipients:
        outcome = Outcome(queued.index, Fate.DEFERRED, reply)
        if expired:
            _expire(verdict, queued, outcome, 0.0)
        elif warn and not queued.warned:
            verdict.warned.append(queued.index)
            status = status_of(reply, "4")
            verdict.reports.append(_report(queued, Action.DELAYED, status, outcome, 0.0))
    return verdict


def give_up(message: QueuedMessage, reason: str, now: float) -> Verdict:
    """Return the failure of every recipient, as a postmaster asked with ``reason``."""
    verdict = Verdict()
    for queued in message.recipients:
        outcome = Outcome(queued.index, Fate.FAILED, Reply(554, RETURNED_STATUS, reason))
        _fail(verdict, queued, outcome, now)
    return verdict
