"""Attempts: hands ready messages to transports and says what came of it.

One attempt is one message with its recipients of one domain.  Its connection is free for
the next as soon as the transport has answered; the message stays in our hands until the
spool knows the result (:mod:`.ledger`).

:class:`.api.NextHopDown` defers the message and puts its next hop down; attempts that were
begun before that and fail in the same way say nothing new.  Whatever else a transport
raises is a fault of ours: logged, and the message deferred, so that it is neither lost nor
tried again at once.

The success of one recipient takes a short way of its own, because nearly every attempt
is that one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.model import Route
from ..counters import Counters
from ..errors import LocalFault
from ..records.values import AttemptEvent
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from ..spool.api import QueuedMessage, Settlement
from ..spool.ids import MessageId, id_name
from .api import Fate, NextHopDown, Outcome, Transport
from .ledger import FORMAT, Ledger
from .outcomes import INTERNAL_ERROR, Verdict, judge
from .queueing import NEVER, Destination, NextHop, Queues, octets_in_memory
from .retry import RetryPolicy

__all__ = ["Attempts", "Course", "Trouble"]

_log = Logger(namespace="delivery")

MAX_TROUBLES = 50
NOT_SENT = Reply(451, "4.3.0", "Cannot read the message for now")


@dataclass(frozen=True, slots=True)
class Trouble:
    """One answer that was not a delivery; ``time`` is Unix time."""

    time: float
    message: MessageId
    recipient: str
    next_hop: str
    reply: str


@dataclass(frozen=True, slots=True)
class Course:
    """What the scheduler does next: with a next hop that fell or is back, and else."""

    fell: Callable[[NextHop, Reply], None]
    back: Callable[[NextHop], None]
    #: A connection is free.
    turn: Callable[[], None]
    #: The spool knows the result.
    settled: Callable[[Destination], None]


class _Attempt:
    """One message at a transport."""

    __slots__ = ("destination", "epoch", "hop", "message", "result")

    def __init__(self, message: QueuedMessage, destination: Destination) -> None:
        self.message = message
        self.destination = destination
        self.hop = destination.hop
        self.epoch = destination.hop.epoch
        self.result: Deferred[Sequence[Outcome]]


class Attempts:
    """``transport`` returns the transport of a route; ``policy`` is replaced at a reload."""

    def __init__(
        self,
        wall: Callable[[], float],
        rng: random.Random,
        queues: Queues,
        ledger: Ledger,
        counters: Counters,
        policy: RetryPolicy,
        transport: Callable[[Route], Transport],
        course: Course,
    ) -> None:
        self._wall = wall
        self._rng = rng
        self._queues = queues
        self._ledger = ledger
        self._counters = counters
        self.policy = policy
        self._transport = transport
        self._course = course
        self._under_way: set[_Attempt] = set()
        self._cut_off = False
        #: The last answers that were not deliveries, oldest first.
        self.troubles: deque[Trouble] = deque(maxlen=MAX_TROUBLES)

    @property
    def under_way(self) -> int:
        """How many attempts there are now."""
        return len(self._under_way)

    def begin(self, message: QueuedMessage, destination: Destination) -> None:
        """Attempt ``message``."""
        self._counters.attempts += 1
        attempt = _Attempt(message, destination)
        self._under_way.add(attempt)
        attempt.result = result = Deferred.fromCoroutine(self._deliver(attempt))
        result.addCallbacks(
            self._answered, self._unanswered, callbackArgs=(attempt,), errbackArgs=(attempt,)
        )
        result.addErrback(self._surprised, attempt)

    def cut_off(self) -> None:
        """Cancel what is under way; it is not settled, so it will be attempted again."""
        self._cut_off = True
        for attempt in list(self._under_way):
            attempt.result.cancel()

    async def _deliver(self, attempt: _Attempt) -> Sequence[Outcome]:
        return await self._transport(attempt.hop.route).deliver(attempt.message)

    def _free(self, attempt: _Attempt) -> None:
        """The transport is done with it."""
        self._under_way.discard(attempt)
        self._queues.ended(attempt.destination, attempt.hop, octets_in_memory(attempt.message))

    def _answered(self, outcomes: Sequence[Outcome], attempt: _Attempt) -> None:
        self._free(attempt)
        if self._queues.answered(attempt.hop):
            self._course.back(attempt.hop)
        recipients = attempt.message.recipients
        if len(outcomes) == 1 == len(recipients) and outcomes[0].index == recipients[0].index:
            outcome, recipient = outcomes[0], recipients[0].recipient
            taken = outcome.fate is Fate.RELAYED or outcome.fate is Fate.DELIVERED
            if taken and not recipient.notify:
                self._sent(attempt, outcome, recipient)
                self._course.turn()
                return
        self._conclude(attempt, outcomes, 0.0)
        self._course.turn()

    def _sent(self, attempt: _Attempt, outcome: Outcome, recipient: Recipient) -> None:
        message, destination, reply = attempt.message, attempt.destination, outcome.reply
        self._counters.delivered += 1
        destination.delivered += 1
        now, dsn = self._wall(), reply.enhanced or "2.0.0"
        delay = now - message.arrived
        _log.info(
            FORMAT,
            message=id_name(message.id),
            recipient=recipient.mailbox,
            next_hop=outcome.next_hop or "none",
            seconds=delay,
            dsn=dsn,
            status="sent",
            reply=reply,
        )
        self._ledger.tell(
            AttemptEvent(
                message.id,
                now,
                recipient.mailbox,
                outcome.next_hop,
                "sent",
                dsn,
                str(reply),
                delay,
            )
        )
        settlement = Settlement(message.id, (outcome.index,))
        self._ledger.record(settlement, self._settled, destination, message.id)

    def _unanswered(self, failure: Failure, attempt: _Attempt) -> None:
        """The transport raised: the next hop is down, or we have a fault."""
        self._free(attempt)
        fault = failure.value
        reply, next_hop, not_before = INTERNAL_ERROR, "", 0.0
        if isinstance(fault, NextHopDown):
            reply, next_hop = fault.reply, fault.next_hop
            if attempt.epoch == attempt.hop.epoch:
                self._fell(attempt.hop, reply)
            not_before = attempt.hop.down_until
        elif isinstance(fault, CancelledError) and self._cut_off:
            return
        elif isinstance(fault, LocalFault):
            reply = NOT_SENT
            _log.error(
                "{message}: not sent: {reason}",
                message=id_name(attempt.message.id),
                reason=str(fault),
            )
        else:
            _log.failure(
                "{message}: the attempt failed",
                failure=failure,
                message=id_name(attempt.message.id),
            )
        self._defer(attempt, reply, next_hop, not_before)
        self._course.turn()

    def _surprised(self, failure: Failure, attempt: _Attempt) -> None:
        """What the transport returned made no sense, or we have a fault of our own."""
        _log.failure(
            "{message}: no sense in the outcome",
            failure=failure,
            message=id_name(attempt.message.id),
        )
        self._defer(attempt, INTERNAL_ERROR, "", 0.0)

    def _defer(self, attempt: _Attempt, reply: Reply, next_hop: str, not_before: float) -> None:
        outcomes = [
            Outcome(queued.index, Fate.DEFERRED, reply, next_hop)
            for queued in attempt.message.recipients
        ]
        self._conclude(attempt, outcomes, not_before)

    def _fell(self, hop: NextHop, reply: Reply) -> None:
        wait = self.policy.wait(hop.failures + 1, self._rng.random())
        self._queues.fell(hop, self._wall() + wait)
        hop.last_error = str(reply)
        for destination in hop.destinations:
            destination.last_error = hop.last_error
        _log.warn(
            "{next_hop} is down, tried again in {seconds} s: {reply}",
            next_hop=hop.key,
            seconds=round(wait),
            reply=hop.last_error,
        )
        self._course.fell(hop, reply)

    def _conclude(self, attempt: _Attempt, outcomes: Sequence[Outcome], not_before: float) -> None:
        """Settle anything but the plain success of one recipient."""
        message, destination, now = attempt.message, attempt.destination, self._wall()
        verdict = judge(message, outcomes, now, self.policy, self._rng.random(), not_before)
        destination.delivered += verdict.delivered
        destination.deferred += len(verdict.retry)
        destination.failed += verdict.failed
        self._remember(message, destination, verdict, now)
        self._ledger.conclude(message, verdict, now, self._settled, destination, message.id)

    def _remember(
        self, message: QueuedMessage, destination: Destination, verdict: Verdict, now: float
    ) -> None:
        for line in verdict.lines:
            if line.status != "sent":
                destination.last_error = line.reply
                trouble = Trouble(now, message.id, line.mailbox, line.next_hop, line.reply)
                self.troubles.append(trouble)
        destination.waiting += len(verdict.retry)
        for due, _, _ in verdict.retry.values():
            self._queues.note_due(destination, due)

    def _settled(self, destination: Destination, id: MessageId) -> None:
        self._queues.release(destination, id)
        if destination.due != NEVER or self._ledger.held_up:
            self._course.settled(destination)
