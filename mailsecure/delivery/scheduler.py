"""Gives out what is due to the transports, and settles what becomes of it.

The parts: :mod:`.queueing` says who is next, :mod:`.attempts` hands messages to transports,
:mod:`.outcomes` says what an attempt means, :mod:`.ledger` puts results into the spool,
:mod:`.refill` reads what is due, :mod:`.unattended` ages and gives up what is not
attempted.  This module ties them together and is their face to the other rooms.

**A new message** is given to :meth:`Scheduler.take` when it is durable.  Where its domain
has room it is attempted from memory and never read back; else the spool keeps it and only
the domain's due time is noted.

**A next hop that is down** (:class:`.api.NextHopDown`) costs nothing: no message for it is
read or tried until its back-off has passed, and then one.  What waits for it is put off in
the spool to that time, so that a listing shows the answer and the next attempt; messages
that expire or want a warning meanwhile are found by age.  ``attempts`` of a recipient
counts what was really tried for it: being put off is no attempt.

**Hold and delete** act on the spool.  What is ready in memory goes back at
:meth:`Scheduler.wake`, which is to be called after such a command; an attempt that is
under way goes on, and its result stands for recipients that are still there.

**At stop** nothing more is given out; attempts under way and their results get a limited
time.  What is cut off is still in the spool and will be attempted again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..background import background
from ..config.model import Delivery, Route
from ..counters import Counters
from ..records.api import NullRecorder, Recorder
from ..smtp.replies import Reply
from ..spool.api import Filter, NewMessage, QueuedMessage, QueuedRecipient, Spool
from ..spool.ids import IdSource
from ..world import World
from .api import Transport
from .attempts import Attempts, Course, Trouble
from .bounces import Settings
from .ledger import Ledger
from .notices import Notices
from .queueing import Destination, Limits, NextHop, Queues
from .refill import Refill
from .retry import RetryPolicy
from .routes import FALL_BACK, Routes, next_hop_key
from .unattended import Unattended

__all__ = ["DestinationStatus", "Scheduler"]

_log = Logger(namespace="delivery")

#: Ready messages for one next hop, for each connection that it may have.
READY = 10
#: Attempts begun in one turn of the reactor.
AT_ONCE = 50
#: A next hop that is down for so long has its queue put off: not one that comes right back.
PUT_OFF_AFTER = 5.0
STOP_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """One domain as ``mailsecure status`` and the metrics see it.

    ``next_hop`` is the key of :func:`.routes.next_hop_key`, ``waiting`` about how many
    recipients wait in the spool, ``next_attempt`` the Unix time before which nothing is
    tried (0 if it is not held back).  The counts are of recipients since it was first seen.
    """

    domain: str
    next_hop: str
    in_flight: int
    ready: int
    waiting: int
    next_attempt: float
    last_error: str
    delivered: int
    deferred: int
    failed: int


class Scheduler:
    """Delivery's heart.  Used in the reactor's thread only.

    ``transport_for`` returns the one transport of a route; it is asked at every attempt.
    Those that were used are closed at stop.  ``recorder`` is told each attempt.
    """

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        *,
        world: World,
        spool: Spool,
        routes: Routes,
        transport_for: Callable[[Route], Transport],
        settings: Delivery,
        hostname: str,
        ids: IdSource,
        counters: Counters,
        recorder: Recorder | None = None,
    ) -> None:
        self._clock = clock = world.clock
        self._wall = wall = world.wall
        self._spool = spool
        self._routes = routes
        self._transport_for = transport_for
        self._settings = settings
        self._hostname = hostname
        self._used: dict[Route, Transport] = {}
        self._queues = queues = Queues(_limits(settings))
        recorder = recorder or NullRecorder()
        self._notices = Notices(world, ids, counters, self._notice_settings(), recorder)
        self._ledger = Ledger(clock, spool, self._notices, counters, self.take, recorder)
        policy = RetryPolicy.of(settings)
        course = Course(self._fell, self._back, self._turn, self._settled)
        self._attempts = Attempts(
            wall, world.rng, queues, self._ledger, counters, policy, self._transport, course
        )
        self._refill = Refill(clock, wall, spool, queues, self._destination, self._turn_soon)
        self._unattended = Unattended(clock, wall, spool, queues, self._ledger)
        self._chores: set[Deferred[None]] = set()
        self._running = False
        self._turning = False
        self._soon: IDelayedCall | None = None

    # -- life

    def start(self) -> Deferred[None]:
        """Begin; fires when the spool was asked what there is."""
        self._running = True
        return self._refill.start()

    def stop(self, limit: float = STOP_LIMIT) -> Deferred[None]:
        """Give out nothing more; fires when all is settled, or after ``limit`` seconds."""
        return Deferred.fromCoroutine(self._stop(limit))

    async def _stop(self, limit: float) -> None:
        self._running = False
        self._refill.stop()
        for chore in list(self._chores):
            chore.cancel()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._put_back("")
        end = self._clock.seconds() + limit
        while (self._attempts.under_way or self._ledger.open) and self._clock.seconds() < end:
            await deferLater(self._clock, 0.1)
        self._attempts.cut_off()
        self._ledger.stop()
        for transport in self._used.values():
            await background("closing a transport", _close(transport))

    def reconfigure(self, routes: Routes, settings: Delivery) -> None:
        """Take new settings: what is queued follows the new routes from its next attempt.

        ``transport_for`` is asked at every attempt and may give new transports from now on.
        """
        self._routes, self._settings = routes, settings
        self._attempts.policy = RetryPolicy.of(settings)
        self._queues.reconfigure(_limits(settings))
        self._notices.settings = self._notice_settings()
        for destination in list(self._queues.destinations.values()):
            route = self._route(destination.domain)
            key = next_hop_key(route, destination.domain)
            if key != destination.hop.key:
                self._queues.move(destination, key, route)
                self._refill.arm(destination)
        self._turn_soon()

    def _notice_settings(self) -> Settings:
        settings = self._settings
        return Settings(self._hostname, settings.bounce_size, settings.expire)

    def _route(self, domain: str) -> Route:
        return self._routes.find(domain) or FALL_BACK

    def _transport(self, route: Route) -> Transport:
        transport = self._used[route] = self._transport_for(route)
        return transport

    def _chore(self, what: str, work: Coroutine[Deferred[Any], Any, Any]) -> None:
        """Run ``work`` in the background, until :meth:`stop`."""
        chore = background(what, work)
        if not chore.called:
            self._chores.add(chore)
            chore.addCallback(lambda _: self._chores.discard(chore))

    # -- new messages

    def take(self, message: NewMessage) -> None:
        """Learn of a message that the spool has accepted.  Quick, and never fails.

        Whom the quarantine holds does not get it.
        """
        if not self._running:
            return
        recipients, quarantine = message.envelope.recipients, message.quarantine
        if len(recipients) == 1 and quarantine is None:
            only = recipients[0]
            self._offer(message, only.domain, [QueuedRecipient(0, only)])
            return
        by_domain: dict[str, list[QueuedRecipient]] = {}
        for index, recipient in enumerate(recipients):
            if quarantine is not None and index in quarantine.recipients:
                continue
            queued = QueuedRecipient(index, recipient)
            by_domain.setdefault(recipient.domain, []).append(queued)
        for domain, some in by_domain.items():
            self._offer(message, domain, some)

    def _offer(self, new: NewMessage, domain: str, recipients: list[QueuedRecipient]) -> None:
        queues, body, now = self._queues, new.body, self._wall()
        destination = queues.destinations.get(domain) or self._destination(domain)
        # The file that a large message arrived in is not the spool's: that is read back.
        at_once = body.in_memory and new.due <= now
        if at_once and queues.admits(destination, new.id, body.octets, now):
            message = QueuedMessage(
                new.id, new.envelope, new.arrival, new.arrived, body, domain, recipients
            )
            queues.put(destination, message, body.octets)
            if self._soon is None:
                self._turn_soon()
        elif new.id not in destination.hands:
            destination.waiting += len(recipients)
            queues.note_due(destination, new.due)
            self._refill.arm(destination)

    def _destination(self, domain: str) -> Destination:
        destination = self._queues.destinations.get(domain)
        if destination is None:
            route = self._route(domain)
            destination = self._queues.add(domain, next_hop_key(route, domain), route)
        return destination

    # -- the turn

    def _turn_soon(self) -> None:
        if self._soon is None and self._running:
            self._soon = self._clock.callLater(0, self._turn_now)

    def _turn_now(self) -> None:
        self._soon = None
        self._turn()

    def _turn(self) -> None:
        """Begin attempts and readings until there is no more room or work."""
        # An attempt may end at once, within this very loop, which then goes on.
        if self._turning or not self._running:
            return
        self._turning = True
        queues, begin, now = self._queues, self._attempts.begin, self._wall()
        try:
            for _ in range(AT_ONCE):
                if self._ledger.must_wait() or (found := queues.next(now)) is None:
                    break
                begin(*found)
            else:
                self._turn_soon()
            self._refill.read_some()
        finally:
            self._turning = False

    def _settled(self, destination: Destination) -> None:
        self._refill.arm(destination)
        if self._ledger.held_up:
            self._turn_soon()

    # -- up and down

    def _fell(self, hop: NextHop, reply: Reply) -> None:
        for destination in hop.destinations:
            self._refill.arm(destination)
        self._chore("putting off a queue", self._put_off(hop, reply))

    def _back(self, hop: NextHop) -> None:
        _log.info("{next_hop} answers again", next_hop=hop.key)
        for destination in hop.destinations:
            self._refill.arm(destination)

    async def _put_off(self, hop: NextHop, reply: Reply) -> None:
        """Put off what waits for a next hop that stays down, and age it."""
        epoch = hop.epoch
        await deferLater(self._clock, PUT_OFF_AFTER)
        for destination in list(hop.destinations):
            if hop.failures and hop.epoch == epoch and destination.waiting:
                await self._spool.postpone(destination.domain, hop.down_until, str(reply))
                await self._unattended.age(destination, self._attempts.policy, reply)

    # -- the postmaster

    def flush(self, filter: Filter) -> Deferred[int]:
        """Try what matches now, whatever held it back; fires with how many recipients.

        Where the filter names no domain, every next hop that is down gets its chance.
        """
        return Deferred.fromCoroutine(self._flush(filter))

    async def _flush(self, filter: Filter) -> int:
        hastened = await self._spool.hasten(filter, self._wall())
        self.kick(filter.destination or filter.recipient.rpartition("@")[2])
        return hastened

    def kick(self, domain: str = "") -> None:
        """Forget that the next hop of ``domain`` (or any) was down, and look at the spool."""
        for destination in list(self._queues.destinations.values()):
            if domain.lower() in ("", destination.domain):
                self._queues.pardon(destination.hop)
                self._refill.arm(destination)
        self._refill.refresh()

    def wake(self) -> None:
        """Look at the spool anew: a postmaster has changed what is in it.

        What is ready in memory goes back, for it may have been held or deleted.
        """
        self._put_back("")
        self._refill.refresh()

    def bounce(self, filter: Filter, reason: str) -> Deferred[int]:
        """Give up what matches, and notify the senders; fires with how many recipients.

        What is being attempted now is left to its attempt.
        """
        self._put_back(filter.destination.lower())
        return Deferred.fromCoroutine(self._unattended.bounce(filter, reason))

    def _put_back(self, domain: str) -> None:
        for destination in list(self._queues.destinations.values()):
            if destination.ready and domain in ("", destination.domain):
                self._queues.put_back(destination)
                self._refill.arm(destination)

    # -- what is shown

    @property
    def troubles(self) -> Iterable[Trouble]:
        """The last answers that were not deliveries, oldest first."""
        return self._attempts.troubles

    @property
    def under_way(self) -> int:
        """How many attempts there are now."""
        return self._attempts.under_way

    def snapshot(self) -> list[DestinationStatus]:
        """Return the destinations known now, in no particular order."""
        now = self._wall()
        return [_status(each, now) for each in self._queues.destinations.values()]


def _status(destination: Destination, now: float) -> DestinationStatus:
    hop = destination.hop
    return DestinationStatus(
        destination.domain,
        hop.key,
        destination.active,
        len(destination.ready),
        destination.waiting,
        hop.down_until if hop.down_until > now else 0.0,
        destination.last_error,
        destination.delivered,
        destination.deferred,
        destination.failed,
    )


def _limits(settings: Delivery) -> Limits:
    return Limits(settings.concurrency, settings.max_connections, READY * settings.concurrency)


async def _close(transport: Transport) -> None:
    await transport.close()
