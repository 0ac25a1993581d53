"""The election of one virtual group, a machine without a clock (pure).

The rules are those of VRRP (RFC 9568 §6.4); :mod:`.values` has the words.  Every method is
told the time (seconds, monotonic) and returns the effects to carry out, in order;
:attr:`Election.deadline` is when :meth:`Election.tick` wants to be called.  :mod:`.group`
carries the effects out.

Where this goes beyond the RFC, and why:

*Heir.*  Skew time gives the best candidate the first word because, in VRRP, nobody knows
who else is there.  We do.  So when the Master resigns, or its process was seen to end, the
best candidate takes over at once, and only the others wait their skew time.

*Ask.*  An overdue advertisement is asked for, again and again, before the down timer ends:
a network that loses every third datagram must not cause an election.

*A last look.*  The down timer does not make a Master at once but after one more look at
what has arrived: a reactor that was held up fires its timers before it reads its sockets.

*Deaf.*  A Master that does not hear us cannot be told to step down.  It is not preempted;
and if we are Master too, it is we who step down, after a master down interval.  Nor does
anybody preempt whom some candidate cannot hear: that one would take over in its turn, and
so on for ever.

*A better Master is heard.*  Then a lesser one that speaks too is that Master's business.

*Standing back, claiming.*  A postmaster's word, or a node's bad health, is a priority of
its own: the lowest, with which a node takes over only where nobody else does, or one above
all others.  Where nobody else is there, a Master that stands back stays: a node in bad
health answers at least.

*Grace.*  Whoever resigns to another keeps the addresses until that one speaks, for a
moment at most, so that no client finds nobody there.  Whoever is outranked, in trouble or
late has no such moment: another may own them already.

*Trouble.*  A node that cannot hold the addresses is in Init.  When that is over it listens
first, even with start_as = master: others have taken over meanwhile, and a cable with a
loose contact must not take the addresses back and forth at each touch.

*Preemption may be delayed*, for a node that came back and warms up.  It is given up when
the lesser Master ends or a better one speaks, and decided anew when our own priority or
settings change; a claim waits for nothing.

*Settings may change.*  A Master says its new priority at once, and so lets others preempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from .values import (
    CLAIMED,
    RESIGNED,
    STANDING_BACK,
    Advertise,
    Advertisement,
    Announce,
    Ask,
    Changed,
    DropAddresses,
    Effect,
    RefreshLease,
    Role,
    TakeAddresses,
    View,
)

__all__ = ["Election", "Settings", "master_down_interval", "skew"]

Effects = tuple[Effect, ...]

OWNER = 255
#: An advertisement is overdue after so many intervals, and asked for so often in one.
OVERDUE = 1.5
ASKS = 8
#: How long a resigning Master may hold the addresses until its heir speaks.
LONGEST_GRACE = 0.5
#: The last look takes this part of an interval, but no longer than so many seconds.
LOOK = 1 / 16
LONGEST_LOOK = 0.002


@dataclass(frozen=True, slots=True)
class Settings:
    """What the ini says of the group; intervals in seconds."""

    priority: int
    interval: float
    preempt: bool = True
    preempt_delay: float = 0.0
    start_as_master: bool = False


def skew(priority: int, interval: float) -> float:
    """Return the skew time for the Master's ``interval`` (RFC 9568 §6.1)."""
    return (256 - priority) * interval / 256


def master_down_interval(priority: int, interval: float) -> float:
    """Return how long a Backup waits for the Master (RFC 9568 §6.1)."""
    return 3 * interval + skew(priority, interval)


