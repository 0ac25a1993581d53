"""The spool of the daemon: :class:`.api.Spool` on SQLite and segment files.

Three threads.  The reactor's only puts work into queues and gets answers, a whole group
of them at once.  The *writer* takes whatever has gathered while it was busy with the last
group and commits it together (:data:`MAX_GROUP` at most): under load one fsync serves
dozens of messages, alone a message waits for nobody.  The *reader* answers questions.

**When the disk fails**, all that was in the group and all that waits fails with
SpoolBroken, the files are closed, and after a growing pause all is opened anew, as after
a crash.  Until then :meth:`SqliteSpool.health` says so and the gateway takes no mail.
**When the disk is full**, only the group fails; free space is measured every second
against ``min_free``, and mail is refused early, while there is still room to deliver
what is queued.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
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
    Health,
    Listing,
    NewMessage,
    QueuedMessage,
    Settlement,
    SpoolBroken,
    SpoolFull,
)
from .ids import MessageId
from .storage import SLICE, Reader, Storage, chosen

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


class _Thread:
    """A thread that does one piece of work after another, until it gets None."""

    def __init__(self, name: str, turn: Callable[[Any], None]) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._turn = turn
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Finish what is queued, then stop.  Returns at once."""
        self.queue.put(None)

    def _run(self) -> None:
        while (work := self.queue.get()) is not None:
            self._turn(work)


class SqliteSpool:
    """The durable queue of this node.  See :class:`.api.Spool` for each method."""

    def __init__(self, directory: Path, settings: SpoolSettings, world: World) -> None:
        self._directory = directory
        self._settings = settings
        self._clock = world.clock
        self._from_thread: Callable[..., None] = world.reactor.callFromThread
        self._storage: Storage | None = None
        self._reader: Reader | None = None
        self._writer_thread: _Thread | None = None
        self._reader_thread: _Thread | None = None
        self._broken = "the spool is not open yet"
        self._full = ""
        self._reserved = True
        self._closing = False
        #: What waits to be handed to the writer, and whether it is at work.
        self._gathered: list[tuple[Any, Deferred[Any]]] = []
        self._writing = False
        self._soon: IDelayedCall | None = None
        self._pause = _FIRST_PAUSE
        self._again: IDelayedCall | None = None
        self._watch = Periodic(self._clock, 1.0, "the measuring of free space", self._measure)

    # -- life

    def open(self) -> Deferred[None]:
        """Create or recover the storage."""
        self._writer_thread = _Thread("spool-writer", self._write_turn)
        self._reader_thread = _Thread("spool-reader", self._read_turn)
        self._writer_thread.start()
        self._reader_thread.start()
        opened: Deferred[None] = self._submit(self._open_files)
        return opened.addCallback(self._opened)

    def _open_files(self) -> None:
        """In the writer's thread: lock, database, segments, the reader's connection."""
        storage = Storage(self._directory, self._settings)
        try:
            storage.open()
            reader = Reader(storage.database_path, self._directory / "segments", self._settings)
            reader.open()
        except BaseException:
            storage.close()
            raise
        self._storage, self._reader = storage, reader

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
        if self._writer_thread is None or self._reader_thread is None:
            raise AssertionError("closed before it was opened")
        self._reader_thread.end()
        closed: Deferred[None] = self._submit(self._close_files)
        self._hand_over()
        self._writer_thread.end()
        return closed

    def _close_files(self) -> None:
        """In the writer's thread."""
        storage, self._storage = self._storage, None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
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
        _log.warn("the spool is open again")
        self._opened(None)

    def _not_reopened(self, failure: Failure) -> None:
        _log.error("the spool cannot be opened: {reason}", reason=failure.getErrorMessage())
        if not self._closing:
            self._reopen_later()

    # -- the writer

    def accept(self, message: NewMessage) -> Deferred[None]:
        """Make ``message`` durable."""
        return self._enqueue(message)

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
                done.append((item[1], self._outcome(item[0])))
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

        outcome = self._outcome(
            lambda: self._with_storage(lambda s: s.commit(accepts, settlements))
        )
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

    @staticmethod
    def _outcome(call: Callable[[], _T]) -> _T | Failure:
        try:
            return call()
        except BaseException:
            # Carried to the reactor's thread, where somebody waits for it.
            return Failure()

    def _answer(self, done: _Done, fault: LocalFault | None) -> None:
        """In the reactor's thread."""
        if isinstance(fault, SpoolFull):
            self._disk_is_full(fault)
        elif fault is not None:
            self._disk_is_broken(fault)
        for waiting, outcome in done:
            if not waiting.called:
                waiting.callback(outcome)

    async def _in_slices(self, change: Callable[[Storage], int]) -> int:
        """Repeat what changes a slice at most until it finds no more."""
        changed = 0
        while True:
            found = await self._submit(lambda: self._with_storage(change), even_broken=False)
            changed += found
            if found < SLICE:
                return changed

    def _with_storage(self, change: Callable[[Storage], _T]) -> _T:
        """In the writer's thread."""
        if self._storage is None:
            raise SpoolBroken("the spool is closed")
        return change(self._storage)

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
        return Deferred.fromCoroutine(self._in_slices(lambda storage: storage.delete(filter)))

    # -- the reader

    def _ask(self, question: Callable[[Reader], _T]) -> Deferred[_T]:
        if self._broken or self._reader_thread is None:
            return fail(SpoolBroken(self._broken))
        waiting: Deferred[_T] = Deferred()
        self._reader_thread.queue.put((question, waiting))
        return waiting

    def _read_turn(self, work: tuple[Callable[[Reader], Any], Deferred[Any]]) -> None:
        """In the reader's thread."""
        question, waiting = work
        reader = self._reader
        if reader is None:
            outcome: Any = Failure(SpoolBroken("the spool is closed"))
        else:
            outcome = self._outcome(lambda: question(reader))
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


_WELL = Health(True, False, "")
