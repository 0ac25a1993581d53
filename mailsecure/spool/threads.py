"""The spool's threads: one that does work in turn, and one that answers questions.

:mod:`.sqlite` has a :class:`Worker` that writes and two :class:`Questions` that read.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .api import SpoolBroken
from .reading import Reader

__all__ = ["Questions", "Worker", "outcome_of"]

_T = TypeVar("_T")
#: How long a connection may take to close, in seconds: what it is at is interrupted.
_CLOSING = 5.0


def outcome_of(call: Callable[[], _T]) -> _T | Failure:
    """Return what ``call`` returns or raises, for the thread where somebody waits for it."""
    try:
        return call()
    except BaseException:
        return Failure()


class Worker:
    """A thread that does one piece of work after another, until it gets None."""

    def __init__(self, name: str, turn: Callable[[Any], None]) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._turn = turn
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Finish what is queued, then stop.  Returns at once."""
        self.queue.put(None)

    def _run(self) -> None:
        while (work := self.queue.get()) is not None:
            self._turn(work)


class Questions:
    """A thread that asks a :class:`Reader`; ``answer`` takes a Deferred and its outcome.

    ``answer`` is called in the thread.
    """

    def __init__(self, name: str, answer: Callable[[Deferred[Any], Any], None]) -> None:
        self._answer = answer
        self._reader: Reader | None = None
        self._worker = Worker(name, self._turn)

    def start(self) -> None:
        """Begin; until :meth:`use` every question fails."""
        self._worker.start()

    def use(self, reader: Reader) -> None:
        """Ask ``reader``, which is open, from now on.  In the writer's thread."""
        self._reader = reader

    def ask(self, question: Callable[[Reader], _T]) -> Deferred[_T]:
        """Have ``question`` answered.  In the reactor's thread."""
        waiting: Deferred[_T] = Deferred()
        self._worker.queue.put((question, waiting))
        return waiting

    def shut(self) -> None:
        """Close the connection, whatever it is at; questions fail.  In the writer's thread."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.interrupt()
            closed = threading.Event()
            self._worker.queue.put((reader, closed))
            closed.wait(_CLOSING)

    def end(self) -> None:
        """Finish what is queued, then stop.  Returns at once."""
        self._worker.end()

    def _turn(self, work: tuple[Any, Any]) -> None:
        question, waiting = work
        if isinstance(waiting, threading.Event):
            outcome_of(question.close)
            waiting.set()
            return
        reader = self._reader
        if reader is None:
            outcome: Any = Failure(SpoolBroken("the spool is closed"))
        else:
            outcome = outcome_of(lambda: question(reader))
        self._answer(waiting, outcome)
