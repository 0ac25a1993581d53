"""What is done for messages in the spool without an attempt.

* Behind a next hop that is down messages grow old: :meth:`Unattended.age` sends the delay
  warnings and returns what has expired.  It goes through a domain in the order of arrival
  and stops at the first message that is too young, so that fifty thousand young ones cost
  one question.  (What was released from the quarantine is younger here than its id, and is
  passed over.)  Up to where warnings were considered is remembered while we run; after a
  restart they are looked at once more, and the spool knows who was warned.
* A postmaster gives messages up: :meth:`Unattended.bounce`.

A message is in our hands meanwhile, so nobody attempts it.  One that is being *attempted*
when the postmaster's command comes is left alone: the attempt's result stands, and the
command does not count it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from ..smtp.replies import Reply
from ..spool.api import Filter, Listing, QueuedMessage, RecipientState, Spool
from ..spool.ids import MessageId, drawn_at
from .ledger import Ledger
from .outcomes import Verdict, age, give_up
from .queueing import Destination, Queues
from .retry import RetryPolicy

__all__ = ["Unattended"]

PAGE = 100
#: Ids are drawn when a message arrives; what is so many seconds younger came back.
_LATER = 60.0


class Unattended:
    """Gives up or warns; the arguments are the scheduler's own parts."""

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        spool: Spool,
        queues: Queues,
        ledger: Ledger,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._spool = spool
        self._queues = queues
        self._ledger = ledger

    async def age(self, destination: Destination, policy: RetryPolicy, reply: Reply) -> None:
        """Return what expired and warn of what is late, while the next hop is down."""
        wanted = Filter(destination=destination.domain, state=RecipientState.QUEUED)
        last = MessageId(0)
        async for listing in self._each(wanted, None):
            if not destination.hop.failures:
                break
            if not policy.expired(listing.arrived, self._wall()):
                if _was_released(listing):
                    continue
                break
            await self._age_one(destination, listing, policy, reply)
            last = listing.id
        async for listing in self._each(wanted, max(destination.examined, last)):
            if not destination.hop.failures:
                break
            if not policy.warning_due(listing.arrived, self._wall()):
                if _was_released(listing):
                    continue
                break
            await self._age_one(destination, listing, policy, reply)
            destination.examined = listing.id

    async def _age_one(
        self, destination: Destination, listing: Listing, policy: RetryPolicy, reply: Reply
    ) -> None:
        now = self._wall()

        def judge(message: QueuedMessage) -> Verdict:
            return age(message, now, policy, reply)

        verdict = await self._settle(listing, destination.domain, judge)
        destination.waiting = max(0, destination.waiting - verdict.failed)
        destination.failed += verdict.failed

    async def bounce(self, filter: Filter, reason: str) -> int:
        """Give up what matches, held or not; return how many recipients."""
        bounced = 0
        async for listing in self._each(filter, None):
            verdict = await self._settle(
                listing, "", lambda message: give_up(message, reason, self._wall())
            )
            bounced += verdict.failed
        return bounced

    async def _each(self, wanted: Filter, after: MessageId | None) -> AsyncIterator[Listing]:
        """Yield what matches, in order of arrival."""
        while True:
            page = await self._spool.find(wanted, PAGE, after)
            for listing in page:
                yield listing
            if len(page) < PAGE:
                return
            after = page[-1].id
            # The reactor is not ours alone, and a spool may answer at once.
            await deferLater(self._clock, 0)

    async def _settle(
        self, listing: Listing, domain: str, judge: Callable[[QueuedMessage], Verdict]
    ) -> Verdict:
        """Settle what ``judge`` says of the listed recipients (of ``domain``, or all)."""
        claimed: list[Destination] = []
        try:
            message = await self._spool.content(listing.id)
            if message is None:
                return Verdict()
            listed = {row[0] for row in listing.recipients}
            chosen = []
            for queued in message.recipients:
                of = queued.recipient.domain
                wanted = queued.recipient.mailbox in listed and of == (domain or of)
                if wanted and self._claim(listing.id, of, claimed):
                    chosen.append(queued)
            message = replace(message, recipients=chosen)
            verdict = judge(message)
            if verdict.done or verdict.warned:
                settled: Deferred[None] = Deferred()
                self._ledger.conclude(message, verdict, self._wall(), settled.callback, None)
                await settled
            return verdict
        finally:
            for destination in claimed:
                self._queues.release(destination, listing.id)

    def _claim(self, id: MessageId, domain: str, claimed: list[Destination]) -> bool:
        """Take a message into our hands for one domain; False where it is attempted now."""
        destination = self._queues.destinations.get(domain)
        if destination is None or destination in claimed:
            return True
        if id in destination.hands:
            return False
        destination.hands.add(id)
        claimed.append(destination)
        return True


def _was_released(listing: Listing) -> bool:
    """Say whether a message came into the queue by a postmaster's hand, after its time."""
    return listing.arrived - drawn_at(listing.id) > _LATER
