"""What stands between an engine and the pipeline: so many at once, so long, and not if it is down.

:class:`EngineCheck` makes a check of an engine's client (:class:`Engine`).  A message waits
for its turn, at most ``connections`` are there at once, and has ``timeout`` seconds for
waiting and scanning together.  What goes wrong is a symbol NAME_FAILED, and ``on_failure``
decides; where the engine itself is down (:mod:`.health` finds that out), messages fail at
once instead of waiting in vain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred

from ...config.scanning import EngineSettings, OnFailure, ScanAction
from ...errors import RemoteFault
from ...units import format_octets
from ...world import World
from ..api import ScannerFault, Unscannable
from ..values import NOTHING, Content, Facts, Finding, Special, Stage, Symbol
from .fields import line
from .health import Health
from .tally import Tally
from .turns import Crowded, Turns
from .wires import Unreachable

__all__ = ["Engine", "EngineCheck", "Refused"]

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
    """One message's: when its turn ``began``, and why it was too ``late``."""

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
        self._turns = Turns(settings.connections, MAX_WAITING)
        self._health = Health(name, world, settings, engine.probe, self._fell)
        self._tally = Tally()

    # -- its life

    async def start(self) -> None:
        """Begin, and ask at once whether the engine is there."""
        self._engine.start()
        self._health.start()

    async def stop(self) -> None:
        """End."""
        self._health.stop()
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
        if not self._health.lets_in:
            raise self._away()
        async with self._turns:
            if not self._health.lets_in:
                raise self._away()
            visit.began = self._clock.seconds()
            self._health.came()
            try:
                return await self._scan(visit, facts, content)
            finally:
                self._health.gone()

    async def _scan(self, visit: _Visit, facts: Facts, content: Content) -> Finding:
        """Ask the engine, and say how it went before anybody else has the turn."""
        try:
            finding = await self._engine.scan(facts, content)
        except Unscannable:
            self._judged(visit)
            raise
        except Refused:
            raise
        except Unreachable as fault:
            self._health.failed(line(str(fault)))
            raise
        except (RemoteFault, ScannerFault) as fault:
            self._health.doubted(line(str(fault)))
            raise
        except CancelledError:
            # With less time than that the engine had no fair chance: it is busy, not down.
            if visit.late and self._clock.seconds() - visit.began >= self._settings.timeout / 2:
                visit.late = f"no answer within {self._settings.timeout:g} s"
                self._health.doubted(visit.late)
            raise
        self._judged(visit)
        return finding

    def _expire(self, visit: _Visit, work: Deferred[Finding]) -> None:
        visit.late = "it had to wait too long for its turn"
        work.cancel()

    def _away(self) -> Crowded:
        return Crowded(f"it is down: {self._health.last_error}")

    def _fell(self) -> None:
        self._turns.dismiss(self._away())

    def _judged(self, visit: _Visit) -> None:
        self._tally.judged(self._clock.seconds() - visit.began)
        self._health.judged()

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

    # -- how it is

    @property
    def well(self) -> bool:
        """False while it is down and mail is put off for that."""
        return not (self._health.down and self._postpones)

    def report(self) -> dict[str, Any]:
        """Return how it is, as JSON for the status and the metrics.

        ``state`` is well, down or trying, ``since`` Unix time; ``scanned`` messages were
        judged, ``found`` of them for something, ``failures`` could not be; ``waiting`` and
        ``busy`` are those of now; ``median`` and ``last`` are seconds, null without any.
        """
        return {
            "name": self.name,
            **self._health.report(),
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
