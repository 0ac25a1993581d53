"""spamd's protocol, seen from its client (pure): SPAMC/1.5, as in SpamAssassin's PROTOCOL.

SYMBOLS is asked: the answer has the score in its head and the names of the rules in its
body, and not the message again, as REPORT and PROCESS have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import RemoteFault
from .heads import Answer

__all__ = ["MAX_ANSWER", "PING", "PROTOCOL", "Opinion", "opinion", "pong", "question"]

PROTOCOL = "SPAMD/"
PING = b"PING SPAMC/1.5\r\n\r\n"
MAX_ANSWER = 64 << 10

# "True ; 1004.2 / 5.0"
_SPAM = re.compile(r"(?:True|False|Yes|No) ; (-?[0-9]{1,6}(?:\.[0-9]{1,6})?) / -?[0-9.]{1,12}")
_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True)
class Opinion:
    """The score of a message, and the rules that made it."""

    score: float
    rules: tuple[str, ...]


def question(octets: int, user: str = "") -> bytes:
    """Return what is sent before a message of so many octets."""
    lines = ["SYMBOLS SPAMC/1.5", f"Content-length: {octets}"]
    if user:
        lines.append(f"User: {user}")
    return "\r\n".join((*lines, "", "")).encode("ascii")


def opinion(answer: Answer) -> Opinion:
    """Return what spamd thinks of the message; RemoteFault where it says that it failed."""
    _well(answer)
    match = _SPAM.fullmatch(answer.head.get("spam"))
    if match is None:
        raise RemoteFault(f"no score: {answer.head.get('spam')[:80]!r}")
    names = answer.body.decode("latin-1").replace(",", " ").split()
    return Opinion(float(match[1]), tuple(filter(_RULE.fullmatch, names)))


def pong(answer: Answer) -> None:
    """Raise RemoteFault unless this is spamd's answer to PING."""
    _well(answer)
    if answer.head.reason != "PONG":
        raise RemoteFault(f"no answer to PING: {answer.head.reason[:80]!r}")


def _well(answer: Answer) -> None:
    if answer.head.code:
        raise RemoteFault(f"spamd says {answer.head.code} {answer.head.reason[:80]!r}")