class Election:
    """One node's part in the election; ``address`` is its own, which decides ties."""

    def __init__(self, settings: Settings, address: IPv4Address | IPv6Address) -> None:
        self._settings = settings
        self._address = address
        self.role = Role.INIT
        self.reason = "not started"
        #: The node that we take for the Master, None if we are it or know none.
        self.master: str | None = None
        self._master_interval = settings.interval
        self._due = math.inf
        self._looked = False
        self._ask = math.inf
        self._preempt = math.inf
        self._better_until = -math.inf
        self._deaf: tuple[float, float] | None = None
        self._back_until = -math.inf
        self._claim_until = -math.inf

    @property
    def deadline(self) -> float:
        """When :meth:`tick` wants to be called; ``inf``: never."""
        return min(self._due, self._ask, self._preempt)

    def effective_priority(self, now: float) -> int:
        """Return the priority that is advertised now."""
        if now < self._claim_until:
            return CLAIMED
        return STANDING_BACK if now < self._back_until else self._settings.priority

    # -- start and stop

    def start(self, now: float) -> Effects:
        """Init: become Master or Backup."""
        settings = self._settings
        forced = settings.start_as_master or settings.priority == OWNER
        if self.role is not Role.INIT:
            return ()
        if forced and self.effective_priority(now) != STANDING_BACK:
            return self._to_master(now, "started as Master")
        return self._to_backup(now, "started")

    def stop(self, now: float, view: View) -> Effects:
        """Any state: resign, and take no part any more."""
        return self._leave(now, "stopped", self._grace(view), Advertise(RESIGNED))

    def fault(self, now: float, reason: str) -> Effects:
        """Any state: this node cannot hold the addresses now."""
        return self._leave(now, reason, 0.0)

    def recovered(self, now: float) -> Effects:
        """Init: the fault is over; listen first, whatever ``start_as`` says."""
        return self._to_backup(now, "the trouble is over") if self.role is Role.INIT else ()

    def _leave(self, now: float, reason: str, grace: float, *said: Effect) -> Effects:
        was = self.role
        if was is Role.INIT:
            return ()
        changed = self._become(Role.INIT, reason)
        return (*said, DropAddresses(grace), changed) if was is Role.MASTER else (changed,)

    def _grace(self, view: View) -> float:
        return min(self._settings.interval, LONGEST_GRACE) if view.others else 0.0

    # -- what is heard

    def advertisement(self, now: float, said: Advertisement, view: View) -> Effects:
        """Take an advertisement of another Master, or its resignation."""
        if self.role is Role.BACKUP:
            return self._heard_by_backup(now, said, view)
        if self.role is Role.MASTER:
            return self._heard_by_master(now, said)
        return ()

    def _heard_by_backup(self, now: float, said: Advertisement, view: View) -> Effects:
        ours = self.effective_priority(now)
        if said.priority == RESIGNED:
            if self.master not in (None, said.node):
                return ()
            return self._succeed(now, f"{said.node} resigned", view)
        lesser = said.priority < ours
        if lesser and now < self._better_until and said.node != self.master:
            return ()
        self._follow(now, said, ours)
        if not lesser:
            self._better_until = now + OVERDUE * said.interval
        if not (lesser and view.heard and not said.deaf and self._may_preempt(ours)):
            self._preempt = math.inf
        elif ours == CLAIMED or not self._settings.preempt_delay:
            return self._to_master(now, f"preempts {said.node}")
        elif self._preempt == math.inf:
            self._preempt = now + self._settings.preempt_delay
        return ()

    def _may_preempt(self, ours: int) -> bool:
        return ours == CLAIMED or self._settings.preempt

    def _follow(self, now: float, said: Advertisement, ours: int) -> None:
        """Take the sender for the Master, and wait for its next advertisement."""
        self.master = said.node
        self._master_interval = said.interval
        self._due = now + master_down_interval(ours, said.interval)
        self._looked = False
        self._ask = now + OVERDUE * said.interval

    def _heard_by_master(self, now: float, said: Advertisement) -> Effects:
        ours = self.effective_priority(now)
        if said.priority == RESIGNED:
            return (Advertise(ours),)
        if said.priority > ours or (said.priority == ours and _higher(said.address, self._address)):
            effects = self._yield(now, said, f"{said.node} has the higher rank")
            self._better_until = now + OVERDUE * said.interval
            return effects
        if not said.deaf:
            self._deaf = None
        elif self._deaf_for(now, said) > master_down_interval(ours, self._settings.interval):
            return self._yield(now, said, f"{said.node} is Master too and does not hear us")
        return (Advertise(ours), Announce())

    def _deaf_for(self, now: float, said: Advertisement) -> float:
        """Return for how long deaf Masters have been heard without a pause."""
        since, last = self._deaf or (now, now)
        if now - last > 2 * master_down_interval(STANDING_BACK, said.interval):
            since = now
        self._deaf = (since, now)
        return now - since

    def _yield(self, now: float, said: Advertisement, reason: str) -> Effects:
        effects = (DropAddresses(0.0), *self._to_backup(now, reason))
        self._follow(now, said, self.effective_priority(now))
        return effects

    def gone(self, now: float, node: str, view: View) -> Effects:
        """Take it that the process of ``node`` has ended: as good as a resignation."""
        if self.role is not Role.BACKUP or self.master != node:
            return ()
        return self._succeed(now, f"{node} is gone", view)

    def _succeed(self, now: float, reason: str, view: View) -> Effects:
        self.master = None
        self._better_until = -math.inf
        if view.heir:
            return self._to_master(now, reason)
        wait = skew(self.effective_priority(now), self._master_interval)
        self._due = min(self._due, now + wait)
        self._ask = self._preempt = math.inf
        return ()

    # -- time

    def tick(self, now: float, view: View) -> Effects:
        """Do what is due."""
        if self.role is Role.MASTER:
            return self._tick_of_master(now)
        if now >= self._due:
            if not self._looked:
                self._looked = True
                self._due = now + min(LOOK * self._master_interval, LONGEST_LOOK)
                return ()
            silent = f"nothing heard from {self.master}" if self.master else "nobody else is Master"
            return self._to_master(now, silent)
        if now >= self._preempt:
            self._preempt = math.inf
            if view.heard:
                return self._to_master(now, f"preempts {self.master}")
        if now >= self._ask:
            self._ask = now + self._master_interval / ASKS
            return (Ask(),)
        return ()

    def _tick_of_master(self, now: float) -> Effects:
        if now < self._due:
            return ()
        ours, interval = self.effective_priority(now), self._settings.interval
        late = now - self._due
        if late > master_down_interval(ours, interval):
            reason = f"this node stood still for {late:.1f} s"
            return (DropAddresses(0.0), *self._to_backup(now, reason))
        # Counted from when it was due, so that small delays do not add up.
        self._due = max(self._due, now - interval / 2) + interval
        return (Advertise(ours), RefreshLease())

    # -- a postmaster's words

    def stand_back(self, now: float, until: float, reason: str, view: View) -> Effects:
        """Let others be Master until ``until``; stay it where nobody else could be."""
        self._back_until, self._claim_until = until, -math.inf
        # A preemption that waits was decided with another priority.
        self._preempt = math.inf
        if self.role is not Role.MASTER:
            return ()
        if not view.others:
            return (Advertise(STANDING_BACK),)
        grace = self._grace(view)
        return (Advertise(RESIGNED), DropAddresses(grace), *self._to_backup(now, reason))

    def come_forward(self, now: float) -> Effects:
        """Stand back no more."""
        self._back_until = -math.inf
        return (Advertise(self.effective_priority(now)),) if self.role is Role.MASTER else ()

    def claim(self, now: float, until: float) -> Effects:
        """Be Master until ``until``, whoever has the higher priority."""
        self._claim_until, self._back_until = until, -math.inf
        if self.role is Role.BACKUP:
            return self._to_master(now, "told to take over")
        return (Advertise(CLAIMED),) if self.role is Role.MASTER else ()

    def reconfigure(self, now: float, settings: Settings) -> Effects:
        """Take new settings; a preemption that waits for its delay is decided anew."""
        self._settings = settings
        self._preempt = math.inf
        if self.role is not Role.MASTER:
            return ()
        self._due = min(self._due, now + settings.interval)
        return (Advertise(self.effective_priority(now)),)

    # -- states

    def _to_master(self, now: float, reason: str) -> Effects:
        changed = self._become(Role.MASTER, reason)
        self._due = now + self._settings.interval
        priority = self.effective_priority(now)
        return (TakeAddresses(), Advertise(priority), Announce(), changed)

    def _to_backup(self, now: float, reason: str) -> Effects:
        changed = self._become(Role.BACKUP, reason)
        self._master_interval = interval = self._settings.interval
        self._due = now + master_down_interval(self.effective_priority(now), interval)
        self._ask = now + OVERDUE * interval
        return (changed,)

    def _become(self, role: Role, reason: str) -> Changed:
        changed = Changed(self.role, role, reason)
        self.role, self.reason, self.master = role, reason, None
        self._due = self._ask = self._preempt = math.inf
        self._better_until = -math.inf
        self._looked, self._deaf = False, None
        return changed


def _higher(one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address) -> bool:
    return (one.version, int(one)) > (other.version, int(other))
