"""The events of the history (pure).

The gateway tells of sessions, refusals and messages, delivery of attempts, the control
room of what a postmaster did.  Each is a flat value; all times are Unix seconds.  Message
ids are numbers (:class:`mailsecure.spool.ids.MessageId`), shown elsewhere as 13 characters.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AttemptEvent",
    "DeedEvent",
    "Event",
    "FoundSymbol",
    "MessageEvent",
    "RefusalEvent",
    "SessionEvent",
    "own_message",
]


@dataclass(frozen=True, slots=True)
class FoundSymbol:
    """One symbol of a verdict, as it counted."""

    name: str
    score: float
    reason: str
    check: str
    #: What it asked for by itself: "" or one of accept … discard.
    action: str = ""


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """A session that is over, or a connection that was not let in (``refusal``)."""

    session: str
    started: float
    seconds: float
    client: str
    port: int
    client_name: str
    helo: str
    tls: str
    via: str
    messages: int
    refused: int
    errors: int
    end: str
    #: The reply, where it was refused at the door; else "".
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class RefusalEvent:
    """A command that was refused: MAIL, RCPT, DATA (where there is no message), or other."""

    session: str
    time: float
    client: str
    stage: str
    reverse_path: str
    recipient: str
    reply: str
    reason: str
    symbols: tuple[FoundSymbol, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """A message that was there to its end, and what was decided.

    ``action`` is the strictest of its recipients'; ``recipients`` are (mailbox, action).
    ``reply`` is what the client was told.  ``seconds`` is how long judging took; ``timings``
    are (check, seconds).  ``thresholds`` are those that held then: (action, score), the
    lowest first.
    """

    id: int
    session: str
    time: float
    client: str
    client_name: str
    helo: str
    reverse_path: str
    header_from: str
    subject: str
    message_id: str
    octets: int
    score: float
    action: str
    reply: str
    seconds: float
    recipients: tuple[tuple[str, str], ...]
    symbols: tuple[FoundSymbol, ...] = ()
    timings: tuple[tuple[str, float], ...] = ()
    thresholds: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptEvent:
    """One attempt to deliver to one recipient; ``status``: sent, deferred, bounced, expired."""

    id: int
    time: float
    recipient: str
    next_hop: str
    status: str
    dsn: str
    reply: str
    delay: float


@dataclass(frozen=True, slots=True)
class DeedEvent:
    """What somebody did to a message: released, deleted, forwarded, expired, and why."""

    id: int
    time: float
    deed: str
    who: str
    reason: str
    recipients: tuple[str, ...]
    #: The id of the copy, where it was forwarded; 0 otherwise.
    copy: int = 0


Event = SessionEvent | RefusalEvent | MessageEvent | AttemptEvent | DeedEvent


def own_message(
    id: int,
    time: float,
    name: str,
    header_from: str,
    recipient: str,
    octets: int,
    subject: str = "",
) -> MessageEvent:
    """Return the event of a message that we wrote ourselves: from ``<>``, and unjudged.

    ``name`` is its Message-ID, without brackets.
    """
    return MessageEvent(
        id=id,
        session="",
        time=time,
        client="",
        client_name="",
        helo="",
        reverse_path="",
        header_from=header_from,
        subject=subject,
        message_id=name,
        octets=octets,
        score=0.0,
        action="accept",
        reply="",
        seconds=0.0,
        recipients=((recipient, "accept"),),
    )
