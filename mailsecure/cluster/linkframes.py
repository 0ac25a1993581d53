"""What nodes say over a link: small framed messages (pure).

A frame is a length (4 octets, most significant first) of what follows, 64 KiB at most;
one octet, the kind; and a JSON object in UTF-8 (RFC 8259), empty for no object.  JSON,
because these are a few messages a second at most and people have to read them in a dump.

Whoever speaks here has proven that he has the cluster's key, and is read as strictly as a
stranger all the same: :class:`Reader` raises only :class:`~mailsecure.errors.RemoteFault`
and holds one frame at most.  A kind that it does not know is passed over, so that nodes of
different versions can talk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..errors import RemoteFault

__all__ = ["FRAME_LIMIT", "Kind", "Message", "Reader", "encode_message"]

#: Octets of the kind and the object together.
FRAME_LIMIT = 65_536
_LENGTH_OCTETS = 4


class Kind(IntEnum):
    """What a message is for."""

    #: The first of each side: who it is.
    HELLO = 1
    #: Say PONG with the same object.
    PING = 2
    PONG = 3
    #: The sender stops in good order: what follows is no death.
    BYE = 4
    #: What nodes share beside that: ``subject``, and ``body`` as the subject has it.
    SHARED = 5


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``body`` is a JSON object."""

    kind: Kind
    body: dict[str, Any] = field(default_factory=dict)


def encode_message(message: Message) -> bytes:
    """Return the frame of ``message``; ValueError if it is longer than 64 KiB."""
    body = message.body
    text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode() if body else b""
    length = len(text) + 1
    if length > FRAME_LIMIT:
        raise ValueError(f"a message of {length} octets is too long")
    return length.to_bytes(_LENGTH_OCTETS) + bytes([message.kind]) + text


class Reader:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, octets: bytes) -> list[Message]:
        """Return the messages that are complete now; RemoteFault for what is none."""
        buffer = self._buffer
        buffer += octets
        messages, begin = [], 0
        while len(buffer) - begin >= _LENGTH_OCTETS:
            body = begin + _LENGTH_OCTETS
            length = int.from_bytes(buffer[begin:body])
            if not 0 < length <= FRAME_LIMIT:
                raise RemoteFault(f"a frame of {length} octets")
            end = body + length
            if len(buffer) < end:
                break
            message = _decode(bytes(buffer[body:end]))
            if message is not None:
                messages.append(message)
            begin = end
        del buffer[:begin]
        return messages


def _decode(frame: bytes) -> Message | None:
    try:
        kind = Kind(frame[0])
    except ValueError:
        return None
    if len(frame) == 1:
        return Message(kind)
    try:
        body = json.loads(frame[1:].decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RemoteFault(f"a message of kind {kind.value} that is not JSON") from None
    if not isinstance(body, dict):
        raise RemoteFault(f"a message of kind {kind.value} that is no object")
    return Message(kind, body)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
