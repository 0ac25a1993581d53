"""What becomes of a batch of events: into the database, onto the disk, or counted as lost.

:class:`Writer` is used in one thread, which :mod:`.service` owns; it blocks.

*The database is well*: a batch is one transaction.  *It is away* (stopped, locked, full, not
writable): the batch goes to the backlog on disk, and the database is tried again after a
pause, each time a longer one.  When it is back what the backlog holds follows, in order,
beside what comes new: rows have keys of their own, so the order is only for the eye.  *The
backlog is full, or cannot be written*: the batch is lost, and counted.

An event that the database does not take is found by halving its batch, and lost alone.

**Retention** works in slices, between batches: what is older than ``retention``; and when
more than ``max_size`` is taken, a fiftieth of the time that is kept, once a minute.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from .backlog import Backlog
from .database import Trouble
from .rows import Numbered
from .schema import TICK_BITS
from .store import BadEvents, Store
from .tally import Keeping, Tally
from .values import Event

__all__ = ["Writer"]

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: What is said about losses comes no more often, in seconds.
_SAY_AGAIN = 60.0
#: Beyond ``max_size`` this part of the time that is kept goes, at once.
_PART = 50


class Writer:
    """See the module's text.

    ``wall`` is Unix time, ``seconds`` a monotonic clock, and ``say`` is called with a level,
    a format and its fields for the log.
    """

    def __init__(
        self,
        store: Store,
        backlog: Backlog,
        keeping: Keeping,
        wall: Callable[[], float],
        seconds: Callable[[], float],
        rng: random.Random,
        say: Callable[..., None],
    ) -> None:
        self._store = store
        self._backlog = backlog
        self.keeping = keeping
        self._wall = wall
        self._seconds = seconds
        self._say = say
        self.tally = Tally()
        #: The batch that is being written; a stop that cannot wait keeps it.
        self.current: Sequence[Numbered] = ()
        self._salt = rng.getrandbits(TICK_BITS)
        self._last_tick = 0
        self._open = False
        self._over = False
        self._again = 0.0
        self._pause = _FIRST_PAUSE
        self._pruning = 0.0
        self._reclaiming = False
        self._unsaid = 0
        self._quiet_until = 0.0

    def reconfigure(self, keeping: Keeping, backlog: int, subjects: bool) -> None:
        """Take new settings; may be called in any thread."""
        self.keeping = keeping
        self._backlog.limit = backlog
        self._store.subjects = subjects

    @property
    def restless(self) -> bool:
        """Whether there is something to do though nothing new comes."""
        return not self._open or self._backlog.left > 0 or self._unsaid > 0

    @property
    def backlog_octets(self) -> int:
        """What waits on disk."""
        return self._backlog.left

    # -- life

    def begin(self) -> None:
        """Find what an earlier run left, and connect."""
        try:
            self._backlog.open()
        except OSError as error:
            self._say(
                "error", "cannot read the backlog of the history: {reason}", reason=str(error)
            )
        self._connect()

    def finish(self) -> None:
        """Close the database."""
        self._open = False
        self._store.close()

    def _connect(self) -> None:
        try:
            self._store.open()
        except Trouble as trouble:
            self._fell(trouble)
            return
        self._open = True
        if not self._backlog.left:
            self._came_back()
        self._measure()

    def _came_back(self) -> None:
        """It can be written, which a connection alone does not prove: it may be read-only."""
        self._pause = _FIRST_PAUSE
        if self.tally.away_since:
            self._say("warn", "the database of the history is back")
            self.tally.away_since = 0.0

    def _fell(self, trouble: Trouble) -> None:
        self._open = False
        self._store.close()
        self.tally.last_error = str(trouble)
        self._again = self._seconds() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        if not self.tally.away_since:
            self.tally.away_since = self._wall()
            self._say(
                "warn",
                "the database of the history is away, mail goes on: {reason}",
                reason=str(trouble),
            )

    def interrupt(self) -> None:
        """Called in another thread, when a step of this one takes too long."""
        self._store.interrupt()

    # -- events

    def take(self, events: Sequence[Event]) -> None:
        """Keep a batch, wherever that is possible."""
        self.current = batch = self._numbered(events)
        settled = False
        try:
            if not self._write(batch):
                self._set_aside(batch)
            settled = True
        finally:
            self.current = ()
            self.tally.taken += len(batch)
            if not settled:
                self.tally.last_error = "an unexpected error"
                self._lose(len(batch))

    def _numbered(self, events: Sequence[Event]) -> list[Numbered]:
        """Give each event its id: the time, and by what differs from other nodes' below."""
        first = max(int(self._wall() * 1_000_000), self._last_tick + 1)
        self._last_tick = first + len(events)
        salt = self._salt
        return [(tick << TICK_BITS | salt, event) for tick, event in enumerate(events, first)]

    def _write(self, batch: Sequence[Numbered]) -> bool:
        """Write what can be; False: the database is away, and nobody knows what it has."""
        if not self._open:
            return False
        try:
            self._sift(batch)
        except Trouble as trouble:
            self._fell(trouble)
            return False
        return True

    def _sift(self, batch: Sequence[Numbered]) -> None:
        """Write a batch but for events that the database does not take."""
        try:
            self._store.write(batch, self._wall())
            self.tally.written += len(batch)
            self._came_back()
        except BadEvents as bad:
            self._came_back()
            if len(batch) == 1:
                self.tally.last_error = str(bad)
                self._lose(1)
                return
            half = len(batch) // 2
            self._sift(batch[:half])
            self._sift(batch[half:])

    def _set_aside(self, batch: Sequence[Numbered]) -> None:
        try:
            kept = self._backlog.append(batch)
        except (OSError, TypeError, ValueError) as error:
            self.tally.last_error = f"the backlog: {error}"
            kept = 0
        if kept < len(batch):
            self._lose(len(batch) - kept)

    def rescue(self, events: Sequence[Event]) -> None:
        """Keep on disk what the writer's thread did not come to; called in another thread.

        Nothing is done after this.
        """
        self._over = True
        self._set_aside([*self.current, *self._numbered(events)])

    def _lose(self, events: int) -> None:
        self.tally.lost += events
        self._unsaid += events
        self._say_lost()

    def _say_lost(self) -> None:
        if self._unsaid and self._seconds() >= self._quiet_until:
            self._say(
                "error",
                "{events} events of the history are lost: {reason}",
                events=self._unsaid,
                reason=self.tally.last_error,
            )
            self._unsaid = 0
            self._quiet_until = self._seconds() + _SAY_AGAIN

    # -- what is done between batches

    def retain(self) -> None:
        """Begin to remove what is too old or too much; :meth:`tend` does it."""
        if not self._open or self._pruning:
            return
        self._measure()
        now, measures = self._wall(), self.tally.measures
        bound = now - self.keeping.retention
        if measures.octets > self.keeping.max_size and measures.oldest:
            bound = max(bound, measures.oldest + (now - measures.oldest) / _PART)
        if measures.oldest and measures.oldest < bound:
            self._pruning = bound
        self._reclaiming = True

    def tend(self) -> bool:
        """Do one step of what there is to do; return whether there is more to do now."""
        if self._over:
            return False
        self._say_lost()
        if not self._open:
            if self._seconds() < self._again:
                return False
            self._connect()
            return self._open
        try:
            return self._step()
        except Trouble as trouble:
            self._fell(trouble)
            return False

    def _step(self) -> bool:
        if self._backlog.left:
            return self._catch_up()
        if self._pruning:
            if not self._store.prune(self._pruning):
                self._pruning = 0.0
            return True
        if self._reclaiming:
            self._reclaiming = self._store.reclaim()
            return self._reclaiming
        return False

    def _catch_up(self) -> bool:
        """Write some of the backlog."""
        try:
            batch = self._backlog.read()
            broken = self._backlog.broken
            self._sift(batch)
            self._backlog.done()
            if self._backlog.broken > broken:
                self.tally.last_error = "lines of the backlog make no sense"
                self._lose(self._backlog.broken - broken)
        except OSError as error:
            raise Trouble(f"the backlog: {error}") from None
        if not self._backlog.left:
            self._say("info", "the history has caught up")
        return True

    def _measure(self) -> None:
        try:
            self.tally.measures = self._store.measure()
        except Trouble as trouble:
            self._fell(trouble)
