"""Who is told to stand back or to take over, by a postmaster or by this node's own health.

A postmaster's word holds for a time (``cluster resign``, ``cluster takeover``), that of bad
health until :data:`WELL_AFTER` seconds after the node is well again, and that of a drain
until it is taken back, before all others.  They move a group's rank, not its configuration
(:mod:`.election`); here is kept which of them holds, because the end of one must not end the
other.  :mod:`.service` calls it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

from ..world import World
from .group import VirtualGroup
from .membership import Peer
from .values import Fitness, Role

__all__ = ["Words"]

#: For how long a node must have been well again to be Master by its priority, in seconds.
WELL_AFTER = 10.0
BY_HAND = "resigned by the postmaster"
UNFIT = "this node cannot take mail"
DRAINING = "this node drains"


class Words:
    """See the module's text."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._clock = world.clock
        #: By group, in monotonic seconds.
        self._resigned_until: dict[str, float] = {}
        self._claimed_until: dict[str, float] = {}
        self._unfit: set[str] = set()
        self._unfit_until = -math.inf
        #: Whether this node drains: then no group comes forward.
        self.draining = False

    def drain(self, draining: bool, groups: Mapping[str, VirtualGroup]) -> None:
        """Have all groups stand back as long as this node drains."""
        self.draining = draining
        now = self._clock.seconds()
        for name, group in groups.items():
            if draining:
                self._claimed_until.pop(name, None)
                group.stand_back(math.inf, DRAINING)
            elif name in self._unfit:
                group.stand_back(math.inf, UNFIT)
            else:
                self._back_again(name, group, now)

    def resign(self, groups: Iterable[VirtualGroup], seconds: float) -> list[str]:
        """Have ``groups`` stand back for so long; return what to say."""
        until = self._clock.seconds() + seconds
        lines = []
        for each in groups:
            was = each.role
            self._claimed_until.pop(each.name, None)
            self._resigned_until[each.name] = until
            if self.draining:
                lines.append(f"{each.name}: stands back anyway: {DRAINING}")
                continue
            each.stand_back(until, BY_HAND)
            if each.role is Role.MASTER:
                lines.append(f"{each.name}: stays Master, because nobody else could be")
                continue
            resigned = "resigned as Master, " * (was is Role.MASTER)
            lines.append(f"{each.name}: {resigned}stands back until {self._moment(seconds)}")
        return lines

    def takeover(self, groups: Iterable[VirtualGroup], seconds: float) -> list[str]:
        """Have ``groups`` outrank everybody for so long; return what to say."""
        until = self._clock.seconds() + seconds
        lines = []
        for each in groups:
            if self.draining:
                lines.append(f"{each.name}: stands back, because {DRAINING}: undrain it first")
                continue
            self._resigned_until.pop(each.name, None)
            self._unfit.discard(each.name)
            self._claimed_until[each.name] = until
            each.claim(until)
            if each.role is Role.MASTER:
                lines.append(f"{each.name}: Master until {self._moment(seconds)}")
            else:
                lines.append(f"{each.name}: takes no part now: {each.trouble}")
        return lines

    def _moment(self, seconds: float) -> str:
        """Return a moment ``seconds`` from now, for people."""
        then = datetime.fromtimestamp(self._world.wall() + seconds, UTC)
        return then.strftime("%Y-%m-%d %H:%M:%S UTC")

    def until(self, group: str) -> tuple[float | None, float | None]:
        """Return until when (Unix time) a group stands back, and is claimed, by command."""
        now, wall = self._clock.seconds(), self._world.wall()

        def moment(until: float | None) -> float | None:
            return wall + until - now if until is not None and until > now else None

        return moment(self._resigned_until.get(group)), moment(self._claimed_until.get(group))

    def why(self, group: str) -> str:
        """Say why a group stands back; "" where it does not."""
        if self.draining:
            return DRAINING
        if group in self._unfit:
            return UNFIT
        until = self._resigned_until.get(group)
        return BY_HAND if until is not None and until > self._clock.seconds() else ""

    def look(
        self, fitness: Fitness, fit: Collection[Peer], groups: Mapping[str, VirtualGroup]
    ) -> None:
        """Let one of ``fit`` be Master while we cannot take mail."""
        now = self._clock.seconds()
        if fitness & Fitness.SPOOL:
            self._unfit_until = now + WELL_AFTER
            for name, group in groups.items():
                others = any(said.name == name for each in fit for said in each.groups)
                claimed = self._claimed_until.get(name, now) > now
                if others and not claimed and name not in self._unfit:
                    self._unfit.add(name)
                    if not self.draining:
                        group.stand_back(math.inf, UNFIT)
        elif self._unfit and now >= self._unfit_until:
            for name, group in groups.items():
                if name in self._unfit:
                    self._back_again(name, group, now)
            self._unfit.clear()

    def _back_again(self, name: str, group: VirtualGroup, now: float) -> None:
        until = self._resigned_until.get(name, now)
        if self.draining:
            return
        if until > now:
            group.stand_back(until, BY_HAND)
        else:
            group.come_forward()
