"""A spool in dictionaries.

:class:`MemorySpool` keeps the contract of :class:`mailsecure.spool.api.Spool` (one suite
of tests runs against both), except that nothing survives the object.  Its Deferreds have
fired when they are returned::

    spool = MemorySpool()
    spool.open()
    spool.accept(message)
    (queued,) = self.successResultOf(spool.due("example.com", 100.0, 10, frozenset()))

``hold_commits`` lets changes wait, as on a slow disk, until :meth:`MemorySpool.commit`;
``fail_with`` has every change fail, and says so in :meth:`MemorySpool.health`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from ..errors import LocalFault
from ..spool.api import (
    Backlog,
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
from ..spool.body import MemoryBody
from ..spool.ids import MessageId
from ..spool.values import folded

__all__ = ["MemorySpool"]

_T = TypeVar("_T")


@dataclass(slots=True)
class _Waiting:
    """A recipient and what the queue knows about it."""

    recipient: QueuedRecipient
    due: float
    held: bool = False


@dataclass(slots=True)
class _Held:
    """A message in the quarantine, and who of it is held."""

    new: NewMessage
    quarantine: Quarantine
    recipients: dict[int, QueuedRecipient] = field(default_factory=dict)


class MemorySpool:
    """A :class:`mailsecure.spool.api.Spool` without a disk.  See the module's text."""

    def __init__(self) -> None:
        #: What is queued: messages by id, and their unsettled recipients by index.
        self.messages: dict[MessageId, NewMessage] = {}
        self._recipients: dict[MessageId, dict[int, _Waiting]] = {}
        self._quarantine: dict[MessageId, _Held] = {}
        #: While true, changes wait for :meth:`commit`.
        self.hold_commits = False
        #: What every change fails with; None for nothing.
        self.fail_with: LocalFault | None = None
        #: Every settlement that was applied, in order.
        self.settled: list[Settlement] = []
        self._held: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self._closed = "the spool is not open yet"

    # -- for tests

    @property
    def waiting(self) -> int:
        """How many changes wait for :meth:`commit`."""
        return len(self._held)

    def commit(self, fault: LocalFault | None = None) -> None:
        """Carry out what waits, in order, as one group; or fail all of it with ``fault``."""
        held, self._held = self._held, []
        fault = fault or self.fail_with
        if fault is None:
            answers = [(waiting, _outcome(change)) for waiting, change in held]
            for waiting, answer in answers:
                answer.chainDeferred(waiting)
        else:
            for waiting, _ in held:
                waiting.errback(fault)

    # -- life

    def open(self) -> Deferred[None]:
        """Open; opened again, it has what it had."""
        self._closed = ""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Commit what waits, and close."""
        self.commit()
        self._closed = "the spool is closed"
        return succeed(None)

    def health(self) -> Health:
        """Say whether it takes mail: not when closed, nor with ``fail_with``."""
        if self._closed:
            return Health(False, False, self._closed)
        if self.fail_with is not None:
            return Health(False, isinstance(self.fail_with, SpoolFull), str(self.fail_with))
        return Health(True, False, "")

    def _change(self, change: Callable[[], _T]) -> Deferred[_T]:
        if self._closed:
            return fail(SpoolBroken(self._closed))
        if self.hold_commits:
            waiting: Deferred[_T] = Deferred()
            self._held.append((waiting, change))
            return waiting
        return fail(self.fail_with) if self.fail_with is not None else _outcome(change)

    def _answer(self, question: Callable[[], _T]) -> Deferred[_T]:
        return fail(SpoolBroken(self._closed)) if self._closed else succeed(question())

    # -- messages

    def accept(self, message: NewMessage) -> Deferred[None]:
        """Keep ``message``."""
        return self._change(lambda: self._accept(message))

    def _accept(self, new: NewMessage) -> None:
        if new.id in self.messages or new.id in self._quarantine:
            raise SpoolBroken("the id of this message is taken")
        new = replace(new, body=MemoryBody([b"".join(new.body.pieces())]))
        held: dict[int, QueuedRecipient] = {}
        for index, recipient in enumerate(new.envelope.recipients):
            queued = QueuedRecipient(index, recipient)
            if new.quarantine is not None and index in new.quarantine.recipients:
                held[index] = queued
            else:
                self._enqueue(new, _Waiting(queued, new.due))
        if held and new.quarantine is not None:
            self._quarantine[new.id] = _Held(new, new.quarantine.kept(), held)

    def _enqueue(self, new: NewMessage, waiting: _Waiting) -> None:
        self.messages.setdefault(new.id, new)
        self._recipients.setdefault(new.id, {})[waiting.recipient.index] = waiting

    def settle(self, settlement: Settlement) -> Deferred[None]:
        """Record what became of recipients."""
        return self._change(lambda: self._settle(settlement))

    def _settle(self, settlement: Settlement) -> None:
        recipients = self._recipients.get(settlement.id, {})
        news = any(index in recipients for index in settlement.done) or any(
            index in recipients and not recipients[index].recipient.warned
            for index in settlement.warned
        )
        if settlement.notice is not None and news:
            self._accept(settlement.notice)
        for index, (due, reply, counts) in settlement.retry.items():
            if index in recipients and index not in settlement.done:
                waiting = recipients[index]
                waiting.due = due
                waiting.recipient.last_reply = reply
                waiting.recipient.attempts += counts
        for index in settlement.warned:
            if index in recipients:
                recipients[index].recipient.warned = True
        for index in settlement.done:
            self._remove(settlement.id, index)
        self.settled.append(settlement)

    def _remove(self, id: MessageId, index: int) -> None:
        recipients = self._recipients.get(id, {})
        recipients.pop(index, None)
        if not recipients:
            self._recipients.pop(id, None)
            self.messages.pop(id, None)

    # -- questions

    def due(
        self, domain: str, now: float, limit: int, skip: frozenset[MessageId]
    ) -> Deferred[list[QueuedMessage]]:
        """Give what is due, the oldest due first."""
        return self._answer(lambda: self._due(domain, now, limit, skip))

    def _due(
        self, domain: str, now: float, limit: int, skip: frozenset[MessageId]
    ) -> list[QueuedMessage]:
        ready: dict[MessageId, list[_Waiting]] = {}
        for id, each in self._matching(Filter(state=RecipientState.QUEUED)):
            if each.recipient.recipient.domain == domain and each.due <= now and id not in skip:
                ready.setdefault(id, []).append(each)
        order = sorted(ready, key=lambda key: (min(each.due for each in ready[key]), key))
        return [self._queued(id, domain, ready[id]) for id in order[:limit]]

    def _queued(self, id: MessageId, domain: str, waiting: list[_Waiting]) -> QueuedMessage:
        new = self.messages[id]
        recipients = [replace(each.recipient) for each in waiting]
        envelope = replace(new.envelope, recipients=tuple(each.recipient for each in recipients))
        return QueuedMessage(id, envelope, new.arrival, new.arrived, new.body, domain, recipients)

    def content(self, id: MessageId) -> Deferred[QueuedMessage | None]:
        """Return one message with all its recipients."""
        return self._answer(
            lambda: (
                self._queued(id, "", list(self._recipients[id].values()))
                if id in self.messages
                else None
            )
        )

    def backlog(self) -> Deferred[list[Backlog]]:
        """Count by domain."""
        return self._answer(self._backlog)

    def _backlog(self) -> list[Backlog]:
        dues: dict[str, list[float]] = {}
        for _, each in self._matching(Filter(state=RecipientState.QUEUED)):
            dues.setdefault(each.recipient.recipient.domain, []).append(each.due)
        return [Backlog(domain, len(dues[domain]), min(dues[domain])) for domain in sorted(dues)]

    def find(
        self, filter: Filter, limit: int, after: MessageId | None = None
    ) -> Deferred[list[Listing]]:
        """List messages by id."""
        return self._answer(lambda: self._find(filter, limit, after))

    def _find(self, filter: Filter, limit: int, after: MessageId | None) -> list[Listing]:
        rows: dict[MessageId, list[_Waiting]] = {}
        for id, each in self._matching(filter):
            if after is None or id > after:
                rows.setdefault(id, []).append(each)
        return [self._listing(id, rows[id]) for id in list(rows)[:limit]]

    def _listing(self, id: MessageId, rows: list[_Waiting]) -> Listing:
        new = self.messages[id]
        states = (RecipientState.QUEUED, RecipientState.HELD)
        return Listing(
            id,
            new.envelope.reverse_path,
            new.arrived,
            new.body.octets,
            new.arrival.client,
            tuple(
                (
                    row.recipient.recipient.mailbox,
                    states[row.held],
                    row.recipient.attempts,
                    row.due,
                    row.recipient.last_reply,
                )
                for row in rows
            ),
        )

    def totals(self) -> Deferred[tuple[int, int, int]]:
        """Count all."""
        return self._answer(
            lambda: (
                len(self.messages),
                sum(map(len, self._recipients.values())),
                sum(new.body.octets for new in self.messages.values()),
            )
        )

    # -- commands

    def _matching(self, filter: Filter) -> Iterator[tuple[MessageId, _Waiting]]:
        """Yield matching recipients in order of id and index."""
        for id in sorted(self._recipients):
            new = self.messages[id]
            if filter.id not in (None, id):
                continue
            if not _is_like(new.envelope.reverse_path, filter.sender):
                continue
            for index in sorted(self._recipients[id]):
                each = self._recipients[id][index]
                recipient = each.recipient.recipient
                if (
                    _is_like(recipient.mailbox, filter.recipient)
                    and filter.destination.lower() in ("", recipient.domain)
                    and (filter.state is None or each.held is (filter.state is RecipientState.HELD))
                ):
                    yield id, each

    def _each(
        self, filter: Filter, which: Callable[[_Waiting], bool], change: Callable[[_Waiting], None]
    ) -> Deferred[int]:
        def run() -> int:
            chosen = [each for _, each in self._matching(filter) if which(each)]
            for each in chosen:
                change(each)
            return len(chosen)

        return self._change(run)

    def postpone(self, domain: str, until: float, reply: str) -> Deferred[int]:
        """Put off a whole domain."""

        def put_off(each: _Waiting) -> None:
            each.due, each.recipient.last_reply = until, reply

        return self._each(
            Filter(destination=domain), lambda each: not each.held and each.due < until, put_off
        )

    def hold(self, filter: Filter) -> Deferred[int]:
        """Hold recipients."""

        def hold(each: _Waiting) -> None:
            each.held = True

        return self._each(filter, lambda each: not each.held, hold)

    def release(self, filter: Filter, now: float) -> Deferred[int]:
        """Release recipients."""

        def release(each: _Waiting) -> None:
            each.held, each.due = False, now

        return self._each(filter, lambda each: each.held, release)

    def hasten(self, filter: Filter, now: float) -> Deferred[int]:
        """Make recipients due."""

        def hasten(each: _Waiting) -> None:
            each.due = now

        return self._each(filter, lambda each: not each.held and each.due > now, hasten)

    def delete(self, filter: Filter) -> Deferred[int]:
        """Remove recipients."""

        def run() -> int:
            chosen = [(id, each.recipient.index) for id, each in self._matching(filter)]
            for id, index in chosen:
                self._remove(id, index)
            return len(chosen)

        return self._change(run)

    # -- the quarantine

    def quarantined(
        self,
        filter: QuarantineFilter,
        limit: int,
        after: QuarantineListing | None = None,
        newest_first: bool = False,
    ) -> Deferred[list[QuarantineListing]]:
        """List what is held in order of arrival."""
        return self._answer(lambda: self._quarantined(filter, limit, after, newest_first))

    def _quarantined(
        self,
        filter: QuarantineFilter,
        limit: int,
        after: QuarantineListing | None,
        newest_first: bool,
    ) -> list[QuarantineListing]:
        found = [
            _held_listing(held, filter.recipients)
            for held in self._quarantine.values()
            if _is_wanted(held, filter)
        ]
        found.sort(key=_place, reverse=newest_first)
        if after is not None:
            last = _place(after)
            found = [
                each
                for each in found
                if (_place(each) < last if newest_first else _place(each) > last)
            ]
        return found[:limit]

    def quarantine_content(self, id: MessageId) -> Deferred[QuarantinedMessage | None]:
        """Return one message with those that are held."""
        return self._answer(lambda: self._quarantine_content(id))

    def _quarantine_content(self, id: MessageId) -> QuarantinedMessage | None:
        held = self._quarantine.get(id)
        if held is None:
            return None
        new, recipients = held.new, list(held.recipients.values())
        envelope = replace(new.envelope, recipients=tuple(each.recipient for each in recipients))
        message = QueuedMessage(id, envelope, new.arrival, new.arrived, new.body, "", recipients)
        listing = _held_listing(held, ())
        return QuarantinedMessage(message, listing.stored, listing.quarantine)

    def release_quarantined(
        self, ids: Sequence[MessageId], now: float, recipients: tuple[str, ...] = ()
    ) -> Deferred[list[Freed]]:
        """Queue what was held."""

        def queue(held: _Held, recipient: QueuedRecipient) -> None:
            self._enqueue(replace(held.new, arrived=now), _Waiting(recipient, now))
            message = self.messages[held.new.id]
            self.messages[held.new.id] = replace(message, arrived=now)

        return self._change(lambda: self._free(ids, recipients, queue))

    def delete_quarantined(
        self, ids: Sequence[MessageId], recipients: tuple[str, ...] = ()
    ) -> Deferred[list[Freed]]:
        """Remove what was held."""
        return self._change(lambda: self._free(ids, recipients, lambda held, recipient: None))

    def _free(
        self,
        ids: Sequence[MessageId],
        recipients: tuple[str, ...],
        then: Callable[[_Held, QueuedRecipient], None],
    ) -> list[Freed]:
        freed = []
        for id in sorted(set(ids) & set(self._quarantine)):
            held = self._quarantine[id]
            chosen = [
                each
                for each in held.recipients.values()
                if _is_chosen(each.recipient.mailbox, recipients)
            ]
            for each in chosen:
                del held.recipients[each.index]
                then(held, each)
            if chosen:
                freed.append(Freed(id, tuple(each.recipient.mailbox for each in chosen)))
            if not held.recipients:
                del self._quarantine[id]
        return freed

    def quarantine_totals(self) -> Deferred[tuple[int, int, int]]:
        """Count what is held; nothing is compressed here."""
        return self._answer(
            lambda: (
                len(self._quarantine),
                sum(len(each.recipients) for each in self._quarantine.values()),
                sum(each.new.body.octets for each in self._quarantine.values()),
            )
        )


def _place(listing: QuarantineListing) -> tuple[float, MessageId]:
    return listing.arrived, listing.id


def _held_listing(held: _Held, wanted: tuple[str, ...]) -> QuarantineListing:
    new, octets = held.new, held.new.body.octets
    mailboxes = [each.recipient.mailbox for each in held.recipients.values()]
    return QuarantineListing(
        new.id,
        new.envelope.reverse_path,
        new.arrived,
        octets,
        octets,
        new.arrival.client,
        tuple(each for each in mailboxes if _is_chosen(each, wanted)),
        replace(held.quarantine, recipients=frozenset(held.recipients)),
    )


def _is_wanted(held: _Held, filter: QuarantineFilter) -> bool:
    """Say whether a message matches (see :class:`QuarantineFilter`)."""
    new, why = held.new, held.quarantine
    reasons = [why.reason, *(part for name, _, reason in why.symbols for part in (name, reason))]
    return (
        filter.id in (None, new.id)
        and any(
            _is_chosen(each.recipient.mailbox, filter.recipients)
            for each in held.recipients.values()
        )
        and _is_sent_by(new.envelope.reverse_path, why.header_from, filter.sender)
        and any(_contains(each, filter.reason) for each in reasons)
        and _contains(why.subject, filter.subject)
        and filter.since <= new.arrived
        and (not filter.until or new.arrived < filter.until)
    )


def _is_sent_by(reverse_path: str, header_from: str, wanted: str) -> bool:
    if wanted == "<>" or _is_whole(wanted):
        return _is_like(reverse_path, wanted)
    return _contains(reverse_path, wanted) or _contains(header_from, wanted)


def _is_chosen(mailbox: str, wanted: tuple[str, ...]) -> bool:
    return not wanted or any(_has(mailbox, each) for each in wanted)


def _has(mailbox: str, wanted: str) -> bool:
    """Say whether an address is ``wanted``, or, where that is a part, has it in it."""
    return _is_like(mailbox, wanted) if _is_whole(wanted) else _contains(mailbox, wanted)


def _is_whole(address: str) -> bool:
    return "@" in address and not address.endswith("@")


def _contains(text: str, part: str) -> bool:
    if not part.isascii():
        return part.casefold() in text.casefold()
    return folded(part) in folded(text)


def _outcome(change: Callable[[], _T]) -> Deferred[_T]:
    """Return what ``change`` returns, or its fault."""
    try:
        return succeed(change())
    except LocalFault as fault:
        return fail(fault)


def _is_like(mailbox: str, wanted: str) -> bool:
    """Say whether a mailbox matches a field of a filter (see :class:`Filter`)."""
    mailbox, wanted = folded(mailbox), folded(wanted)
    if wanted.startswith("@"):
        return mailbox.endswith(wanted)
    return not wanted or mailbox == ("" if wanted == "<>" else wanted)
