"""The reader's thread: one question after another, answered in the reactor's thread.

:mod:`.service` owns one.  Questions that wait are bounded; each has its limits in
:mod:`.reading`, and one that hangs all the same is interrupted by :meth:`Questions.watch`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..world import World
from .api import RecordsAway
from .reading import Reader

__all__ = ["MOST_QUESTIONS", "Questions"]

_T = TypeVar("_T")

#: Questions that may wait.
MOST_QUESTIONS = 20


class Questions:
    """Asks ``reader``, which nobody else uses."""

    def __init__(self, world: World, reader: Reader) -> None:
        self._clock = world.clock
        self._from_thread: Callable[..., None] = world.reactor.callFromThread
        self._reader = reader
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._waiting = 0
        self._ended = False
        #: Since when (monotonic) it is at the present question; 0: at none.
        self._busy = 0.0

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="records-reader", daemon=True).start()

    def end(self) -> None:
        """Take no more questions; those that wait are answered.  Returns at once."""
        self._ended = True
        self._queue.put(None)

    def ask(self, question: Callable[[Reader], _T]) -> Deferred[_T]:
        """Have ``question`` asked; :class:`.api.RecordsAway` where that cannot be."""
        if self._ended:
            raise RecordsAway("the history is closed")
        if self._waiting >= MOST_QUESTIONS:
            raise RecordsAway("the history is asked too much at once")
        waiting: Deferred[_T] = Deferred()
        self._waiting += 1
        self._queue.put((lambda: question(self._reader), waiting))
        return waiting

    def watch(self, hangs: float) -> None:
        """Interrupt a question that is older than so many seconds."""
        if 0 < self._busy < self._clock.seconds() - hangs:
            self._reader.interrupt()

    def _run(self) -> None:
        """In the thread."""
        while (asked := self._queue.get()) is not None:
            question, waiting = asked
            self._busy = self._clock.seconds()
            try:
                answer: Any = question()
            except BaseException:
                # Carried to the reactor's thread, where somebody waits for it.
                answer = Failure()
            self._busy = 0.0
            self._from_thread(self._answer, waiting, answer)
        self._reader.close()

    def _answer(self, waiting: Deferred[Any], answer: Any) -> None:
        self._waiting -= 1
        if not waiting.called:
            waiting.callback(answer)
