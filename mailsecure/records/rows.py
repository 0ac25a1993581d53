"""From events to rows (pure).

The hot side of the history: some five events a message pass here, in the writer's thread,
which takes the interpreter from the reactor's meanwhile.  So rows are plain tuples, and
texts of peers are looked at with one call each: nearly all can be printed, and the rest (an
octet zero, which PostgreSQL takes nowhere, halves of surrogate pairs, which are no UTF-8)
is replaced.  Long texts are cut, infinite scores bounded.

(The length of this module is that of its tuples: a column a line.)

Each event gets an **id of its own** before anything is done with it, so that writing it a
second time (after a crash, or when nobody knows whether a commit was one) changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from .values import (
    AttemptEvent,
    DeedEvent,
    Event,
    FoundSymbol,
    MessageEvent,
    RefusalEvent,
    SessionEvent,
)

__all__ = [
    "LONGEST",
    "Numbered",
    "Rows",
    "client_text",
    "details_from",
    "message_key",
    "names_of",
    "parse_session",
    "rows_of",
    "session_id",
    "symbols_from",
]

#: Characters of a text that are kept.
LONGEST = 1000
LONGEST_NAME = 400
LONGEST_SUBJECT = 300
MOST_SYMBOLS = 200
#: Recipients of a message that are kept; a gateway takes fewer.
MOST_RECIPIENTS = 20_000
#: What is as good as infinite in a score.
_HUGE = 1e9

#: An event with its id.
Numbered = tuple[int, Event]
_Row = tuple[Any, ...]

_SYMBOL = ("name", "score", "reason", "check", "action")
_ALPHABET = {letter: value for value, letter in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode


def clean(text: str, limit: int = LONGEST) -> str:
    """Return ``text`` as any database takes it."""
    if len(text) > limit:
        text = text[:limit]
    if text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def bounded(number: float) -> float:
    """Return a number that JSON has a word for."""
    if -_HUGE < number < _HUGE:
        return number
    return _HUGE if number > 0 else -_HUGE


def client_text(client: str, client_name: str) -> str:
    """Return how a client stands in ``name``: its address, and its name if it has one."""
    return f"{client} {client_name}" if client_name else client


def message_key(message_id: str) -> int:
    """Return the small number of a Message-ID, whatever its case and brackets; 0 for none."""
    bare = message_id.strip().strip("<>").lower()
    return crc32(bare.encode("utf-8", "replace")) if bare else 0


def parse_session(text: str) -> int:
    """Return the number of a session's id (13 characters as a message's); 0 if it is none."""
    value = 0
    if len(text) != 13:
        return 0
    for letter in text:
        digit = _ALPHABET.get(letter)
        if digit is None:
            return 0
        value = value << 5 | digit
    return value if value < 1 << 63 else 0


#: The last sessions' numbers: a session tells several events in a row.
_sessions: dict[str, int] = {}


def session_id(text: str) -> int:
    """Return :func:`parse_session`, remembered for a while."""
    number = _sessions.get(text)
    if number is None:
        if len(_sessions) > 10_000:
            _sessions.clear()
        number = _sessions[text] = parse_session(text)
    return number


@dataclass(slots=True)
class Rows:
    """Rows by table, in the order of the columns in :mod:`.schema`."""

    sessions: list[_Row] = field(default_factory=list)
    refusals: list[_Row] = field(default_factory=list)
    messages: list[_Row] = field(default_factory=list)
    recipients: list[_Row] = field(default_factory=list)
    attempts: list[_Row] = field(default_factory=list)
    deeds: list[_Row] = field(default_factory=list)


# -- names


def names_of(event: Event) -> tuple[str, ...]:
    """Return what of ``event`` stands in ``name``, as it will be looked up."""
    if isinstance(event, MessageEvent):
        return (
            client_text(event.client, event.client_name),
            event.reverse_path,
            event.header_from,
            *[mailbox for mailbox, _ in event.recipients],
        )
    if isinstance(event, AttemptEvent):
        return (event.recipient, event.next_hop)
    if isinstance(event, SessionEvent):
        return (client_text(event.client, event.client_name), event.helo)
    if isinstance(event, RefusalEvent):
        return (event.client, event.reverse_path, event.recipient)
    return ()


# -- rows


def rows_of(
    numbered: Iterable[Numbered], names: Mapping[str, int], node: int, subjects: bool
) -> Rows:
    """Return the rows of events; ``names`` has all of :func:`names_of`."""
    rows = Rows()
    for id, event in numbered:
        _ADDING[type(event)](rows, id, event, names, node, subjects)
    return rows


def _add_message(
    rows: Rows, id: int, event: MessageEvent, names: Mapping[str, int], node: int, subjects: bool
) -> None:
    sender, author = names[event.reverse_path], names[event.header_from]
    rows.messages.append(
        (
            event.id,
            session_id(event.session),
            event.time,
            node,
            names[client_text(event.client, event.client_name)],
            clean(event.helo),
            sender,
            0 if author == sender else author,
            clean(event.subject, LONGEST_SUBJECT) if subjects else "",
            clean(event.message_id),
            message_key(event.message_id),
            event.octets,
            bounded(event.score),
            event.action,
            clean(event.reply),
            event.seconds,
            _details(event),
        )
    )
    for n, (mailbox, action) in enumerate(event.recipients[:MOST_RECIPIENTS]):
        rows.recipients.append((event.id, n, names[mailbox], action))


def _symbols(symbols: Sequence[FoundSymbol]) -> list[_Row]:
    return [
        (each.name, bounded(each.score), each.reason[:LONGEST], each.check, each.action)
        for each in symbols[:MOST_SYMBOLS]
    ]


def _details(event: MessageEvent) -> str:
    """Return what explains a verdict, in one text: making one is what takes the time."""
    thresholds = [(action, bounded(score)) for action, score in event.thresholds]
    return _encode((_symbols(event.symbols), event.timings, thresholds))


def details_from(text: str) -> dict[str, Any]:
    """Return ``symbols``, ``timings`` and ``thresholds`` of a message's row."""
    symbols, timings, thresholds = json.loads(text)
    return {
        "symbols": [dict(zip(_SYMBOL, each, strict=True)) for each in symbols],
        "timings": timings,
        "thresholds": thresholds,
    }


