"""Runs the checks: those of a stage side by side, each guarded.

A check may be late, raise, or find the message unreadable; none of that gets past
:meth:`Pipeline.run`.  What a check does not do in ``check_timeout``, or in a time of its own
(:class:`~.api.Patient`), is cancelled and counts as failed; so does an exception, which is
logged (design: an unexpected exception loses no mail, ``[scan] on_failure`` decides).
:class:`~.api.Unscannable` becomes a symbol.

:class:`.inspection.Inspection` is one session's way through the stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..counters import Counters
from ..errors import LocalFault
from .api import Check, Patient, Unscannable
from .values import NOTHING, Facts, Finding, Special, Stage, Symbol

__all__ = ["Found", "Pipeline"]

#: How much longer than its own limit a check is waited for, in seconds.
GRACE = 1.0

_log = Logger(namespace="scan")


@dataclass(slots=True)
class Found:
    """What the checks of one stage found together; ``timings`` are (check, seconds)."""

    findings: list[Finding] = field(default_factory=list)
    timings: list[tuple[str, float]] = field(default_factory=list)

    @property
    def symbols(self) -> list[Symbol]:
        """All symbols."""
        return [symbol for finding in self.findings for symbol in finding.symbols]


class Pipeline:
    """The checks of one configuration.  ``limit`` is ``[scan] check_timeout``, in seconds."""

    def __init__(
        self, clock: IReactorTime, checks: Sequence[Check], limit: float, counters: Counters
    ) -> None:
        self._clock = clock
        self._counters = counters
        self.checks = tuple(checks)
        #: How long each is waited for; to ask a Protocol for each message would be dear.
        self._limits = {
            check.name: check.limit + GRACE if isinstance(check, Patient) else limit
            for check in checks
        }
        self._stages = {
            stage: tuple(check for check in checks if stage in check.stages) for stage in Stage
        }

    def has(self, stage: Stage) -> bool:
        """Say whether any check runs at ``stage``."""
        return bool(self._stages[stage])

    def run(self, stage: Stage, facts: Facts) -> Deferred[Found]:
        """Run the checks of ``stage``.  The Deferred never fails, unless it is cancelled."""
        found = Found()
        waits = [self._guarded(check, stage, facts, found) for check in self._stages[stage]]
        return gatherResults(waits, consumeErrors=True).addCallback(lambda _: found)

    def _guarded(self, check: Check, stage: Stage, facts: Facts, found: Found) -> Deferred[None]:
        began = self._clock.seconds()
        limit = self._limits[check.name]
        work = Deferred.fromCoroutine(check.check(stage, facts))
        if not work.called:
            work.addTimeout(limit, self._clock)
        work.addErrback(self._failed, check, facts, limit)

        def ended(finding: Finding) -> None:
            found.findings.append(_marked(finding, check.name))
            found.timings.append((check.name, self._clock.seconds() - began))

        return work.addCallback(ended)

    def _failed(self, failure: Failure, check: Check, facts: Facts, limit: float) -> Finding:
        if failure.check(CancelledError):
            # The session is over; whoever waited does not wait any more.
            return NOTHING
        if failure.check(Unscannable):
            reason = failure.getErrorMessage()
            return Finding((Symbol("UNSCANNABLE", 0.0, reason, special=Special.UNSCANNABLE),))
        self._counters.checks_failed += 1
        if failure.check(DeferredTimeout):
            reason = f"no answer within {limit:g} s"
        elif failure.check(LocalFault):
            reason = failure.getErrorMessage()
        else:
            reason = "unexpected error"
            _log.failure("check {check} failed", failure=failure, check=check.name)
        _log.warn(
            "check {check} failed: {reason}; session={session}",
            check=check.name,
            reason=reason,
            session=facts.session,
        )
        name = f"{check.name.upper().replace('-', '_')}_FAILED"
        return Finding((Symbol(name, 0.0, reason, special=Special.FAILURE),))


def _marked(finding: Finding, check: str) -> Finding:
    """Return ``finding`` with the name of its check in each symbol."""
    if not finding.symbols:
        return finding
    return replace(
        finding,
        symbols=tuple(
            symbol if symbol.check else replace(symbol, check=check) for symbol in finding.symbols
        ),
    )
