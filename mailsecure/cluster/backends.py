"""The nodes as a load balancer wants them: who could have sessions, and how many.

:class:`Backends` makes :class:`.values.Backend` of what is known of each node, with the
weights that a postmaster set (:mod:`.overrides`), and tells whoever watches when something
in it changed.  Load and time of the last hello change with every hello and are not told:
who wants them looks.  :mod:`.service` keeps one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .overrides import Overrides
from .values import Backend, Hello, Override

if TYPE_CHECKING:
    from .membership import Peer
    from .service import ClusterService

__all__ = ["Backends"]


class Backends:
    """See the module's text."""

    def __init__(self, service: ClusterService) -> None:
        self._service = service
        self.overrides = Overrides()
        self._watchers: list[Callable[[], None]] = []
        #: What each node last said of itself, as far as changes of it are told.
        self._said: dict[str, tuple[Any, ...]] = {}
        self._alive: set[str] = set()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back at each change."""
        self._watchers.append(callback)

    def all(self) -> list[Backend]:
        """Return all nodes, ourselves first."""
        service = self._service
        now = service.now
        hello = service.hello_now()
        ours = self._backend(hello, hello.incarnation, True, now)
        peers = service.membership.peers(now)
        return [
            ours,
            *(self._backend(p, p.incarnation, p.alive, now - p.last_heard) for p in peers),
        ]

    def _backend(self, said: Hello | Peer, incarnation: int, alive: bool, heard: float) -> Backend:
        weight = self.overrides.weight(said.node)
        return Backend(
            node=said.node,
            incarnation=incarnation,
            address=said.address,
            port=said.peer_port,
            role=said.role,
            own_weight=said.weight,
            weight=said.weight if weight is None else weight,
            overridden=weight is not None,
            load=said.load,
            fitness=said.fitness,
            alive=alive,
            heard=heard,
        )

    # -- what may change it

    def set_weight(self, node: str, weight: int | None) -> None:
        """Take a postmaster's word."""
        self.overrides.set(node, weight, self._service.membership.incarnation)
        self.changed()

    def heard(self, hello: Hello) -> None:
        """A peer said hello, and it counts."""
        said = (
            hello.incarnation, hello.peer_port, hello.weight, hello.fitness, hello.address,
            hello.role,
        )  # fmt: skip
        changed = False
        if self._said.get(hello.node) != said or hello.node not in self._alive:
            self._said[hello.node] = said
            self._alive.add(hello.node)
            changed = True
        for word in hello.overrides:
            changed = self.overrides.merge(word) or changed
        if changed:
            self.changed()

    def ended(self, node: str) -> None:
        """A peer is gone, or left."""
        if node in self._alive:
            self._alive.discard(node)
            self.changed()

    def look(self, alive: set[str]) -> None:
        """These peers are alive now; who is no more was not heard for too long."""
        if self._alive - alive:
            self._alive &= alive
            for node in self._said.keys() - alive:
                del self._said[node]
            self.changed()

    def next_words(self, count: int) -> tuple[Override, ...]:
        """Return up to ``count`` overrides for our next hello."""
        return self.overrides.next(count)

    def changed(self) -> None:
        """Tell who watches."""
        for callback in self._watchers:
            callback()
