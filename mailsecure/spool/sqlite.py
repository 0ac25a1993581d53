"""The spool of the daemon: :class:`.api.Spool` on SQLite and segment files.

Four threads.  The reactor's only puts work into queues and gets answers, a whole group
of them at once.  The *writer* takes whatever has gathered while it was busy with the last
group and commits it together (:data:`MAX_GROUP` at most): under load one fsync serves
dozens of messages, alone a message waits for nobody.  The *reader* answers questions about
the queue, and the *searcher* those about the quarantine, where a part of a subject may be
looked for in a million rows and delivery must not wait.

A body that only the quarantine holds is compressed in the reactor's pool before it gets
to the writer (:mod:`.packing`).

**When the disk fails**, all that was in the group and all that waits fails with
SpoolBroken, the files are closed, and after a growing pause all is opened anew, as after
a crash.  Until then :meth:`SqliteSpool.health` says so and the gateway takes no mail.
**When the disk is full**, only the group fails; free space is measured every second
against ``min_free``, and mail is refused early, while there is still room to deliver
what is queued.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..background import Periodic
from ..config.model import SpoolSettings
from ..errors import LocalFault
from ..world import World
from .api import (
    Backlog,
    Filter,
    Freed,
    Health,
    Listing,
    NewMessage,
    QuarantinedMessage,
    QuarantineFilter,
    QuarantineListing,
    QueuedMessage,
    Settlement,
    SpoolBroken,
    SpoolFull,
)
from .database import SLICE, chosen
from .ids import MessageId
from .packing import packed
from .reading import Reader
from .storage import Storage
from .threads import Questions, Worker, outcome_of

__all__ = ["SqliteSpool"]

_log = Logger(namespace="queue")
_T = TypeVar("_T")

#: Operations in one transaction at most.
MAX_GROUP = 512
#: Octets of bodies in one transaction at most (one message may exceed it).
MAX_GROUP_OCTETS = 32 << 20
MIN_FREE_INODES = 100
#: How much more than ``min_free`` must be free before mail is taken again.
ROOM_AGAIN = 1.1
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

_Done = list[tuple[Deferred[Any], Any]]


class SqliteSpool:
    """The durable queue of this node.  See :class:`.api.Spool` for each method."""

    def __init__(self, directory: Path, settings: SpoolSettings, world: World) -> None:
        self._directory = directory
        self._settings = settings
        self._clock = world.clock
        self._world = world
        self._from_thread: Callable[..., None] = world.reactor.callFromThread
        self._storage: Storage | None = None
        self._writer_thread: Worker | None = None
        self._reader = Questions("spool-reader", self._answer_from_thread)
        self._searcher = Questions("spool-searcher", self._answer_from_thread)
        self._broken = "the spool is not open yet"
        self._full = ""
        self._reserved = True
        self._closing = False
        #: What waits to be handed to the writer, and whether it is at work.
        self._gathered: list[tuple[Any, Deferred[Any]]] = []
        self._writing = False
        #: What is being compressed; it is committed before the spool is closed.
        self._packing: set[Deferred[None]] = set()
        self._soon: IDelayedCall | None = None
        self._pause = _FIRST_PAUSE
        self._again: IDelayedCall | None = None
        self._watch = Periodic(self._clock, 1.0, "the measuring of free space", self._measure)

    # -- life

    def open(self) -> Deferred[None]:
        """Create or recover the storage."""
        self._writer_thread = Worker("spool-writer", self._write_turn)
        for thread in (self._writer_thread, self._reader, self._searcher):
            thread.start()
        opened: Deferred[None] = self._submit(self._open_files)
        return opened.addCallback(self._opened)

    def _open_files(self) -> None:
        """In the writer's thread: lock, database, segments, the readers' connections."""
        storage = Storage(self._directory, self._settings)
        readers: list[Reader] = []
        try:
            storage.open()
            for _ in range(2):
                reader = Reader(storage.database_path, self._directory / "segments", self._settings)
                reader.open()
                readers.append(reader)
        except BaseException:
            for reader in readers:
                reader.close()
            storage.close()
            raise
        self._storage = storage
        self._reader.use(readers[0])
        self._searcher.use(readers[1])

    def _opened(self, _: None) -> None:
        self._broken = ""
        self._pause = _FIRST_PAUSE
        self._measure()
        self._watch.start()

    def close(self) -> Deferred[None]:
        """Commit what waits, close the files, end the threads; once is enough."""
        if self._closing:
            return succeed(None)
        self._closing = True
        self._broken = "the spool is closed"
        self._watch.stop()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._writer_thread is None:
            raise AssertionError("closed before it was opened")
        compressed = DeferredList(list(self._packing))
        return compressed.addCallback(lambda _, thread: self._close(thread), self._writer_thread)

    def _close(self, writer: Worker) -> Deferred[None]:
        closed: Deferred[None] = self._submit(self._close_all)
        self._hand_over()
        writer.end()
        return closed

    def _close_all(self) -> None:
        """In the writer's thread, as its last work."""
        self._close_files()
        self._reader.end()
        self._searcher.end()

    def _close_files(self) -> None:
        """In the writer's thread."""
        storage, self._storage = self._storage, None
        self._reader.shut()
        self._searcher.shut()
        if storage is not None:
            storage.close()

    # -- health

    def health(self) -> Health:
        """Say whether mail can be taken."""
        if self._broken:
            return Health(False, False, self._broken)
        if self._full:
            return Health(False, True, self._full)
        return _WELL

    def _measure(self) -> None:
        try:
            disk = os.statvfs(self._directory)
        except OSError as error:
            _log.warn("cannot measure free space: {reason}", reason=error.strerror)
            return
        wanted = float(self._settings.min_free) * (ROOM_AGAIN if self._full else 1.0)
        free = disk.f_bavail * disk.f_frsize
        why = ""
        if free < wanted:
            why = f"only {free >> 20} MB of disk are free"
        elif disk.f_files and disk.f_favail < MIN_FREE_INODES:
            why = f"only {disk.f_favail} inodes are free"
        if not why and self._writer_thread is not None:
            self._submit(self._keep_reserve).addErrback(self._no_reserve)
        if bool(why) != bool(self._full):
            _log.warn(
                "{state}: {reason}",
                state="disk full, no mail is taken" if why else "room again",
                reason=why or "mail is taken",
            )
        self._full = why

    def _keep_reserve(self) -> None:
        """In the writer's thread."""
        if self._storage is not None:
            self._storage.keep_reserve()

    def _no_reserve(self, failure: Failure) -> None:
        failure.trap(OSError)
        if self._reserved:
            self._reserved = False
            _log.warn("cannot hold room back: {reason}", reason=failure.getErrorMessage())

    def _disk_is_full(self, fault: LocalFault) -> None:
        if not self._full:
            _log.warn("disk full, no mail is taken for now: {reason}", reason=str(fault))
            self._full = str(fault)

    def _disk_is_broken(self, fault: LocalFault) -> None:
        """Close all and open it anew after a pause: never a second try at one fsync."""
        if self._broken or self._closing:
            return
        self._broken = str(fault)
        self._watch.stop()
        _log.error(
            "the spool takes no mail: {reason}; it is opened again in {seconds} s",
            reason=str(fault),
            seconds=self._pause,
        )
        self._reopen_later()

    def _reopen_later(self) -> None:
        self._again = self._clock.callLater(self._pause, self._reopen)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _reopen(self) -> None:
        self._again = None
        reopened: Deferred[None] = self._submit(self._open_files, even_broken=True)
        reopened.addCallbacks(self._reopened, self._not_reopened)

    def _reopened(self, _: None) -> None:
        if self._closing:
            # It is closed behind us, in the writer's thread.
            return
        _log.warn("the spool is open again")
        self._opened(None)

    def _not_reopened(self, failure: Failure) -> None:
        _log.error("the spool cannot be opened: {reason}", reason=failure.getErrorMessage())
        if not self._closing:
            self._reopen_later()

    # -- the writer

    def accept(self, message: NewMessage) -> Deferred[None]:
        """Make ``message`` durable."""
        quarantine = message.quarantine
        if quarantine is None or len(quarantine.recipients) < len(message.envelope.recipients):
            return self._enqueue(message)
        return self._pack(message)

    def _pack(self, message: NewMessage) -> Deferred[None]:
        """Make a message durable that goes to nobody now: its body is compressed first."""
        if self._broken or self._writer_thread is None:
            return fail(SpoolBroken(self._broken))
        compressed = self._world.in_thread(packed, message.body, self._directory)
        committed: Deferred[None] = compressed.addCallback(
            lambda body: self._put(replace(message, body=body))
        )
        self._packing.add(committed)

        def done(result: Any) -> Any:
            self._packing.discard(committed)
            return result

        return committed.addBoth(done)

    def settle(self, settlement: Settlement) -> Deferred[None]:
        """Record what became of recipients."""
        return self._enqueue(settlement)

    def _enqueue(self, work: Any) -> Deferred[Any]:
        if self._broken or self._writer_thread is None:
            return fail(SpoolBroken(self._broken))
        return self._put(work)

    def _submit(self, call: Callable[[], _T], even_broken: bool = True) -> Deferred[_T]:
        """Have ``call`` run in the writer's thread, alone."""
        if self._writer_thread is None or (self._broken and not even_broken):
            return fail(SpoolBroken(self._broken))
        return self._put(call)

    def _put(self, work: Any) -> Deferred[Any]:
        """Gather until the writer is free, and at least to the end of this turn.

        Each time a thread wakes it costs the reactor's thread the interpreter's lock;
        so there is one handing over a group, and groups are as large as they can be.
        """
        waiting: Deferred[Any] = Deferred()
        self._gathered.append((work, waiting))
        if not self._writing and self._soon is None:
            self._soon = self._clock.callLater(0, self._hand_over)
        return waiting

    def _hand_over(self) -> None:
        if self._soon is not None:
            if self._soon.active():
                self._soon.cancel()
            self._soon = None
        if self._gathered and self._writer_thread is not None:
            group, self._gathered = self._gathered, []
            self._writing = True
            self._writer_thread.queue.put(group)

    def _written(self, done: _Done, fault: LocalFault | None) -> None:
        """In the reactor's thread: the next group goes before this one is answered."""
        self._writing = False
        self._hand_over()
        self._answer(done, fault)

    def _write_turn(self, work: list[tuple[Any, Deferred[Any]]]) -> None:
        """In the writer's thread: commit what was gathered, answer in one go."""
        done: _Done = []
        fault: LocalFault | None = None
        group: list[tuple[Any, Deferred[Any]]] = []
        octets = 0
        for item in work:
            if callable(item[0]):
                fault = self._commit(group, done) or fault
                group, octets = [], 0
                done.append((item[1], outcome_of(item[0])))
                continue
            group.append(item)
            if isinstance(item[0], NewMessage):
                octets += item[0].body.octets
                if octets > MAX_GROUP_OCTETS:
                    fault = self._commit(group, done) or fault
                    group, octets = [], 0
            if len(group) >= MAX_GROUP:
                fault = self._commit(group, done) or fault
                group, octets = [], 0
        fault = self._commit(group, done) or fault
        self._from_thread(self._written, done, fault)

    def _commit(self, group: list[tuple[Any, Deferred[Any]]], done: _Done) -> LocalFault | None:
        if not group:
            return None
        accepts = [work for work, _ in group if isinstance(work, NewMessage)]
        settlements = [work for work, _ in group if isinstance(work, Settlement)]

        outcome = outcome_of(lambda: self._with_storage(lambda s: s.commit(accepts, settlements)))
        if isinstance(outcome, Failure) and outcome.check(SpoolFull) and settlements:
            return self._record_although_full(group, outcome, done)
        done.extend((waiting, outcome) for _, waiting in group)
        if not isinstance(outcome, Failure):
            return None
        if not isinstance(outcome.value, SpoolFull):
            # Whatever it was, nobody knows what is on disk: close, recover later.
            if self._storage is not None:
                self._storage.note_refused(accepts)
            self._close_files()
        if isinstance(outcome.value, LocalFault):
            return outcome.value
        return SpoolBroken(f"unexpected: {outcome.value!r}")

    def _record_although_full(
        self, group: list[tuple[Any, Deferred[Any]]], full: Failure, done: _Done
    ) -> LocalFault | None:
        """Refuse what arrives, but record results: only they can make room again."""
        arriving = [item for item in group if isinstance(item[0], NewMessage)]
        results = [item for item in group if isinstance(item[0], Settlement)]
        done.extend((waiting, full) for _, waiting in arriving)
        spent = self._storage is not None and self._storage.spend_reserve()
        if arriving or spent:
            return self._commit(results, done) or SpoolFull(full.getErrorMessage())
        done.extend((waiting, full) for _, waiting in results)
        return SpoolFull(full.getErrorMessage())

    def _answer(self, done: _Done, fault: LocalFault | None) -> None:
        """In the reactor's thread."""
        if isinstance(fault, SpoolFull):
            self._disk_is_full(fault)
        elif fault is not None:
            self._disk_is_broken(fault)
        for waiting, outcome in done:
            if not waiting.called:
                waiting.callback(outcome)

    async def _in_slices(
        self,
        change: Callable[[Storage], int],
        do: Callable[[Callable[[Storage], int]], int] | None = None,
    ) -> int:
        """Repeat what changes a slice at most until it finds no more."""
        changed, done = 0, do or self._with_storage
        while True:
            found = await self._submit(lambda: done(change), even_broken=False)
            changed += found
            if found < SLICE:
                return changed

    def _with_storage(self, change: Callable[[Storage], _T]) -> _T:
        """In the writer's thread."""
        if self._storage is None:
            raise SpoolBroken("the spool is closed")
        return change(self._storage)

    def _making_room(self, change: Callable[[Storage], _T]) -> _T:
        """In the writer's thread: delete though the disk is full, with what is held back."""
        try:
            return self._with_storage(change)
        except SpoolFull:
            if self._storage is None or not self._storage.spend_reserve():
                raise
            return self._with_storage(change)

    def _update(
        self, what: str, before: list[Any], filter: Filter, which: str, *after: Any
    ) -> Deferred[int]:
        rows, values = chosen(filter, which)
        statement = f"{what} WHERE {rows}"
        return Deferred.fromCoroutine(
            self._in_slices(lambda storage: storage.change(statement, [*before, *values, *after]))
        )

    def postpone(self, domain: str, until: float, reply: str) -> Deferred[int]:
        """Put off a whole domain."""
        return self._update(
            "UPDATE recipient SET due = ?, reply = ?",
            [until, reply],
            Filter(destination=domain),
            "r.held = 0 AND r.due < ?",
            until,
        )

    def hold(self, filter: Filter) -> Deferred[int]:
        """Hold recipients."""
        return self._update("UPDATE recipient SET held = 1", [], filter, "r.held = 0")

    def release(self, filter: Filter, now: float) -> Deferred[int]:
        """Release recipients."""
        return self._update("UPDATE recipient SET held = 0, due = ?", [now], filter, "r.held = 1")

    def hasten(self, filter: Filter, now: float) -> Deferred[int]:
        """Make recipients due."""
        return self._update(
            "UPDATE recipient SET due = ?", [now], filter, "r.held = 0 AND r.due > ?", now
        )

    def delete(self, filter: Filter) -> Deferred[int]:
        """Remove recipients."""
        return Deferred.fromCoroutine(
            self._in_slices(lambda storage: storage.delete(filter), self._making_room)
        )

    # -- the reader

    def _ask(self, question: Callable[[Reader], _T], of: Questions | None = None) -> Deferred[_T]:
        if self._broken:
            return fail(SpoolBroken(self._broken))
        return (of or self._reader).ask(question)

    def _answer_from_thread(self, waiting: Deferred[Any], outcome: Any) -> None:
        """In the thread of a reader."""
        self._from_thread(self._answer, [(waiting, outcome)], None)

    def due(
        self, domain: str, now: float, limit: int, skip: frozenset[MessageId]
    ) -> Deferred[list[QueuedMessage]]:
        """Give what is due."""
        return self._ask(lambda reader: reader.due(domain, now, limit, skip))

    def backlog(self) -> Deferred[list[Backlog]]:
        """Count by domain."""
        return self._ask(lambda reader: reader.backlog())

    def find(
        self, filter: Filter, limit: int, after: MessageId | None = None
    ) -> Deferred[list[Listing]]:
        """List messages."""
        return self._ask(lambda reader: reader.find(filter, limit, after))

    def content(self, id: MessageId) -> Deferred[QueuedMessage | None]:
        """Return one message."""
        return self._ask(lambda reader: reader.content(id))

    def totals(self) -> Deferred[tuple[int, int, int]]:
        """Count all."""
        return self._ask(lambda reader: reader.totals())

    # -- the quarantine

    def quarantined(
        self,
        filter: QuarantineFilter,
        limit: int,
        after: QuarantineListing | None = None,
        newest_first: bool = False,
    ) -> Deferred[list[QuarantineListing]]:
        """List what is held."""
        texts = filter.recipients or filter.sender or filter.reason or filter.subject
        return self._ask(
            lambda reader: reader.quarantined(filter, limit, after, newest_first),
            # Without a text it goes along an index: no reason to wait for who has one.
            self._searcher if texts else self._reader,
        )

    def quarantine_content(self, id: MessageId) -> Deferred[QuarantinedMessage | None]:
        """Return one message that is held."""
        return self._ask(lambda reader: reader.quarantine_content(id))

    def release_quarantined(
        self, ids: Sequence[MessageId], now: float, recipients: tuple[str, ...] = ()
    ) -> Deferred[list[Freed]]:
        """Queue what was held."""
        return self._submit(
            lambda: self._with_storage(lambda s: s.release_quarantined(ids, now, recipients)),
            even_broken=False,
        )

    def delete_quarantined(
        self, ids: Sequence[MessageId], recipients: tuple[str, ...] = ()
    ) -> Deferred[list[Freed]]:
        """Remove what was held."""
        return self._submit(
            lambda: self._making_room(lambda s: s.delete_quarantined(ids, recipients)),
            even_broken=False,
        )

    def quarantine_totals(self) -> Deferred[tuple[int, int, int]]:
        """Count what is held."""
        return self._ask(lambda reader: reader.quarantine_totals())


_WELL = Health(True, False, "")
