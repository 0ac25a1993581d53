"""Reads what is due from the spool into memory, a page at a time.

:class:`~.queueing.Queues` says whose turn it is and how much room there is; here the
spool is asked, and what comes due is woken (:mod:`.alarms`).

What the spool holds beyond memory is known by domain only: about how many recipients,
and when the earliest is due.  Times that were not seen (after a restart, or behind an
earlier one) are asked for with :meth:`Refill.refresh`, every :data:`REFRESH` seconds while
some are unknown and every minute in any case, which also mends whatever went wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..background import Periodic, background
from ..errors import LocalFault
from ..spool.api import QueuedMessage, Spool
from .alarms import Alarms
from .queueing import NEVER, Destination, NextHop, Queues, octets_in_memory

__all__ = ["REFRESH", "Refill"]

_log = Logger(namespace="delivery")

#: Readings of the spool at once; more would only wait in the reader's line.
MAX_READINGS = 4
REFRESH = 15.0
#: In how many of those periods the spool is asked in any case.
REFRESH_ALWAYS = 4
#: Domains whose earliest message is due later than this need not be known yet.
HORIZON = 2 * REFRESH * REFRESH_ALWAYS
#: After a failed reading, in seconds.
READ_AGAIN = 5.0


class Refill:
    """``find`` returns the destination of a domain; ``turn`` is called when work has come."""

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        spool: Spool,
        queues: Queues,
        find: Callable[[str], Destination],
        turn: Callable[[], None],
    ) -> None:
        self._wall = wall
        self._spool = spool
        self._queues = queues
        self._find = find
        self._turn = turn
        self._alarms = Alarms(clock, wall, self.arm)
        self._refresher = Periodic(clock, REFRESH, "the look at the queue", self._tick)
        self._running = False
        self._readings = 0
        self._ticks = 0
        self._unsure = False
        self._refreshing: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Begin; fires when the spool was asked what there is."""
        self._running = True
        self._refresher.start()
        return self.refresh()

    def stop(self) -> None:
        """Read nothing more."""
        self._running = False
        self._refresher.stop()
        self._alarms.stop()

    # -- when

    def arm(self, destination: Destination) -> None:
        """See to it that a domain is read when something of it is due."""
        wake = self._queues.wake_time(destination)
        if wake == NEVER or not self._running:
            return
        if wake <= self._wall():
            self._queues.hunger(destination)
            self._turn()
        else:
            self._alarms.set(destination, wake)

    def refresh(self) -> Deferred[None]:
        """Ask the spool which domains have something due soon; fires when all are armed."""
        refreshing = self._refreshing
        if refreshing is None:
            self._refreshing = refreshing = background("the look at the queue", self._refresh())
            refreshing.addCallback(self._refreshed)
        done: Deferred[None] = Deferred()
        refreshing.chainDeferred(done)
        return done

    def _refreshed(self, _: None) -> None:
        self._refreshing = None

    def _tick(self) -> None:
        self._ticks += 1
        if self._unsure or self._ticks % REFRESH_ALWAYS == 0:
            self.refresh()

    async def _refresh(self) -> None:
        self._unsure = False
        try:
            backlog = await self._spool.backlog()
        except LocalFault as fault:
            self._unsure = True
            _log.error("cannot read the queue: {reason}", reason=str(fault))
            return
        known, room = self._queues.destinations, self._queues.limits.known
        if len(known) >= room:
            self._queues.forget()
        soon = self._wall() + HORIZON
        for each in sorted(backlog, key=lambda each: each.due):
            destination = known.get(each.domain)
            if destination is None:
                if each.due > soon:
                    continue
                if len(known) >= room:
                    self._unsure = True
                    continue
                destination = self._find(each.domain)
            destination.waiting = max(0, each.recipients - len(destination.hands))
            if destination.waiting:
                self._queues.note_due(destination, each.due)
                self.arm(destination)
        self._forget_others({each.domain for each in backlog})

    def _forget_others(self, domains: set[str]) -> None:
        """Of the domains that the spool did not name nothing waits any more.

        Unless it came since: then its due time is known.
        """
        for destination in self._queues.destinations.values():
            if destination.due == NEVER and destination.domain not in domains:
                destination.waiting = 0

    # -- reading

    def read_some(self) -> None:
        """Begin readings as long as somebody has room for them."""
        while self._readings < MAX_READINGS and self._running:
            wanted = self._queues.next_reading()
            if wanted is None:
                break
            self._read(*wanted)

    def _read(self, destination: Destination, limit: int) -> None:
        now = self._wall()
        if destination.due <= now:
            destination.due = NEVER
        self._readings += 1
        hop = destination.hop
        self._spool.due(destination.domain, now, limit, frozenset(destination.hands)).addCallbacks(
            self._was_read,
            self._not_read,
            callbackArgs=(destination, hop, limit),
            errbackArgs=(destination, hop, limit),
        )

    def _was_read(
        self, found: list[QueuedMessage], destination: Destination, hop: NextHop, limit: int
    ) -> None:
        self._readings -= 1
        skip = self._queues.read(destination, hop, limit)
        if not self._running:
            return
        if self._wall() < destination.hop.down_until:
            # It fell meanwhile: what was read stays in the spool, and is due.
            self._queues.note_due(destination, 0.0)
        else:
            for message in found:
                if message.id not in skip:
                    self._queues.put(destination, message, octets_in_memory(message))
                    destination.waiting = max(0, destination.waiting - len(message.recipients))
            if len(found) >= limit:
                self._queues.note_due(destination, 0.0)
            elif destination.waiting:
                self._unsure = True
        self.arm(destination)
        self._turn()

    def _not_read(
        self, failure: Failure, destination: Destination, hop: NextHop, limit: int
    ) -> None:
        self._readings -= 1
        self._queues.read(destination, hop, limit)
        if self._running:
            _log.error(
                "cannot read the queue of {domain}: {reason}",
                domain=destination.domain,
                reason=failure.getErrorMessage(),
            )
            self._queues.note_due(destination, self._wall() + READ_AGAIN)
            self.arm(destination)
