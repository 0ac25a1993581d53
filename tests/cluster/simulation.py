"""A cluster of real services on a simulated network, in simulated time.

:class:`Simulation` runs any number of :class:`~mailsecure.cluster.service.ClusterService`,
each with a clock and a kernel of its own.  Its network loses, doubles, delays and reorders
datagrams, from any node to any other, and can be cut, in one direction too.  Nodes are
killed, stopped and continued (their kernels' clocks go on), restarted.  Only the links are
not real: a node's death is told to whoever is not cut off from it, after
:data:`NOTICED` seconds, as the verification of a link would.
"""

import heapq
import itertools
import random
from pathlib import Path

from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from mailsecure.cluster import service as service_module
from mailsecure.cluster.service import ClusterParts, ClusterService
from mailsecure.cluster.values import Fitness, Role
from mailsecure.config.load import parse_config
from mailsecure.testing.kernel import MemoryKernel
from mailsecure.world import World

__all__ = ["ADDRESS", "Simulation"]

ADDRESS = "192.0.2.100"
#: How long after a death the others know it by their links.
NOTICED = 0.003
#: How long a datagram takes.
DELAY = 0.0005
START = 1000.0
#: Datagrams that wait for a process that is stopped.
SOCKET_BUFFER = 100


class Links:
    """Stands in for the links of one node."""

    def __init__(self, world, node, ring, address, port, gone, left):
        self.gone, self.left = gone, left

    def bind(self):
        return succeed(None)

    def stopService(self):
        return succeed(None)

    def wanted(self, places):
        """The simulation knows better."""

    def nudge(self, node):
        """Likewise."""

    def rekey(self, ring):
        """Likewise."""

    def snapshot(self):
        return {}


class Port:
    """A UDP socket of one node."""

    def __init__(self, node, protocol):
        self._node, self._protocol = node, protocol

    def getHandle(self):
        return self

    def setsockopt(self, *_):
        """A simulated network needs no options."""

    def write(self, datagram, place):
        self._node.simulation.carry(self._node, datagram)

    def arrive(self, datagram, source):
        self._protocol.datagramReceived(datagram, (source, 5025))

    def stopListening(self):
        self._node.port = None
        return succeed(None)


class NodeReactor(Clock):
    """What a node takes for the reactor."""

    def __init__(self, node):
        super().__init__()
        self._node = node

    def advance_to(self, now):
        """Advance, at less cost where nothing is due."""
        if self.calls and self.calls[0].getTime() <= now:
            self.advance(now - self.rightNow)
        # Not a sum of steps, whose rounding would add up in a day.
        self.rightNow = now

    def listenMulticast(self, port, protocol, **_):
        self._node.port = Port(self._node, protocol)
        return self._node.port


class Node:
    """One machine; ``options`` are those of its ``[virtual:mail]``."""

    def __init__(self, simulation, number, key_file, options):
        self.simulation, self.number = simulation, number
        self.name, self.address = f"mx{number}", f"192.0.2.{10 + number}"
        self.options, self._key_file = options, key_file
        self.kernel = MemoryKernel(simulation.clock)
        self.kernel.add_interface("eth0", f"{self.address}/24")
        self.fitness = Fitness.FIT
        self.service = self.port = self.reactor = None
        self.stopped = False
        #: What arrived while it was stopped.
        self.waiting = []

    def config(self):
        options = {"advertisement_interval": "1s", **self.options}
        virtual = "".join(f"{name} = {value}\n" for name, value in options.items())
        return parse_config(
            f"[node]\nname = {self.name}\n[cluster]\nkey_file = {self._key_file}\n"
            f"interface = eth0\n[virtual:mail]\naddresses = {ADDRESS}\n{virtual}",
            "simulated",
        )

    # -- its life

    def start(self):
        simulation = self.simulation
        self.reactor = NodeReactor(self)
        self.reactor.rightNow = simulation.clock.seconds()
        wall = simulation.clock.seconds
        world = World(self.reactor, self.reactor, wall, simulation.random, None, self.kernel)
        parts = ClusterParts(world, self.kernel, lambda: self.fitness, lambda: 0)
        self.service = ClusterService(parts, self.config())
        bound = []
        self.service.bind().addBoth(bound.append)
        if bound != [None]:
            raise AssertionError(bound)
        self.service.startService()
        return self

    def kill(self):
        """kill -9: the kernel keeps the address, and closes the links."""
        if self.service is not None:
            self.service = self.port = self.reactor = None
            self.stopped, self.waiting = False, []
            self.kernel.forget_watchers()
            self.simulation.tell_of_death(self)

    def stop(self):
        """SIGTERM; the address may stay for a moment."""
        if self.service is not None and not self.stopped:
            self.service.stopService().addCallback(self._ended, self.service)

    def _ended(self, _, service):
        if self.service is service:
            self.service = self.port = None

    def freeze(self):
        """SIGSTOP."""
        self.stopped = self.service is not None

    def thaw(self):
        """SIGCONT: the clock leaps, then what waited in the socket is read."""
        if self.stopped:
            self.stopped = False
            self.simulation.catch_up(self)

    def take(self, what, source):
        """Take a datagram, or, without a source, the news of a node's death."""
        if source is None:
            self.service.links.gone(what)
        elif self.port is not None:
            self.port.arrive(what, source)

    # -- what it is

    @property
    def runs(self):
        return self.service is not None and not self.stopped

    @property
    def group(self):
        return self.service.groups["mail"]

    @property
    def role(self):
        return self.group.role if self.service is not None else Role.INIT

    @property
    def holds(self):
        return self.kernel.holds(ADDRESS)


