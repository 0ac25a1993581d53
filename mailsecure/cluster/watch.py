"""What a postmaster must be told of the cluster: who came, who went, who is deaf, what is wrong.

:class:`Watch` compares what it sees with what it saw, so that each change is one line in
the log; what is wrong now is a list of alarms for ``status``.  Datagrams that were ignored
are counted by reason, and logged at a bounded rate: whoever floods us must not fill the
disk.  :mod:`.service` tells it of each rejected datagram, and has it look once a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from .hello import Drop
from .membership import Peer
from .values import Role

__all__ = ["Group", "Watch"]

_log = Logger(namespace="cluster")

#: One line a reason in so many seconds.
TELL_INTERVAL = 60.0
#: Two Masters are an alarm when they hear each other for longer than so many intervals.
TOO_LONG = 2.0

_MEANING = {
    Drop.MALFORMED: "no hello",
    Drop.VERSION: "of another version",
    Drop.OTHER_CLUSTER: "signed with the key of another cluster",
    Drop.BAD_SIGNATURE: "with a wrong signature",
    Drop.SAME_NAME: "from another node of our own name: [node] name must differ",
    Drop.REPLAYED: "heard before",
    Drop.STRANGE: "from a node that does not prove itself",
    Drop.TOO_MANY: "from more nodes than we remember",
}


class Group(Protocol):
    """What is looked at of a virtual group."""

    name: str

    @property
    def role(self) -> Role:
        """Our role in it."""

    @property
    def interval(self) -> float:
        """Its advertisement interval, in seconds."""


class Watch:
    """See the module's text."""

    def __init__(self, clock: IReactorTime, node: str) -> None:
        self._clock = clock
        self._node = node
        self._told: dict[Drop, float] = {}
        self._last: dict[Drop, float] = {}
        self._untold: Counter[Drop] = Counter()
        self._alive: set[str] = set()
        self._deaf: set[str] = set()
        self._several: dict[str, float] = {}
        #: Datagrams that were ignored, by reason.
        self.drops: Counter[Drop] = Counter()
        #: Groups that have more than one Master now: name → the Masters' nodes.
        self.two_masters: dict[str, tuple[str, ...]] = {}

    def rejected(self, reason: Drop, source: str) -> None:
        """Count a datagram that was ignored."""
        if reason is Drop.OWN:
            return
        self.drops[reason] += 1
        self._untold[reason] += 1
        now = self._last[reason] = self._clock.seconds()
        if now - self._told.get(reason, -TELL_INTERVAL) < TELL_INTERVAL:
            return
        self._told[reason] = now
        _log.warn(
            "ignored {number} datagrams {meaning}, the last one from {source}",
            number=self._untold.pop(reason),
            meaning=_MEANING[reason],
            source=source,
        )

    def look(self, peers: Iterable[Peer], groups: Mapping[str, Group]) -> None:
        """Compare what is seen now with what was seen, and tell what changed."""
        peers = list(peers)
        alive = {each.node for each in peers if each.alive}
        deaf = {each.node for each in peers if each.alive and each.deaf}
        for each in peers:
            if each.node in alive - self._alive:
                _log.info(
                    "{node}: here, at {address}, version {version}",
                    node=each.node,
                    address=str(each.address),
                    version=each.version,
                )
        for node in sorted(self._alive - alive):
            _log.warn("{node}: not heard any more", node=node)
        for node in sorted(deaf - self._deaf):
            _log.warn("{node}: we hear it, it does not hear us", node=node)
        for node in sorted((self._deaf - deaf) & alive):
            _log.info("{node}: hears us", node=node)
        self._alive, self._deaf = alive, deaf
        for group in groups.values():
            self._look_at(group, [each for each in peers if each.alive])

    def _look_at(self, group: Group, alive: Iterable[Peer]) -> None:
        masters = [
            each.node
            for each in alive
            for said in each.groups
            if said.name == group.name and said.role is Role.MASTER and said.priority
        ]
        if group.role is Role.MASTER:
            masters.append(self._node)
        now, name = self._clock.seconds(), group.name
        if len(masters) < 2:
            self._several.pop(name, None)
            if self.two_masters.pop(name, None):
                _log.info("{group}: one Master again", group=name)
            return
        since = self._several.setdefault(name, now)
        if now - since > TOO_LONG * group.interval:
            masters.sort()
            if name not in self.two_masters:
                _log.error(
                    "{group}: more than one Master: {masters}",
                    group=name,
                    masters=", ".join(masters),
                )
            self.two_masters[name] = tuple(masters)

    def alarms(self) -> list[str]:
        """Return what is wrong now, a line each."""
        found = [
            f"{group}: more than one Master: {', '.join(masters)}"
            for group, masters in self.two_masters.items()
        ]
        found += [f"{node} does not hear us" for node in sorted(self._deaf)]
        last = self._last.get(Drop.SAME_NAME)
        if last is not None and self._clock.seconds() - last < TELL_INTERVAL:
            found.append("another node has our name, or old datagrams of ours are sent again")
        return found
