"""The milter protocol, version 6, seen from the mail server (pure).

There is no RFC; the protocol is what sendmail's libmilter does (its mfdef.h), and Postfix,
OpenDKIM and Rspamd with it.  A packet is a length in four octets, a command in one, and data;
strings end with NUL.  The mail server begins each exchange; a filter answers commands, and at
the end of the message says what it wants changed before it decides.

What we let filters do (:data:`ACTIONS`) is to add, change and remove fields, and to
quarantine.  Changes of the body, of the sender or the recipients are not offered.  Some
filters (Rspamd's proxy) answer with all they know whatever was offered, so that is no fault
yet: asking for such a change is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntFlag

from ...errors import RemoteFault
from ..values import Edit, RemoveField
from .fields import added, line, name_of

__all__ = [
    "ACTIONS",
    "CHUNK",
    "OFFER",
    "VERSION",
    "Decision",
    "Negotiated",
    "Packet",
    "Packets",
    "Steps",
    "Word",
    "connection",
    "decision",
    "edits",
    "macros",
    "negotiated",
    "negotiation",
    "packet",
    "strings",
]

VERSION = 6
_OLDEST = 2
#: The first version that is told of DATA.
_WITH_DATA = 4
#: Octets of the body in one packet (MILTER_CHUNK_SIZE).
CHUNK = 65535
MAX_PACKET = 128 << 10

# SMFIF_ADDHDRS, SMFIF_CHGHDRS, SMFIF_QUARANTINE.
ACTIONS = 0x01 | 0x10 | 0x20

_REPLY = re.compile(r"([45][0-9]{2})[ -](?:([45]\.[0-9]{1,3}\.[0-9]{1,3}) )?(.*)", re.DOTALL)


class Steps(IntFlag):
    """The protocol flags that we offer (SMFIP_*): what a filter need not hear, or answer."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_EOH = 0x40
    QUIET_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    QUIET_CONNECT = 0x1000
    QUIET_HELO = 0x2000
    QUIET_MAIL = 0x4000
    QUIET_RCPT = 0x8000
    QUIET_DATA = 0x10000
    QUIET_UNKNOWN = 0x20000
    QUIET_EOH = 0x40000
    QUIET_BODY = 0x80000
    LEADING_SPACE = 0x100000


OFFER = Steps(sum(Steps))


class Word(Enum):
    """What a filter decided."""

    GO_ON = "continue"
    ACCEPT = "accept"
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    DISCARD = "discard"
    #: Enough of the body.
    SKIP = "skip"
    #: The filter cannot do its work.
    FAILED = "conn-fail"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; ``command`` is a letter."""

    command: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on."""

    version: int
    steps: Steps


@dataclass(frozen=True, slots=True)
class Decision:
    """A filter's answer; ``reply`` is text for the client, with its status code, or ""."""

    what: Word
    reply: str = ""


class Packets:
    """Reads packets."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that are whole now."""
        buffer = self._buffer + data
        found = []
        at = 0
        while len(buffer) - at >= 4:
            size = int.from_bytes(buffer[at : at + 4], "big")
            if not 0 < size <= MAX_PACKET:
                raise RemoteFault(f"a packet of {size} octets")
            if len(buffer) - at < 4 + size:
                break
            command = chr(buffer[at + 4])
            found.append(Packet(command, buffer[at + 5 : at + 4 + size]))
            at += 4 + size
        self._buffer = buffer[at:]
        return found


def packet(command: str, data: bytes = b"") -> bytes:
    """Return a packet for the wire."""
    return (len(data) + 1).to_bytes(4, "big") + command.encode("ascii") + data


def strings(*texts: str) -> bytes:
    """Return strings as a packet has them."""
    return b"".join(_octets(text) + b"\0" for text in texts)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").replace(b"\0", b"")


def macros(command: str, pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return the packet that defines macros for ``command``; those without value are left out.

    Names of more than one letter travel in braces: libmilter finds them by that only.
    """
    told = [
        text
        for name, value in pairs
        if value
        for text in (name if len(name) == 1 else f"{{{name}}}", value)
    ]
    return packet("D", command.encode("ascii") + strings(*told)) if told else b""


def negotiation() -> bytes:
    """Return the packet that begins a connection."""
    words = (VERSION, ACTIONS, int(OFFER))
    return packet("O", b"".join(word.to_bytes(4, "big") for word in words))


def negotiated(answer: Packet) -> Negotiated:
    """Return what the filter's answer to :func:`negotiation` comes to."""
    if answer.command != "O" or len(answer.data) < 12:
        raise RemoteFault(f"no negotiation: {answer.command!r}")
    version, _actions, steps = (
        int.from_bytes(answer.data[at : at + 4], "big") for at in range(0, 12, 4)
    )
    if not _OLDEST <= version <= VERSION:
        raise RemoteFault(f"speaks version {version} of the milter protocol, not {VERSION}")
    agreed = Steps(steps & int(OFFER))
    # Older filters hang up when they hear of it.
    return Negotiated(version, agreed | Steps.NO_DATA if version < _WITH_DATA else agreed)


def connection(name: str, address: str, port: int) -> bytes:
    """Return the packet that tells of a client at an IP address."""
    family = b"6" if ":" in address else b"4"
    return packet("C", strings(name) + family + port.to_bytes(2, "big") + strings(address))


_DECISIONS = {
    "c": Word.GO_ON,
    "a": Word.ACCEPT,
    "r": Word.REJECT,
    "t": Word.TEMPFAIL,
    # SMFIR_SHUTDOWN: 421 and goodbye.  The message comes again; the session is not the filter's.
    "4": Word.TEMPFAIL,
    "d": Word.DISCARD,
    "s": Word.SKIP,
    "f": Word.FAILED,
}


def decision(answer: Packet) -> Decision | None:
    """Return what the filter decided; None where this packet is something else."""
    if answer.command in _DECISIONS:
        return Decision(_DECISIONS[answer.command])
    if answer.command != "y":
        return None
    text = answer.data.partition(b"\0")[0].decode("utf-8", "replace")
    match = _REPLY.fullmatch(text)
    if match is None:
        raise RemoteFault(f"no reply of SMTP: {text[:80]!r}")
    # The lines behind the first repeat the codes; "%%" stands for "%" (smfi_setreply).
    words = line(match[3].partition("\n")[0].replace("%%", "%"))
    what = Word.REJECT if match[1][0] == "5" else Word.TEMPFAIL
    return Decision(what, f"{match[2]} {words}" if match[2] and words else words)


def edits(answer: Packet, count: dict[str, int]) -> tuple[Edit, ...] | None:
    """Return the changes that a packet at the end of the message asks for; None: no such packet.

    ``count`` says how many fields there are of each name (lower case).  Changing one is
    taking it out and putting its successor in front; changing one that is not there is
    adding it (smfi_chgheader).
    """
    data = answer.data
    occurrence = 0
    if answer.command in "im":
        if len(data) < 4:
            raise RemoteFault("a change of the header section without an index")
        occurrence, data = int.from_bytes(data[:4], "big"), data[4:]
    elif answer.command != "h":
        return None
    parts = data.decode("utf-8", "replace").split("\0")
    if len(parts) != 3 or parts[2]:
        raise RemoteFault("a change of the header section that is no name and value")
    name, value = parts[0], parts[1]
    found: list[Edit] = []
    if answer.command == "m" and name_of(name):
        occurrence = max(1, occurrence)
        if occurrence <= count.get(name.lower(), 0):
            found.append(RemoveField(name, occurrence))
        if not value:
            return tuple(found)
    edit = added(name, value)
    return (*found, edit) if edit is not None else tuple(found)
