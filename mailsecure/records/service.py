"""The history as a service: takes events from everybody, answers the postmaster.

Three threads, as in the spool.  The reactor's appends events to a list
(:meth:`RecordsService.tell`), and twice a second, or when the list is long, hands it over.
The *writer* (:mod:`.writer`) writes; the *reader* (:mod:`.questions`) has a connection of its
own, so a slow search never holds up writing.  Nothing ever waits for either: mail does not
depend on the history.

**What a death costs.**  Events live in memory for half a second, then in a transaction or in
the backlog.  A killed process loses that half second of history, and no mail.

**Bounds.**  At most :data:`MOST_IN_MEMORY` events wait for the writer, whose every step is
limited in time; beyond it they are lost, and counted.  :mod:`.backlog` has its own bound.

**At a stop** what waits is written within :data:`STOP_LIMIT` seconds; what is not goes to the
backlog, also where the writer hangs.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from ..background import Periodic
from ..config.scanning import Records
from ..world import World
from .api import RecordsAway, Search
from .backlog import Backlog
from .database import Database
from .postgresql import Postgresql
from .questions import Questions
from .reading import Reader
from .sqlite import Sqlite
from .store import Store
from .tally import Keeping
from .values import Event
from .writer import Writer

__all__ = ["RecordsService", "database_of"]

_log = Logger(namespace="records")
_T = TypeVar("_T")

#: Events are handed over so often (seconds), or when so many have gathered.
HAND_OVER, GATHERED = 0.5, 1500
#: Events that may wait for the writer, some kilobyte each.
MOST_IN_MEMORY = 100_000
#: Retention looks once in so many seconds.
RETAIN = 60.0
STOP_LIMIT = 5.0
#: A step that takes longer is interrupted; looked at so often (seconds).
HANGS, WATCH = 60.0, 5.0


def database_of(settings: Records, state: Path) -> Database:
    """Return the database that the ini names; a file in ``state`` if it names none."""
    if settings.database.startswith("postgresql://"):
        return Postgresql(settings.database, settings.password_file)
    return Sqlite(state / (settings.database or "records.db"))


class RecordsService:
    """A :class:`.api.Recorder` and a :class:`.api.History`.

    ``state`` is the state directory, ``node`` this node's name.
    """

    def __init__(self, world: World, settings: Records, state: Path, node: str) -> None:
        self._world = world
        self._settings = settings
        #: Where the database is, for people; another one waits for a restart.
        self._place = ""
        self._state = state
        self._node = node
        self._events: list[Event] = []
        #: Events that were given to the writer, and those that were not.
        self._handed = 0
        self._dropped = 0
        self._writer: Writer | None = None
        self._questions: Questions | None = None
        self._work: queue.SimpleQueue[Sequence[Event] | Callable[[], object] | None]
        #: Since when (monotonic) the writer is at its present step; 0: at none.
        self._busy = 0.0
        #: Fires when the writer's thread has ended.
        self._ended: Deferred[None] = Deferred()
        self._running = False
        clock = world.clock
        self._handing = Periodic(clock, HAND_OVER, "the history's writing", self._hand_over)
        self._retaining = Periodic(clock, RETAIN, "the history's retention", self._retain)
        self._watching = Periodic(clock, WATCH, "the history's watch", self._watch)

    # -- life

    async def start(self) -> None:
        """Begin.  Does not wait for the database, which may be away.

        LocalFault: it never will be there, because its driver or password is missing.
        """
        settings, world = self._settings, self._world
        database = database_of(settings, self._state)
        self._place = settings.database or "records.db"
        store = Store(database, database.engine(), self._node, settings.subjects)
        self._writer = writer = Writer(
            store,
            Backlog(self._state / "records-backlog", settings.backlog),
            Keeping(settings.retention, settings.max_size),
            world.wall,
            world.clock.seconds,
            world.rng,
            self._say,
        )
        self._questions = Questions(world, Reader(database, database.engine()))
        self._questions.start()
        self._work = queue.SimpleQueue()
        self._work.put(writer.begin)
        self._running = True
        self._ended = Deferred()
        run = partial(self._write, writer)
        threading.Thread(target=run, name="records-writer", daemon=True).start()
        self._handing.start()
        self._retaining.start()
        self._watching.start()

    async def stop(self) -> None:
        """Write what waits, within :data:`STOP_LIMIT`; the rest goes to the backlog."""
        if not self._running:
            return
        self._handing.stop()
        self._retaining.stop()
        self._watching.stop()
        self._hand_over()
        self._running = False
        self._work.put(None)
        if self._questions is not None:
            self._questions.end()
        self._ended.addTimeout(STOP_LIMIT, self._world.clock)
        try:
            await self._ended
        except DeferredTimeout:
            await self._world.in_thread(self._rescue)

    def _rescue(self) -> None:
        """In a thread of the pool: the writer's hangs."""
        assert self._writer is not None
        left: list[Event] = []
        while not self._work.empty():
            work = self._work.get()
            if isinstance(work, list):
                left += work
        self._writer.rescue(left)
        self._work.put(None)

    def reconfigure(self, settings: Records) -> None:
        """Take new settings; where the database is waits for a restart."""
        self._settings = settings
        if self._writer is not None:
            keeping = Keeping(settings.retention, settings.max_size)
            self._writer.reconfigure(keeping, settings.backlog, settings.subjects)

    # -- taking

    def tell(self, event: Event) -> None:
        """Note an event."""
        events = self._events
        events.append(event)
        if len(events) >= GATHERED:
            self._hand_over()

    def _hand_over(self) -> None:
        events, writer = self._events, self._writer
        if writer is None or not self._running:
            # Told before the start, or after the stop.
            del events[:-GATHERED]
            return
        if not events:
            if writer.restless and self._work.empty():
                self._work.put([])
            return
        self._events = []
        if self._handed - writer.tally.taken + len(events) > MOST_IN_MEMORY:
            self._dropped += len(events)
            writer.tally.last_error = "too many events wait for the database"
            return
        self._handed += len(events)
        self._work.put(events)

    def _retain(self) -> None:
        if self._writer is not None and self._work.empty():
            self._work.put(self._writer.retain)

    def _watch(self) -> None:
        """Interrupt what hangs, though everything has limits of its own."""
        if self._writer is not None and 0 < self._busy < self._world.clock.seconds() - HANGS:
            self._writer.interrupt()
        if self._questions is not None:
            self._questions.watch(HANGS)

    # -- the writer's thread

    def _write(self, writer: Writer) -> None:
        while (work := self._work.get()) is not None:
            if callable(work):
                self._guarded(work)
            elif work:
                self._guarded(partial(writer.take, work))
            # At least one step, or a busy node would never look for its database again.
            while self._guarded(writer.tend) and self._work.empty():
                pass
        self._guarded(writer.finish)
        self._world.reactor.callFromThread(self._ended.callback, None)

    def _guarded(self, call: Callable[[], _T]) -> _T | None:
        """Call; whatever it raises is said, and the thread lives on."""
        self._busy = self._world.clock.seconds()
        try:
            return call()
        except BaseException:
            failure = Failure()
            self._world.reactor.callFromThread(_say_failure, failure)
            return None
        finally:
            self._busy = 0.0

    def _say(self, level: str, text: str, **fields: Any) -> None:
        """Log from the writer's thread."""
        named = LogLevel.levelWithName(level)
        self._world.reactor.callFromThread(_log.emit, named, text, **fields)

    # -- questions

    def _ask(self, question: Callable[[Reader], _T]) -> Deferred[_T]:
        if self._questions is None:
            raise RecordsAway("the history is not open")
        return self._questions.ask(question)

    async def trace(self, search: Search) -> Sequence[dict[str, Any]]:
        """Return what matches, the newest first.  See :class:`.api.History`."""
        return await self._ask(lambda reader: reader.trace(search))

    async def count(self, search: Search) -> dict[str, Any]:
        """Return how many match.  See :class:`.api.History`."""
        return await self._ask(lambda reader: reader.count(search))

    async def message(self, id: int) -> dict[str, Any] | None:
        """Return everything known of a message or a session."""
        return await self._ask(lambda reader: reader.message(id))

    async def report(self) -> dict[str, Any]:
        """Return :meth:`figures`."""
        return self.figures()

    def figures(self) -> dict[str, Any]:
        """Return how the history is; quick.

        ``database`` for people, ``written`` and ``lost`` events since the start, ``waiting``
        in memory, ``backlog`` octets on disk, ``octets`` and ``oldest`` (Unix time, 0 for
        nothing) of the database, ``away_since`` (Unix time, 0 while it is there),
        ``last_error``, ``hindrance`` (why searches are slow, or "").
        """
        writer = self._writer
        if writer is None:
            return {}
        tally = writer.tally
        return {
            "database": self._place,
            "written": tally.written,
            "waiting": self._handed - tally.taken + len(self._events),
            "backlog": writer.backlog_octets,
            "lost": tally.lost + self._dropped,
            "octets": tally.measures.octets,
            "oldest": tally.measures.oldest,
            "away_since": tally.away_since,
            "last_error": tally.last_error,
            "hindrance": tally.measures.hindrance,
        }


def _say_failure(failure: Failure) -> None:
    _log.failure("the history's writer stumbled", failure=failure)
