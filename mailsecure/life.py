"""The daemon's life: in which order the parts start, stop and take new settings.

:class:`Daemon` is the one service that twistd knows.  Its parts were made and connected
by :mod:`.assemble`.

*Start.*  ``privilegedStartService`` runs as who started us: state directory, log, ports;
then the user of ``[node]`` for good.  Ports are bound but not read until the spool is
open, so the first client already finds everything.  What cannot be bound is fatal, and
told in one line.  The cluster comes last: only who can take mail may hold an address.

*Stop.*  The virtual addresses go to another node first, once no session needs them here
(:meth:`mailsecure.draining.Drain.leave`).  Then no new sessions, those in a
transaction finish, deliveries under way finish (both bounded), then the spool is closed,
which commits what waits.

*Reload* (SIGHUP, ``mailsecure reload``).  The ini is read again.  If it has a single
problem, nothing at all changes.  Each part takes its settings; what needs a restart is
named in the log.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from .background import background
from .config.change import changes
from .config.files import read_config
from .config.model import Config
from .control.logfile import LogFile
from .control.vitals import Vitals
from .daemon.capabilities import CAP_NET_ADMIN, CAP_NET_RAW
from .daemon.clock import SetBack
from .daemon.collector import tame
from .daemon.privileges import (
    Identity,
    drop_privileges,
    identity_of,
    keep_secrets,
    raise_descriptor_limit,
)
from .daemon.signals import on_another_end, on_hangup
from .daemon.state import prepare_state
from .daemon.systemd import ServiceNotices
from .delivery.scheduler import Scheduler
from .draining import Drain
from .errors import ConfigProblems, LocalFault
from .gateway.service import Gateway
from .spool.api import Filter, Spool
from .world import World

__all__ = ["Bindable", "Daemon", "Parts"]

_log = Logger(namespace="main")

#: Descriptors that are not sessions: spool, log, deliveries, sockets.
SPARE_DESCRIPTORS = 300
#: What the user of ``[node]`` keeps of root's capabilities where there are virtual groups.
MOVES_ADDRESSES = (CAP_NET_ADMIN, CAP_NET_RAW)


class Bindable(Protocol):
    """A service with a port of its own."""

    def bind(self) -> Deferred[None]:
        """Listen; fails with LocalFault."""

    def stopService(self) -> Deferred[None]:
        """Listen no more."""


class Participant(Bindable, Protocol):
    """The cluster: begins when mail can be taken, ends first."""

    def startService(self) -> None:
        """Take part in the elections."""


class Sharer(Protocol):
    """The load balancer: begins with the gateway, and ends with it."""

    def startService(self) -> None:
        """Take connections from the gateway's sockets."""

    def stopService(self) -> Deferred[None]:
        """Take no more, at once; fires when the sessions of peers have ended."""


class Startable(Protocol):
    """What mail needs on its way: scanner, history, quarantine."""

    def start(self) -> Awaitable[None] | None:
        """Begin; LocalFault: it cannot, and nor can the daemon."""

    def stop(self) -> Awaitable[None] | None:
        """End, once no mail is taken or delivered any more."""


@dataclass
class Parts:
    """What the daemon consists of, as assembled for one configuration."""

    config: Config
    path: Path
    world: World
    log: LogFile
    spool: Spool
    scheduler: Scheduler
    gateway: Gateway
    vitals: Vitals
    #: Bound before privileges are dropped, and after.
    before: Sequence[Bindable]
    after: Sequence[Bindable]
    #: Gives the parts made anew for a configuration their settings; LocalFault: no change.
    reconfigure: Callable[[Config], None]
    cluster: Participant | None = None
    balancer: Sharer | None = None
    drain: Drain | None = None
    #: Started in this order when the spool is open, stopped the other way round.
    services: Sequence[Startable] = ()
    notices: ServiceNotices = field(init=False)

    def __post_init__(self) -> None:
        self.notices = ServiceNotices(self.world.clock)
        if self.drain is not None:
            self.drain.watch(self.notices.status)


