"""Which node gets the next session (pure).

**Smooth weighted round-robin**, in its exact form.  Each node is *owed* its share of every
session that is given out; who gets one has been paid.  The next session goes to a node
that is owed something, and of those to the one whose next session is due first: the one
that would otherwise be a whole session behind first.  For fixed weights that is the
earliest-deadline rule for one resource that is used up wholly (Tijdeman's chairman
assignment, Pfair scheduling), for which it is proven that no node is ever a whole session
away from its exact share.  So shares are right over *any* run, however short, not only
over a cycle, and heavy nodes' turns are spread, not bunched.

**Least sessions**: the node with the fewest sessions for its weight, counting the one to
be given; what ties is decided as above.

**Weights** are numbers of any scale; 0 takes no new session.  When they change, what a
node is owed stays, and it is less than a session, so nobody has to catch up: it glides.
A node that joins is owed nothing, and with ``slow_start`` seconds its weight rises from a
tenth to the whole, because a cold cache should not meet a full share.  A node that goes
leaves what it was owed, or owed, to the others.

:meth:`Picker.pick` may be told whom to leave out: those that this very session has tried.
Their shares wait for them; only the others are counted.

Called by the load balancer for every session; a handful of nodes, a few microseconds.
"""

from __future__ import annotations

from collections.abc import Collection

from ..config.model import Balance

__all__ = ["Node", "Picker"]

#: The part of its weight that a node starts with under slow start.
FIRST_PART = 0.1
#: Less than this is nothing: sums of shares are not exact in their last digits.
DUST = 1e-9


class Node:
    """One node; only :class:`Picker` changes it."""

    __slots__ = (
        "factor",
        "joined",
        "limit",
        "name",
        "owed",
        "picked",
        "ramping",
        "sessions",
        "weight",
    )

    def __init__(self, name: str, weight: float, joined: float, ramping: bool) -> None:
        self.name = name
        self.weight = weight
        #: The part of the weight that its load allows, 0 to 1.
        self.factor = 1.0
        #: Sessions at once; 0: no limit.
        self.limit = 0
        self.joined = joined
        self.ramping = ramping
        #: Its share of the sessions given out so far, less those it got.
        self.owed = 0.0
        self.sessions = 0
        #: Sessions it got since it joined.
        self.picked = 0


class Picker:
    """All nodes that may get sessions."""

    def __init__(self, balance: Balance = Balance.ROUND_ROBIN, slow_start: float = 0.0) -> None:
        self.balance = balance
        self.slow_start = slow_start
        self.nodes: dict[str, Node] = {}

    # -- who is there

    def join(
        self, name: str, weight: float, now: float, slowly: bool = True, sessions: int = 0
    ) -> None:
        """Add a node; ``slowly`` where it should start slowly, if that is set at all.

        ``sessions`` is how many it still has from before.
        """
        if name in self.nodes:
            raise ValueError(f"{name} is there already")
        node = self.nodes[name] = Node(name, weight, now, slowly and self.slow_start > 0)
        node.sessions = sessions

    def leave(self, name: str) -> None:
        """Take a node out; its sessions go on, and are counted by who let it in."""
        node = self.nodes.pop(name, None)
        if node is not None and self.nodes:
            part = node.owed / len(self.nodes)
            for other in self.nodes.values():
                other.owed += part

    def reweigh(self, name: str, weight: float) -> None:
        """Set a node's weight."""
        self.nodes[name].weight = weight

    def moderate(self, name: str, factor: float) -> None:
        """Let a node have only this part of its weight, because of its load."""
        self.nodes[name].factor = factor

    def limit(self, name: str, sessions: int) -> None:
        """Let a node have so many sessions at once; 0 for no limit."""
        self.nodes[name].limit = sessions

    def closed(self, name: str) -> None:
        """A session of the node has ended, or it never took it."""
        node = self.nodes.get(name)
        if node is not None and node.sessions > 0:
            node.sessions -= 1

    # -- who is next

    def weight(self, name: str, now: float) -> float:
        """Return the weight that counts now."""
        return self._effective(self.nodes[name], now)

    def shares(self, now: float) -> dict[str, float]:
        """Return the part of the sessions that each node is to get now, 0 to 1."""
        weights = {name: self._effective(node, now) for name, node in self.nodes.items()}
        total = sum(weights.values())
        return {name: weight / total if total else 0.0 for name, weight in weights.items()}

    def pick(self, now: float, without: Collection[str] = ()) -> str | None:
        """Return who gets the next session, and count it; None where nobody may have it."""
        candidates: list[tuple[Node, float]] = []
        total = 0.0
        for node in self.nodes.values():
            if node.name in without or (node.limit and node.sessions >= node.limit):
                continue
            weight = self._effective(node, now)
            if weight > 0.0:
                candidates.append((node, weight))
                total += weight
        if not candidates:
            return None
        if self.balance is Balance.LEAST_SESSIONS:
            best = _least(candidates, total)
        else:
            best = _due_first(candidates, total)
        best.owed -= 1.0
        best.sessions += 1
        best.picked += 1
        return best.name

    def _effective(self, node: Node, now: float) -> float:
        weight = node.weight * node.factor
        if node.ramping:
            part = (now - node.joined) / self.slow_start if self.slow_start > 0.0 else 1.0
            if part >= 1.0:
                node.ramping = False
            else:
                weight *= max(FIRST_PART, part)
        return weight


def _due_first(candidates: list[tuple[Node, float]], total: float) -> Node:
    """Pay each its share of one session; return who is to get it."""
    best: Node | None = None
    earliest = float("inf")
    for node, weight in candidates:
        share = weight / total
        node.owed += share
        if node.owed > DUST:
            # After so many sessions more it would be owed a whole one.
            due = (1.0 - node.owed) / share
            if due < earliest - DUST:
                best, earliest = node, due
    if best is None:
        # All that is owed is owed to those left out.
        best = max(candidates, key=lambda each: each[0].owed)[0]
    return best


def _least(candidates: list[tuple[Node, float]], total: float) -> Node:
    """The same, among those that have the fewest sessions for their weight."""
    loads = [(node.sessions + 1) / weight for node, weight in candidates]
    least = min(loads) * (1.0 + DUST)
    best: Node | None = None
    for (node, weight), load in zip(candidates, loads, strict=True):
        node.owed += weight / total
        if load <= least and (best is None or node.owed > best.owed + DUST):
            best = node
    assert best is not None
    # What the sessions' own ends decide is nobody's debt: it must not grow without bound.
    for node, _ in candidates:
        node.owed = min(1.0, max(-1.0, node.owed))
    return best
