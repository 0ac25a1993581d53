"""Checks begin and end once each, however starts, stops and reloads come together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.counters import Counters
from mailsecure.errors import ConfigProblems, LocalFault
from mailsecure.scan.api import Check, Site
from mailsecure.scan.scanner import MOST_PATIENCE, Scanner
from mailsecure.scan.values import Facts, Finding, Stage

from .world import Scene


class Plain:
    """A check that has something open while it runs; what it does is noted."""

    stages = frozenset({Stage.DATA})

    def __init__(self, maker: Maker, number: int) -> None:
        self.name = maker.name
        self.maker = maker
        self.title = f"{maker.name}{number}"

    async def start(self) -> None:
        """Begin, when the test lets it."""
        await self._do("start", self.maker.starting)

    async def stop(self) -> None:
        """End, when the test lets it."""
        await self._do("stop", self.maker.stopping)

    async def _do(self, what: str, waiting: list[Deferred[None]]) -> None:
        if waiting:
            await waiting.pop(0)
        if self.maker.fault is not None:
            raise self.maker.fault
        self.maker.done.append(f"{what} {self.title}")

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Find nothing."""
        return Finding()


class Inheriting(Plain):
    """One that goes on with what its predecessor has open."""

    def inherit(self, old: Check) -> None:
        """Note it."""
        assert isinstance(old, Inheriting)
        self.maker.done.append(f"{self.title} inherits {old.title}")


class Maker:
    """Makes them; ``done`` is what they did."""

    def __init__(self, name: str, kind: type[Plain], done: list[str]) -> None:
        self.name = name
        self.kind = kind
        self.done = done
        self.made = 0
        self.fault: Exception | None = None
        self.starting: list[Deferred[None]] = []
        self.stopping: list[Deferred[None]] = []

    def make(self, site: Site) -> Check:
        """The maker's."""
        self.made += 1
        return self.kind(self, self.made)


class ScannerTests(SynchronousTestCase):
    """A scanner with a check of each kind."""

    def setUp(self) -> None:
        self.done: list[str] = []
        self.plain = Maker("plain", Plain, self.done)
        self.heir = Maker("heir", Inheriting, self.done)
        self.scene = Scene("[scan]\nchecks = plain heir\n")
        site = self.scene.site()
        makers: Any = {"plain": self.plain, "heir": self.heir}
        self.scanner = Scanner(site, site.workers, makers, Counters())  # type: ignore[arg-type]

    def start(self) -> Deferred[None]:
        """Start it."""
        return Deferred.fromCoroutine(self.scanner.start())

    def stop(self) -> Deferred[None]:
        """Stop it."""
        return Deferred.fromCoroutine(self.scanner.stop())

    def reload(self, *checks: str) -> None:
        """Reload it with these checks."""
        config = self.scene.config
        self.scanner.prepared(replace(config, scan=replace(config.scan, checks=checks)))()

    def did(self, *what: str) -> None:
        """Check what was done since the last time."""
        self.assertEqual(self.done, list(what))
        self.done.clear()

    def test_life(self) -> None:
        self.successResultOf(self.start())
        self.did("start plain1", "start heir1")
        self.reload("plain", "heir")
        self.did("heir2 inherits heir1", "stop plain1", "start plain2")
        self.reload("heir")
        self.did("heir3 inherits heir2", "stop plain2")
        self.successResultOf(self.stop())
        self.did("stop heir3")

    def test_reload_while_another_is_under_way(self) -> None:
        """What the first begins, the second ends."""
        self.successResultOf(self.start())
        self.done.clear()
        wait: Deferred[None] = Deferred()
        self.plain.stopping.append(wait)
        self.reload("plain")
        self.reload("heir")
        self.did()
        wait.callback(None)
        self.did("stop plain1", "stop heir1", "start plain2", "stop plain2", "start heir2")

    def test_reload_before_the_start(self) -> None:
        """Nobody inherits from who never began."""
        self.reload("plain", "heir")
        self.successResultOf(self.start())
        self.did("start plain2", "start heir2")

    def test_reload_during_the_start(self) -> None:
        wait: Deferred[None] = Deferred()
        self.plain.starting.append(wait)
        started = self.start()
        self.reload("heir")
        wait.callback(None)
        self.successResultOf(started)
        self.did("start plain1", "start heir1", "heir2 inherits heir1", "stop plain1")

    def test_stop_during_a_reload(self) -> None:
        """Nothing begins behind the end."""
        self.successResultOf(self.start())
        self.done.clear()
        wait: Deferred[None] = Deferred()
        self.plain.starting.append(wait)
        self.reload("plain")
        stopped = self.stop()
        self.reload("heir")
        self.assertNoResult(stopped)
        wait.callback(None)
        self.successResultOf(stopped)
        self.did("stop plain1", "stop heir1", "start plain2", "stop plain2")

    def test_cannot_start(self) -> None:
        """The daemon's start ends; at a reload the others begin, and the next tries again."""
        self.plain.fault = LocalFault("no file")
        self.failureResultOf(self.start(), LocalFault)
        self.did()
        self.reload("plain", "heir")
        self.did("start heir2")
        self.plain.fault = None
        self.reload("plain", "heir")
        self.did("heir3 inherits heir2", "start plain3")

    def test_an_heir_that_could_not_start(self) -> None:
        self.successResultOf(self.start())
        self.reload("plain")
        self.heir.fault = LocalFault("no file")
        self.reload("plain", "heir")
        self.heir.fault = None
        self.done.clear()
        self.reload("plain", "heir")
        self.did("stop plain3", "start plain4", "start heir3")

    def test_cannot_be_made(self) -> None:
        """Whatever a maker raises is told, with its line, and nothing has changed."""
        self.successResultOf(self.start())
        self.done.clear()
        self.patch(self.plain, "kind", None)
        with self.assertRaises(ConfigProblems) as raised:
            self.reload("plain", "heir")
        (problem,) = raised.exception.problems
        self.assertRegex(
            str(problem), r"\[plain\]: cannot be made: TypeError: .*\(.*test_scanner\.py:\d+\)"
        )
        self.did()

    def test_anybodys_code(self) -> None:
        """What a check raises at its end, or that it never ends, keeps nobody from ending."""
        self.successResultOf(self.start())
        self.plain.fault = ZeroDivisionError()
        self.heir.stopping.append(Deferred())
        self.done.clear()
        stopped = self.stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNoResult(stopped)
        self.scene.clock.advance(MOST_PATIENCE)
        self.successResultOf(stopped)
        self.did()
