"""ICAP, seen from its client (pure): OPTIONS and RESPMOD (RFC 3507 §4.9, §4.10).

A message is shown to the server as the answer to an HTTP request for it: ``message/rfc822``.
Preview (§4.5) and 204 (§4.6) are used where the server offers them.

:class:`Answers` reads what the server says, up to the digest of the content it would have
instead, so that an echo can be told from a change; :func:`virus` is where the many
extensions that name what was found meet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from ...errors import RemoteFault
from .fields import line
from .heads import ChunkedBody, Head, HeadReader

__all__ = ["Answers", "Reply", "Service", "chunk", "options", "respmod", "service", "virus"]

#: The end of a body, and of a preview that is the whole body (§4.5).
END = b"0\r\n\r\n"
WHOLE_END = b"0; ieof\r\n\r\n"

MAX_ENCAPSULATED = 64 << 10
_PREVIEW = 16 << 10
_PART = re.compile(r"([a-z]+-[a-z]+)=([0-9]{1,6})")
_STATUS = re.compile(rb"(?:\A|\r\n)HTTP/[0-9]\.[0-9] ([0-9]{3})")
_THREAT = re.compile(r"Threat=([^;]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Service:
    """What OPTIONS told: octets of the preview (None: no preview), and for how long it holds."""

    preview: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer.

    ``status`` is that of the HTTP answer in it, 0 where there is none; ``octets`` and
    ``digest`` (SHA-256) are of its content.
    """

    head: Head
    status: int = 0
    octets: int = 0
    digest: bytes = b""
    lasting: bool = True


def options(host: str, path: str) -> bytes:
    """Return the OPTIONS request."""
    return f"OPTIONS icap://{host}{path} ICAP/1.0\r\nHost: {host}\r\n\r\n".encode("ascii")


def respmod(host: str, path: str, name: str, octets: int, preview: int | None) -> bytes:
    """Return what is sent before the chunks of a message called ``name``.

    ``preview`` is how many of its octets are shown first; None: all at once.
    """
    asked = f"GET http://{host}/{name} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    answered = (
        f"HTTP/1.1 200 OK\r\nContent-Type: message/rfc822\r\nContent-Length: {octets}\r\n\r\n"
    )
    shown = "" if preview is None else f"Preview: {preview}\r\n"
    return (
        f"RESPMOD icap://{host}{path} ICAP/1.0\r\nHost: {host}\r\nAllow: 204\r\n{shown}"
        f"Encapsulated: req-hdr=0, res-hdr={len(asked)}, res-body={len(asked) + len(answered)}"
        f"\r\n\r\n{asked}{answered}"
    ).encode("ascii")


def chunk(data: bytes) -> bytes:
    """Return ``data``, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def service(reply: Reply) -> Service:
    """Return what an answer to OPTIONS offers; RemoteFault where this is none."""
    head = reply.head
    if head.code != 200:
        raise RemoteFault(f"no such ICAP service: {head.code} {line(head.reason, 80)}")
    if "RESPMOD" not in head.get("methods").upper():
        raise RemoteFault("an ICAP service without RESPMOD")
    preview, ttl = head.get("preview"), head.get("options-ttl")
    return Service(
        min(int(preview), _PREVIEW) if re.fullmatch("[0-9]{1,9}", preview) else None,
        float(ttl) if re.fullmatch("[0-9]{1,6}", ttl) else 3600.0,
    )


def virus(reply: Reply) -> str:
    """Return what the server calls what it found, in printable ASCII, or ""."""
    head = reply.head
    found = head.get("x-infection-found")
    if found:
        match = _THREAT.search(found)
        return line(match[1] if match else found) or "infected"
    if head.get("x-virus-id"):
        return line(head.get("x-virus-id"))
    # "1\nFILE\nNAME\nID\nRESOLUTION": how many, and four lines each.
    found = head.get("x-violations-found")
    if found and not found.startswith("0"):
        lines = found.split("\n")
        return line(lines[2]) if len(lines) > 2 else "infected"
    return line(head.get("x-blocked-reason") or head.get("x-blocked"))


class Answers:
    """Reads the answers on one connection."""

    def __init__(self) -> None:
        self._begin(b"")

    def _begin(self, rest: bytes) -> None:
        self._heads = HeadReader()
        self._head: Head | None = None
        #: Octets of the encapsulated heads; None: there is nothing encapsulated.
        self._size: int | None = None
        self._inner = bytearray()
        self._body: ChunkedBody | None = None
        self._status = 0
        self._octets = 0
        self._digest = sha256()
        self._rest = rest

    def feed(self, data: bytes) -> list[Reply]:
        """Return the answers that are whole now."""
        self._rest += data
        replies = []
        while self._rest and (reply := self._step()) is not None:
            replies.append(reply)
            self._begin(self._rest)
        return replies

    def _step(self) -> Reply | None:
        """Read on; return the answer if that was its end."""
        data, self._rest = self._rest, b""
        if self._head is None:
            head = self._heads.feed(data)
            if head is None:
                return None
            self._head, data = head, self._heads.rest
            self._place(head)
        if self._size is not None and len(self._inner) < self._size:
            missing = self._size - len(self._inner)
            self._inner += data[:missing]
            data = data[missing:]
            if len(self._inner) < self._size:
                return None
            self._status = _status(bytes(self._inner))
        if self._body is not None:
            content = self._body.feed(data)
            self._octets += len(content)
            self._digest.update(content)
            if not self._body.done:
                return None
            data = self._body.rest
        self._rest = data
        return Reply(
            self._head,
            self._status,
            self._octets,
            self._digest.digest(),
            self._head.get("connection").lower() != "close",
        )

    def _place(self, head: Head) -> None:
        """Find where the body begins: ``Encapsulated: res-hdr=0, res-body=137`` (§4.4.1)."""
        if not head.protocol.startswith("ICAP/"):
            raise RemoteFault(f"speaks {head.protocol}, not ICAP")
        parts = _PART.findall(head.get("encapsulated"))
        if not parts:
            return
        name, offset = parts[-1]
        if int(offset) > MAX_ENCAPSULATED:
            raise RemoteFault(f"encapsulated heads of {offset} octets")
        self._size = int(offset)
        if name != "null-body":
            self._body = ChunkedBody()


def _status(inner: bytes) -> int:
    """Return the status of the HTTP answer whose heads ``inner`` are; 0: there is none."""
    match = _STATUS.search(inner)
    return int(match[1]) if match else 0
