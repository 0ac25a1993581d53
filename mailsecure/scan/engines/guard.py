"""What stands between an engine and the pipeline: so many at once, so long, and not if it is down.

:class:`EngineCheck` makes a check of an engine's client (:class:`Engine`).  A message waits
for its turn, at most ``connections`` are there at once, and has ``timeout`` seconds for
waiting and scanning together.  What goes wrong is a symbol NAME_FAILED, and ``on_failure``
decides; failures in a row open the :mod:`.breaker`, and then messages fail at once instead
of waiting in vain.

An idle engine is asked now and then whether it is there, and one that is down whenever a
pause of the breaker is over, so that nobody's message has to find out.  That it went down
or came back is logged once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.logger import Logger

from ...background import Periodic, background
from ...config.scanning import EngineSettings, OnFailure, ScanAction
from ...errors import RemoteFault
from ...units import format_octets, format_seconds
from ...world import World
from ..api import ScannerFault, Unscannable
from ..values import NOTHING, Content, Facts, Finding, Special, Stage, Symbol
from .breaker import Breaker, State
from .fields import line
from .tally import Tally
from .turns import Crowded, Turns

__all__ = ["Engine", "EngineCheck", "Refused"]

_log = Logger(namespace="scan")

#: Seconds: how often is looked whether to ask an engine how it is, how long one may be idle
#: before it is asked, and how long it may take to say that it is there.
LOOK = 1.0
IDLE = 30.0
PROBE = 5.0
MAX_WAITING = 10_000
#: The score from which on something counts as found, in the report.
FOUND = 5.0


class Refused(ScannerFault):
    """The engine is there, and says that it cannot judge this message: no sign that it is down.

    Otherwise a few strange messages of one sender could have it left alone for all.
    """


class Engine(Protocol):
    """The client of a scanner.  All it raises is ScannerFault, RemoteFault, and what bodies do."""

    def start(self) -> None:
        """Begin; called once."""

    def close(self) -> None:
        """End; called once."""

    async def probe(self) -> None:
        """Ask the scanner whether it is there."""

    async def scan(self, facts: Facts, content: Content) -> Finding:
        """Return what the scanner says of a message; Unscannable where it cannot be read."""


@dataclass(slots=True)
class _Visit:
    """One message's: the breaker's ``ticket``, when its turn ``began``, why it was too ``late``."""

    ticket: int = 0
    began: float = 0.0
    late: str = ""


class EngineCheck:
    """An engine as a check (:class:`mailsecure.scan.api.Check`), with a start and a stop.

    Messages above ``max_size`` octets are unscannable, or, where ``oversized`` is false,
    just not judged here.  ``on_failure`` is that of ``[scan]``, for engines without their own.
    """

    def __init__(
        self,
        name: str,
        world: World,
        settings: EngineSettings,
        engine: Engine,
        max_size: int,
        on_failure: OnFailure,
        oversized: bool = True,
    ) -> None:
        self.name = name
        self.stages = frozenset({Stage.DATA})
        #: How long it takes at most, in seconds; it sees to that by itself.
        self.limit: float = settings.timeout
        self._world = world
        self._clock = world.clock
        self._settings = settings
        self._engine = engine
        self._max_size = max_size
        self._oversized = oversized
        self._postpones = (settings.on_failure or on_failure) is OnFailure.TEMPFAIL
        self._breaker = Breaker(settings.failures, settings.pause)
        self._turns = Turns(settings.connections, MAX_WAITING)
        self._health = Periodic(self._clock, LOOK, f"health of {name}", self._look)
        self._probing: Deferred[None] | None = None
        self._heard = float("-inf")
        self._trouble = False
        self._down = False
        self._since = world.wall()
        self._last_error = ""
        self._tally = Tally()

    # -- its life

    async def start(self) -> None:
        """Begin, and ask at once whether the engine is there."""
        self._engine.start()
        self._health.start()
        self._look()

    async def stop(self) -> None:
        """End."""
        self._health.stop()
        if self._probing is not None:
            self._probing.cancel()
        self._engine.close()

    # -- a message

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Have the engine judge the message.  Raises what reading the body raises, no more."""
        content = facts.content
        if content is None:
            return NOTHING
        if content.octets > self._max_size:
            return self._too_large(content.octets)
        visit = _Visit()
        work = Deferred.fromCoroutine(self._visit(visit, facts, content))
        deadline = self._clock.callLater(self._settings.timeout, self._expire, visit, work)
        try:
            finding = await work
        except Unscannable as fault:
            finding = _unscannable(str(fault))
        except CancelledError:
            if not visit.late:
                raise
            return self._failed(visit.late)
        except (Crowded, RemoteFault, ScannerFault) as fault:
            return self._failed(line(str(fault)))
        finally:
            if deadline.active():
                deadline.cancel()
        self._tally.found += any(map(_counts, finding.symbols))
        return finding

    async def _visit(self, visit: _Visit, facts: Facts, content: Content) -> Finding:
        if not self._breaker.would_enter(self._clock.seconds()):
            raise self._away()
        async with self._turns:
            visit.began = self._clock.seconds()
            ticket = self._breaker.enter(visit.began)
            if ticket is None:
                raise self._away()
            visit.ticket = ticket
            try:
                return await self._scan(visit, facts, content)
            finally:
                # Of no effect where the visit proved something.
                self._breaker.left(ticket, self._clock.seconds())

    async def _scan(self, visit: _Visit, facts: Facts, content: Content) -> Finding:
        """Ask the engine, and tell the breaker before anybody else has the turn."""
        try:
            finding = await self._engine.scan(facts, content)
        except Unscannable:
            self._judged(visit)
            raise
        except Refused:
            raise
        except (RemoteFault, ScannerFault) as fault:
            self._strike(visit.ticket, line(str(fault)))
            raise
        except CancelledError:
            # With less time than that the engine had no fair chance: it is busy, not down.
            if visit.late and self._clock.seconds() - visit.began >= self._settings.timeout / 2:
                visit.late = f"no answer within {self._settings.timeout:g} s"
                self._strike(visit.ticket, visit.late)
            raise
        self._judged(visit)
        return finding

    def _expire(self, visit: _Visit, work: Deferred[Finding]) -> None:
        visit.late = "it had to wait too long for its turn"
        work.cancel()

    def _away(self) -> Crowded:
        return Crowded(f"it is down: {self._last_error}")

    def _judged(self, visit: _Visit) -> None:
        self._heard = self._clock.seconds()
        self._tally.judged(self._heard - visit.began)
        self._breaker.succeeded(visit.ticket)
        self._back()

    def _failed(self, why: str) -> Finding:
        """Return what a message gets that was not judged."""
        self._tally.failures += 1
        action = None
        if self._settings.on_failure is not None:
            action = ScanAction.TEMPFAIL if self._postpones else ScanAction.ACCEPT
        name = f"{self.name.upper()}_FAILED"
        return Finding((Symbol(name, 0.0, why, action, Special.FAILURE),))

    def _too_large(self, octets: int) -> Finding:
        if not self._oversized:
            return NOTHING
        most = format_octets(self._max_size)
        return _unscannable(f"{format_octets(octets)} are more than {self.name} takes ({most})")

    # -- its health

    def _look(self) -> None:
        """Ask the engine how it is, if it is time."""
        now = self._clock.seconds()
        quiet = self._turns.busy == 0 and now - self._heard >= (LOOK if self._trouble else IDLE)
        if self._probing is not None or (self._breaker.state is State.WELL and not quiet):
            return
        ticket = self._breaker.enter(now)
        if ticket is not None:
            self._probing = background(f"asking how {self.name} is", self._probe(ticket))
            self._probing.addCallback(self._probed)

    async def _probe(self, ticket: int) -> None:
        probe = Deferred.fromCoroutine(self._engine.probe())
        probe.addTimeout(min(PROBE, self._settings.timeout), self._clock)
        try:
            await probe
        except TooLate:
            self._strike(ticket, "no answer when asked how it is")
        except (RemoteFault, ScannerFault) as fault:
            self._strike(ticket, line(str(fault)))
        else:
            self._heard = self._clock.seconds()
            self._breaker.probed(ticket)
            self._back()
        finally:
            self._breaker.left(ticket, self._clock.seconds())

    def _probed(self, result: None) -> None:
        self._probing = None

    def _strike(self, ticket: int, why: str) -> None:
        """The engine failed."""
        now = self._clock.seconds()
        self._trouble = True
        self._last_error = why
        self._breaker.failed(ticket, now)
        if self._down or self._breaker.state is State.WELL:
            return
        self._down = True
        self._since = self._world.wall()
        _log.error("engine {engine} is down: {reason}", engine=self.name, reason=why)
        self._turns.dismiss(self._away())

    def _back(self) -> None:
        """The engine answered."""
        self._trouble = False
        if self._down and self._breaker.state is State.WELL:
            gone = self._world.wall() - self._since
            self._down = False
            self._since += gone
            _log.info(
                "engine {engine} is back after {seconds}",
                engine=self.name,
                seconds=format_seconds(max(0.0, gone)),
            )

    @property
    def well(self) -> bool:
        """False while it is down and mail is put off for that."""
        return not (self._down and self._postpones)

    def report(self) -> dict[str, Any]:
        """Return how it is, as JSON for the status and the metrics.

        ``state`` is well, down or trying, ``since`` Unix time; ``scanned`` messages were
        judged, ``found`` of them for something, ``failures`` could not be; ``waiting`` and
        ``busy`` are those of now; ``median`` and ``last`` are seconds, null without any.
        """
        return {
            "name": self.name,
            "state": self._breaker.state.value,
            "since": self._since,
            "last_error": self._last_error,
            "waiting": self._turns.waiting,
            "busy": self._turns.busy,
            **self._tally.report(),
        }


def _unscannable(why: str) -> Finding:
    return Finding((Symbol("UNSCANNABLE", reason=why, special=Special.UNSCANNABLE),))


def _counts(symbol: Symbol) -> bool:
    """Say whether a symbol means that something was found."""
    acts = symbol.action not in (None, ScanAction.ACCEPT)
    return acts or symbol.special is not None or symbol.score >= FOUND