class Daemon(Service):
    """The service of the whole process."""

    name = "mailsecure"

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._started_with = parts.config
        self._opened = False
        self._accepting = False
        self._starting: Deferred[None] | None = None
        self._started: list[Startable] = []
        self._clock_watch = SetBack(parts.world, self._clock_set_back)
        #: The ini that is read last is the one that counts.
        self._reloading = DeferredLock()

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, and make our log its log."""
        if isinstance(parent, Componentized):
            self.parts.log.open()
            parent.setComponent(ILogObserver, self.parts.log)
        super().setServiceParent(parent)

    # -- start

    def privilegedStartService(self) -> None:
        """Bind, then become the user of ``[node]``; exits with the reason in one line."""
        try:
            self._bind_and_drop()
        except LocalFault as fault:
            _log.critical("cannot start: {reason}", reason=str(fault))
            _tell(f"mailsecure cannot start: {fault}")
            raise SystemExit(os.EX_UNAVAILABLE) from None
        super().privilegedStartService()

    def _bind_and_drop(self) -> None:
        parts, node = self.parts, self.parts.config.node
        keep_secrets()
        descriptors = raise_descriptor_limit()
        wanted = parts.config.smtp.max_sessions + SPARE_DESCRIPTORS
        if descriptors < wanted:
            _log.warn(
                "only {have} descriptors are granted, {wanted} wanted for [smtp] max_sessions",
                have=descriptors,
                wanted=wanted,
            )
        identity: Identity | None = None
        if node.user and os.geteuid() == 0:
            identity = identity_of(node.user, node.group)
        prepare_state(node.state, identity)
        _result(Deferred.fromCoroutine(parts.gateway.bind()))
        for each in parts.before:
            _result(each.bind())
        if parts.cluster is not None:
            _result(parts.cluster.bind())
        if identity is not None:
            parts.log.give_to(identity.uid, identity.gid)
            drop_privileges(identity, MOVES_ADDRESSES if parts.config.virtual else ())
        elif os.geteuid() == 0:
            _log.warn("running as root: set [node] user")

    def startService(self) -> None:
        """Begin the work once the reactor runs."""
        super().startService()
        self.parts.log.start()
        on_hangup(self.parts.world.reactor, self._hangup)
        self._starting = Deferred.fromCoroutine(self._begin())
        self._starting.addErrback(self._not_started)

    async def _begin(self) -> None:
        parts = self.parts
        await parts.spool.open()
        self._opened = True
        if not self.running:
            return
        parts.vitals.startService()
        for service in parts.services:
            await _done(service.start())
            self._started.append(service)
        await parts.scheduler.start()
        for each in parts.after:
            await each.bind()
        parts.gateway.startService()
        if parts.balancer is not None:
            parts.balancer.startService()
        tame()
        for line in self.summary():
            _log.info("{line}", line=line)
        self._accepting = True
        self._clock_watch.start()
        if parts.cluster is not None:
            parts.cluster.startService()
        parts.notices.ready(self._activity)

    @property
    def _activity(self) -> str:
        drain = self.parts.drain
        return "accepting mail" if drain is None else drain.activity

    def _not_started(self, failure: Failure) -> None:
        """Stop the process with an exit code that says so."""
        reason = failure.getErrorMessage() if failure.check(LocalFault) else str(failure)
        _log.critical("cannot start: {reason}", reason=reason)
        _tell(f"mailsecure cannot start: {reason}")
        # twistd exits with 0 after any reactor.stop(); this is its last act.
        atexit.register(os._exit, os.EX_UNAVAILABLE)
        self.parts.world.reactor.stop()

    def summary(self) -> list[str]:
        """Say in plain lines what we listen on and where mail goes."""
        parts, config = self.parts, self.parts.config
        lines = [f"listening for SMTP on {each}" for each in parts.gateway.listening]
        lines += [f"mail for {domain} goes to {route}" for domain, route in config.domains.items()]
        networks = " ".join(str(network) for network in config.relay.networks)
        if networks:
            lines.append(f"clients in {networks} may send anywhere")
        lines.append("all other mail is refused")
        lines.append(f"ready as {config.node.hostname}, state in {config.node.state}")
        return lines

    def _clock_set_back(self, seconds: float) -> None:
        """Try what waits: its time in the queue has become too late."""
        _log.warn(
            "the clock was set back by {seconds} s: what waits is tried now", seconds=round(seconds)
        )
        background("trying what waits", self._try_all())

    async def _try_all(self) -> None:
        await self.parts.scheduler.flush(Filter())

    # -- stop

    def stopService(self) -> Deferred[None]:
        """Drain, then close; the Deferred fires when all is done."""
        super().stopService()
        self._accepting = False
        self._clock_watch.stop()
        on_another_end(self.parts.world.reactor, self._stops_already)
        _log.info("stopping: no new sessions, transactions may finish")
        self.parts.notices.stopping()
        return background("stopping", self._end())

    @staticmethod
    def _stops_already() -> None:
        _log.info("stopping already: SIGKILL would end it at once")

    async def _end(self) -> None:
        parts = self.parts
        if self._starting is not None:
            await self._starting
        if parts.drain is not None:
            await parts.drain.leave(parts.config.smtp.drain_timeout)
        if parts.cluster is not None:
            await parts.cluster.stopService()
        # Both close their doors now, and then wait for their sessions.
        shared = succeed(None) if parts.balancer is None else parts.balancer.stopService()
        await parts.gateway.stopService()
        await shared
        await parts.scheduler.stop()
        for each in (*parts.after, *parts.before):
            await each.stopService()
        if parts.vitals.running:
            parts.vitals.stopService()
        while self._started:
            await _done(self._started.pop().stop())
        if self._opened:
            await parts.spool.close()
        parts.notices.stopped()
        _log.info("stopped")
        parts.log.stop()

    # -- reload

    def _hangup(self) -> None:
        background("the reload", self._reload_at_hangup())

    async def _reload_at_hangup(self) -> None:
        self.parts.log.reopen()
        try:
            await self.reload()
        except ConfigProblems as problems:
            for problem in problems.problems:
                _log.error("{problem}", problem=str(problem))
            _log.error("reload refused: the old settings stay whole")
        except LocalFault as fault:
            _log.error("reload refused, the old settings stay whole: {reason}", reason=str(fault))

    async def reload(self) -> Sequence[str]:
        """Read the ini again and apply what can be; return what there is to say.

        Raises ConfigProblems or LocalFault, and has changed nothing then.
        """
        await self._reloading.acquire()
        try:
            return await self._reload()
        finally:
            self._reloading.release()

    async def _reload(self) -> Sequence[str]:
        parts = self.parts
        if self._accepting:
            parts.notices.reloading()
        try:
            new = await parts.world.in_thread(read_config, parts.path)
            found = changes(parts.config, new)
            parts.reconfigure(new)
            parts.config = new
            waiting = [
                change
                for change in changes(self._started_with, new)
                if change.needs_restart and change not in found
            ]
        finally:
            # The start or the stop may be under way, and has its own word for systemd.
            if self._accepting:
                parts.notices.ready(self._activity)
        said = [str(change) for change in found] or ["nothing has changed"]
        said += [f"still waits: {change}" for change in waiting]
        for line in said:
            _log.info("reload: {line}", line=line)
        return said


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work


def _tell(text: str) -> None:
    """Write to the real standard error: twistd turns ``sys.stderr`` into log lines."""
    if sys.__stderr__ is not None:
        print(text, file=sys.__stderr__)


def _result(deferred: Deferred[None]) -> None:
    """Take the result of what must be done before the reactor runs."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results:
        raise LocalFault("a port could not be bound at once")
    if isinstance(results[0], Failure):
        results[0].raiseException()
