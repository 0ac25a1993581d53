"""Whether a PDF wants a password of its reader (pure; ISO 32000-2 §7.6.4).

Many are encrypted and open for everybody: invoices and statements that must not be changed or
copied have a password of the owner only, and that of the user is empty.  So the empty one is
tried, as every viewer does.  What cannot be understood here counts as closed.

RC4 and MD5 are what old PDFs are made with; nothing is kept secret with them here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

__all__ = ["is_closed"]

_REFERENCE = re.compile(rb"/Encrypt\s{0,20}(?:(<<)|(\d{1,10})\s{1,20}(\d{1,5})\s{1,20}R)")
_ID = re.compile(rb"/ID\s{0,20}\[\s{0,20}(?=[<(])")
_STANDARD = re.compile(rb"/Filter\s{0,20}/Standard\b")
_UNENCRYPTED_METADATA = re.compile(rb"/EncryptMetadata\s{1,20}false\b")
#: How far a dictionary goes, and how many of them are looked at.
_LONGEST: Final = 4096
_MOST: Final = 10

#: What a short password is filled up with (§7.6.4.3.2).
_PADDING: Final = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
_OLD, _MIXED, _CRYPT_FILTERS, _ADOBE, _NEWEST = 2, 3, 4, 5, 6
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n|.))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Lock:
    """An encryption dictionary of the standard handler (§7.6.4.2)."""

    revision: int
    octets: int
    permissions: int
    owner: bytes
    user: bytes
    all_encrypted: bool


def is_closed(content: bytes) -> bool:
    """Say whether a PDF has an encryption dictionary (§7.6.1) that an empty password fails at."""
    places = {match[0]: match for match in _REFERENCE.finditer(content)}
    if len(places) > _MOST:
        return True
    found = _ID.search(content)
    name = b"" if found is None else _string(content, found.end())
    return any(not _opens(_dictionary(content, match), name) for match in places.values())


def _dictionary(content: bytes, match: re.Match[bytes]) -> bytes:
    """Return the beginning of the dictionary that ``match`` is or leads to."""
    start = match.start(1)
    if start < 0:
        marks = rb"(?<!\d)%s\s{1,20}%s\s{1,20}obj\b" % (match[2], match[3])
        # Of several, the one that was written last.
        start = max((each.end() for each in re.finditer(marks, content)), default=len(content))
    return content[start : start + _LONGEST].partition(b"endobj")[0]


def _opens(dictionary: bytes, name: bytes) -> bool:
    """Say whether the empty password opens it; ``name`` is the first string of /ID."""
    lock = _read(dictionary)
    if lock is None:
        return False
    if lock.revision >= _ADOBE:
        digest = hashlib.sha256(lock.user[32:40]).digest()
        if lock.revision == _NEWEST:
            digest = _hardened(digest)
        return digest == lock.user[:32]
    key = _key(lock, name)
    if lock.revision == _OLD:
        return _rc4(key, _PADDING) == lock.user[:32]
    octets = hashlib.md5(_PADDING + name, usedforsecurity=False).digest()
    for each in range(20):
        octets = _rc4(bytes(octet ^ each for octet in key), octets)
    return octets == lock.user[:16]


def _read(dictionary: bytes) -> _Lock | None:
    revision, permissions = _number(dictionary, b"R"), _number(dictionary, b"P")
    if _STANDARD.search(dictionary) is None or revision is None or permissions is None:
        return None
    if not _OLD <= revision <= _NEWEST:
        return None
    bits = _number(dictionary, b"Length") or 40
    octets = {_OLD: 5, _MIXED: min(max(bits // 8, 5), 16)}.get(revision, 16)
    owner, user = _named_string(dictionary, b"O"), _named_string(dictionary, b"U")
    if len(user) < (48 if revision >= _ADOBE else 32):
        return None
    metadata = _UNENCRYPTED_METADATA.search(dictionary) is None
    return _Lock(revision, octets, permissions, owner, user, metadata)


def _key(lock: _Lock, name: bytes) -> bytes:
    """Return the key that the empty password gives (§7.6.4.3.2, algorithm 2)."""
    permissions = (lock.permissions & 0xFFFFFFFF).to_bytes(4, "little")
    text = _PADDING + lock.owner[:32] + permissions + name
    if lock.revision == _CRYPT_FILTERS and not lock.all_encrypted:
        text += b"\xff\xff\xff\xff"
    key = hashlib.md5(text, usedforsecurity=False).digest()
    for _ in range(50 if lock.revision > _OLD else 0):
        key = hashlib.md5(key[: lock.octets], usedforsecurity=False).digest()
    return key[: lock.octets]


def _hardened(key: bytes) -> bytes:
    """Return the hash of revision 6 (§7.6.4.3.4, algorithm 2.B), of the empty password."""
    turn, last = 0, 0
    while turn < 64 or last > turn - 32:
        encryptor = Cipher(AES(key[:16]), CBC(key[16:32])).encryptor()
        octets = encryptor.update(key * 64)
        kind = ("sha256", "sha384", "sha512")[sum(octets[:16]) % 3]
        key = hashlib.new(kind, octets).digest()
        turn, last = turn + 1, octets[-1]
    return key[:32]


def _rc4(key: bytes, text: bytes) -> bytes:
    box = list(range(256))
    j = 0
    for i in range(256):
        j = (j + box[i] + key[i % len(key)]) & 255
        box[i], box[j] = box[j], box[i]
    i = j = 0
    out = bytearray()
    for octet in text:
        i = (i + 1) & 255
        j = (j + box[i]) & 255
        box[i], box[j] = box[j], box[i]
        out.append(octet ^ box[(box[i] + box[j]) & 255])
    return bytes(out)


# -- what a dictionary holds


def _number(dictionary: bytes, name: bytes) -> int | None:
    match = re.search(rb"/%s\s{1,20}([-+]?\d{1,10})(?!\s{1,20}\d{1,5}\s{1,20}R)" % name, dictionary)
    return None if match is None else int(match[1])


def _named_string(dictionary: bytes, name: bytes) -> bytes:
    match = re.search(rb"/%s\s{0,20}(?=[<(])" % name, dictionary)
    return b"" if match is None else _string(dictionary, match.end())


def _string(content: bytes, at: int) -> bytes:
    """Return the string at ``at`` (§7.3.4), in parentheses or hexadecimal; b"" for none."""
    piece = content[at : at + _LONGEST]
    if piece.startswith(b"<"):
        digits = re.sub(rb"\s", b"", piece[1:].partition(b">")[0])
        try:
            return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode("ascii"))
        except ValueError:
            return b""
    depth = 0
    for match in re.finditer(rb"\\.|[()]", piece, re.DOTALL):
        depth += {b"(": 1, b")": -1}.get(match[0], 0)
        if not depth:
            return _ESCAPE.sub(_unescaped, piece[1 : match.start()])
    return b""


def _unescaped(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes([int(match[1], 8) & 255])
    if match[2] in (b"\n", b"\r", b"\r\n"):
        return b""
    return _ESCAPES.get(match[2], match[2])
