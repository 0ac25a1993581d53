"""DNS messages: questions out, answers in (RFC 1035; the codec is twisted.names').

:func:`matches` tells an answer to our question from anything else that reaches the port,
before a single name in it is decompressed.  :func:`read_answer` follows the aliases that
the answer contains.  Octets that are no DNS message raise
:class:`~mailsecure.errors.RemoteFault`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.names import dns

from ..errors import RemoteFault

__all__ = [
    "Answer",
    "askable_name",
    "encode_question",
    "matches",
    "read_answer",
    "valid_name",
]

HEADER = 12
MAX_NAME = 253
_NAME = re.compile(r"[a-z0-9_/-]{1,63}(?:\.[a-z0-9_/-]{1,63})*")
_ASKABLE = re.compile(r"[ -\-/-~]{1,63}(?:\.[ -\-/-~]{1,63})*")
MAX_ALIASES = 8
NO_SOA_TTL = 30
# What the codec is known to raise on hostile octets.
_CODEC_FAULTS = (
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server said.

    ``usable`` is false for SERVFAIL, REFUSED and the like.  ``records`` are payloads of
    the type asked for; where there are none, ``alias`` is the name that an alias led to,
    if it led out of the answer.  ``ttl`` is for records and for their absence.
    """

    usable: bool
    code: int
    truncated: bool = False
    absent: bool = False
    records: Sequence[Any] = ()
    alias: str = ""
    ttl: int = 0
    #: How long the whole message was.
    octets: int = 0


def valid_name(name: str) -> bool:
    """Say whether ``name`` (lower case, no final dot) can be asked for at all.

    The DNS would carry any octet in a label.  Names that are more than letters, digits,
    hyphens, underscores and slashes (RFC 2317) are no hosts of anybody's, but would turn up
    in logs, TLS and certificates.
    """
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def askable_name(name: str) -> bool:
    """Say whether records may be asked of ``name`` that are data, and lead to no host.

    The macros of SPF put local parts into names (RFC 7208 §7), so what is printable may
    stand in them.
    """
    return len(name) <= MAX_NAME and _ASKABLE.fullmatch(name) is not None


def encode_question(identity: int, name: str, kind: int) -> bytes:
    """Return a query for ``name``, recursion desired."""
    message = dns.Message(id=identity, recDes=1)
    message.queries = [dns.Query(name.encode(), kind, dns.IN)]
    octets: bytes = message.toStr()
    return octets


def matches(question: bytes, data: bytes) -> bool:
    """Say whether ``data`` answers ``question``: same id, same name, type and class."""
    return (
        len(data) >= len(question)
        and data[:2] == question[:2]
        and data[2] & 0x80 != 0
        and data[4:6] == b"\0\1"
        and data[HEADER : len(question)].lower() == question[HEADER:].lower()
    )


def read_answer(data: bytes, name: str, kind: int) -> Answer:
    """Read the answer to a question for ``name`` and ``kind``."""
    message = dns.Message()
    try:
        message.fromStr(data)
        if len(message.answers) != struct.unpack("!H", data[6:8])[0]:
            # The codec stops silently where octets end too early; what is missing could
            # be taken for an absence, and mail be returned for it.
            raise ValueError
        return replace(_read(message, name, kind), octets=len(data))
    except _CODEC_FAULTS as fault:
        raise RemoteFault(f"not a DNS message: {type(fault).__name__}") from None


def _read(message: dns.Message, name: str, kind: int) -> Answer:
    if message.trunc:
        return Answer(True, message.rCode, truncated=True)
    if message.rCode not in (dns.OK, dns.ENAME):
        return Answer(False, message.rCode)
    records: dict[str, list[Any]] = {}
    aliases: dict[str, tuple[str, int]] = {}
    ttls: list[int] = []
    for header in message.answers:
        owner = _text(header.name)
        if header.cls != dns.IN:
            continue
        if header.type == kind:
            records.setdefault(owner, []).append(header.payload)
            ttls.append(header.ttl)
        elif header.type == dns.CNAME:
            alias: Any = header.payload
            aliases[owner] = (_text(alias.name), header.ttl)
    here = name
    for _ in range(MAX_ALIASES):
        if here in records or here not in aliases:
            break
        here, ttl = aliases[here]
        ttls.append(ttl)
    if here in records:
        return Answer(True, message.rCode, records=records[here], ttl=min(ttls))
    if here != name and message.rCode == dns.OK and not _soa(message):
        return Answer(True, message.rCode, alias=here)
    return Answer(True, message.rCode, absent=True, ttl=_negative_ttl(message))


def _text(name: dns.Name) -> str:
    raw: bytes = name.name
    return raw.decode("ascii", "replace").rstrip(".").lower()


def _soa(message: dns.Message) -> Any:
    return next((header for header in message.authority if header.type == dns.SOA), None)


def _negative_ttl(message: dns.Message) -> int:
    """RFC 2308 §5: the smaller of the SOA's own TTL and its MINIMUM."""
    header = _soa(message)
    return NO_SOA_TTL if header is None else min(header.ttl, header.payload.minimum)
