"""The values that go into the spool and come out of it (pure).

:mod:`.api` says what the spool does with them, and holds their names for everybody who
is not pure himself.  All times are Unix seconds (``World.wall``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from ..errors import LocalFault
from ..smtp.envelope import Arrival, Envelope, Recipient
from .ids import MessageId

__all__ = [
    "Backlog",
    "Body",
    "Filter",
    "Freed",
    "Health",
    "Listing",
    "NewMessage",
    "Quarantine",
    "QuarantineFilter",
    "QuarantineListing",
    "QuarantinedMessage",
    "QueuedMessage",
    "QueuedRecipient",
    "RecipientState",
    "Settlement",
    "SpoolBroken",
    "SpoolFull",
    "folded",
]


#: What a spool keeps of each text of a :class:`Quarantine`, in characters.
MAX_TEXT = 1000
MAX_SYMBOLS = 200
_MOST = 1e9


class SpoolFull(LocalFault):
    """No room (ENOSPC, EDQUOT, inodes, ``min_free``): answer 452 4.3.1."""


class SpoolBroken(LocalFault):
    """The disk failed or the spool is closed: answer 451 4.3.0 and take no more."""


class Body(Protocol):
    """The octets of a message: header section and body, CRLF lines, not dot-stuffed."""

    @property
    def octets(self) -> int:
        """How long the body is."""

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield the octets from the start, in order, in pieces of about ``size``.

        May read a file: call it in a thread where ``in_memory`` is false.  Raises
        :class:`SpoolBroken` where the file cannot be read.
        """

    @property
    def in_memory(self) -> bool:
        """True where :meth:`pieces` touches no file."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why some recipients of a message are held in the quarantine, for who looks at it.

    ``recipients`` are their indexes in the envelope; none: nobody is held.  ``symbols`` are
    (name, score, reason).  ``subject`` and ``header_from`` are as the header section has
    them, decoded; any text will do, see :meth:`kept`.
    """

    recipients: frozenset[int]
    reason: str
    score: float = 0.0
    symbols: tuple[tuple[str, float, str], ...] = ()
    subject: str = ""
    header_from: str = ""

    def kept(self) -> Quarantine:
        """Return this as a spool keeps it: a peer's text must never be what breaks it.

        Texts are cut to :data:`MAX_TEXT` characters, symbols to :data:`MAX_SYMBOLS`; what
        UTF-8 cannot say (halves of surrogate pairs) and NUL become ``?``; scores are finite.
        """
        symbols = tuple(
            (_text(name), _finite(score), _text(reason))
            for name, score, reason in self.symbols[:MAX_SYMBOLS]
        )
        return replace(
            self,
            reason=_text(self.reason),
            score=_finite(self.score),
            symbols=symbols,
            subject=_text(self.subject),
            header_from=_text(self.header_from),
        )


@dataclass(slots=True)
class NewMessage:
    """A message that is about to be answered with 250."""

    id: MessageId
    envelope: Envelope
    arrival: Arrival
    #: Unix seconds.
    arrived: float
    body: Body
    #: When the first attempt is due; ``arrived`` if the gateway sets nothing else.
    due: float
    #: Whom it does not go to, until somebody releases it.
    quarantine: Quarantine | None = None


class RecipientState(Enum):
    """Where a recipient of a queued message stands.

    Who is in the quarantine is not in the queue: neither its commands nor delivery see him.
    """

    QUEUED = "queued"
    HELD = "held"


@dataclass(slots=True)
class QueuedRecipient:
    """One recipient that is not yet settled.

    ``index`` is its place in the envelope as accepted and never changes.
    ``last_reply`` is the text of the last attempt's answer, ``warned`` whether a
    delay warning was sent (RFC 3461 §6.3).
    """

    index: int
    recipient: Recipient
    attempts: int = 0
    last_reply: str = ""
    warned: bool = False


@dataclass(slots=True)
class QueuedMessage:
    """A message as delivery gets it: only the recipients of one domain that are due."""

    id: MessageId
    envelope: Envelope
    arrival: Arrival
    arrived: float
    body: Body
    domain: str
    recipients: list[QueuedRecipient]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of some recipients of one message; applied as a whole or not at all.

    ``done`` recipients leave the queue, for whatever reason; ``retry`` maps an index
    to (due, reply, count this as an attempt); ``warned`` marks those for which a delay
    warning went out.  ``notice`` is a bounce or other DSN that enters the queue in the
    same transaction, so that a crash neither loses nor repeats it.
    """

    id: MessageId
    done: tuple[int, ...] = ()
    retry: dict[int, tuple[float, str, bool]] = field(default_factory=dict)
    warned: tuple[int, ...] = ()
    notice: NewMessage | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """One domain's share of the queue: recipients that wait, and the earliest due."""

    domain: str
    recipients: int
    due: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients of which messages; an empty field matches all.

    ``id`` is an id's number; ``sender`` and ``recipient`` are a mailbox or, starting
    with ``@``, a domain; ``destination`` is a domain.  Matching is case-insensitive.
    """

    id: MessageId | None = None
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    state: RecipientState | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One message as ``mailsecure queue`` shows it (matching recipients only)."""

    id: MessageId
    reverse_path: str
    arrived: float
    octets: int
    client: str
    #: (mailbox, state, attempts, due, last reply)
    recipients: tuple[tuple[str, RecipientState, int, float, str], ...]


@dataclass(frozen=True, slots=True)
class QuarantineFilter:
    """Which recipients of which messages in the quarantine; an empty field matches all.

    ``recipients`` and ``sender`` (the reverse-path) are a mailbox, ``@`` and a domain, or
    any part without an ``@`` but at its end that an address has; any one of ``recipients``
    will do.  ``sender`` as a part may stand in the From field too, and ``<>`` is the null
    reverse-path.  ``reason`` is any part of the reason, or of a symbol's name or reason;
    ``subject`` any part of the subject.  The case of ASCII letters does not count, in
    ``subject`` and ``sender`` that of no letter.
    Messages arrived from ``since`` on and before ``until``; 0: whenever.
    """

    id: MessageId | None = None
    recipients: tuple[str, ...] = ()
    sender: str = ""
    reason: str = ""
    subject: str = ""
    since: float = 0.0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class QuarantineListing:
    """One message as ``mailsecure quarantine list`` shows it.

    ``recipients`` are the mailboxes that are held and match.  ``octets`` is how long the
    message is, ``stored`` how much of the disk it takes.  ``quarantine.recipients`` are the
    indexes of all that are held.
    """

    id: MessageId
    reverse_path: str
    arrived: float
    octets: int
    stored: int
    client: str
    recipients: tuple[str, ...]
    quarantine: Quarantine


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """A message in the quarantine, whole: ``message`` has the recipients that are held."""

    message: QueuedMessage
    stored: int
    quarantine: Quarantine


@dataclass(frozen=True, slots=True)
class Freed:
    """The recipients of a message that have left the quarantine."""

    id: MessageId
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the spool takes mail; ``why`` is for people, "" when ``well``."""

    well: bool
    full: bool
    why: str


#: SQLite's lower() and NOCASE know ASCII only.
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def folded(text: str) -> str:
    """Return ``text`` with ASCII letters in lower case, as filters compare it."""
    return text.translate(_LOWER)


def _text(text: str) -> str:
    return text[:MAX_TEXT].encode("utf-8", "replace").decode().replace("\0", "?")


def _finite(score: float) -> float:
    return 0.0 if math.isnan(score) else min(max(float(score), -_MOST), _MOST)
