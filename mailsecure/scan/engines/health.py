"""Whether an engine is well: asked by us, when nobody is heard of it.

:class:`Health` hears from :mod:`.guard` how messages fare with an engine, and asks the
engine itself how it is (its *probe*: a ping, or whatever its protocol has)

* when it was idle for a while, so that the status knows before the next message comes;
* when messages are there and nothing was heard of it for some seconds: a hung scanner is
  found out before the first of them has waited for its whole deadline;
* when a message was not judged: is it the engine, or the message?
* when a pause of the :mod:`.breaker` is over, so that nobody's message has to find out.

That an engine went down or came back is logged once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.logger import Logger

from ...background import Periodic, background
from ...config.scanning import EngineSettings
from ...errors import RemoteFault
from ...units import format_seconds
from ...world import World
from ..api import ScannerFault
from .breaker import Breaker
from .fields import line

__all__ = ["Health"]

_log = Logger(namespace="scan")

#: Seconds: how often is looked whether to ask an engine how it is, how long one may be idle
#: or say nothing to messages before it is asked, and how long it may take to say that it is
#: there.
LOOK = 1.0
IDLE = 30.0
SILENCE = 5.0
PROBE = 5.0


class Health:
    """One engine's.  ``fell`` is called when it goes down."""

    def __init__(
        self,
        name: str,
        world: World,
        settings: EngineSettings,
        probe: Callable[[], Coroutine[Any, Any, None]],
        fell: Callable[[], None],
    ) -> None:
        self._name = name
        self._world = world
        self._clock = world.clock
        self._ask = probe
        self._fell = fell
        self._patience = min(PROBE, settings.timeout)
        self._silence = min(SILENCE, settings.timeout / 3)
        self._breaker = Breaker(settings.failures, settings.pause)
        self._looking = Periodic(self._clock, LOOK, f"health of {name}", self._look)
        self._probing: Deferred[None] | None = None
        #: Messages that are there, since when some are, and when the engine was heard of.
        self._guests = 0
        self._began = self._heard = float("-inf")
        self._trouble = False
        self._since = world.wall()
        #: Whether it is down, and what went wrong last.
        self.down = False
        self.last_error = ""

    def start(self) -> None:
        """Begin, and ask at once."""
        self._looking.start()
        self._look()

    def stop(self) -> None:
        """End."""
        self._looking.stop()
        if self._probing is not None:
            self._probing.cancel()

    # -- how messages fare

    @property
    def lets_in(self) -> bool:
        """False where messages should not go there."""
        return self._breaker.lets_in

    def came(self) -> None:
        """A message is there now."""
        if not self._guests:
            self._began = self._clock.seconds()
        self._guests += 1

    def gone(self) -> None:
        """It is there no more, whatever it came to."""
        self._guests -= 1

    def judged(self) -> None:
        """A message was judged."""
        self._heard = self._clock.seconds()
        self._breaker.succeeded()
        self._back()

    def doubted(self, why: str) -> None:
        """A message was not, and the engine may be the reason: it will be asked."""
        self._trouble = True
        self.last_error = why
        self._breaker.doubted()

    def failed(self, why: str) -> None:
        """A message was not, and the engine is the reason."""
        self._breaker.failed(self._clock.seconds())
        self._struck(why)

    def report(self) -> dict[str, Any]:
        """Return ``state`` (well, down, trying), ``since`` (Unix time) and ``last_error``."""
        state = self._breaker.state.value
        return {"state": state, "since": self._since, "last_error": self.last_error}

    # -- asking

    def _look(self) -> None:
        """Ask the engine how it is, if it is time."""
        now = self._clock.seconds()
        if self._probing is not None or not (self._breaker.try_out(now) or self._due(now)):
            return
        self._probing = background(f"asking how {self._name} is", self._probe())
        self._probing.addCallback(self._probed)

    def _due(self, now: float) -> bool:
        if not self.lets_in:
            return False
        if not self._guests:
            return now - self._heard >= (LOOK if self._trouble else IDLE)
        silence = now - max(self._heard, self._began)
        return self._breaker.doubts > 0 or silence >= self._silence

    async def _probe(self) -> None:
        probe = Deferred.fromCoroutine(self._ask())
        probe.addTimeout(self._patience, self._clock)
        try:
            await probe
        except TooLate:
            self._unanswered("no answer when asked how it is")
        except (RemoteFault, ScannerFault) as fault:
            self._unanswered(line(str(fault)))
        else:
            self._heard = self._clock.seconds()
            self._breaker.answered()
            self._back()
        finally:
            # Of no effect where it proved something.
            self._breaker.left(self._clock.seconds())

    def _probed(self, result: None) -> None:
        self._probing = None

    def _unanswered(self, why: str) -> None:
        self._breaker.unanswered(self._clock.seconds())
        self._struck(why)

    # -- down and back

    def _struck(self, why: str) -> None:
        self._trouble = True
        self.last_error = why
        if self.down or self.lets_in:
            return
        self.down = True
        self._since = self._world.wall()
        _log.error("engine {engine} is down: {reason}", engine=self._name, reason=why)
        self._fell()

    def _back(self) -> None:
        """The engine was heard of."""
        self._trouble = False
        if self.down and self.lets_in:
            gone = self._world.wall() - self._since
            self.down = False
            self._since += gone
            _log.info(
                "engine {engine} is back after {seconds}",
                engine=self._name,
                seconds=format_seconds(max(0.0, gone)),
            )
