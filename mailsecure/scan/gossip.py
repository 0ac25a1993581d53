"""What one node knows, all nodes know: how tables are shared in a cluster.

A few times a second, and only where something changed, each node tells the others what is new
in a table of its own (:meth:`Shared.news`).  A node that has just been linked, or that did not
read for a while, is told what it has to know first (:meth:`Shared.everything`): what it missed
is not kept for it.  A message is bounded, and so is what is said to one node at a time.

Each table has a *subject* of the links, and its own rows: lists of JSON values.  The body of a
message is ``{"rows": [...], "whole": bool}``, ``whole`` where it is the first of everything.
Peers have the cluster's key and are read as strictly as strangers all the same: a table raises
:class:`~mailsecure.errors.RemoteFault` for a row that makes no sense, before it took any.

:mod:`.checks.greylist` and :mod:`.checks.rates` share their tables so, and the gateway the
limits of clients (:mod:`mailsecure.gateway.gossip`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from ..background import Periodic
from ..errors import RemoteFault
from .api import Line

__all__ = ["Gossip", "Row", "Shared"]

INTERVAL = 0.25
#: Rows in one message (64 KiB at most, see the links), messages to one node at a time: what
#: that takes is a few milliseconds.
ROWS = 500
MESSAGES = 4

Row = list[Any]


class Shared(Protocol):
    """A table that all nodes know.  ``now`` is of the clock that the table goes by."""

    def news(self, most: int) -> list[Row]:
        """Return at most ``most`` rows that were not told yet, and take them as told."""

    def everything(self, now: float) -> list[Row]:
        """Return the rows that a node has to know that knows nothing; bounded."""

    def heard(self, node: str, rows: Sequence[Row], whole: bool, now: float) -> None:
        """Take what a node tells; RemoteFault if it makes no sense."""

    def gone(self, node: str) -> None:
        """A node is not linked any more: what it said is not sure any more."""


class Gossip:
    """Shares one table (:class:`mailsecure.cluster.sharing.Listener`).

    ``now`` is the clock that the table goes by; ``clock`` that of our turns.
    """

    def __init__(
        self, clock: IReactorTime, subject: str, shared: Shared, now: Callable[[], float]
    ) -> None:
        self._subject = subject
        self._shared = shared
        self._now = now
        self._line: Line | None = None
        #: What each linked node has to be told of everything; None: all of it is to come.
        self._behind: dict[str, list[Row] | None] = {}
        self._nodes: set[str] = set()
        self._turns = Periodic(clock, INTERVAL, f"telling other nodes of {subject}", self._turn)

    def start(self, line: Line) -> None:
        """Begin."""
        self._line = line
        line.hear(self._subject, self)
        self._turns.start()

    def stop(self) -> None:
        """Say no more."""
        self._turns.stop()

    # -- what we say

    def _turn(self) -> None:
        rows = self._shared.news(ROWS * MESSAGES)
        for node in self._nodes:
            if node in self._behind:
                # It grows no further: as many rows go out as come in.
                rest = self._behind[node]
                if rest is not None:
                    rest.extend(rows)
                self._catch_up(node)
            elif rows and not self._say(node, rows):
                self._behind[node] = None

    def _catch_up(self, node: str) -> None:
        rest, whole = self._behind[node], False
        if rest is None:
            rest, whole = self._shared.everything(self._now()), True
        if not self._say(node, rest[: ROWS * MESSAGES], whole):
            self._behind[node] = None
        elif len(rest) > ROWS * MESSAGES:
            self._behind[node] = rest[ROWS * MESSAGES :]
        else:
            del self._behind[node]

    def _say(self, node: str, rows: list[Row], whole: bool = False) -> bool:
        line = self._line
        assert line is not None
        for start in range(0, max(1, len(rows)), ROWS):
            body = {"rows": rows[start : start + ROWS], "whole": whole and not start}
            if not line.tell(node, self._subject, body):
                return False
        return True

    # -- what we hear

    def linked(self, node: str) -> None:
        """A node has come: it is to be told everything."""
        self._nodes.add(node)
        self._behind[node] = None

    def unlinked(self, node: str) -> None:
        """It has gone."""
        self._nodes.discard(node)
        self._behind.pop(node, None)
        self._shared.gone(node)

    def heard(self, node: str, body: dict[str, Any]) -> None:
        """A node says something; RemoteFault if it makes no sense."""
        rows = body.get("rows")
        if not isinstance(rows, list) or len(rows) > ROWS:
            raise RemoteFault("no rows, or too many")
        self._shared.heard(node, rows, body.get("whole") is True, self._now())
