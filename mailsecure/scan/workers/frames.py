"""What the daemon and a worker say to each other: JSON and octets, with their lengths (pure).

A frame is two big-endian numbers of four octets (the length of the JSON text, the length of
the octets), then the text, an object, then the octets.  The daemon sends a job and the
message it is about; the worker sends what came of it, without octets.

Neither side trusts the other: who feeds :class:`FrameReader` too much gets RemoteFault.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Final

from ...errors import RemoteFault

__all__ = [
    "MAX_OCTETS",
    "MAX_RESULT",
    "PREFIX_OCTETS",
    "FrameReader",
    "encode_frame",
    "read_object",
    "read_prefix",
]

#: The longest JSON text of either side.
MAX_RESULT: Final = 4 << 20
#: The longest message that fits into a frame.
MAX_OCTETS: Final = (1 << 32) - 1

_PREFIX = struct.Struct("!II")
PREFIX_OCTETS: Final = _PREFIX.size


def encode_frame(content: Mapping[str, Any], octets: int = 0) -> bytes:
    """Return the frame for ``content``, after which the sender writes ``octets`` octets.

    Raises ValueError if either is too long, or if ``content`` is no JSON.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    octets_of_text = text.encode("utf-8", "surrogatepass")
    length = len(octets_of_text)
    if length > MAX_RESULT:
        raise ValueError(f"{length} octets of JSON are too many")
    if octets > MAX_OCTETS:
        raise ValueError(f"a message of {octets} octets is too long")
    return _PREFIX.pack(length, octets) + octets_of_text


def read_prefix(prefix: bytes) -> tuple[int, int]:
    """Return the lengths of text and octets; ``prefix`` is of :data:`PREFIX_OCTETS` octets."""
    text, octets = _PREFIX.unpack(prefix)
    if text > MAX_RESULT:
        raise RemoteFault(f"announces {text} octets of JSON")
    return text, octets


def read_object(text: bytes) -> dict[str, Any]:
    """Return the object that ``text`` is."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise RemoteFault("is no JSON") from None
    if not isinstance(content, dict):
        raise RemoteFault("is no JSON object")
    return content


class FrameReader:
    """Puts frames without octets together again, from pieces of any length."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        #: How many octets make the next step possible, and whether it is the text.
        self._wanted = PREFIX_OCTETS
        self._in_text = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the objects that are complete with ``data``; raises RemoteFault."""
        self._pieces.append(data)
        self._held += len(data)
        found: list[dict[str, Any]] = []
        while self._held >= self._wanted:
            held = b"".join(self._pieces)
            head, rest = held[: self._wanted], held[self._wanted :]
            self._pieces, self._held = [rest], len(rest)
            if self._in_text:
                found.append(read_object(head))
                self._wanted, self._in_text = PREFIX_OCTETS, False
                continue
            self._wanted, octets = read_prefix(head)
            self._in_text = True
            if octets:
                raise RemoteFault(f"announces {octets} octets")
        return found
