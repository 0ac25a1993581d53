"""What the spool promises: the values and the contract, without the storage.

The **contract** (design section 5): when the Deferred of :meth:`Spool.accept` fires,
message and envelope are on disk (fdatasync returned), and the message will be given
out by :meth:`Spool.due` again and again, through any number of crashes, until
:meth:`Spool.settle` or a postmaster has ended the last of its recipients.

Who calls it: ``gateway`` accepts, ``delivery`` asks for what is due and settles,
``control`` lists and commands.  All times here are Unix seconds (``World.wall``),
because they must mean the same after a reboot.  All methods are called in the
reactor's thread and return Deferreds fired there; the work is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred

from ..errors import LocalFault
from ..smtp.envelope import Arrival, Envelope, Recipient
from .ids import MessageId

__all__ = [
    "Backlog",
    "Body",
    "Filter",
    "Health",
    "Listing",
    "NewMessage",
    "QueuedMessage",
    "QueuedRecipient",
    "RecipientState",
    "Settlement",
    "Spool",
    "SpoolBroken",
    "SpoolFull",
]


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


class RecipientState(Enum):
    """Where a recipient of a queued message stands."""

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
class Health:
    """Whether the spool takes mail; ``why`` is for people, "" when ``well``."""

    well: bool
    full: bool
    why: str


class Spool(Protocol):
    """The durable queue.  See the module's text for the contract."""

    def open(self) -> Deferred[None]:
        """Create or recover the storage; :class:`SpoolBroken` says why it cannot."""

    def close(self) -> Deferred[None]:
        """Commit what waits, close the files; later calls raise SpoolBroken."""

    def health(self) -> Health:
        """Say whether :meth:`accept` can work now.  Cheap: asked once a MAIL."""

    def accept(self, message: NewMessage) -> Deferred[None]:
        """Make ``message`` durable.  Fails with SpoolFull or SpoolBroken."""

    def due(
        self, domain: str, now: float, limit: int, skip: frozenset[MessageId]
    ) -> Deferred[list[QueuedMessage]]:
        """Give up to ``limit`` messages with recipients of ``domain`` due by ``now``.

        Oldest due first; those in ``skip`` (already in delivery's hands) are left
        out.  Nothing is marked: after a crash they are due again.
        """

    def backlog(self) -> Deferred[list[Backlog]]:
        """Count the queued (not held) recipients of every domain that has any."""

    def settle(self, settlement: Settlement) -> Deferred[None]:
        """Record what became of recipients; the message ends with its last one."""

    def postpone(self, domain: str, until: float, reply: str) -> Deferred[int]:
        """Make every queued recipient of ``domain`` that is due earlier due ``until``."""

    def find(
        self, filter: Filter, limit: int, after: MessageId | None = None
    ) -> Deferred[list[Listing]]:
        """List matching messages in order of arrival, at most ``limit`` after an id."""

    def content(self, id: MessageId) -> Deferred[QueuedMessage | None]:
        """Return a message with all its unsettled recipients, or None."""

    def hold(self, filter: Filter) -> Deferred[int]:
        """Hold matching recipients: not given out until released.  Returns how many."""

    def release(self, filter: Filter, now: float) -> Deferred[int]:
        """Release held recipients, due ``now``."""

    def hasten(self, filter: Filter, now: float) -> Deferred[int]:
        """Make matching queued recipients due ``now`` (``queue flush``)."""

    def delete(self, filter: Filter) -> Deferred[int]:
        """Remove matching recipients for good, without a bounce."""

    def totals(self) -> Deferred[tuple[int, int, int]]:
        """Return (messages, recipients, octets) in the spool."""
