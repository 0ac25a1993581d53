"""The words that the cluster's parts speak to each other (pure).

What a node says of itself (:class:`Hello`), what a Master's hello means to one virtual
group (:class:`Advertisement`), what a node can see of the others when something happens
(:class:`View`), and what an election wants done (the effects).  Terms are those of RFC
9568: advertisement, advertisement interval, master down interval, skew time, preemption.

All times are seconds of the monotonic clock, intervals too, kept to the microsecond:
whole centiseconds, as on VRRP's wire, would erase the skew at short intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag
from ipaddress import IPv4Address, IPv6Address

from ..config.model import NodeRole

__all__ = [
    "CLAIMED",
    "RESIGNED",
    "STANDING_BACK",
    "Advertise",
    "Advertisement",
    "Announce",
    "Ask",
    "Backend",
    "Changed",
    "DropAddresses",
    "Effect",
    "Fitness",
    "GroupHello",
    "Heard",
    "Hello",
    "Override",
    "RefreshLease",
    "Role",
    "TakeAddresses",
    "View",
]

#: Priorities on the wire besides the configured 1 to 255: a Master that resigns (RFC
#: 9568 §5.2.4), a node that stands back (it takes over only where nobody else does), and
#: a node whose postmaster told it to take over.
RESIGNED = 0
STANDING_BACK = 1
CLAIMED = 256


class Role(Enum):
    """What a node is in one virtual group (RFC 9568 §6.3, §6.4)."""

    INIT = "init"
    BACKUP = "backup"
    MASTER = "master"


class Fitness(IntFlag):
    """Why a node should be given no work; 0 is a node in good health."""

    FIT = 0
    DRAINING = 1
    SPOOL = 2
    OVERLOADED = 4
    SCANNERS = 8


# -- what is said


@dataclass(frozen=True, slots=True)
class Heard:
    """One peer that the sender hears: its incarnation, the last sequence heard of it.

    ``held`` is how long ago that was when the hello was sent, in seconds; so the peer
    learns the round trip, and that it is heard.
    """

    incarnation: int
    sequence: int
    held: float


@dataclass(frozen=True, slots=True)
class GroupHello:
    """The sender's part in one virtual group.

    ``priority`` is the effective one: 1 to 255, or one of :data:`RESIGNED`,
    :data:`STANDING_BACK`, :data:`CLAIMED`.  ``interval`` is the advertisement interval
    in seconds.
    """

    name: str
    role: Role
    priority: int
    interval: float


@dataclass(frozen=True, slots=True)
class Override:
    """A postmaster's word about the weight of ``node``; None takes an earlier one back.

    ``stamp`` and ``origin``, the incarnation of the node that was told, say which word is
    the later one (:mod:`.overrides`).
    """

    node: str
    weight: int | None
    stamp: int
    origin: int


@dataclass(frozen=True, slots=True)
class Hello:
    """One hello datagram, without its signature.

    ``incarnation`` is drawn at random at each start (64 bits); ``sequence`` rises with
    each hello of an incarnation.  ``wall`` is the sender's Unix time, for people only.
    ``interval`` is the sender's hello interval.  ``link_port`` is where it takes links
    (TCP), on ``address``.  ``asks`` wants every Master that hears it to say hello at
    once.  ``load`` is the share of its sessions that are taken, in thousandths.
    ``peer_port`` is where it takes sessions that others pass on, 0 if it takes none.
    """

    node: str
    address: IPv4Address | IPv6Address
    link_port: int
    incarnation: int
    sequence: int
    wall: float
    uptime: float
    interval: float
    version: str
    role: NodeRole
    weight: int
    load: int
    fitness: Fitness
    policy_revision: int
    asks: bool
    groups: tuple[GroupHello, ...]
    heard: tuple[Heard, ...]
    peer_port: int = 0
    overrides: tuple[Override, ...] = ()


# -- what an election is told


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a hello says to one virtual group: its sender is Master of it, or resigns.

    ``deaf`` says that the sender does not hear us (see :mod:`.membership`).
    """

    node: str
    address: IPv4Address | IPv6Address
    priority: int
    interval: float
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """What this node sees of the other candidates for a group at this moment.

    ``heir``: of all candidates heard lately, the Master aside, none outranks us, so we
    need not leave anybody the first word.  ``heard``: every one of them hears us.
    ``others``: there is at least one that could take over.
    """

    heir: bool
    heard: bool
    others: bool


# -- what a load balancer is told


@dataclass(frozen=True, slots=True)
class Backend:
    """A node as one that could have sessions, ourselves included, at one moment.

    ``port`` is its ``peer_listen`` at ``address``, 0 where it takes no sessions of others.
    ``own_weight`` is what its ini says, ``weight`` what counts: the same, or what the
    postmaster told the cluster (``overridden``).  ``load`` is in thousandths; ``heard`` the
    monotonic time of its last hello, in seconds.
    """

    node: str
    incarnation: int
    address: IPv4Address | IPv6Address
    port: int
    role: NodeRole
    own_weight: int
    weight: int
    overridden: bool
    load: int
    fitness: Fitness
    alive: bool
    heard: float


# -- what an election wants done


@dataclass(frozen=True, slots=True)
class Advertise:
    """Say hello now.  ``priority`` 0: we resign."""

    priority: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Say hello now, and ask the Master for an answer: it is overdue."""


@dataclass(frozen=True, slots=True)
class TakeAddresses:
    """Add the virtual addresses to the interface."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell all neighbours where the addresses are now, and again a little later."""


@dataclass(frozen=True, slots=True)
class RefreshLease:
    """Keep the addresses for another lease."""


@dataclass(frozen=True, slots=True)
class DropAddresses:
    """Remove the addresses as soon as a new Master speaks, after ``grace`` seconds at most."""

    grace: float


@dataclass(frozen=True, slots=True)
class Changed:
    """The role changed; ``reason`` is a few words for log, status and ``notify``."""

    old: Role
    new: Role
    reason: str


Effect = Advertise | Ask | TakeAddresses | Announce | RefreshLease | DropAddresses | Changed
