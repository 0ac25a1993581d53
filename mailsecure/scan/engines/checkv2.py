"""Rspamd's /checkv2, seen from its client (pure): fields of the request, JSON of the answer.

https://docs.rspamd.com/developers/protocol.  The answer has a score, an action, symbols,
and what its modules want done to the header section (``milter``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan
from typing import Any

from ...errors import RemoteFault
from ..values import Edit, RemoveField
from .fields import MAX_FIELDS, added, line, name_of, subject
from .heads import Answer

__all__ = ["MAX_ANSWER", "Opinion", "opinion", "pong", "question"]

MAX_ANSWER = 256 << 10
#: Rspamd's HTTP parser ends at 80 KiB of head; recipients beyond this are not named.
MAX_RECIPIENTS_OCTETS = 48 << 10
#: More of them are not looked at.
MAX_SYMBOLS = 1000

_UNSAFE = re.compile(r"[\x00-\x1f\x7f]+")
_LARGEST_SCORE = 1e6


@dataclass(frozen=True, slots=True)
class Opinion:
    """What Rspamd thinks: ``action`` in its own words, ``symbols`` (name, score), heaviest first.

    ``reply`` is text for the client, one line; ``edits`` are in order, ``subject`` the one
    that it would have, if it wants another.
    """

    score: float
    action: str
    symbols: tuple[tuple[str, float], ...] = ()
    reply: str = ""
    edits: tuple[Edit, ...] = ()
    subject: tuple[Edit, ...] = ()


def question(
    host: str, path: str, octets: int, facts: Iterable[tuple[str, str]], recipients: Sequence[str]
) -> bytes:
    """Return what is sent before a message of so many octets.

    ``facts`` are Rspamd's own fields (IP, Helo, From, …); those without value are left out.
    """
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {octets}"]
    lines += [f"{name}: {_safe(value)}" for name, value in facts if value]
    room = MAX_RECIPIENTS_OCTETS
    for recipient in recipients:
        lines.append(f"Rcpt: {_safe(recipient)}")
        room -= len(lines[-1]) + 2
        if room < 0:
            break
    return "\r\n".join((*lines, "", "")).encode("utf-8", "replace")


def _safe(value: str) -> str:
    return _UNSAFE.sub("?", value)[:1000]


def pong(answer: Answer) -> None:
    """Raise RemoteFault unless this is Rspamd's answer to /ping."""
    if answer.head.code != 200 or answer.body.strip() != b"pong":
        raise RemoteFault(f"no answer to a ping: {answer.head.code} {answer.body[:40]!r}")


def opinion(answer: Answer) -> Opinion:
    """Return what Rspamd thinks of the message; RemoteFault where it says that it failed."""
    if answer.head.code != 200:
        raise RemoteFault(f"rspamd says {answer.head.code} {line(answer.head.reason, 80)}")
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise RemoteFault("an answer that is no JSON") from None
    if not isinstance(value, dict) or "action" not in value:
        raise RemoteFault("an answer without an action")
    milter = value.get("milter")
    wanted = value.get("subject")
    return Opinion(
        _number(value.get("score")),
        line(str(value["action"]), 40).lower(),
        _symbols(value.get("symbols")),
        _reply(value.get("messages")),
        tuple(islice(_edits(milter), MAX_FIELDS)) if isinstance(milter, dict) else (),
        _new_subject(wanted) if isinstance(wanted, str) else (),
    )


def _number(value: Any) -> float:
    """Return a score: of a whole number, a fraction, or infinity as JSON cannot have it."""
    # A whole number may be too large for isnan, and is a number in any case.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RemoteFault("an answer without a score")
    if isinstance(value, float) and isnan(value):
        raise RemoteFault("an answer without a score")
    return float(max(-_LARGEST_SCORE, min(value, _LARGEST_SCORE)))


def _symbols(value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, dict):
        return ()
    found = [
        (line(name, 80), _number(each.get("score", 0.0)))
        for name, each in islice(value.items(), MAX_SYMBOLS)
        if isinstance(each, dict)
    ]
    return tuple(sorted(found, key=lambda pair: -abs(pair[1])))


def _reply(value: Any) -> str:
    text = value.get("smtp_message") if isinstance(value, dict) else None
    return line(text) if isinstance(text, str) else ""


def _edits(milter: Mapping[str, Any]) -> Iterable[Edit]:
    """Yield what ``milter`` asks for: {"remove_headers": …, "add_headers": …}."""
    removed = milter.get("remove_headers")
    for name, which in _items(removed):
        for occurrence in which if isinstance(which, list) else (which,):
            # From the bottom (below 0) is not offered: it is not known here how many there are.
            if name_of(name) and type(occurrence) is int and 0 <= occurrence <= 10_000:
                yield RemoveField(name, occurrence)
    for name, what in _items(milter.get("add_headers")):
        for one in what if isinstance(what, list) else (what,):
            text = one.get("value") if isinstance(one, dict) else one
            edit = added(name, text) if isinstance(text, str) else None
            if edit is not None:
                yield edit


def _items(value: Any) -> list[tuple[str, Any]]:
    """Return names and what is said of each, few enough."""
    if not isinstance(value, dict):
        return []
    return [(name, _few(what)) for name, what in list(value.items())[:MAX_FIELDS]]


def _few(what: Any) -> Any:
    return what[:MAX_FIELDS] if isinstance(what, list) else what


def _new_subject(text: str) -> tuple[Edit, ...]:
    edit = subject(text)
    return () if edit is None else (RemoveField("Subject"), edit)
