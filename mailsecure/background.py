"""Work that nobody waits for, and work that comes round: both survive and say so.

Twisted loses the failure of a Deferred that nobody holds until the collector finds
it, and ``LoopingCall`` stops for good at the first exception.  Everything in
mailsecure that runs on its own therefore goes through :func:`background` or
:class:`Periodic`, the only places besides the top of a session that catch
``Exception``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Periodic", "background"]

_log = Logger(namespace="main")


def background(what: str, coroutine: Coroutine[Deferred[Any], Any, Any]) -> Deferred[None]:
    """Run ``coroutine``; log what goes wrong under the name ``what``.

    The Deferred returned never fails and fires with None when the work has ended; keep
    it where the work may have to be cancelled or waited for.
    """
    work: Deferred[Any] = Deferred.fromCoroutine(coroutine)

    def ended(result: object) -> None:
        if isinstance(result, Failure) and result.check(CancelledError) is None:
            _log.failure("{what} failed", failure=result, what=what)

    done: Deferred[None] = work.addBoth(ended)
    return done


class Periodic:
    """Calls ``work`` every ``interval`` seconds of ``clock``, whatever it raises.

    The next call is counted from the start of this one, so a late reactor never causes
    a burst.  ``work`` must be quick: it runs in the reactor's thread.
    """

    def __init__(
        self, clock: IReactorTime, interval: float, what: str, work: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._what = what
        self._work = work
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        if self._call is None:
            self._call = self._clock.callLater(self._interval, self._turn)

    def stop(self) -> None:
        """End; no call comes after this."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _turn(self) -> None:
        self._call = self._clock.callLater(self._interval, self._turn)
        try:
            self._work()
        except Exception:
            _log.failure("{what} failed", what=self._what)
