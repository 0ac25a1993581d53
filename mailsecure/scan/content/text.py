"""Octets to text, whatever they say they are (pure)."""

from __future__ import annotations

import codecs
import re
from typing import Final

__all__ = ["decode", "printable"]

#: What Python calls text encodings and no message is written in; some take long.
_NOT_IN_MAIL: Final = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem"}
)
#: Control characters and those that turn the direction of what follows.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+"
)


def decode(octets: bytes, charset: str) -> str:
    """Return ``octets`` as text; never fails.

    ``charset`` is tried if there is such a thing, then UTF-8, then Latin-1, which takes
    everything.
    """
    try:
        codec = codecs.lookup(charset.strip())
        if codec.name in _NOT_IN_MAIL:
            raise LookupError(charset)
        return octets.decode(codec.name)
    except (LookupError, ValueError):
        pass
    try:
        return octets.decode("utf-8")
    except ValueError:
        return octets.decode("latin-1")


def printable(text: str, most: int) -> str:
    """Return ``text`` on one line, without what is not seen, at most ``most`` characters."""
    return " ".join(_UNSEEN.sub(" ", text[: most * 4]).split())[:most]
