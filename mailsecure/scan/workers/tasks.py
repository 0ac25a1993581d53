"""What the pool keeps of a job that waits or is done, and of a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ...spool.values import Body
from ...world import World
from .link import Link, Owner

__all__ = ["Task", "Worker"]


class Task:
    """One job: what is to be done, and who waits for it.

    ``timer`` fires when it has waited, or has been worked on, for too long.
    """

    def __init__(
        self,
        job: str,
        arguments: Mapping[str, Any],
        body: Body | None,
        given_up: Callable[[Task], None],
    ) -> None:
        self.job = job
        self.arguments = arguments
        self.body = body
        self.timer: IDelayedCall | None = None
        self.answer: Deferred[dict[str, Any]] = Deferred(self._cancelled)
        self._given_up = given_up

    def succeed(self, result: dict[str, Any]) -> None:
        """Give the result to who waits."""
        self.cancel_timer()
        self.answer.callback(result)

    def fail(self, fault: Exception) -> None:
        """Raise ``fault`` where it is waited for."""
        self.cancel_timer()
        self.answer.errback(fault)

    def cancel_timer(self) -> None:
        """Forget the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _cancelled(self, _: Deferred[dict[str, Any]]) -> None:
        self.cancel_timer()
        self._given_up(self)


class Worker:
    """One process: its number, its socket, and the job it is at.

    ``started`` is when it got the job (the clock's seconds), ``sent`` whether it has all of
    it, ``jobs`` how many it has done, ``process`` its id, 0 before it is born.
    """

    def __init__(self, world: World, owner: Owner, number: int) -> None:
        self.number = number
        self.link = Link(world, owner, number)
        self.task: Task | None = None
        self.started = 0.0
        self.sent = False
        self.jobs = 0
        self.process = 0

    def take(self, task: Task, now: float) -> None:
        """Begin with a job."""
        self.task, self.started, self.sent = task, now, False

    def finish(self) -> None:
        """Be done with it, one way or another."""
        if self.task is not None:
            self.task = None
            self.jobs += 1
