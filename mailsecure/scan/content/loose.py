"""Values of MIME fields, as programs read them that do not take much care (pure).

RFC 2045 §5.1 allows comments almost everywhere, and senders leave out semicolons, quotes and
half of the rest.  Each mail program makes something else of that.  What one of them would take
for an attachment must not pass here as a text, so next to the exact reading (:mod:`.fields`)
there are these: more names, boundaries and encodings, all of which count.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_loosely_multipart", "loose_encodings", "loose_values", "without_comments"]

_VALUE: Final = r"\s*=\s*(?:\"((?:[^\"\\]|\\.)*)|'([^']*)|([^\s;,\"']+))"
_NAMED: Final = {
    name: re.compile(rf"(?<![\w*-]){name}{_VALUE}", re.IGNORECASE)
    for name in ("boundary", "(?:file)?name")
}
_ESCAPED = re.compile(r"\\(.)")
_MULTIPART = re.compile(r"[\W_]*multipart\b", re.IGNORECASE)
_WORD_END = re.compile(r"[\s;,\"']")
_KNOWN: Final = frozenset(
    {
        *("7bit", "8bit", "binary", "base64", "quoted-printable"),
        *("x-uuencode", "uuencode", "x-uue", "uue"),
    }
)
_SOMEWHERE = re.compile(r"base-?64|quoted-printable|uuencode|uue")


def loose_values(value: str, name: str) -> list[str]:
    """Return what ``value`` may say of the parameter ``name``: boundary, or (file)name.

    With a comment next to it, or without the semicolon in front, it is none for the standard.
    """
    pattern = _NAMED["boundary" if name == "boundary" else "(?:file)?name"]
    texts = (value, without_comments(value)) if "(" in value else (value,)
    found = [
        _ESCAPED.sub(r"\1", each[1]) if each[1] else each[2] or each[3]
        for text in texts
        for each in pattern.finditer(text)
    ]
    return [text for text in found if text]


def is_loosely_multipart(value: str) -> bool:
    """Say whether the value of a Content-Type field begins with that word, however it goes on."""
    return _MULTIPART.match(without_comments(value)) is not None


def loose_encodings(values: list[str]) -> list[str]:
    """Return the transfer encodings that ``values`` may stand for, "" for none; one at least.

    Of what nobody knows each encoding counts that stands in it, and none, too.
    """
    found: list[str] = []
    for value in values:
        plain = without_comments(value).strip(" \t;\"'").lower()
        first = _WORD_END.split(plain, maxsplit=1)[0]
        if first in _KNOWN:
            found.append(first)
        else:
            words = _SOMEWHERE.findall(value.lower())
            found += ["", *(word.replace("base-64", "base64") for word in words)]
    return list(dict.fromkeys(found)) or [""]


def without_comments(value: str) -> str:
    """Return ``value`` with a blank for each comment (RFC 5322 §3.2.2), wherever it stands."""
    if "(" not in value:
        return value
    kept, depth = [], 0
    for piece in re.split(r"([()])", value):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(depth - 1, 0)
        elif not depth:
            kept.append(piece)
    return " ".join(kept)
