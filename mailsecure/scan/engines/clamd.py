"""clamd's protocol, seen from its client (pure).

Commands and replies end with NUL (the ``z`` form, clamd(8)).  Within a session
(``zIDSESSION``) each command has a number, and its reply begins with it, so that a reply can
never be taken for that of another message.  INSTREAM is followed by chunks, each with its
length in four octets before it, and one of no octets at the end.

:class:`Replies` reads, :func:`chunk` writes, :func:`outcome` says what a reply means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from ...errors import RemoteFault

__all__ = ["END", "INSTREAM", "PING", "SESSION", "Outcome", "Replies", "Reply", "Sort"]

SESSION = b"zIDSESSION\0"
INSTREAM = b"zINSTREAM\0"
PING = b"zPING\0"
#: The chunk of no octets that ends a stream.
END = b"\0\0\0\0"

MAX_REPLY = 4096
_NUMBERED = re.compile(r"([0-9]{1,9}): (.*)", re.DOTALL)
_FOUND = re.compile(r"[^ ]*: (.+?)(?:\([0-9a-f]{32,64}:[0-9]+\))? FOUND")
_UNPRINTABLE = re.compile(r"[^ -~]")


class Sort(Enum):
    """What a reply means for the message."""

    CLEAN = "clean"
    MALWARE = "malware"
    #: A heuristic or an unwanted program: the ini's ``suspicious``.
    SUSPICIOUS = "suspicious"
    ENCRYPTED = "encrypted"
    #: clamd gave up before it had seen all.
    LIMITS = "limits"
    #: clamd says that it cannot; ``name`` is what it says.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; ``number`` is 0 outside a session."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What clamd found: ``name`` is that of the signature, in printable ASCII."""

    sort: Sort
    name: str = ""


class Replies:
    """Reads replies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that are whole now."""
        self._buffer += data
        *whole, rest = self._buffer.split(b"\0")
        if max(map(len, (*whole, rest))) > MAX_REPLY:
            raise RemoteFault(f"a reply of more than {MAX_REPLY} octets")
        self._buffer = rest
        return [_reply(bytes(each)) for each in whole]


def _reply(octets: bytes) -> Reply:
    text = _UNPRINTABLE.sub("?", octets.decode("utf-8", "replace").rstrip("\r\n"))
    match = _NUMBERED.fullmatch(text)
    return Reply(int(match[1]), match[2]) if match else Reply(0, text)


def chunk(data: bytes) -> bytes:
    """Return ``data`` (not empty, below 4 GiB) as one chunk of a stream."""
    return len(data).to_bytes(4, "big") + data


def outcome(text: str, suspicious: Sequence[str]) -> Outcome:
    """Return what the reply to INSTREAM says; ``suspicious`` are patterns of names."""
    if text.endswith(": OK"):
        return Outcome(Sort.CLEAN)
    if "size limit exceeded" in text:
        return Outcome(Sort.LIMITS, "larger than clamd takes (StreamMaxLength)")
    match = _FOUND.fullmatch(text)
    if match is None:
        if text.endswith("ERROR"):
            return Outcome(Sort.ERROR, text)
        raise RemoteFault(f"no reply of clamd: {text[:80]!r}")
    name = match[1]
    if name.startswith("Heuristics.Limits.Exceeded"):
        return Outcome(Sort.LIMITS, name)
    if name.startswith("Heuristics.Encrypted."):
        return Outcome(Sort.ENCRYPTED, name)
    if any(fnmatchcase(name, pattern) for pattern in suspicious):
        return Outcome(Sort.SUSPICIOUS, name)
    return Outcome(Sort.MALWARE, name)
