"""The load balancer as a service: every connection of an active-active node goes through it.

It owns the doors (:mod:`.accepting`), the splicer (:mod:`.splice`), what is known of the
nodes (:mod:`.choosing`), and who directs each connection (:mod:`.directing`).  A few times
a second it looks at the nodes: their loads are read, and those that failed are probed
(:mod:`.probing`).

*Start and stop.*  It starts after the gateway, whose sockets it reads.  At the stop the
doors close, who waits is given to the gateway (which says 421 then), and sessions with
peers may go on for ``drain_timeout``.

``assemble`` makes one where ``topology`` is active-active.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..background import Periodic, background
from ..config.model import Config
from ..counters import Counters
from ..entrance import Front
from ..world import World
from .accepting import Door
from .api import Nodes
from .choosing import Member, Pool, Rules
from .directing import Director, Passage, place_of, tell
from .pipes import MAX_PIPES
from .probing import Probe
from .report import report
from .session import Session
from .splice import Patience, Splicer
from .values import Ending, Failing

__all__ = ["BalancerParts", "LoadBalancer"]

#: How often loads are read, probes sent and looked after, in seconds.
LOOK_INTERVAL = 0.25
#: How often the stop looks whether sessions are left, in seconds.
STOP_INTERVAL = 0.02
#: Descriptors that are neither sessions of ours nor spliced.
SPARE_DESCRIPTORS = 300 + 2 * MAX_PIPES
#: Connections that may wait, whatever is granted.
MOST_WAITING = 10_000
#: Without an octet, a spliced session lasts so much longer (seconds) than any of ours:
#: its end is for the peer to say.
MARGIN = 60.0


@dataclass(frozen=True)
class BalancerParts:
    """What the balancer is given; ``count_here`` is how many sessions this node has."""

    world: World
    front: Front
    nodes: Nodes
    count_here: Callable[[], int]
    counters: Counters


class LoadBalancer(Service):
    """See the module's text."""

    name = "balancer"

    def __init__(self, parts: BalancerParts, config: Config) -> None:
        self._parts = parts
        self._clock = parts.world.clock
        self._front = parts.front
        self._nodes = parts.nodes
        self._doors: list[Door] = []
        #: The sockets at which clients arrive.
        self.sockets: list[socket.socket] = []
        self._probes: dict[Probe, Member] = {}
        self._look = Periodic(self._clock, LOOK_INTERVAL, "the look at the peers", self._look_at)
        self._take(config)
        self.splicer = Splicer(parts.world.reactor, self._clock, self._patience)
        self.pool = Pool(self._rules)
        self.director = Director(
            self._clock,
            parts.front,
            parts.nodes,
            self.pool,
            self.splicer,
            parts.count_here,
            parts.counters,
        )

    # -- settings

    def _take(self, config: Config) -> None:
        cluster, smtp = config.cluster, config.smtp
        self._rules = Rules(
            cluster.balance,
            cluster.slow_start,
            cluster.adaptive,
            cluster.peer_sessions,
            cluster.connect_timeout,
        )
        self._drain_timeout = smtp.drain_timeout
        self._max_sessions = smtp.max_sessions
        longest = max(smtp.command_timeout, smtp.data_timeout)
        self._patience = Patience(idle=longest + MARGIN)

    def reconfigure(self, config: Config) -> None:
        """Take new settings; sessions go on."""
        self._take(config)
        self.splicer.patience = self._patience
        self.pool.reconfigure(self._clock.seconds(), self._rules)

    # -- life

    def startService(self) -> None:
        """Begin to accept."""
        super().startService()
        self.splicer.start()
        spare = max(0, _descriptors() - self._max_sessions - SPARE_DESCRIPTORS)
        # Each of them takes two descriptors.
        self.director.most = 3 * spare // 8
        self.director.anteroom.most = min(MOST_WAITING, spare // 4)
        self._changed()
        self._nodes.watch_backends(self._changed)
        for entrance in self._front.entrances:
            arrived = partial(self.director.arrived, entrance.tls, int(entrance.wire.family))
            door = Door(entrance.wire, self.splicer, self._clock, arrived)
            door.open()
            self._doors.append(door)
            self.sockets.append(entrance.wire)
        self._look.start()

    def stopService(self) -> Deferred[None]:
        """Accept no more; the Deferred fires when no session is left."""
        running = self.running
        super().stopService()
        if running:
            self._look.stop()
        doors, self._doors, self.sockets = self._doors, [], []
        for door in doors:
            door.close()
        self.director.most = 0
        self.director.anteroom.dismiss()
        return background("stopping the load balancer", self._stop(bool(running)))

    async def _stop(self, running: bool) -> None:
        ends = self._clock.seconds() + self._drain_timeout
        while running and self.splicer.sessions and self._clock.seconds() < ends:
            await deferLater(self._clock, STOP_INTERVAL)
        for probe in self._probes:
            probe.cancel()
        self._probes.clear()
        self.splicer.stop()

    def moved(self, addresses: Container[str]) -> None:
        """End the sessions at addresses that are another node's now."""

        def dead(session: Session) -> bool:
            passage = session.tag
            return isinstance(passage, Passage) and passage.at in addresses

        self.splicer.end_those(dead, Ending.MOVED)

    # -- for those who drain it, and for status

    @property
    def sessions(self) -> int:
        """Connections that wait for somebody, and sessions that peers have through us."""
        return self.splicer.sessions + self.director.anteroom.guests

    @property
    def draining(self) -> bool:
        """Whether this node itself gets no sessions, whatever its weight."""
        return self.pool.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        tell(self.pool.drain(self._clock.seconds(), draining))

    def report(self) -> dict[str, Any]:
        """Return what :mod:`.report` describes."""
        now, wall = self._clock.seconds(), self._parts.world.wall()
        return report(self.pool, now, wall, self._parts.count_here()) | {
            "spliced": self.splicer.sessions,
            "waiting": self.director.anteroom.guests,
        }

    # -- the peers

    def _changed(self) -> None:
        """The cluster's word: something is different with a node."""
        if not self.running:
            # It leaves the cluster, too: that others are not heard then is no news.
            return
        tell(self.pool.update(self._clock.seconds(), self._nodes.backends()))

    def _look_at(self) -> None:
        now = self._clock.seconds()
        for probe in [each for each in self._probes if each.deadline <= now]:
            probe.expire()
        self._changed()
        self.pool.sample(now)
        for member in self.pool.to_probe(now):
            header = self._nodes.sealer.local(member.backend.incarnation)
            deadline = now + self._rules.connect_timeout
            probe = Probe(self.splicer, header, deadline, self._probed)
            self._probes[probe] = member
            probe.start(place_of(member))

    def _probed(self, probe: Probe, why: Failing | None) -> None:
        member = self._probes.pop(probe)
        tell(self.pool.probed(self._clock.seconds(), member, why))


def _descriptors() -> int:
    """Return how many descriptors we may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
