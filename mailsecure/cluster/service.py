"""The cluster as a service: hears and says hello, and drives the groups and the links.

:class:`ClusterService` is what ``assemble`` makes when ``[cluster] key_file`` is set.  It
says hello at each interval, believes what :mod:`.membership` accepts, gives each virtual
group (:mod:`.group`) what concerns it, and keeps the links (:mod:`.links`) to all nodes,
by which the end of one is noticed.

*One datagram an interval.*  A hello is said at the shortest advertisement interval of the
groups, and at once where an election wants it; the periodic one is counted from the last
that was said, so a Master's advertisements are not doubled.  Answers to nodes that are
new, or that ask, keep a distance, so nobody can make us talk more than a few times an
interval.

*In step.*  Who is Master of nothing says its hello when it hears a Master's.  So all the
hellos of an interval come in one burst, and a node is woken once an interval and not once
a node: that is most of what a hello costs.

*Start and stop.*  Sockets are opened by :meth:`bind`, while we may still be root.  The
elections begin with :meth:`startService`, when mail can be taken.  :meth:`stopService`
resigns first; its Deferred fires when the addresses are off the interface.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from .. import __version__
from ..background import Periodic, background
from ..config.model import Config, NodeRole, Virtual
from ..config.places import parse_place
from ..errors import LocalFault
from ..proxyproto.sealing import Sealer, Seen, Verifier
from ..vip.api import Kernel
from ..world import World
from .backends import Backends
from .casting import Casting
from .group import GroupParts, VirtualGroup
from .hello import Rejected, decode, encode, room_for_overrides
from .keyfile import read_keys
from .keys import KeyRing
from .links import Links
from .membership import Accepted, Membership
from .moved import Moved
from .notify import Notices
from .place import own_place
from .report import report
from .sharing import Sharing
from .values import RESIGNED, Backend, Fitness, GroupHello, Hello, Role, View
from .watch import Watch
from .words import Words

__all__ = ["ClusterParts", "ClusterService"]

_log = Logger(namespace="cluster")

#: Unscheduled answers keep these parts of an interval between them and the last hello.
ANSWER_DISTANCE = 1 / 16
GREETING_DISTANCE = 1 / 8
#: What was said so shortly before (a part of an interval) is not said again.
SAID_JUST_NOW = 1 / 10
#: Who keeps in step with a Master waits for it so many intervals.
IN_STEP = 1.5
#: How often interfaces and fitness are looked at besides.
LOOK_INTERVAL = 1.0
#: How long the commands of ``notify`` may still take at the stop.
LAST_COMMANDS = 5.0
INCARNATION_BITS = 64
#: What the key that seals PROXY headers is derived for.
_PROXY = b"proxy"


@dataclass(frozen=True)
class ClusterParts:
    """What the service is given by ``assemble``.

    ``fitness`` says why this node should get no work now; ``load`` is the share of its
    sessions that are taken, in thousandths; ``peer_port`` is where it takes sessions that
    others pass on, 0 if it takes none.
    """

    world: World
    kernel: Kernel
    fitness: Callable[[], Fitness]
    load: Callable[[], int]
    peer_port: Callable[[], int] = int


class ClusterService(Service):
    """See the module's text."""

    name = "cluster"

    def __init__(self, parts: ClusterParts, config: Config) -> None:
        self._parts = parts
        self._world = parts.world
        self._clock = parts.world.clock
        self._config = config
        self._settings = config.cluster
        self.node = config.node.name
        self._notices = Notices(parts.world)
        self._groups: dict[str, VirtualGroup] = {}
        self._leaving: list[VirtualGroup] = []
        self._started = self._clock.seconds()
        self._said = -math.inf
        self._said_of_groups: tuple[GroupHello, ...] = ()
        self._said_octets = b""
        self._call: IDelayedCall | None = None
        self._due = math.inf
        self._look = Periodic(self._clock, LOOK_INTERVAL, "the look at the cluster", self._look_at)
        self._unwatch: Callable[[], None] | None = None
        incarnation = parts.world.rng.getrandbits(INCARNATION_BITS)
        self.membership = Membership(self.node, self.interval, incarnation)
        self.watch = Watch(self._clock, self.node)
        self._backends = Backends(self)
        self._moved = Moved()
        self._on_moved: list[Callable[[frozenset[str]], None]] = []
        self.words = Words(parts.world)
        self.hellos_sent = 0
        self.hellos_received = 0

    @property
    def now(self) -> float:
        """The monotonic time, in seconds."""
        return self._clock.seconds()

    @property
    def send_failures(self) -> int:
        """Datagrams that could not be sent."""
        return self._casting.failures

    @property
    def interval(self) -> float:
        """How often we say hello, in seconds."""
        groups = self._config.virtual.values()
        return min(
            (each.advertisement_interval for each in groups),
            default=self._settings.hello_interval,
        )

    @property
    def groups(self) -> dict[str, VirtualGroup]:
        """The virtual groups, by name."""
        return self._groups

    # -- life

    def bind(self) -> Deferred[None]:
        """Read the keys, open the sockets, look at the addresses; fails with LocalFault."""
        return Deferred.fromCoroutine(self._bind())

    async def _bind(self) -> None:
        settings = self._settings
        self._ring = _ring(self._config)
        key = self._ring.keys[0]
        #: Makes the headers of sessions that we pass on.
        self.sealer = Sealer(key.id, key.derived(_PROXY), self.node, self.membership.incarnation)
        self._verifier = Verifier(self.membership.incarnation, self._seal_key)
        self.address, index = own_place(self._config, self._parts.kernel)
        place = parse_place(settings.group, 0)
        self._casting = Casting(
            place,
            str(self.address),
            [parse_place(each, place[1]) for each in settings.unicast_peers],
            self._received,
        )
        self._casting.bind(self._world.reactor, index)
        self.links = Links(
            self._world,
            self.node,
            self._ring,
            str(self.address),
            int(settings.link_listen),
            self._gone,
            self._left,
        )
        await self.links.bind()
        for name, virtual in self._config.virtual.items():
            group = self._new_group(name, virtual)
            group.check()
            self._groups[name] = group

    def _new_group(self, name: str, virtual: Virtual) -> VirtualGroup:
        return VirtualGroup(
            name,
            virtual,
            GroupParts(
                self._world,
                self._parts.kernel,
                self._notices,
                self.address,
                self._say,
                self._view,
                self._moved.took,
            ),
        )

    def startService(self) -> None:
        """Say the first hello and begin the elections."""
        super().startService()
        self._started = self._clock.seconds()
        trouble = self._trouble()
        self._unwatch = self._parts.kernel.watch(self._interface_changed)
        self._say()
        for group in self._groups.values():
            group.start(trouble)
        self._look.start()

    def stopService(self) -> Deferred[None]:
        """Resign everywhere, then be silent."""
        running = self.running
        super().stopService()
        return background("leaving the cluster", self._stop(bool(running)))

    async def _stop(self, running: bool) -> None:
        self._look.stop()
        if self._unwatch is not None:
            self._unwatch()
        if running:
            groups = (*self._groups.values(), *self._leaving)
            await gatherResults([group.stop() for group in groups])
            self._tell_moved(self._moved.look_last())
            # Once more, without any role: the resignations may have been lost.
            self._say()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        await self.links.stopService()
        await self._casting.close()
        await self._notices.finish(LAST_COMMANDS)

    # -- settings

    def prepared(self, config: Config) -> Callable[[], None]:
        """Return what takes the settings of ``config``; LocalFault, and nothing changes."""
        ring = _ring(config)
        added = {
            name: self._new_group(name, virtual)
            for name, virtual in config.virtual.items()
            if name not in self._groups
            or self._groups[name].settings.interface != virtual.interface
        }
        for group in added.values():
            group.check()
        for name, group in self._groups.items():
            if name in config.virtual and name not in added:
                group.check_more(config.virtual[name])
        return partial(self._reconfigure, config, ring, added)

    def _reconfigure(self, config: Config, ring: KeyRing, added: dict[str, VirtualGroup]) -> None:
        reweighed = config.cluster.weight != self._settings.weight
        self._config, self._settings, self._ring = config, config.cluster, ring
        self.links.rekey(ring)
        self.sealer.use_key(ring.keys[0].id, ring.keys[0].derived(_PROXY))
        self.membership.interval = self.interval
        for name in [name for name in self._groups if name not in config.virtual or name in added]:
            background(f"leaving the group {name}", self._leave(name))
        for name, group in self._groups.items():
            group.reconfigure(config.virtual[name])
        for name, group in added.items():
            self._groups[name] = group
            group.start(self._trouble())
        if self.words.draining:
            self.words.drain(True, self._groups)
        self._say()
        if reweighed:
            self._backends.changed()

    async def _leave(self, name: str) -> None:
        """Resign in a group that is ours no more, and hear its heir until the addresses left."""
        group = self._groups[name]
        # It resigns while hellos still speak of it.
        stopped = group.stop()
        del self._groups[name]
        self._leaving.append(group)
        await stopped
        self._leaving.remove(group)

    # -- saying hello

    def _say(self, asks: bool = False, anew: bool = False) -> None:
        """Say hello now, unless the same was said just now, or ``anew``."""
        now = self._clock.seconds()
        groups = tuple(group.hello() for group in self._groups.values())
        just_now = now - self._said < SAID_JUST_NOW * self.interval
        if just_now and groups == self._said_of_groups and not (asks or anew):
            return
        self._said, self._said_of_groups = now, groups
        hello = self._hello(now, self.membership.next_sequence(now), asks)
        room = room_for_overrides(len(hello.groups), len(hello.heard))
        words = self._backends.next_words(room)
        if words:
            hello = replace(hello, overrides=words)
        self._said_octets = encode(hello, self._ring.keys[0])
        self._casting.send(self._said_octets)
        self.hellos_sent += 1
        if any(each.priority == RESIGNED for each in groups):
            # Whoever missed that sees soon that we are Master no more.
            self._next(self.interval * GREETING_DISTANCE)
        else:
            self._next(self.interval * (1 if self.leads else IN_STEP))

    def hello_now(self) -> Hello:
        """Return what we would say of ourselves now, without saying it."""
        return self._hello(self.now, 0, False)

    def _hello(self, now: float, sequence: int, asks: bool) -> Hello:
        settings, membership = self._settings, self.membership
        return Hello(
            node=self.node,
            address=self.address,
            link_port=int(settings.link_listen),
            incarnation=membership.incarnation,
            sequence=sequence,
            wall=self._world.wall(),
            uptime=now - self._started,
            interval=self.interval,
            version=__version__,
            role=settings.role,
            weight=settings.weight,
            load=self._parts.load(),
            fitness=self._parts.fitness(),
            policy_revision=0,
            asks=asks,
            groups=tuple(group.hello() for group in self._groups.values()),
            heard=membership.heard(now),
            peer_port=self._parts.peer_port(),
        )

    def _next(self, delay: float) -> None:
        """Say hello after ``delay`` seconds, unless something is said before.

        The call that is under way stays if it comes earlier, and looks for itself.
        """
        self._due = self._clock.seconds() + delay
        if self._call is not None:
            if self._call.getTime() <= self._due:
                return
            self._call.cancel()
        self._call = self._clock.callLater(delay, self._turn)

    def _turn(self) -> None:
        self._call = None
        early = self._due - self._clock.seconds()
        if early > 0:
            self._call = self._clock.callLater(early, self._turn)
        else:
            self._say()

    def _say_soon(self, distance: float) -> None:
        """Say hello, but not within ``distance`` intervals of the last one."""
        due = self._said + distance * self.interval
        now = self._clock.seconds()
        if now >= due:
            self._say()
        elif self._due > due:
            self._next(due - now)

    # -- hearing

    def _received(self, datagram: bytes, source: str) -> None:
        if datagram == self._said_octets or self._unwatch is None:
            # A multicast comes back to its sender; and before the start there is nothing that
            # we could say of ourselves.
            return
        now = self._clock.seconds()
        self.hellos_received += 1
        try:
            hello = decode(datagram, self._ring)
            outcome = self.membership.receive(now, self._world.wall(), hello, source)
        except Rejected as rejected:
            self.watch.rejected(rejected.reason, source)
            return
        if not isinstance(outcome, Accepted):
            for group in self._groups.values():
                group.contested(hello)
            self._say_soon(GREETING_DISTANCE)
            return
        if outcome.new:
            self.links.wanted(self.membership.places())
            self.links.nudge(hello.node)
            self._say_soon(GREETING_DISTANCE)
        elif outcome.back:
            # The sooner it knows that it is heard again, the sooner it may be Master.
            self._say_soon(GREETING_DISTANCE)
        elif hello.asks and self.leads:
            self._say_soon(ANSWER_DISTANCE)
        for group in (*self._groups.values(), *self._leaving):
            group.heard(hello, outcome.deaf)
        self._backends.heard(hello)
        if now - self._said > self.interval / 2 and not self.leads and _leads(hello):
            self._say()

    def _view(self, group: str, priority: int, master: str | None) -> View:
        return self.membership.view(group, self._clock.seconds(), priority, self.address, master)

    # -- the ends of others

    def _gone(self, node: str) -> None:
        """A link's word: the process of ``node`` has ended."""
        self.membership.gone(node)
        _log.warn("{node}: its process has ended", node=node)
        for group in self._groups.values():
            group.gone(node)
        self._backends.ended(node)

    def _left(self, node: str) -> None:
        """A link's word: ``node`` stopped in good order."""
        self.membership.gone(node)
        _log.info("{node}: stopped", node=node)
        self._backends.ended(node)

    # -- looking after ourselves

    def _trouble(self) -> str:
        """Say why this node can be Master of nothing, or ""."""
        if self._settings.role is NodeRole.SCANNER:
            return "[cluster] role is scanner"
        return self._parts.kernel.may_hold()

    def _interface_changed(self, name: str) -> None:
        if name == self._settings.interface:
            self._rejoin()
        trouble = self._trouble()
        for group in self._groups.values():
            if group.settings.interface == name:
                group.look(trouble)

    def _rejoin(self) -> None:
        interface = self._parts.kernel.interface(self._settings.interface)
        if interface is None or not interface.up:
            return
        try:
            self._casting.join(interface.index)
        except OSError as error:
            _log.warn("cannot join the group again: {reason}", reason=error.strerror)

    def _look_at(self) -> None:
        now = self._clock.seconds()
        trouble = self._trouble()
        alive = [each for each in self.membership.peers(now) if each.alive]
        self._backends.look({each.node for each in alive})
        fit = [each for each in alive if not each.fitness]
        self.words.look(self._parts.fitness(), fit, self._groups)
        for group in self._groups.values():
            group.look(trouble)
        groups = (*self._groups.values(), *self._leaving)
        held = frozenset[str]().union(*(each.addresses_held for each in groups))
        self._tell_moved(self._moved.look(held))
        self.watch.look(self.membership.peers(now), self._groups)
        self.links.wanted(self.membership.places())

    # -- what nodes share

    @property
    def sharing(self) -> Sharing:
        """What is shared over the links; from :meth:`bind` on."""
        return self.links.sharing

    # -- for a drain (:class:`mailsecure.draining.Addresses`)

    @property
    def leads(self) -> bool:
        """Whether we are Master of any group."""
        return any(each.role is Role.MASTER for each in self._groups.values())

    @property
    def holding(self) -> bool:
        """Whether a virtual address is on our interface."""
        return any(each.held for each in (*self._groups.values(), *self._leaving))

    def nobody_else(self) -> list[str]:
        """Return the groups that we are Master of and no other node should be now."""
        fit = [
            each
            for each in self.membership.peers(self._clock.seconds())
            if each.alive
            and each.role is not NodeRole.SCANNER
            and not each.fitness & (Fitness.DRAINING | Fitness.SPOOL)
        ]
        could = {
            said.name
            for each in fit
            for said in each.groups
            if said.role is not Role.INIT and said.priority
        }
        return [
            each.name
            for each in self._groups.values()
            if each.role is Role.MASTER and each.name not in could
        ]

    def drain(self, draining: bool) -> None:
        """Have all groups stand back, or come forward again."""
        self.words.drain(draining, self._groups)

    def speak(self) -> None:
        """Say hello now: our fitness has changed."""
        self._say(anew=True)

    # -- for a load balancer

    def backends(self) -> list[Backend]:
        """Return all nodes as they are now, ourselves first."""
        return self._backends.all()

    def watch_backends(self, callback: Callable[[], None]) -> None:
        """Call when anything in :meth:`backends` changed but load and ``heard``."""
        self._backends.watch(callback)

    def _tell_moved(self, addresses: frozenset[str]) -> None:
        for callback in self._on_moved if addresses else ():
            callback(addresses)

    def watch_moved(self, callback: Callable[[frozenset[str]], None]) -> None:
        """Call with virtual addresses that were ours and are at another node now."""
        self._on_moved.append(callback)

    def holds(self, address: str) -> bool:
        """Say whether ``address`` is a virtual one that is ours now."""
        return any(group.holds(address) for group in (*self._groups.values(), *self._leaving))

    def verify_seal(self, block: bytes) -> Seen:
        """Return which node made a PROXY header for us; RemoteFault: none did."""
        return self._verifier.verify(block)

    def _seal_key(self, key_id: bytes) -> bytes | None:
        key = self._ring.find(key_id)
        return None if key is None else key.derived(_PROXY)

    # -- the postmaster's words

    def weight_set(self, node: str) -> int | None:
        """Return the weight that a postmaster set for ``node``, None if none is set."""
        return self._backends.overrides.weight(node)

    def set_weight(self, node: str, weight: int | None) -> None:
        """Have ``node`` count with ``weight`` in the whole cluster; None: with its own."""
        self._backends.set_weight(node, weight)
        self._say_soon(ANSWER_DISTANCE)

    def report(self) -> dict[str, Any]:
        """Return all that ``mailsecure cluster status`` shows."""
        return report(self)

    def resign(self, group: str | None, seconds: float) -> list[str]:
        """Let others be Master for so long; return what to say.  KeyError: no such group."""
        return self.words.resign(self._named(group), seconds)

    def takeover(self, group: str | None, seconds: float) -> list[str]:
        """Be Master for so long, whoever has the higher priority; return what to say."""
        return self.words.takeover(self._named(group), seconds)

    def _named(self, group: str | None) -> list[VirtualGroup]:
        return list(self._groups.values()) if group is None else [self._groups[group]]


def _ring(config: Config) -> KeyRing:
    path = config.cluster.key_file
    if path is None:
        raise LocalFault("[cluster] key_file: the cluster was switched off: that needs a restart")
    return read_keys(path)


def _leads(hello: Hello) -> bool:
    """Say whether its sender is Master of any group."""
    return any(each.role is Role.MASTER and each.priority for each in hello.groups)
