"""Changes of the header section that an engine asks for, made safe (pure).

Engines fold as they like and may repeat what a message says.  What could not be a field
(RFC 5322 §2.2), or would break out of one, is not passed on: None.  Octets beyond ASCII
become ``?``, except where the text is ours to encode (:func:`subject`, RFC 2047).
"""

from __future__ import annotations

import re
from email.charset import QP, Charset
from email.header import Header

from ..values import AddField

__all__ = ["MAX_FIELDS", "added", "line", "subject"]

MAX_FIELDS = 100
MAX_VALUE = 16 << 10
MAX_LINE = 998

_NAME = re.compile(r"[!-9;-~]{1,70}")
_FOLD = re.compile(r"(?:\r\n|\r|\n)(?=[ \t])")
_STRANGE = re.compile(r"[^\t -~]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_UTF8 = Charset("utf-8")
_UTF8.header_encoding = QP


def name_of(text: str) -> str:
    """Return the name of a field, or "" where ``text`` is none."""
    return text if _NAME.fullmatch(text) else ""


def added(name: str, value: str) -> AddField | None:
    """Return the edit that adds this field; ``value`` may be folded in any usual way."""
    lines = _FOLD.split(value.strip())
    if not name_of(name) or len(value) > MAX_VALUE:
        return None
    if any("\r" in each or "\n" in each or len(each) + len(name) + 2 > MAX_LINE for each in lines):
        return None
    # A line of blanks only would end the header section for some readers (RFC 5322 §4.2).
    kept = [_STRANGE.sub("?", each) for each in lines if each.strip()]
    return AddField(name, "\r\n".join(kept))


def line(text: str, limit: int = 200) -> str:
    """Return ``text`` as one line of printable ASCII, for replies and reasons."""
    return " ".join(_STRANGE.sub("?", _CONTROL.sub(" ", text)).split())[:limit]


def subject(text: str) -> AddField | None:
    """Return the edit that adds this subject, encoded where it has to be."""
    clean = " ".join(_CONTROL.sub(" ", text[:MAX_LINE]).split())
    if clean.isascii():
        return added("Subject", Header(clean, "us-ascii", 76, "Subject").encode())
    try:
        encoded = Header(clean, _UTF8, 76, "Subject").encode()
    except UnicodeError:
        return None
    return added("Subject", encoded)
