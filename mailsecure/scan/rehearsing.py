"""A verdict without a session: what ``mailsecure scan FILE`` asks for.

All stages are gone through, as for a client that says what the caller says; nothing is
kept, sent, or remembered (:attr:`~.values.Facts.rehearsal`).  :func:`rehearse` is called by
the control room, with the scanner of the running daemon, so that its settings, engines and
caches are those of real mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import LocalFault
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from ..spool.values import Body
from .scanner import Scanner
from .values import Content, Facts, Symbol

__all__ = ["Rehearsal", "rehearse"]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Who is said to send what to whom.

    ``client`` is an IP address, ``sender`` a reverse-path, "" the null one; ``header`` is
    the header section of ``body``.
    """

    client: str
    trusted: bool
    helo: str
    sender: str
    recipients: Sequence[Recipient]
    header: bytes
    body: Body


async def rehearse(scanner: Scanner, asked: Rehearsal) -> dict[str, Any]:
    """Return the verdict in full, as JSON.

    ``refused`` are [{recipient, reply, symbols}] at RCPT; then ``action``, ``score``,
    ``thresholds``, ``reply`` ("" where there is none), ``outcomes`` by recipient,
    ``symbols`` [{name, score, reason, check, action}], ``header`` (what would be put in
    front), ``seconds``, ``timings`` by check.
    """
    facts = Facts("rehearsal", asked.client, 0, asked.trusted, rehearsal=True)
    inspection = scanner.open(facts)
    if inspection is None:
        raise LocalFault("nothing is scanned here: [scan] names no check")
    inspection.connected()
    inspection.helo(asked.helo, True)
    domain = asked.sender.rpartition("@")[2]
    inspection.mail(asked.sender, domain, asked.body.octets, False)
    refused = []
    for number, recipient in enumerate(asked.recipients):
        answer = await inspection.rcpt(recipient, asked.recipients[:number])
        if answer is not None:
            refused.append(_refused(scanner, recipient, *answer))
    body = asked.body
    anatomy = scanner.anatomy_of(body)
    content = Content(0, "", body, body.octets, asked.header, b"", anatomy)
    judgement = await inspection.data(content, asked.recipients)
    verdict = judgement.verdict
    front, _ = scanner.dress(judgement, asked.header, facts)
    return {
        "refused": refused,
        "action": verdict.strictest.value,
        "score": verdict.score,
        "thresholds": dict(verdict.levels),
        "reply": "" if verdict.reply is None else str(verdict.reply),
        "outcomes": {mailbox: each.value for mailbox, each in verdict.outcomes.items()},
        "symbols": _listed(scanner, verdict.symbols),
        "header": front.decode("utf-8", "replace"),
        "seconds": judgement.seconds,
        "timings": dict(judgement.timings),
    }


def _refused(
    scanner: Scanner, recipient: Recipient, reply: Reply, symbols: Sequence[Symbol]
) -> dict[str, Any]:
    return {
        "recipient": recipient.mailbox,
        "reply": str(reply),
        "symbols": _listed(scanner, symbols),
    }


def _listed(scanner: Scanner, symbols: Sequence[Symbol]) -> list[dict[str, Any]]:
    found = []
    for each in symbols:
        action = scanner.policy.action(each)
        found.append(
            {
                "name": each.name,
                "score": each.score,
                "reason": each.reason,
                "check": each.check,
                "action": "" if action is None else action.value,
            }
        )
    return found
