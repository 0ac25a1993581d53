"""What a client does at one node, all nodes know: the limits are the cluster's.

A row of :mod:`mailsecure.scan.gossip`, which carries them, is ``[client, sessions, started,
messages, recipients, known]``, under the subject ``limits``.  When a link ends, the sessions
that were told over it are forgotten: either they are over, or they are told again.

:class:`.service.Gateway` keeps one where there is a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime

from ..errors import RemoteFault
from ..scan.api import Line
from ..scan.gossip import Gossip
from .limits import ClientLimits, Row

__all__ = ["LimitsGossip", "Line"]

SUBJECT = "limits"
#: Clients in everything.
EVERYTHING = 20_000
#: Bounds of what others may say.
LONGEST_KEY = 64
MOST = 1_000_000
_COLUMNS = 6


class LimitsGossip(Gossip):
    """See the module's text."""

    def __init__(self, clock: IReactorTime, limits: ClientLimits) -> None:
        super().__init__(clock, SUBJECT, _SharedLimits(limits), clock.seconds)


class _SharedLimits:
    """Limits as a table that nodes share (:class:`mailsecure.scan.gossip.Shared`)."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits

    def news(self, most: int) -> list[list[Any]]:
        return [_written(row) for row in self._limits.news(most)]

    def everything(self, now: float) -> list[list[Any]]:
        return [_written(row) for row in self._limits.everything(now, EVERYTHING)]

    def heard(self, node: str, rows: Sequence[list[Any]], whole: bool, now: float) -> None:
        read = [_read(row) for row in rows]
        if whole:
            self._limits.forget(node)
        self._limits.heard(node, read, now)

    def gone(self, node: str) -> None:
        self._limits.forget(node)


def _written(row: Row) -> list[Any]:
    return [row.key, row.sessions, row.started, row.messages, row.recipients, row.known]


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