class Simulation:
    """See the module's text.  ``key_file`` is a real one."""

    def __init__(self, key_file, seed=0):
        self.key_file = Path(key_file)
        self.clock = Clock()
        self.clock.rightNow = START
        self.random = random.Random(seed)
        self.nodes = []
        #: (from, to) that are cut; and the shares of datagrams lost and doubled.
        self.cut = set()
        self.loss = self.doubled = self.jitter = 0.0
        self._order = itertools.count()
        self._on_the_way = []
        self._real_links = service_module.Links
        service_module.Links = Links

    def close(self):
        """The real links again."""
        service_module.Links = self._real_links

    def add(self, **options):
        """Add a node, with the options of its group; it does not run yet."""
        node = Node(self, len(self.nodes) + 1, self.key_file, options)
        self.nodes.append(node)
        return node

    # -- the network

    def carry(self, sender, datagram):
        for node in self.nodes:
            if (sender.number, node.number) in self.cut and node is not sender:
                continue
            for _ in range(1 + (self.random.random() < self.doubled)):
                if node is sender or self.random.random() >= self.loss:
                    when = self.clock.seconds() + DELAY + self.random.random() * self.jitter
                    self._post(when, node, datagram, sender.address)

    def _post(self, when, node, *what):
        heapq.heappush(self._on_the_way, (when, next(self._order), node, node.service, *what))

    def tell_of_death(self, dead):
        for node in self.nodes:
            pairs = {(dead.number, node.number), (node.number, dead.number)}
            if node.runs and not pairs & self.cut:
                self._post(self.clock.seconds() + NOTICED, node, dead.name, None)

    def partition(self, group):
        """Cut the numbers in ``group`` off from the others, both ways."""
        numbers = {node.number for node in self.nodes}
        for one in group:
            for other in numbers - set(group):
                self.cut |= {(one, other), (other, one)}

    # -- time

    def advance(self, seconds):
        """Let so much time pass, event by event."""
        end = self.clock.seconds() + seconds
        while (now := min(self._next(), end)) < end:
            self._step(now)
        self._step(end)

    def _next(self):
        calls = [
            call.getTime()
            for node in self.nodes
            if node.reactor is not None and not node.stopped
            for call in node.reactor.calls[:1]
        ]
        return min([*calls, *(item[0] for item in self._on_the_way[:1])], default=float("inf"))

    def _step(self, now):
        self.clock.advance(now - self.clock.seconds())
        for node in self.nodes:
            if node.reactor is not None and not node.stopped:
                node.reactor.advance_to(now)
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, _, node, service, what, source = heapq.heappop(self._on_the_way)
            if service is not None and node.service is service:
                if node.stopped:
                    node.waiting = [*node.waiting[:SOCKET_BUFFER], (what, source)]
                else:
                    node.take(what, source)

    def catch_up(self, node):
        """Timers first, then what waited in the sockets, as a reactor does it."""
        node.reactor.advance(self.clock.seconds() - node.reactor.seconds())
        waiting, node.waiting = node.waiting, []
        for what, source in waiting:
            node.take(what, source)

    # -- what is

    @property
    def masters(self):
        return [node for node in self.nodes if node.runs and node.role is Role.MASTER]

    @property
    def owners(self):
        return [node for node in self.nodes if node.holds]

    def told(self):
        """How it looks, for a failed assertion."""
        return ", ".join(
            f"{node.name}: {node.role.value} ({node.group.reason})"
            f"{' stopped' * node.stopped}{' holds' * node.holds}"
            if node.service is not None
            else f"{node.name}: not running{' holds' * node.holds}"
            for node in self.nodes
        )
