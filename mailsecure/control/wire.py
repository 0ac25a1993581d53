"""What goes over the control socket (pure).

A client connects, sends **one request**, a line of JSON, and reads lines of JSON::

    → {"version": 1, "request": "queue.list", "arguments": {"sender": "@example.org"}}
    ← {"item": {"id": "06B3K2M4N5P6Q", "sender": "a@example.org", …}}
    ← {"item": …}
    ← {"done": {"messages": 2}}

Any number of items come first; the last line is ``done`` or ``refused``.  An answer
without that last line was cut off, so a client never takes half a listing for a whole.
A refusal carries a kind, a text for people and, for some, details.

The requests and their arguments are described in :mod:`.requests`.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from ..errors import RemoteFault

__all__ = [
    "MAX_REQUEST",
    "SOCKET_NAME",
    "VERSION",
    "Kind",
    "LineReader",
    "Refusal",
    "decode_answer",
    "decode_request",
    "encode",
    "encode_request",
    "only",
    "refused",
]

VERSION = 1
#: The name of the socket within the state directory.
SOCKET_NAME = "control"
#: The longest request in octets, LF included.
MAX_REQUEST = 1 << 16


class Kind(Enum):
    """Why a request was refused; each has the exit code that sysexits.h gives it."""

    USAGE = "usage"
    ABSENT = "absent"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"
    DISK = "disk"
    BUSY = "busy"
    PROTOCOL = "protocol"
    FORBIDDEN = "forbidden"
    CONFIG = "config"

    @property
    def exit_code(self) -> int:
        """The process's exit code: 64 EX_USAGE to 78 EX_CONFIG."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Kind.USAGE: 64,
    Kind.ABSENT: 66,
    Kind.UNAVAILABLE: 69,
    Kind.INTERNAL: 70,
    Kind.DISK: 74,
    Kind.BUSY: 75,
    Kind.PROTOCOL: 76,
    Kind.FORBIDDEN: 77,
    Kind.CONFIG: 78,
}


class Refusal(Exception):
    """A request cannot be done; ``details`` are further lines for people."""

    def __init__(self, kind: Kind, text: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.kind = kind
        self.details = details


def encode(message: dict[str, Any]) -> bytes:
    """Return one line; all octets are ASCII, so nothing in it can end the line."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def encode_request(request: str, arguments: dict[str, Any]) -> bytes:
    """Return the line that asks for ``request``."""
    return encode({"version": VERSION, "request": request, "arguments": arguments})


def refused(refusal: Refusal) -> dict[str, Any]:
    """Return the last line of an answer that is none."""
    return {
        "refused": {
            "kind": refusal.kind.value,
            "text": str(refusal),
            "details": list(refusal.details),
        }
    }


def decode_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return what is asked for and the arguments; :class:`Refusal` for anything odd."""
    try:
        message = _object(line)
    except RemoteFault as fault:
        raise Refusal(Kind.PROTOCOL, f"not a request: {fault}") from None
    if message.get("version") != VERSION:
        raise Refusal(
            Kind.PROTOCOL,
            f"this daemon speaks version {VERSION} of the control protocol; "
            "use the mailsecure command of the same installation",
        )
    request, arguments = message.get("request"), message.get("arguments", {})
    if not isinstance(request, str) or not isinstance(arguments, dict):
        raise Refusal(Kind.PROTOCOL, "not a request: request or arguments are missing")
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # A terminal of another encoding: no database takes the halves of surrogate pairs
        # that Python makes of such octets.
        raise Refusal(
            Kind.USAGE,
            "what was given is not in UTF-8",
            ("Set the terminal and its locale to UTF-8 (LANG=C.UTF-8).",),
        ) from None
    return request, arguments


def only(arguments: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse arguments that are not ``known``: a misspelt one must not be as good as none."""
    for name in arguments:
        if name not in known:
            raise Refusal(Kind.USAGE, f"no such argument: {name[:64]!r}")


def decode_answer(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return ``item`` or ``done`` with its value.

    Raises the :class:`Refusal` that the line holds, and :class:`RemoteFault` if it is no
    line of an answer.
    """
    message = _object(line)
    for word in ("item", "done", "refused"):
        value = message.get(word)
        if isinstance(value, dict):
            if word == "refused":
                raise _refusal(value)
            return word, value
    raise RemoteFault("not an answer")


def _refusal(value: dict[str, Any]) -> Refusal:
    try:
        kind = Kind(value.get("kind"))
    except ValueError:
        kind = Kind.INTERNAL
    details = value.get("details")
    lines = tuple(map(str, details)) if isinstance(details, list) else ()
    return Refusal(kind, str(value.get("text", "")), lines)


def _object(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise RemoteFault("no line of JSON") from None
    if not isinstance(message, dict):
        raise RemoteFault("no JSON object")
    return message


class LineReader:
    """Collects octets until the first LF; what follows it is thrown away."""

    def __init__(self, limit: int = MAX_REQUEST) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._found = False

    def feed(self, octets: bytes) -> bytes | None:
        """Return the line, once; :class:`Refusal` when it is too long."""
        if self._found:
            return None
        before, newline, _ = octets.partition(b"\n")
        if len(self._buffer) + len(before) >= self._limit:
            self._found = True
            raise Refusal(Kind.PROTOCOL, f"the request is longer than {self._limit} octets")
        self._buffer += before
        if not newline:
            return None
        self._found = True
        return bytes(self._buffer)
