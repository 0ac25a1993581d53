"""A message between its final dot and its reply: judged, dressed, and disposed of.

:class:`.session.GatewaySession` gathers a message and hands it to :class:`Judge`, one for
all sessions of a configuration, which knows what :class:`~mailsecure.scan.scanner.Scanner`
finds out and what follows from it:

========== ==========================================================================
accept     it is kept and delivered, with what we found in its header
tag        likewise, with X-Spam-Flag
quarantine it is kept, and held for some or all of its recipients
tempfail   451, and nothing is kept
reject     554, and nothing is kept
discard    250, and nothing is kept
========== ==========================================================================

The reply is for the session to give; so is the reply of the spool.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from twisted.logger import Logger

from ..config.scanning import ScanAction
from ..counters import Counters
from ..records.values import FoundSymbol
from ..scan.headlines import headlines
from ..scan.inspection import Inspection, Judgement
from ..scan.scanner import Scanner
from ..scan.values import Content, Facts, Special, Symbol
from ..scan.verdict import reasons
from ..smtp.envelope import Arrival, Envelope, Recipient
from ..smtp.replies import Reply
from ..spool.api import NewMessage, Quarantine
from ..spool.body import BodyBuilder, FileBody, MemoryBody
from ..spool.ids import MessageId, id_name

__all__ = ["Arriving", "Judge"]

_log = Logger(namespace="scan")

#: Symbols that the quarantine's listing keeps of one message.
_MOST_KEPT = 50


@dataclass(slots=True)
class Arriving:
    """A message that is there to its end and not kept yet.

    ``received`` is our trace field, ``header`` the header section that came, b"" where it
    is too long to be looked at.
    """

    id: MessageId
    envelope: Envelope
    arrival: Arrival
    arrived: float
    received: bytes
    header: bytes
    body: BodyBuilder
    octets: int = field(init=False)
    _kept: MemoryBody | FileBody | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.octets = self.body.octets

    def finish(self, front: bytes, cut: int = 0) -> MemoryBody | FileBody:
        """Return the body as it is kept; :meth:`release` it when the spool has answered."""
        self._kept = self.body.finish(front, cut)
        return self._kept

    def release(self) -> None:
        """Give the memory of the body back; it can still be read."""
        if self._kept is not None:
            self._kept.release()

    def unjudged(self, signed: bytes = b"") -> NewMessage:
        """Return what the spool is to keep where nothing is scanned, ``signed`` in front."""
        return NewMessage(
            self.id,
            self.envelope,
            self.arrival,
            self.arrived,
            self.finish(signed + self.received),
            self.arrived,
        )


class Judge:
    """See the module's text."""

    def __init__(self, scanner: Scanner, counters: Counters) -> None:
        self._scanner = scanner
        self._counters = counters

    async def judge(self, inspection: Inspection, arriving: Arriving) -> Judgement:
        """Return what is found of ``arriving``.  LocalFault: it cannot be read."""
        body = arriving.body.view()
        content = Content(
            arriving.id,
            id_name(arriving.id),
            body,
            body.octets,
            arriving.header,
            arriving.received,
            self._scanner.anatomy_of(body),
        )
        judgement = await inspection.data(content, arriving.envelope.recipients)
        self._count(judgement)
        self._log(arriving, judgement)
        return judgement

    def _count(self, judgement: Judgement) -> None:
        counters, verdict = self._counters, judgement.verdict
        counters.messages_scanned += 1
        kinds = {symbol.special for symbol in verdict.symbols}
        counters.messages_malware += Special.MALWARE in kinds
        counters.messages_unscannable += Special.UNSCANNABLE in kinds
        counters.messages_rejected += verdict.action is ScanAction.REJECT
        counters.messages_put_off += verdict.action is ScanAction.TEMPFAIL
        counters.messages_discarded += verdict.action is ScanAction.DISCARD
        counters.messages_quarantined += verdict.strictest is ScanAction.QUARANTINE
        counters.messages_tagged += verdict.strictest is ScanAction.TAG

    def _log(self, arriving: Arriving, judgement: Judgement) -> None:
        verdict = judgement.verdict
        _log.info(
            "{message}: verdict={verdict} score={score} symbols={symbols} seconds={seconds} "
            "from=<{sender}> nrcpt={recipients} session={session}",
            message=id_name(arriving.id),
            verdict=verdict.strictest.value,
            score=verdict.score,
            symbols=",".join(f"{each.name}({each.score:g})" for each in verdict.symbols) or "-",
            seconds=round(judgement.seconds, 3),
            sender=arriving.envelope.reverse_path,
            recipients=len(arriving.envelope.recipients),
            session=arriving.arrival.session,
        )

    async def relayed(self, facts: Facts, arriving: Arriving) -> NewMessage:
        """Return what the spool is to keep of a message that is not scanned.

        Our own mail is signed all the same.  LocalFault: it cannot be.
        """
        if not (facts.trusted and self._scanner.signs):
            return arriving.unjudged()
        front = arriving.received + arriving.header
        cut = len(arriving.header)
        signed = await self._scanner.sign(facts, front, arriving.body.view(), cut, ())
        return arriving.unjudged(signed)

    async def kept(
        self, inspection: Inspection, arriving: Arriving, judgement: Judgement
    ) -> NewMessage:
        """Return what the spool is to keep.  LocalFault: it cannot be signed, or read."""
        front, header = self._scanner.dress(judgement, arriving.header, inspection.facts)
        cut = len(arriving.header)
        front += arriving.received + header
        content = inspection.facts.content
        assert content is not None
        signed = await self._scanner.sign(
            inspection.facts, front, content.body, cut, judgement.results
        )
        outcomes = judgement.verdict.outcomes
        recipients = tuple(
            each
            for each in arriving.envelope.recipients
            if outcomes[each.mailbox] is not ScanAction.DISCARD
        )
        return NewMessage(
            id=arriving.id,
            envelope=replace(arriving.envelope, recipients=recipients),
            arrival=arriving.arrival,
            arrived=arriving.arrived,
            body=arriving.finish(signed + front, cut),
            due=arriving.arrived,
            quarantine=self._quarantine(arriving, judgement, recipients),
        )

    def _quarantine(
        self, arriving: Arriving, judgement: Judgement, recipients: tuple[Recipient, ...]
    ) -> Quarantine | None:
        verdict = judgement.verdict
        held = frozenset(
            index
            for index, each in enumerate(recipients)
            if verdict.outcomes[each.mailbox] is ScanAction.QUARANTINE
        )
        if not held:
            return None
        known = headlines(arriving.header)
        return Quarantine(
            held,
            self.reasons(judgement)[:500],
            verdict.score,
            tuple((each.name, each.score, each.reason) for each in verdict.symbols[:_MOST_KEPT]),
            known.subject,
            known.header_from,
        )

    def reply(self, arriving: Arriving, judgement: Judgement) -> Reply | None:
        """Return the reply to a message that is not kept, None for one that is."""
        verdict = judgement.verdict
        name = id_name(arriving.id)
        if verdict.action is ScanAction.DISCARD:
            return Reply(250, "2.0.0", f"Ok: queued as {name}")
        if verdict.reply is None:
            return None
        return replace(verdict.reply, text=f"{verdict.reply.text} ({name})")

    def reasons(self, judgement: Judgement) -> str:
        """Return in a few words what spoke against the message."""
        return reasons(judgement.verdict.symbols, self._scanner.policy)

    def symbols(self, symbols: tuple[Symbol, ...]) -> tuple[FoundSymbol, ...]:
        """Return ``symbols`` as the history keeps them."""
        policy = self._scanner.policy
        kept = []
        for each in symbols:
            action = policy.action(each)
            asked = "" if action is None else action.value
            kept.append(FoundSymbol(each.name, each.score, each.reason, each.check, asked))
        return tuple(kept)
