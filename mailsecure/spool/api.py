"""What the spool promises: the values and the contract, without the storage.

The **contract** (design section 5): when the Deferred of :meth:`Spool.accept` fires,
message and envelope are on disk (fdatasync returned), and the message will be given
out by :meth:`Spool.due` again and again, through any number of crashes, until
:meth:`Spool.settle` or a postmaster has ended the last of its recipients.

Recipients named by :attr:`~.values.NewMessage.quarantine` are in the **quarantine**
instead, under the same promise, until they are released or deleted there.  It is part of
the spool, so that a message may be held for some and queued for others in one
transaction, and no crash loses or doubles any of them.  Nothing that is said of the queue
below sees them; a message is in the queue while anybody else waits for it.

Who calls it: ``gateway`` accepts, ``delivery`` asks for what is due and settles,
``control`` lists and commands.  All times here are Unix seconds (``World.wall``),
because they must mean the same after a reboot.  All methods are called in the
reactor's thread and return Deferreds fired there; the work is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from .ids import MessageId
from .values import (
    Backlog,
    Body,
    Filter,
    Freed,
    Health,
    Listing,
    NewMessage,
    Quarantine,
    QuarantinedMessage,
    QuarantineFilter,
    QuarantineListing,
    QueuedMessage,
    QueuedRecipient,
    RecipientState,
    Settlement,
    SpoolBroken,
    SpoolFull,
)

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
    "Spool",
    "SpoolBroken",
    "SpoolFull",
]


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
        """Return (messages, recipients, octets) in the queue."""

    def quarantined(
        self,
        filter: QuarantineFilter,
        limit: int,
        after: QuarantineListing | None = None,
        newest_first: bool = False,
    ) -> Deferred[list[QuarantineListing]]:
        """List what is in the quarantine in order of arrival, at most ``limit``.

        ``after`` is the last listing of the page before; it may be gone meanwhile.
        """

    def quarantine_content(self, id: MessageId) -> Deferred[QuarantinedMessage | None]:
        """Return a message with its recipients that are in the quarantine, or None."""

    def release_quarantined(
        self, ids: Sequence[MessageId], now: float, recipients: tuple[str, ...] = ()
    ) -> Deferred[list[Freed]]:
        """Queue the held recipients of some messages, due ``now``; return which.

        In one transaction, so a second call finds nobody.  ``recipients`` chooses among
        them as in :class:`QuarantineFilter`.  The envelope stays what it was; the time in
        the queue, which retries and expiry count, begins ``now``.
        """

    def delete_quarantined(
        self, ids: Sequence[MessageId], recipients: tuple[str, ...] = ()
    ) -> Deferred[list[Freed]]:
        """Remove held recipients for good, likewise."""

    def quarantine_totals(self) -> Deferred[tuple[int, int, int]]:
        """Return (messages, recipients, octets on disk) in the quarantine."""
