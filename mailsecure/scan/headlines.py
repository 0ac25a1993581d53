"""What people know a message by: subject, sender, Message-ID (pure).

Read from the header section for the quarantine's listing and the history, so bounded in
every respect: it is a stranger's.  What cannot be decoded stays as it is written; control
characters become blanks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header

from .editing import first_values

__all__ = ["Headlines", "headlines"]

_LONGEST_RAW = 2000
_LONGEST = 250
_ENCODED = re.compile(r"=\?[^? ]{1,40}\?[bBqQ]\?[^? ]*\?=")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Headlines:
    """``header_from`` is From as it is shown; ``message_id`` is without angle brackets."""

    subject: str
    header_from: str
    message_id: str


def headlines(header: bytes) -> Headlines:
    """Return what ``header``, a header section, is known by; "" where it says nothing."""
    subject, author, name = first_values(header, ("subject", "from", "message-id"))
    return Headlines(_decoded(subject), _decoded(author), name[:_LONGEST].strip("<> "))


def _decoded(raw: str) -> str:
    raw = raw[:_LONGEST_RAW]
    text = raw
    if _ENCODED.search(raw):
        try:
            text = "".join(_word(word, charset) for word, charset in decode_header(raw))
        except (HeaderParseError, ValueError):
            text = raw
    return " ".join(_CONTROL.sub(" ", text).split())[:_LONGEST]


def _word(word: bytes, charset: str | None) -> str:
    try:
        return word.decode(charset or "ascii", "replace")
    except LookupError:
        return word.decode("utf-8", "replace")
