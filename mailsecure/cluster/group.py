"""One virtual group on this node: its election, carried out.

:class:`VirtualGroup` stands between an :class:`~.election.Election`, which only decides,
and what is decided about: the lease of the addresses (:mod:`mailsecure.vip.lease`), the
hello that is said at once, the log, the ``notify`` command.  It also watches over what an
election cannot see: the interface, and whether the kernel does what it is told.

:mod:`.service` makes one a group, tells it what the other nodes say, and asks it for its
part of each hello.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..config.model import StartAs, Virtual
from ..errors import LocalFault
from ..vip.api import Kernel
from ..vip.lease import Lease
from ..world import World
from .election import Election, Settings
from .notify import Notices
from .values import (
    RESIGNED,
    Advertise,
    Advertisement,
    Announce,
    Ask,
    Changed,
    DropAddresses,
    Effect,
    GroupHello,
    Hello,
    RefreshLease,
    Role,
    TakeAddresses,
    View,
)

__all__ = ["GroupParts", "VirtualGroup"]

_log = Logger(namespace="cluster")

#: Seconds until a kernel that refused is asked again.
TRY_AGAIN = 10.0


@dataclass(frozen=True)
class GroupParts:
    """What a group is given by the service.

    ``say(asks)`` says hello at once.  ``view(group, priority, master)`` is what is seen
    of the other candidates.  ``address`` is the node's own in the cluster.  ``took`` is told
    of addresses that are on our interface now.
    """

    world: World
    kernel: Kernel
    notices: Notices
    address: Any
    say: Callable[[bool], None]
    view: Callable[[str, int, str | None], View]
    took: Callable[[frozenset[str]], None]


class VirtualGroup:
    """See the module's text."""

    def __init__(self, name: str, settings: Virtual, parts: GroupParts) -> None:
        self.name = name
        self.settings = settings
        self._texts = _texts(settings)
        self._parts = parts
        self._clock = parts.world.clock
        self._election = Election(election_settings(settings), parts.address)
        self._lease = Lease(
            parts.kernel,
            self._clock,
            settings.interface,
            settings.addresses,
            lease_seconds(settings),
        )
        self._timer: IDelayedCall | None = None
        self._dropping: IDelayedCall | None = None
        self._dropped: list[Deferred[None]] = []
        self._resigning = False
        self._contested = -math.inf
        #: Changes of role since the start, and the Unix time of the last one.
        self.changes = 0
        self.since = parts.world.wall()
        #: Why this node takes no part in the election now, or ""; not before when it may
        #: try again.
        self.trouble = ""
        self._try_again = 0.0

    # -- what others want to know

    @property
    def role(self) -> Role:
        """What this node is in the group."""
        return self._election.role

    @property
    def interval(self) -> float:
        """The advertisement interval, in seconds."""
        return self.settings.advertisement_interval

    @property
    def master(self) -> str | None:
        """The Master's node, where this node is not it and knows it."""
        return self._election.master

    @property
    def reason(self) -> str:
        """Why the role is what it is."""
        return self._election.reason

    @property
    def priority(self) -> int:
        """The effective priority now."""
        return self._election.effective_priority(self._clock.seconds())

    @property
    def held(self) -> bool:
        """Whether the addresses are on our interface."""
        return self._lease.held

    @property
    def addresses_held(self) -> frozenset[str]:
        """Those of the addresses that are ours now, as text."""
        return self._texts if self._lease.held else frozenset()

    def holds(self, address: str) -> bool:
        """Say whether ``address`` is one of them, and ours now."""
        return address in self._texts and self._lease.held

    def hello(self) -> GroupHello:
        """Return this group's part of a hello."""
        election = self._election
        if self._resigning:
            return GroupHello(
                self.name, Role.MASTER, RESIGNED, self.settings.advertisement_interval
            )
        return GroupHello(
            self.name, election.role, self.priority, self.settings.advertisement_interval
        )

    # -- life

    def check(self) -> None:
        """Look at the addresses before the start; LocalFault if they cannot be ours."""
        try:
            self._lease.check()
        except LocalFault as fault:
            raise LocalFault(f"[virtual:{self.name}]: {fault}") from None

    def check_more(self, settings: Virtual) -> None:
        """Look at the addresses that ``settings`` would add, as :meth:`check`."""
        more = [each for each in settings.addresses if each not in self.settings.addresses]
        lease = Lease(self._parts.kernel, self._clock, settings.interface, more, 1)
        try:
            lease.check()
        except LocalFault as fault:
            raise LocalFault(f"[virtual:{self.name}]: {fault}") from None

    def start(self, trouble: str = "") -> None:
        """Take part in the election; with ``trouble`` only once that is over."""
        self.trouble = trouble or self._interface_trouble()
        if self.trouble:
            _log.warn(
                "{group}: no part in the election: {reason}", group=self.name, reason=self.trouble
            )
        else:
            self._do(self._election.start(self._clock.seconds()))

    def stop(self) -> Deferred[None]:
        """Resign; the Deferred fires when the addresses are off the interface."""
        self._do(self._election.stop(self._clock.seconds(), self._view()))
        self._disarm()
        if self._dropping is None:
            self._lease.drop()
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._dropped.append(done)
        return done

    def reconfigure(self, settings: Virtual) -> None:
        """Take new settings; only the interface must be the same."""
        before, self.settings = self.settings, settings
        self._texts = _texts(settings)
        self._lease.seconds = lease_seconds(settings)
        if settings.addresses != before.addresses:
            try:
                self._lease.change(settings.addresses)
            except LocalFault as fault:
                self._refused(fault)
        self._do(self._election.reconfigure(self._clock.seconds(), election_settings(settings)))

    # -- what happens

    def heard(self, hello: Hello, deaf: bool) -> None:
        """Take what an accepted hello says of this group."""
        for said in hello.groups:
            if said.name != self.name:
                continue
            priority = said.priority
            if said.role is Role.MASTER:
                view = self._view()
                if priority != RESIGNED and self._dropping is not None:
                    self._drop_now()
            elif self._election.master == hello.node:
                # It resigned and we missed it, or it yielded to another, who may have the
                # first word.
                view, priority = replace(self._view(), heir=False), RESIGNED
            else:
                return
            advertisement = Advertisement(hello.node, hello.address, priority, said.interval, deaf)
            now = self._clock.seconds()
            self._do(self._election.advertisement(now, advertisement, view))
            return

    def contested(self, hello: Hello) -> None:
        """Take a hello that does not count yet: its sender may have announced itself.

        If it is Master of this group too, it will step down when it hears us, but some
        neighbours believe it by now.
        """
        now = self._clock.seconds()
        claims = any(s.name == self.name and s.role is Role.MASTER for s in hello.groups)
        if claims and self.role is Role.MASTER and now - self._contested >= self.interval:
            self._contested = now
            self._lease.announce()

    def gone(self, node: str) -> None:
        """Take it that the process of ``node`` has ended."""
        self._do(self._election.gone(self._clock.seconds(), node, self._view()))

    def stand_back(self, until: float, reason: str) -> None:
        """Let others be Master until ``until`` (monotonic seconds)."""
        now = self._clock.seconds()
        self._do(self._election.stand_back(now, until, reason, self._view()))

    def come_forward(self) -> None:
        """Stand back no more."""
        self._do(self._election.come_forward(self._clock.seconds()))

    def claim(self, until: float) -> None:
        """Outrank everybody until ``until`` (monotonic seconds)."""
        self._do(self._election.claim(self._clock.seconds(), until))

    def look(self, trouble: str = "") -> None:
        """Look at the interface: what is in trouble takes no part in the election.

        The service calls this when the interface changed, and about once a second.
        """
        trouble = trouble or self._interface_trouble()
        if trouble and not self.trouble:
            self._in_trouble(trouble)
        elif self.trouble and not trouble and self._clock.seconds() >= self._try_again:
            _log.info("{group}: takes part in the election again", group=self.name)
            self.trouble = ""
            # Whom the kernel asked for while the cable was out is asked for again at once.
            self._parts.kernel.forget_neighbours(self.settings.interface)
            self._do(self._election.recovered(self._clock.seconds()))

    def _interface_trouble(self) -> str:
        name = self.settings.interface
        interface = self._parts.kernel.interface(name)
        if interface is None:
            return f"there is no interface {name}"
        return "" if interface.up else f"interface {name} is down"

    def _refused(self, fault: LocalFault) -> None:
        """The kernel did not do what it was told: leave it alone for a while."""
        self._try_again = self._clock.seconds() + TRY_AGAIN
        self._in_trouble(str(fault))

    def _in_trouble(self, reason: str) -> None:
        self.trouble = reason
        _log.warn("{group}: no part in the election: {reason}", group=self.name, reason=reason)
        self._do(self._election.fault(self._clock.seconds(), reason))

    # -- carrying out

    def _view(self) -> View:
        return self._parts.view(self.name, self.priority, self._election.master)

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            try:
                self._do_one(effect)
            except LocalFault as fault:
                self._refused(fault)
                return
        self._arm()

    def _do_one(self, effect: Effect) -> None:
        match effect:
            case Advertise(priority):
                self._resigning = priority == RESIGNED
                self._parts.say(False)
                self._resigning = False
            case Ask():
                self._parts.say(True)
            case TakeAddresses():
                self._keep()
                self._lease.take()
                self._parts.took(self._texts)
            case Announce():
                self._lease.announce()
            case RefreshLease():
                self._lease.refresh()
            case DropAddresses(grace):
                self._drop(grace)
            case Changed():
                self._tell(effect)

    def _tell(self, changed: Changed) -> None:
        self.changes += 1
        self.since = self._parts.world.wall()
        old, new = changed.old.value, changed.new.value
        _log.info(
            "{group}: {old} -> {new}: {reason}",
            group=self.name,
            old=old,
            new=new,
            reason=changed.reason,
        )
        self._parts.notices.put(self.settings.notify, (self.name, old, new, changed.reason))

    def _drop(self, grace: float) -> None:
        if grace <= 0:
            self._drop_now()
        elif self._dropping is None:
            self._dropping = self._clock.callLater(grace, self._drop_late)

    def _drop_late(self) -> None:
        self._dropping = None
        self._drop_now()

    def _drop_now(self) -> None:
        self._keep()
        held = self._lease.held
        self._lease.drop()
        if held:
            # Answers to the addresses are another's now (RFC 4861 §7.2.4).  Whom the kernel asked
            # for in their name it would ask for again after a second, should they come back.
            self._parts.kernel.forget_neighbours(self.settings.interface)
        dropped, self._dropped = self._dropped, []
        for each in dropped:
            each.callback(None)

    def _keep(self) -> None:
        """Forget that the addresses were to be dropped."""
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None

    # -- the timer

    def _arm(self) -> None:
        """Have :meth:`_fired` called at the election's deadline, or earlier.

        A deadline moves away with each advertisement; the call is not moved with it, and
        looks for itself how late it is when it comes.
        """
        deadline = self._election.deadline
        if deadline == float("inf"):
            self._disarm()
            return
        if self._timer is not None:
            if self._timer.getTime() <= deadline:
                return
            self._timer.cancel()
        delay = max(0.0, deadline - self._clock.seconds())
        self._timer = self._clock.callLater(delay, self._fired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if now >= self._election.deadline:
            self._do(self._election.tick(now, self._view()))
        else:
            self._arm()


def _texts(settings: Virtual) -> frozenset[str]:
    """Return the addresses as a load balancer asks for them, once for every session."""
    return frozenset(str(each.ip) for each in settings.addresses)


def election_settings(settings: Virtual) -> Settings:
    """Return what the election needs of a group's section."""
    return Settings(
        priority=settings.priority,
        interval=settings.advertisement_interval,
        preempt=settings.preempt,
        preempt_delay=settings.preempt_delay,
        start_as_master=settings.start_as is StartAs.MASTER,
    )


def lease_seconds(settings: Virtual) -> int:
    """Return for how long the kernel is to keep the addresses without us.

    No longer than three intervals, after which others may take over, as far as the
    kernel's whole seconds allow.
    """
    return max(1, int(3 * settings.advertisement_interval))
