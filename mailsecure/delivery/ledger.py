"""Settles: tells log, history, counters and spool what became of an attempt.

Every attempt ends in one :class:`~..spool.api.Settlement`, with the notice for the sender
in it, so that a crash neither loses nor repeats it.

**When the spool fails** the message has been delivered and the spool does not know.  So
nothing is forgotten: the settlement is offered again, after a growing pause, until it is
taken, and until then the message stays in our hands and is not given out again.  While
the spool is broken nothing new is attempted, so that a crash now would repeat no more
than what was under way.  A *full* disk stops nothing (deliveries make room), until
:data:`MAX_REFUSED` settlements wait.

A notice that cannot be made (a fault of ours) turns its failures into deferrals: the
sender is told later rather than never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..counters import Counters
from ..records.api import Recorder
from ..records.values import AttemptEvent
from ..spool.api import NewMessage, QueuedMessage, Settlement, Spool, SpoolBroken
from ..spool.ids import id_name
from .notices import Notices
from .outcomes import INTERNAL_ERROR, Line, Verdict

__all__ = ["FORMAT", "Ledger", "attempt_event", "log_line"]

_log = Logger(namespace="delivery")

#: Settlements that the spool refused, and those it has not answered: no attempts beyond.
MAX_REFUSED = 1000
MAX_OPEN = 5000
#: A notice that could not be made is tried again after so many seconds.
NOTICE_AGAIN = 900.0
#: The line of one recipient of one attempt.
FORMAT = (
    "{message}: to=<{recipient}>, relay={next_hop}, delay={seconds}, dsn={dsn},"
    " status={status} ({reply})"
)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

After = Callable[..., None]
_Entry = tuple[Settlement, After, tuple[Any, ...]]


def log_line(message: QueuedMessage, line: Line, now: float) -> None:
    """Write the line of one recipient of one attempt."""
    _log.info(
        FORMAT,
        message=id_name(message.id),
        recipient=line.mailbox,
        next_hop=line.next_hop or "none",
        seconds=now - message.arrived,
        dsn=line.dsn,
        status=line.status,
        reply=line.reply,
    )


def attempt_event(message: QueuedMessage, line: Line, now: float) -> AttemptEvent:
    """Return what the history is told of one recipient of one attempt."""
    return AttemptEvent(
        message.id,
        now,
        line.mailbox,
        line.next_hop,
        line.status,
        line.dsn,
        line.reply,
        now - message.arrived,
    )


class Ledger:
    """The way of results into the spool, the log and the history.

    ``entered`` is called with each notice that is in the queue now.
    """

    def __init__(
        self,
        clock: IReactorTime,
        spool: Spool,
        notices: Notices,
        counters: Counters,
        entered: Callable[[NewMessage], None],
        recorder: Recorder,
    ) -> None:
        self._clock = clock
        self._settle = spool.settle
        self._notices = notices
        self._counters = counters
        self._entered = entered
        #: Tells the history; the short way of a plain success uses it too.
        self.tell = recorder.tell
        self._refused: list[_Entry] = []
        self._again: IDelayedCall | None = None
        self._pause = _FIRST_PAUSE
        self._broken = False
        #: Results that are not in the spool yet.
        self.open = 0
        self.held_up = False
        self._stopped = False

    def must_wait(self) -> bool:
        """Say whether nothing should be attempted now: results could not be kept.

        :attr:`held_up` remembers that the answer was yes.
        """
        self.held_up = self._broken or self.open >= MAX_OPEN or len(self._refused) >= MAX_REFUSED
        return self.held_up

    def stop(self) -> None:
        """Offer nothing again.  What the spool did not take will be attempted again."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._refused:
            _log.error(
                "{recipients} results are not recorded: these messages will be sent again",
                recipients=len(self._refused),
            )

    # -- results

    def conclude(
        self,
        message: QueuedMessage,
        verdict: Verdict,
        now: float,
        after: After,
        *arguments: Any,
    ) -> None:
        """Log, tell, count, notify and settle; ``after(*arguments)`` is called once settled."""
        for line in verdict.lines:
            log_line(message, line, now)
            self.tell(attempt_event(message, line, now))
        counters = self._counters
        counters.delivered += verdict.delivered
        counters.deferred += len(verdict.retry)
        counters.failed += verdict.failed
        if not verdict.reports:
            self.record(_settlement(message, verdict, None), after, *arguments)
            return
        self.open += 1
        writing = Deferred.fromCoroutine(self._notices.write(message, verdict.reports, now))
        writing.addErrback(self._unwritten, message, verdict, now)
        writing.addCallback(self._written, message, verdict, after, arguments)

    def _written(
        self,
        notice: NewMessage | None,
        message: QueuedMessage,
        verdict: Verdict,
        after: After,
        arguments: tuple[Any, ...],
    ) -> None:
        self.open -= 1
        settlement = _settlement(message, verdict, notice)
        self.record(settlement, self._concluded, message, notice, after, arguments)

    def _unwritten(
        self, failure: Failure, message: QueuedMessage, verdict: Verdict, now: float
    ) -> None:
        _log.failure(
            "{message}: no notice could be made", failure=failure, message=id_name(message.id)
        )
        told = {report.recipient for report in verdict.reports}
        for queued in message.recipients:
            # What is delivered is done, told or not; the rest must come back.
            if queued.recipient in told and queued.index not in verdict.succeeded:
                verdict.retry.setdefault(
                    queued.index, (now + NOTICE_AGAIN, str(INTERNAL_ERROR), True)
                )
        verdict.done = [index for index in verdict.done if index not in verdict.retry]
        verdict.warned = []

    def _concluded(
        self,
        message: QueuedMessage,
        notice: NewMessage | None,
        after: After,
        arguments: Iterable[Any],
    ) -> None:
        if notice is not None:
            self._notices.announce(message, notice)
            self._entered(notice)
        after(*arguments)

    # -- the spool

    def record(self, settlement: Settlement, after: After, *arguments: Any) -> None:
        """Have ``settlement`` applied, however long it takes; then call ``after``."""
        self.open += 1
        self._offer((settlement, after, arguments))

    def _offer(self, entry: _Entry) -> None:
        self._settle(entry[0]).addCallbacks(
            self._taken, self._not_taken, callbackArgs=(entry,), errbackArgs=(entry,)
        )

    def _taken(self, _: None, entry: _Entry) -> None:
        self.open -= 1
        if self._broken:
            self._broken = False
            _log.warn("the spool records results again")
        if self._pause > _FIRST_PAUSE and not self._refused:
            self._pause = _FIRST_PAUSE
        entry[1](*entry[2])

    def _not_taken(self, failure: Failure, entry: _Entry) -> None:
        self._broken = self._broken or failure.check(SpoolBroken) is not None
        self._refused.append(entry)
        if self._again is None and not self._stopped:
            _log.error(
                "cannot record what became of {message}: {reason}; again in {seconds} s",
                message=id_name(entry[0].id),
                reason=failure.getErrorMessage(),
                seconds=self._pause,
            )
            self._again = self._clock.callLater(self._pause, self._offer_again)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _offer_again(self) -> None:
        self._again = None
        refused, self._refused = self._refused, []
        for entry in refused:
            self._offer(entry)


def _settlement(message: QueuedMessage, verdict: Verdict, notice: NewMessage | None) -> Settlement:
    return Settlement(message.id, tuple(verdict.done), verdict.retry, tuple(verdict.warned), notice)
