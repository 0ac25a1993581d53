"""Content-Transfer-Encodings, undone as the most forgiving program would (pure; RFC 2045 §6).

What a decoder of ours gave up on and the recipient's does not would pass unseen.  So nothing
here fails: what is no base64 is left out, and what comes after the padding is decoded, too.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final

__all__ = ["decode_transfer", "uuencoded_files"]

_JUNK: Final = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
)
_PADDING = re.compile(rb"=+")
_BEGIN = re.compile(rb"^begin [0-7]{3,4} ([^\r\n]{1,1000})\r?\n", re.MULTILINE)
_END = re.compile(rb"^end[ \t]*\r?$", re.MULTILINE)
MAX_FILES: Final = 100


def decode_transfer(octets: bytes, encoding: str) -> bytes:
    """Return ``octets`` with the transfer encoding undone; unknown ones are the identity."""
    words = encoding.lower().strip(" \t;\"'").split()
    name = words[0].rstrip(";") if words else ""
    if name == "base64":
        return _base64(octets)
    if name == "quoted-printable":
        return binascii.a2b_qp(octets)
    if name in ("x-uuencode", "uuencode", "x-uue", "uue"):
        files = [content for _, content in uuencoded_files(octets)]
        return files[0] if files else octets
    return octets


def _base64(octets: bytes) -> bytes:
    padding = octets.find(b"=")
    if padding < 0 or not octets[padding:].strip(b"= \t\r\n"):
        return _block(octets)
    clean = octets.translate(None, _JUNK)
    return b"".join(_block(block) for block in _PADDING.split(clean))


def _block(octets: bytes) -> bytes:
    """Decode one run without padding inside."""
    try:
        return binascii.a2b_base64(octets)
    except binascii.Error:
        pass
    clean = octets.translate(None, _JUNK + b"=")
    whole = len(clean) // 4 * 4
    rest = clean[whole:]
    # One character is less than an octet.
    tail = binascii.a2b_base64(rest + b"=" * (4 - len(rest))) if len(rest) > 1 else b""
    return binascii.a2b_base64(clean[:whole]) + tail


def uuencoded_files(octets: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, content) of the files that stand uuencoded in a text."""
    position = 0
    for _ in range(MAX_FILES):
        begin = _BEGIN.search(octets, position)
        if begin is None:
            break
        end = _END.search(octets, begin.end())
        stop = len(octets) if end is None else end.start()
        lines = octets[begin.end() : stop].splitlines()
        content = b"".join(map(_uu_line, lines))
        position = stop
        if content:
            yield begin[1], content


def _uu_line(line: bytes) -> bytes:
    """Decode a line; b"" for one that is none."""
    if not 32 <= line[:1][0] <= 96 if line else True:
        return b""
    octets = (line[0] - 32) & 63
    needed = (octets + 2) // 3 * 4
    body = line[1 : 1 + needed].ljust(needed, b" ")
    try:
        return binascii.a2b_uu(line[:1] + body)
    except binascii.Error:
        return b""
