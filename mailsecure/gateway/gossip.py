"""What a client does at one node, all nodes know: the limits are the cluster's.

A few times a second, and only where something happened, each node tells the others what
its clients did (:meth:`.limits.ClientLimits.news`); a node that has just been linked is
told everything first.  A node that does not read for a while is told everything again
later: what it missed is not kept.  When a link ends, the sessions that were told over it
are forgotten: either they are over, or they are told again.

A message is bounded, and so is what is said to one node at a time.  The subject is
``limits``, its body ``{"rows": [[client, sessions, started, messages, recipients, known],
...], "whole": bool}``, ``whole`` where it is the first of everything.

:class:`.service.Gateway` keeps one where there is a cluster.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from ..background import Periodic
from ..errors import RemoteFault
from .limits import ClientLimits, Row

__all__ = ["Gossip", "Line"]

SUBJECT = "limits"
INTERVAL = 0.25
#: Clients in one message, messages to one node at a time, clients in everything.
ROWS = 500
MESSAGES = 10
EVERYTHING = 20_000
#: Bounds of what others may say.
LONGEST_KEY = 64
MOST = 1_000_000
_COLUMNS = 6


class Line(Protocol):
    """The links of the cluster (:class:`mailsecure.cluster.sharing.Sharing`)."""

    def hear(self, subject: str, listener: Any) -> None:
        """Have ``listener`` told of nodes, and of what they say."""

    def tell(self, node: str, subject: str, body: dict[str, Any]) -> bool:
        """Say something to a node; False: not now."""


class Gossip:
    """See the module's text (:class:`mailsecure.cluster.sharing.Listener`)."""

    def __init__(self, clock: IReactorTime, limits: ClientLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._line: Line | None = None
        #: What each linked node has to be told of everything; None: all of it is to come.
        self._behind: dict[str, list[Row] | None] = {}
        self._nodes: set[str] = set()
        self._turns = Periodic(clock, INTERVAL, "telling what clients do", self._turn)

    def start(self, line: Line) -> None:
        """Begin."""
        self._line = line
        line.hear(SUBJECT, self)
        self._turns.start()

    def stop(self) -> None:
        """Say no more."""
        self._turns.stop()

    # -- what we say

    def _turn(self) -> None:
        rows = self._limits.news(ROWS * MESSAGES)
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
            rest, whole = self._limits.everything(self._clock.seconds(), EVERYTHING), True
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
            body = {
                "rows": [
                    [row.key, row.sessions, row.started, row.messages, row.recipients, row.known]
                    for row in rows[start : start + ROWS]
                ],
                "whole": whole and not start,
            }
            if not line.tell(node, SUBJECT, body):
                return False
        return True

    # -- what we hear

    def linked(self, node: str) -> None:
        """A node has come: it is to be told everything."""
        self._nodes.add(node)
        self._behind[node] = None

    def unlinked(self, node: str) -> None:
        """It has gone, and its sessions with it."""
        self._nodes.discard(node)
        self._behind.pop(node, None)
        self._limits.forget(node)

    def heard(self, node: str, body: dict[str, Any]) -> None:
        """A node says what its clients did; RemoteFault if it makes no sense."""
        rows = body.get("rows")
        if not isinstance(rows, list) or len(rows) > ROWS:
            raise RemoteFault("no rows, or too many")
        read = [_read(row) for row in rows]
        if body.get("whole") is True:
            self._limits.forget(node)
        self._limits.heard(node, read, self._clock.seconds())


def _read(row: object) -> Row:
    if not isinstance(row, list) or len(row) != _COLUMNS:
        raise RemoteFault("no row")
    key, *numbers, known = row
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not isinstance(known, bool):
        raise RemoteFault("no client")
    for number in numbers:
        if type(number) is not int or not 0 <= number <= MOST:
            raise RemoteFault("no number")
    sessions, started, messages, recipients = numbers
    return Row(key, sessions, started, messages, recipients, known)
