"""What a check is told, and what it finds (pure).

A session goes through the stages of RFC 5321; at each of them more is known (:class:`Facts`).
A check runs at the stages it names and returns a :class:`Finding`: symbols, which make the
verdict (:mod:`.verdict`), results for the Authentication-Results field (RFC 8601), and
changes of the header section.  :mod:`.pipeline` runs the checks; the gateway gives the facts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..config.scanning import ScanAction
from ..smtp.envelope import Recipient
from ..spool.values import Body

__all__ = [
    "NOTHING",
    "AddField",
    "AuthResult",
    "Content",
    "Edit",
    "Facts",
    "Finding",
    "RemoveField",
    "Special",
    "Stage",
    "Symbol",
]


class Stage(Enum):
    """When a check runs: as soon as its facts are known."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


class Special(Enum):
    """A symbol that [scan] has an action for, whatever the score."""

    MALWARE = "malware"
    UNSCANNABLE = "unscannable"
    ENCRYPTED = "encrypted"
    #: The check could not do its work: on_failure says what that means.
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Symbol:
    """One thing that a check found.

    ``name`` is of capital letters, digits and underscores, and fixed: what varies is in
    ``reason``, a few words for the postmaster.  ``score`` may be overridden by the ini.
    ``action`` is done at least, whatever the score; ``special`` is an action that the ini
    names.  ``reply`` is the public text that a client refused for it gets, "" for a text
    that says nothing.  ``recipients`` are the mailboxes that it is about; None for all.
    ``check`` is filled in by the pipeline.
    """

    name: str
    score: float = 0.0
    reason: str = ""
    action: ScanAction | None = None
    special: Special | None = None
    reply: str = ""
    recipients: frozenset[str] | None = None
    check: str = ""


@dataclass(frozen=True, slots=True)
class AuthResult:
    """One method's result (RFC 8601 §2.2): ``spf=pass smtp.mailfrom=example.com``.

    ``properties`` are (ptype.property, value) in order; ``comment`` stands in parentheses.
    """

    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True)
class AddField:
    """Put a field in front of the header section; ``value`` may be folded with CRLF WSP."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class RemoveField:
    """Take fields out: all of the name, or from the top the one with ``occurrence`` (from 1).

    ``value_matches`` says of a value, unfolded, whether it is meant; None: all are.
    """

    name: str
    occurrence: int = 0
    value_matches: Callable[[str], bool] | None = None


Edit = AddField | RemoveField


@dataclass(frozen=True, slots=True)
class Finding:
    """All that one check found at one stage."""

    symbols: tuple[Symbol, ...] = ()
    results: tuple[AuthResult, ...] = ()
    edits: tuple[Edit, ...] = ()


NOTHING = Finding()


@dataclass(slots=True)
class Content:
    """The message itself, there at DATA.

    ``body`` is what the client sent (header section and body, CRLF lines, dots unstuffed),
    ``header`` its header section, up to 256 KiB.  ``anatomy`` returns what it is made of
    (:class:`mailsecure.scan.anatomy.Anatomy`), taken apart once in a process of its own,
    however many checks ask; it raises :class:`mailsecure.scan.api.Unscannable`.
    """

    id: int
    name: str
    body: Body
    octets: int
    header: bytes
    received: bytes
    anatomy: Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Facts:
    """What is known of a session and its transaction so far.

    ``client`` is an IP address as text, ``name`` what the reverse DNS calls it and leads
    back to it ("" unknown; the check ``identity`` fills it in), ``helo`` what it calls
    itself; ``trusted`` says that it is in ``[relay] networks``.  ``reverse_path`` is "" for
    the null reverse-path.  At RCPT ``recipient`` is the one that is asked about, and
    ``recipients`` are those that were taken before; at DATA all.

    ``notes`` is where checks leave what later stages of the transaction need, each under
    its own name; ``client_notes`` are about the client and outlive the transaction.
    ``rehearsal`` says that this is no real session (``mailsecure scan``): a check that
    remembers what it saw must not.
    """

    session: str
    client: str
    port: int = 0
    trusted: bool = False
    tls: str = ""
    helo: str = ""
    extended: bool = False
    name: str = ""
    reverse_path: str = ""
    sender_domain: str = ""
    size: int = 0
    smtputf8: bool = False
    recipient: Recipient | None = None
    recipients: Sequence[Recipient] = ()
    content: Content | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    client_notes: dict[str, Any] = field(default_factory=dict)
    rehearsal: bool = False
