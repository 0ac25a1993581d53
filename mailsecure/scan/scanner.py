"""Everything that judges mail, as one service: checks, engines, processes, keys.

``assemble`` makes one :class:`Scanner`; the gateway opens an
:class:`~.inspection.Inspection` with it for each session, and has what is delivered dressed
and signed by it.  A reload makes all checks anew and lets sessions that run go on with the
ones they began with.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from ..background import background
from ..config.model import Config
from ..counters import Counters
from ..errors import ConfigProblems, LocalFault, Problem, RemoteFault
from ..spool.values import Body
from .api import Check, Counting, Heir, ICheckMaker, Pool, Reporting, Site, Stateful
from .checks.matching import is_listed_name
from .dressing import dress
from .finding import unknown_checks
from .inspection import Inspection, Judgement
from .opening import anatomy_of
from .pipeline import Pipeline
from .signing import Signer
from .values import AuthResult, Facts
from .verdict import Policy

__all__ = ["Scanner"]

_log = Logger(namespace="scan")

#: How long a check may take to begin at a reload, and to end, in seconds.
MOST_PATIENCE = 60.0


class _Made:
    """What was made for one configuration."""

    def __init__(
        self, site: Site, checks: Sequence[Check], signer: Signer, counters: Counters
    ) -> None:
        config = site.config
        self.config = config
        self.checks = checks
        #: Names of checks that run, begun here or by a predecessor.
        self.begun: set[str] = set()
        self.policy = Policy.of(config)
        self.pipeline = Pipeline(site.world.clock, checks, config.scan.check_timeout, counters)
        self.signer = signer
        self.authserv_id = config.authentication.authserv_id or config.node.hostname
        self._ours = tuple(each for each in config.domains if each != "*")

    def is_ours(self, domain: str) -> bool:
        """Say whether mail to ``domain`` stays in the house."""
        return is_listed_name(domain, self._ours)


class Scanner:
    """See the module's text.

    ``makers`` are all that there are, by name.  Raises ConfigProblems, here and at a reload,
    where the ini names a check that does not exist, or one cannot be made.
    """

    def __init__(
        self,
        site: Site,
        pool: Pool,
        makers: Mapping[str, ICheckMaker],
        counters: Counters,
    ) -> None:
        self._site = site
        self._pool = pool
        self._makers = makers
        self._counters = counters
        self._made = self._make(site.config)
        self._running = False
        self._pool_runs = False
        #: Start, stop and each reload wait for the one before, or what one begins another
        #: would never end.
        self._turn = DeferredLock()

    def _make(self, config: Config) -> _Made:
        site = replace(self._site, config=config)
        problems = unknown_checks(config, self._makers)
        checks: list[Check] = []
        for name in (*config.scan.checks, *config.scan.engines):
            maker = self._makers.get(name)
            if maker is not None:
                try:
                    checks.append(maker.make(site))
                except ValueError as fault:
                    problems.append(Problem(config.file, 0, name, "", str(fault)))
                except Exception as error:
                    # Somebody else's code may raise anything.
                    problems.append(Problem(config.file, 0, name, "", _unforeseen(error)))
        try:
            signer = Signer(site)
        except ConfigProblems as more:
            problems += more.problems
        if problems:
            raise ConfigProblems(problems)
        return _Made(site, checks, signer, self._counters)

    # -- life

    async def start(self) -> None:
        """Start the processes and whatever checks need.  LocalFault: it cannot be."""
        await self._turn.acquire()
        try:
            self._running = True
            await self._start_pool(self._made)
            for check in self._made.checks:
                await _begin(check, self._made)
        finally:
            self._turn.release()

    async def _start_pool(self, made: _Made) -> None:
        if not self._pool_runs and (made.checks or made.signer.active):
            self._pool_runs = True
            await self._pool.start()

    async def stop(self) -> None:
        """Stop them; sessions are over."""
        await self._turn.acquire()
        try:
            self._running = False
            for check in self._made.checks:
                await self._end(check, self._made)
            if self._pool_runs:
                self._pool_runs = False
                await self._pool.stop()
        finally:
            self._turn.release()

    def prepared(self, config: Config) -> Callable[[], None]:
        """Make everything anew; what is returned puts it in place.  Raises as the start."""
        made = self._make(config)

        def apply() -> None:
            background("taking new checks into use", self._replace(made))

        return apply

    async def _replace(self, made: _Made) -> None:
        """Use ``made`` from the next session on.  An heir goes on with what is open already."""
        await self._turn.acquire()
        try:
            old, self._made = self._made, made
            self._pool.reconfigure(made.config.scan)
            before = {check.name: check for check in old.checks}
            for check in made.checks:
                if isinstance(check, Heir) and check.name in old.begun:
                    check.inherit(before.pop(check.name))
                    made.begun.add(check.name)
            for check in before.values():
                await self._end(check, old)
            if self._running:
                await self._start_pool(made)
                for check in made.checks:
                    await self._bounded(f"the start of check {check.name}", _begin(check, made))
        finally:
            self._turn.release()

    async def _end(self, check: Check, made: _Made) -> None:
        if check.name in made.begun:
            made.begun.discard(check.name)
            if isinstance(check, Stateful):
                await self._bounded(f"the end of check {check.name}", check.stop())

    async def _bounded(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Wait for ``work``, which may be anybody's code: whatever it does, all else goes on."""

        async def guarded() -> None:
            try:
                await work
            except LocalFault as fault:
                _log.error("{what} failed: {reason}", what=what, reason=str(fault))

        done = background(what, guarded())
        if not done.called:
            done.addTimeout(MOST_PATIENCE, self._site.world.clock, partial(_too_long, what))
        await done

    # -- for the gateway

    @property
    def policy(self) -> Policy:
        """What the ini says of verdicts."""
        return self._made.policy

    @property
    def signs(self) -> bool:
        """Say whether there is a key for what our own clients send."""
        return self._made.signer.signs

    def open(self, facts: Facts) -> Inspection | None:
        """Begin to inspect a session; None where the ini names no check."""
        made = self._made
        if not made.checks:
            return None
        clock = self._site.world.clock
        return Inspection(clock, made.pipeline, made.policy, facts, made.config.scan.timeout)

    def anatomy_of(self, body: Body) -> Callable[[], Awaitable[Any]]:
        """Return what takes ``body`` apart, once (:class:`~.values.Content`)."""
        return anatomy_of(self._pool, self._made.config, body)

    def dress(self, judgement: Judgement, header: bytes, facts: Facts) -> tuple[bytes, bytes]:
        """Return the fields to put in front of a message, and its header section."""
        made = self._made
        inward = not facts.trusted or any(made.is_ours(each.domain) for each in facts.recipients)
        try:
            return dress(judgement, header, made.config.scan, made.authserv_id, inward)
        except RemoteFault as fault:
            _log.warn("an edit of the header is left out: {reason}", reason=str(fault))
            bare = replace(judgement, edits=())
            return dress(bare, header, made.config.scan, made.authserv_id, inward)

    async def sign(
        self, facts: Facts, header: bytes, body: Body, cut: int, results: Sequence[AuthResult]
    ) -> bytes:
        """Return the fields that sign and seal a message.

        ``header`` is its header section as it goes on; the rest is in ``body``, behind its
        first ``cut`` octets.  LocalFault: it cannot be signed now.
        """
        return await self._made.signer.sign(facts, header, body, cut, results)

    @property
    def well(self) -> bool:
        """Say whether mail can be judged: no engine is down without which it is put off."""
        return all(each.well for each in self._made.checks if isinstance(each, Reporting))

    def report(self) -> dict[str, Any]:
        """Return what ``mailsecure status`` says of scanning."""
        made = self._made
        return {
            "checks": list(made.config.scan.checks),
            "engines": [each.report() for each in made.checks if isinstance(each, Reporting)],
            "counts": {
                each.name: each.counts() for each in made.checks if isinstance(each, Counting)
            },
            "workers": self._pool.report(),
        }


def _unforeseen(error: Exception) -> str:
    """Say what ``error`` is, and the line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"cannot be made: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"


async def _begin(check: Check, made: _Made) -> None:
    if check.name not in made.begun:
        if isinstance(check, Stateful):
            await check.start()
        made.begun.add(check.name)


def _too_long(what: str, result: None, seconds: float) -> None:
    _log.error("{what} took more than {seconds} s, and is given up", what=what, seconds=seconds)