def symbols_from(text: str) -> list[dict[str, Any]]:
    """Return the symbols of a refusal's row."""
    return [dict(zip(_SYMBOL, each, strict=True)) for each in json.loads(text)]


def _add_session(
    rows: Rows, id: int, event: SessionEvent, names: Mapping[str, int], node: int, subjects: bool
) -> None:
    client = names[client_text(event.client, event.client_name)]
    number = session_id(event.session)
    if event.refusal:
        # A connection that was not let in is a refusal; there was no session.
        rows.refusals.append(
            (
                id,
                number,
                event.started,
                node,
                client,
                "connect",
                0,
                0,
                clean(event.refusal),
                clean(event.end),
                "[]",
            )
        )
        return
    rows.sessions.append(
        (
            number or id,
            event.started,
            event.seconds,
            node,
            client,
            event.port,
            "",
            clean(event.tls),
            clean(event.via),
            event.messages,
            event.refused,
            event.errors,
            clean(event.end),
            names[event.helo],
        )
    )


def _add_refusal(
    rows: Rows, id: int, event: RefusalEvent, names: Mapping[str, int], node: int, subjects: bool
) -> None:
    rows.refusals.append(
        (
            id,
            session_id(event.session),
            event.time,
            node,
            names[event.client],
            clean(event.stage),
            names[event.reverse_path],
            names[event.recipient],
            clean(event.reply),
            clean(event.reason),
            _encode(_symbols(event.symbols)),
        )
    )


def _add_attempt(
    rows: Rows, id: int, event: AttemptEvent, names: Mapping[str, int], node: int, subjects: bool
) -> None:
    rows.attempts.append(
        (
            event.id,
            id,
            event.time,
            names[event.recipient],
            names[event.next_hop],
            event.status,
            event.dsn,
            clean(event.reply),
            event.delay,
        )
    )


def _add_deed(
    rows: Rows, id: int, event: DeedEvent, names: Mapping[str, int], node: int, subjects: bool
) -> None:
    recipients = _encode(event.recipients[:MOST_RECIPIENTS])
    rows.deeds.append(
        (
            event.id,
            id,
            event.time,
            clean(event.deed),
            clean(event.who),
            clean(event.reason),
            recipients,
            event.copy,
        )
    )


_ADDING: dict[type, Callable[..., None]] = {
    MessageEvent: _add_message,
    SessionEvent: _add_session,
    RefusalEvent: _add_refusal,
    AttemptEvent: _add_attempt,
    DeedEvent: _add_deed,
}
