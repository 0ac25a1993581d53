"""The trace field that we put in front of a message, and what traces tell (pure).

RFC 5321 §4.4 gives the form of Received, RFC 3848 the words after ``with``.  What the
client called itself stands there escaped to printable ASCII without the characters
that a comment or a name may not hold, because it came from a stranger.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from ..smtp.events import TlsFacts

__all__ = [
    "count_received",
    "delivered_to",
    "header_section",
    "protocol_word",
    "received_field",
    "rfc5322_date",
]

#: How much of a message is looked at for its header section.
MAX_HEADER = 262_144

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]\-]")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_DELIVERED_TO = re.compile(
    rb"^delivered-to[ \t]*:[ \t]*([^\r\n]{1,320})", re.IGNORECASE | re.MULTILINE
)


def rfc5322_date(unix: float) -> str:
    """Return a date as mail writes it, in UTC: ``Mon, 23 Nov 2026 12:00:00 +0000``."""
    return _date(int(unix))


@lru_cache(maxsize=8)
def _date(unix: int) -> str:
    """The date of a whole second; the next thousand messages have the same one."""
    t = datetime.fromtimestamp(unix, UTC)
    return f"{_DAYS[t.weekday()]}, {t.day} {_MONTHS[t.month - 1]} {t.year} {t:%H:%M:%S} +0000"


def protocol_word(extended: bool, tls: bool, utf8: bool) -> str:
    """Return the word of RFC 3848 and RFC 6531 §4.3: SMTP, ESMTP, ESMTPS, UTF8SMTPS."""
    if not extended:
        return "SMTP"
    word = "UTF8SMTP" if utf8 else "ESMTP"
    return word + "S" if tls else word


def received_field(
    helo: str,
    client: str,
    hostname: str,
    protocol: str,
    tls: TlsFacts | None,
    name: str,
    recipient: str,
    date: str,
) -> bytes:
    """Return the Received field; ``recipient`` is "" where there are several.

    With several, naming one would tell each recipient of another (RFC 5321 §7.2).
    """
    literal = f"[IPv6:{client}]" if ":" in client else f"[{client}]"
    facts = f" ({tls.version} {tls.cipher})" if tls is not None else ""
    whom = f"\r\n\tfor <{recipient}>" if recipient else ""
    return (
        f"Received: from {_UNSAFE.sub('?', helo)} ({literal})\r\n"
        f"\tby {hostname} with {protocol}{facts}\r\n"
        f"\tid {name}{whom};\r\n"
        f"\t{date}\r\n"
    ).encode()


def header_section(start: bytes) -> bytes:
    """Return the header section of a message that begins with ``start``.

    Cut at :data:`MAX_HEADER`: every hop adds its trace in front, so a loop shows there.
    """
    if start.startswith(b"\r\n"):
        return b""
    end = start.find(b"\r\n\r\n", 0, MAX_HEADER)
    return start[: end + 2] if end >= 0 else start[:MAX_HEADER]


def count_received(header: bytes) -> int:
    """Return how many Received fields ``header`` has (RFC 5321 §6.3)."""
    return len(_RECEIVED.findall(header))


def delivered_to(header: bytes) -> set[str]:
    """Return the mailboxes of the Delivered-To fields, in lower case."""
    if b"elivered-" not in header and b"ELIVERED-" not in header:
        return set()
    found = _DELIVERED_TO.findall(header)
    return {value.decode("utf-8", "replace").strip(" \t<>").lower() for value in found}
