"""What the control room needs of the others, as small Protocols.

``assemble`` gives the real things; tests give fakes.  The spool's side is
:class:`mailsecure.spool.api.Spool`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from ..records.api import History, Recorder
from ..scan.api import Line
from ..scan.rehearsing import Rehearsal
from ..spool.api import Filter, Spool
from ..spool.body import BodyStore
from ..spool.ids import IdSource

__all__ = ["Cluster", "Desk", "Destination", "Forwarding", "Scheduler"]


class Destination(Protocol):
    """One destination in delivery's hands; only what ``status`` shows."""

    @property
    def domain(self) -> str:
        """The domain, as :class:`~mailsecure.spool.api.Backlog` names it."""

    @property
    def in_flight(self) -> int:
        """Messages being delivered now."""

    @property
    def next_attempt(self) -> float:
        """Unix time before which nothing is tried; 0 if it is not held back."""

    @property
    def last_error(self) -> str:
        """The last answer that was not a delivery; "" if there was none."""


class Scheduler(Protocol):
    """The part of delivery's scheduler that a postmaster commands."""

    def flush(self, filter: Filter) -> Deferred[int]:
        """Try matching recipients now, whatever held them back.  Returns how many."""

    def bounce(self, filter: Filter, reason: str) -> Deferred[int]:
        """Give matching recipients up and notify the senders.  Returns how many."""

    def wake(self) -> None:
        """Look at the spool again soon: recipients became due."""

    def snapshot(self) -> Iterable[Destination]:
        """The destinations known now, in no particular order."""


class Cluster(Protocol):
    """The cluster as a postmaster sees and commands it."""

    def report(self) -> dict[str, Any]:
        """Return everything that ``mailsecure cluster status`` shows.

        The shape, which ``--json`` prints and programs may rely on (times are Unix
        seconds, durations seconds, roles ``init``, ``backup`` or ``master``)::

            node, address, version, interval, hellos_sent, hellos_received, send_failures
            groups  [{name, role, priority, effective_priority, master, since, reason,
                      addresses: [{address, held}], interface, interval, changes,
                      standing_back_until, standing_back_because, claimed_until, fault,
                      two_masters}]
            nodes   [{node, self, address, source, role, weight, own_weight, overridden, load,
                      version, uptime, last_hello, round_trip, clock_offset, alive, starts,
                      fitness: [], groups: {group: "role/priority"}, hears: [node],
                      heard_by: [node],
                      link: {up, since, round_trip, connects, failures, last_reason}}]
            (link is null for this node; its round_trip before the first ping came back; its
            since is how long it is up, or down)
            drops   {reason: datagrams ignored}
            alarms  [what is wrong now, a line each]
        """

    def resign(self, group: str | None, seconds: float) -> list[str]:
        """Let others be Master for so long; return what to say.  KeyError: no such group."""

    def takeover(self, group: str | None, seconds: float) -> list[str]:
        """Be Master for so long, whatever the priorities; as :meth:`resign`."""

    def set_weight(self, node: str, weight: int | None) -> None:
        """Have ``node`` count with ``weight`` in the whole cluster; None: with its own."""


class Drain(Protocol):
    """Taking this node out of work (:mod:`mailsecure.draining`)."""

    def report(self) -> dict[str, Any]:
        """Return ``state``, ``sessions``, ``directed``, ``left``, ``master``, ``why``."""

    def begin(self, seconds: float) -> None:
        """Drain; LocalFault: it cannot be."""

    def end(self) -> bool:
        """Work again; return whether it drained."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What it takes to send a copy of a held message.

    ``hostname`` is ours; ``routable`` says whether mail to a domain has a way.
    """

    hostname: str
    ids: IdSource
    bodies: BodyStore
    routable: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Desk:
    """All that a request may touch.

    ``status`` returns what ``mailsecure status`` shows; ``reload`` reads the ini again
    and returns what there is to say, line by line, or raises
    :class:`~mailsecure.errors.ConfigProblems` and has changed nothing.
    """

    spool: Spool
    scheduler: Scheduler
    status: Callable[[], Awaitable[dict[str, Any]]]
    reload: Callable[[], Awaitable[Sequence[str]]]
    #: None where there is no cluster.
    cluster: Cluster | None = None
    #: What the load balancer reports (:mod:`mailsecure.balancer.report`), if there is one.
    balance: Callable[[], dict[str, Any]] | None = None
    #: None only where nothing is there to drain, in tests.
    drain: Drain | None = None
    #: Judges a file; None where nothing is scanned.
    rehearse: Callable[[Rehearsal], Awaitable[dict[str, Any]]] | None = None
    #: Says whether an address is in ``[relay] networks``.
    trusted: Callable[[str], bool] = bool
    #: What takes note of deeds; None where no history is kept.
    recorder: Recorder | None = None
    #: None only in tests of something else.
    forwarding: Forwarding | None = None
    #: None where no history is kept.
    history: History | None = None
    #: Our name in the cluster, and what leads to the other nodes; "" and None without one.
    node: str = ""
    line: Callable[[], Line] | None = None
    #: The same at all nodes that write to one history; "" where it is this node's own.
    shared_history: str = ""
