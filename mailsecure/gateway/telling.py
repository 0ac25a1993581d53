"""A message as the history is told of it (pure).

:class:`.account.Account` tells of sessions and refusals itself, which it knows all of;
what is known of a message lies in several places, and comes together here.
"""

from __future__ import annotations

from ..records.values import MessageEvent
from ..scan.headlines import headlines
from ..scan.inspection import Judgement
from .judging import Arriving, Judge

__all__ = ["message_event"]

#: What an unjudged message counts as.
ACCEPTED = "accept"


def message_event(
    arriving: Arriving,
    judgement: Judgement | None,
    judge: Judge | None,
    client_name: str,
    reply: str,
    octets: int = 0,
) -> MessageEvent:
    """Return the event of a message that was there to its end.

    ``octets`` is its size as it is kept, 0 where it is not.
    """
    known = headlines(arriving.header)
    envelope, arrival = arriving.envelope, arriving.arrival
    verdict = None if judgement is None else judgement.verdict
    return MessageEvent(
        id=arriving.id,
        session=arrival.session,
        time=arriving.arrived,
        client=arrival.client,
        client_name=client_name,
        helo=arrival.helo,
        reverse_path=envelope.reverse_path,
        header_from=known.header_from,
        subject=known.subject,
        message_id=known.message_id,
        octets=octets or arriving.octets,
        score=0.0 if verdict is None else verdict.score,
        action=ACCEPTED if verdict is None else verdict.strictest.value,
        reply=reply,
        seconds=0.0 if judgement is None else judgement.seconds,
        recipients=tuple(
            (
                each.mailbox,
                ACCEPTED if verdict is None else verdict.outcomes[each.mailbox].value,
            )
            for each in envelope.recipients
        ),
        symbols=() if judge is None or verdict is None else judge.symbols(verdict.symbols),
        timings=() if judgement is None else judgement.timings,
        thresholds=() if verdict is None else verdict.levels,
    )
