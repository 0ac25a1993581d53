"""One session's way through the checks.

The gateway opens an :class:`Inspection` with each session that is to be scanned, and tells
it what the client says.  The checks of CONNECT, HELO and MAIL begin when their facts are
known and run while the client goes on; they are waited for at RCPT, where a client can be
refused with everything that a postmaster wants to know of it: who, from whom, for whom.
All that was found counts again at DATA.

What was found of the client stays for its next transaction; what was found of HELO goes
with the next HELO, the rest at :meth:`Inspection.reset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from .pipeline import Found, Pipeline
from .values import AuthResult, Content, Edit, Facts, Special, Stage, Symbol
from .verdict import Policy, Verdict, judge, refusal

__all__ = ["Inspection", "Judgement"]

_OF_CLIENT = (Stage.CONNECT, Stage.HELO)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a message, and all that goes with it.  ``seconds`` is what it took."""

    verdict: Verdict
    results: tuple[AuthResult, ...]
    edits: tuple[Edit, ...]
    timings: tuple[tuple[str, float], ...]
    seconds: float


class Inspection:
    """See the module's text.  ``limit`` is ``[scan] timeout``, in seconds."""

    __slots__ = ("_clock", "_found", "_limit", "_pending", "_pipeline", "_policy", "facts")

    def __init__(
        self,
        clock: IReactorTime,
        pipeline: Pipeline,
        policy: Policy,
        facts: Facts,
        limit: float,
    ) -> None:
        self._clock = clock
        self._pipeline = pipeline
        self._policy = policy
        self._limit = limit
        self.facts = facts
        self._found: dict[Stage, Found] = {}
        self._pending: dict[Stage, Deferred[None]] = {}

    # -- what the client says

    def connected(self) -> None:
        """It is here."""
        self._begin(Stage.CONNECT)

    def helo(self, name: str, extended: bool) -> None:
        """It calls itself ``name``."""
        self._forget(Stage.HELO)
        self.facts.helo, self.facts.extended = name, extended
        self._begin(Stage.HELO)

    def started_tls(self, version: str) -> None:
        """What was said in the clear is forgotten (RFC 3207 §4.2)."""
        self._forget(Stage.HELO)
        self.facts.tls, self.facts.helo, self.facts.extended = version, "", False

    def mail(self, reverse_path: str, domain: str, size: int, smtputf8: bool) -> None:
        """A transaction begins."""
        facts = self.facts
        facts.reverse_path, facts.sender_domain = reverse_path, domain
        facts.size, facts.smtputf8 = size, smtputf8
        self._begin(Stage.MAIL)

    async def rcpt(
        self, recipient: Recipient, taken: Sequence[Recipient]
    ) -> tuple[Reply, tuple[Symbol, ...]] | None:
        """Return the reply that refuses ``recipient`` now and why, or None."""
        await self._early()
        facts = self.facts
        facts.recipient, facts.recipients = recipient, taken
        before = [symbol for found in self._found.values() for symbol in found.symbols]
        refused = refusal(before, recipient.mailbox, self._policy)
        if refused is not None:
            return refused
        if not self._pipeline.has(Stage.RCPT):
            return None
        found = await self._pipeline.run(Stage.RCPT, facts)
        kept = self._found.setdefault(Stage.RCPT, Found())
        refused = refusal(found.symbols, recipient.mailbox, self._policy)
        if refused is None:
            kept.findings += found.findings
            kept.timings += found.timings
        return refused

    async def data(self, content: Content, recipients: Sequence[Recipient]) -> Judgement:
        """Return the verdict on the message for ``recipients``."""
        began = self._clock.seconds()
        facts = self.facts
        facts.content, facts.recipient, facts.recipients = content, None, recipients
        await self._early()
        work = self._pipeline.run(Stage.DATA, facts)
        late: list[Symbol] = []
        if not work.called:
            work.addTimeout(
                self._limit, self._clock, lambda found, limit: _late(late, found, limit)
            )
        found = await work
        everything = [*self._found.values(), found]
        symbols = _once(symbol for each in everything for symbol in each.symbols)
        findings = [finding for each in everything for finding in each.findings]
        return Judgement(
            judge(symbols + late, recipients, self._policy),
            tuple(result for finding in findings for result in finding.results),
            tuple(edit for finding in findings for edit in finding.edits),
            tuple(timing for each in everything for timing in each.timings),
            self._clock.seconds() - began,
        )

    def reset(self) -> None:
        """The transaction is over."""
        for stage in Stage:
            if stage not in _OF_CLIENT:
                self._forget(stage)
        facts = self.facts
        facts.content = facts.recipient = None
        facts.recipients = ()
        facts.notes = {}

    def close(self) -> None:
        """The session is over: what still runs is of no use."""
        for stage in list(self._pending):
            self._forget(stage)

    # -- what runs

    def _begin(self, stage: Stage) -> None:
        if not self._pipeline.has(stage):
            return
        work = self._pipeline.run(stage, self.facts)
        self._pending[stage] = work.addCallback(self._ended, stage)
        if work.called:
            self._pending.pop(stage, None)

    def _ended(self, found: Found, stage: Stage) -> None:
        self._found[stage] = found
        self._pending.pop(stage, None)

    def _forget(self, stage: Stage) -> None:
        self._found.pop(stage, None)
        pending = self._pending.pop(stage, None)
        if pending is not None:
            pending.addErrback(lambda _: None)
            pending.cancel()

    async def _early(self) -> None:
        """Wait for the checks that run already; each has its own time."""
        for stage in (Stage.CONNECT, Stage.HELO, Stage.MAIL):
            pending = self._pending.get(stage)
            if pending is not None:
                waiting: Deferred[None] = Deferred()
                pending.chainDeferred(waiting)
                await waiting


def _once(symbols: Iterable[Symbol]) -> list[Symbol]:
    """Leave out what several checks say of a message that none of them can read."""
    kept: dict[tuple[str, str] | int, Symbol] = {}
    for number, symbol in enumerate(symbols):
        unread = symbol.special is Special.UNSCANNABLE
        kept.setdefault((symbol.name, symbol.reason) if unread else number, symbol)
    return list(kept.values())


def _late(late: list[Symbol], found: Found | Failure, limit: float) -> Found:
    """Note that the checks were cut off; keep what was found before."""
    reason = f"not judged within {limit:g} s"
    late.append(Symbol("SCAN_LATE", 0.0, reason, special=Special.FAILURE, check="scan"))
    return found if isinstance(found, Found) else Found()
