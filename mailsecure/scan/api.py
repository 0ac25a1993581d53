"""How a check is written and found.

A check is an object with a ``name``, the ``stages`` at which it runs, and a coroutine
``check`` (:class:`Check`).  A *maker* makes it from the configuration
(:class:`ICheckMaker`), and is a plugin of Twisted's: an attribute of a module in
``twisted/plugins``, ours in ``mailsecure_checks.py``, a site's own in a file of the
directory that ``[scan] plugins`` names.  :func:`~.finding.find_makers` finds them.

A check never blocks: what takes the processor goes to :attr:`Site.workers`, what waits is
awaited.  It may raise; then it counts as failed, and ``[scan] on_failure`` decides.
:class:`Unscannable` says that the message, not the check, is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from twisted.plugin import IPlugin
from zope.interface import Attribute

from ..config.model import Config
from ..config.scanning import Scan
from ..spool.values import Body
from ..world import World
from .faults import ScannerFault, Unscannable, WorkerFault
from .values import Facts, Finding, Stage

__all__ = [
    "Check",
    "Counting",
    "Heir",
    "ICheckMaker",
    "Line",
    "Patient",
    "Pool",
    "Reporting",
    "ScannerFault",
    "Site",
    "Stateful",
    "Unscannable",
    "WorkerFault",
    "Workers",
]


class Workers(Protocol):
    """Processes that do what takes the processor, and that can be killed."""

    async def run(
        self, job: str, arguments: Mapping[str, Any], body: Body | None = None
    ) -> dict[str, Any]:
        """Have a process do ``job`` and return its result.

        A job is a function ``module:name`` of :mod:`mailsecure.scan`, as
        ``jobs.mail:take_apart``; it is called with ``arguments`` (JSON) and the octets of
        ``body`` (b"" without), and returns JSON.  Raises :class:`Unscannable` if it raises
        that, takes longer than ``[scan] worker_time``, takes more than ``worker_memory``,
        or dies, and :class:`WorkerFault` if there is no process to be had.
        """


class Pool(Workers, Protocol):
    """The same, as whoever owns them sees them."""

    async def start(self) -> None:
        """Start the processes."""

    async def stop(self) -> None:
        """End them; jobs that are not done fail."""

    def reconfigure(self, settings: Scan) -> None:
        """Go by other settings from the next job on."""

    def report(self) -> dict[str, Any]:
        """Return how they are; see :mod:`.workers.pool`."""


class Line(Protocol):
    """The links of the cluster (:class:`mailsecure.cluster.sharing.Sharing`)."""

    def hear(self, subject: str, listener: Any) -> None:
        """Have ``listener`` told of nodes, and of what they say of ``subject``."""

    def tell(self, node: str, subject: str, body: dict[str, Any]) -> bool:
        """Say something to a node; False: not now."""


@dataclass(frozen=True)
class Site:
    """Where a check works: what it may use."""

    config: Config
    world: World
    workers: Workers
    #: The state directory, for what must outlive a restart.
    state: Path
    #: Leads to the other nodes; None where there is no cluster.
    line: Callable[[], Line] | None = None


class Check(Protocol):
    """One check, for all sessions."""

    @property
    def name(self) -> str:
        """Its name: in ``[scan] checks``, in the log, in the records."""

    @property
    def stages(self) -> frozenset[Stage]:
        """When it runs."""

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Return what is found.  ``facts`` are those of ``stage``."""


@runtime_checkable
class Stateful(Protocol):
    """A check that has something to open and close may have these, too."""

    async def start(self) -> None:
        """Called once before the first session.

        LocalFault ends the daemon's start; at a reload it is logged, and the check is asked
        all the same.
        """

    async def stop(self) -> None:
        """Called once where :meth:`start` succeeded: at the end, and when a reload replaces it.

        Sessions that began before that reload still ask this check.
        """


@runtime_checkable
class Heir(Protocol):
    """A check that goes on, at a reload, with what its predecessor has open."""

    def inherit(self, old: Check) -> None:
        """Take over from ``old``, the check of the same name that ran until now.

        Called before the first session.  ``old`` is then not stopped, and this check not
        started; sessions that began before go on with ``old``.
        """


@runtime_checkable
class Patient(Protocol):
    """A check with a time of its own instead of ``[scan] check_timeout``: the engines."""

    @property
    def limit(self) -> float:
        """How long it takes at most, in seconds: it sees to that by itself."""


@runtime_checkable
class Counting(Protocol):
    """A check that keeps tables, or counts something: shown in ``status`` and metrics."""

    def counts(self) -> dict[str, int]:
        """Return figures by name; quick."""


@runtime_checkable
class Reporting(Protocol):
    """A check that has something to say in ``mailsecure status``: the engines."""

    @property
    def well(self) -> bool:
        """False while it is down and mail is put off for that."""

    def report(self) -> dict[str, Any]:
        """Return how it is; see :mod:`.engines.guard`."""


class ICheckMaker(IPlugin):
    """Makes a check from the configuration: the plugin."""

    name: str = Attribute("""What ``[scan] checks`` or ``[scan] engines`` calls it.""")

    def make(site: Site) -> Check:
        """Return the check; called at each start and reload.

        Raises ValueError with what is wrong in the settings.
        """
