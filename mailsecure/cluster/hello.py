"""The hello datagram on the wire (pure).

:func:`encode` makes and signs one, :func:`decode` believes nothing before the signature is
right.  Whether a well-signed hello *counts* (is it new, is it from now?) is a question for
:mod:`.membership`; who sends and receives is :mod:`.service`.

The form, all numbers in network order, all times in microseconds::

    4  "MShi"                     1  version: 2              1  flags: 1 = asks
    4  id of the key              8  incarnation             5  sequence
    8  wall                       8  uptime                  4  interval
    4  weight                     8  policy revision         2  link port
    2  load                       2  fitness                 1  role of the node
    1  4 or 6                    16  address (IPv4: 12 octets of 0 behind it)
    2  peer port
    text  node                 text  version of the software
    1  number of groups, each:    text  name    1  role   2  priority   4  interval
    1  number of heard, each:        8  incarnation   5  sequence       4  held
    1  number of overrides, each:    text  node       4  weight, all ones for none
                                     4  stamp         8  origin
   32  HMAC-SHA256 (RFC 2104) over all octets before it

A text is an octet with its length, and as many octets of UTF-8, all printable.  What is
left over, missing or out of bounds makes a datagram malformed.

**Bounds.**  A datagram has at most 1,400 octets, so that it is never fragmented.  Each field
has its own bound, chosen so that a hello with all of them at their largest still fits.
:func:`encode` raises ValueError beyond them; the service stays within, because the
configuration takes no longer names of nodes and groups and no more groups, and
``Membership.heard`` returns no more than fit, and :func:`room_for_overrides` says how many
of the rest do.

**Rejections** are told apart for the postmaster, not for the sender, who hears of none:
noise, another version, another cluster's key, and our key's id with a wrong signature,
which is either damage that the UDP checksum missed, or somebody who tries.
"""

from __future__ import annotations

import hmac
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from struct import error as StructError

from ..config.model import NodeRole
from ..errors import RemoteFault
from .keys import Key, KeyRing
from .values import CLAIMED, Fitness, GroupHello, Heard, Hello, Override, Role

__all__ = [
    "LONGEST_GROUP",
    "LONGEST_NODE",
    "LONGEST_VERSION",
    "MOST_GROUPS",
    "MOST_HEARD",
    "MOST_OCTETS",
    "MOST_OVERRIDES",
    "Drop",
    "Rejected",
    "decode",
    "encode",
    "room_for_overrides",
]

MOST_OCTETS = 1400
MOST_GROUPS = 16
#: So many leave room for one override beside the largest of everything else.
MOST_HEARD = 28
MOST_OVERRIDES = 4
#: Octets of UTF-8.
LONGEST_NODE = 64
LONGEST_GROUP = 31
LONGEST_VERSION = 32

_MAGIC = b"MShi"
_VERSION = 2
_ASKS = 1
_LABEL = b"hello"
_HMAC = 32
_HEAD = Struct("!4sBB4s")
# A sequence has 40 bits, which last 30 years at a thousand hellos a second; here it is an
# octet and 32 bits.
_BODY = Struct("!QBIQQIIQHHHBB16sH")
_GROUP = Struct("!BHI")
_HEARD = Struct("!QBII")
_OVERRIDE = Struct("!IIQ")
_NO_WEIGHT = 0xFFFFFFFF
_SHORTEST = _HEAD.size + _BODY.size + 5 + _HMAC
# The largest of each, with the octets of lengths and numbers.
_LARGEST = _SHORTEST - 2 + 1 + LONGEST_NODE + 1 + LONGEST_VERSION
_LARGEST_GROUP = 1 + LONGEST_GROUP + _GROUP.size
_LARGEST_OVERRIDE = 1 + LONGEST_NODE + _OVERRIDE.size

_ROLES = (Role.INIT, Role.BACKUP, Role.MASTER)
_NODE_ROLES = (NodeRole.BOTH, NodeRole.DIRECTOR, NodeRole.SCANNER)
_ROLE_NUMBERS = {role: number for number, role in enumerate(_ROLES)}
_NODE_ROLE_NUMBERS = {role: number for number, role in enumerate(_NODE_ROLES)}


class Drop(Enum):
    """Why a datagram was ignored.  The later half is for :mod:`.membership` to say."""

    MALFORMED = "malformed"
    VERSION = "other version"
    OTHER_CLUSTER = "other cluster"
    BAD_SIGNATURE = "bad signature"
    OWN = "own"
    SAME_NAME = "same name"
    REPLAYED = "replayed"
    STRANGE = "strange"
    TOO_MANY = "too many"


class Rejected(RemoteFault):
    """A datagram that does not count; ``reason`` says why."""

    def __init__(self, reason: Drop) -> None:
        super().__init__(reason.value)
        self.reason = reason


# -- out


def encode(hello: Hello, key: Key) -> bytes:
    """Return the datagram that says ``hello``, signed with ``key``.

    ValueError if a bound of the module's text is exceeded.  A wall clock before 1970 is
    said to be 1970.
    """
    groups, heard, overrides = len(hello.groups), len(hello.heard), len(hello.overrides)
    if groups > MOST_GROUPS or heard > MOST_HEARD or overrides > room_for_overrides(groups, heard):
        raise ValueError(f"{groups} groups, {heard} heard and {overrides} overrides are too many")
    try:
        parts = [
            _HEAD.pack(_MAGIC, _VERSION, _ASKS if hello.asks else 0, key.id),
            _pack_body(hello),
            _text(hello.node, LONGEST_NODE),
            _text(hello.version, LONGEST_VERSION),
            _octet(len(hello.groups)),
        ]
        for group in hello.groups:
            if group.priority > CLAIMED:
                raise ValueError(f"{group.priority} is no priority")
            parts.append(_text(group.name, LONGEST_GROUP))
            role = _ROLE_NUMBERS[group.role]
            parts.append(_GROUP.pack(role, group.priority, _interval(group.interval)))
        parts.append(_octet(len(hello.heard)))
        for each in hello.heard:
            sequence = each.sequence
            parts.append(
                _HEARD.pack(
                    each.incarnation, sequence >> 32, sequence & 0xFFFFFFFF, _micro(each.held)
                )
            )
        parts.append(_octet(overrides))
        for word in hello.overrides:
            weight = _NO_WEIGHT if word.weight is None else word.weight
            if word.weight == _NO_WEIGHT:
                raise ValueError(f"{weight} is no weight")
            parts.append(_text(word.node, LONGEST_NODE))
            parts.append(_OVERRIDE.pack(weight, word.stamp, word.origin))
    except StructError as error:
        raise ValueError(f"a number of the hello does not fit: {error}") from None
    signed = b"".join(parts)
    return signed + hmac.digest(key.derived(_LABEL), signed, "sha256")


def _pack_body(hello: Hello) -> bytes:
    return _BODY.pack(
        hello.incarnation,
        hello.sequence >> 32,
        hello.sequence & 0xFFFFFFFF,
        _micro(max(0.0, hello.wall)),
        _micro(hello.uptime),
        _interval(hello.interval),
        hello.weight,
        hello.policy_revision,
        hello.link_port,
        hello.load,
        hello.fitness.value,
        _NODE_ROLE_NUMBERS[hello.role],
        hello.address.version,
        hello.address.packed,
        hello.peer_port,
    )


def room_for_overrides(groups: int, heard: int) -> int:
    """Return how many overrides surely fit beside so many groups and heard."""
    taken = _LARGEST + groups * _LARGEST_GROUP + heard * _HEARD.size
    return min(MOST_OVERRIDES, (MOST_OCTETS - taken) // _LARGEST_OVERRIDE)


def _octet(number: int) -> bytes:
    return bytes((number,))


def _text(text: str, longest: int) -> bytes:
    octets = text.encode()
    if not 0 < len(octets) <= longest or not text.isprintable():
        raise ValueError(f"{text[:longest]!r} cannot be said: printable, up to {longest} octets")
    return _octet(len(octets)) + octets


def _micro(seconds: float) -> int:
    # Also false for what is no number; the field's own width is the bound of the rest.
    if not 0 <= seconds < 1e12:
        raise ValueError(f"{seconds} seconds cannot be said")
    return round(seconds * 1e6)


def _interval(seconds: float) -> int:
    found = _micro(seconds)
    if not found:
        raise ValueError("an interval of nothing cannot be said")
    return found


# -- in


def decode(datagram: bytes, ring: KeyRing) -> Hello:
    """Return the hello in ``datagram``, if a key of ``ring`` signed it.

    Raises :class:`Rejected` for everything else.
    """
    if not _SHORTEST <= len(datagram) <= MOST_OCTETS or not datagram.startswith(_MAGIC):
        raise Rejected(Drop.MALFORMED)
    _, version, flags, key_id = _HEAD.unpack_from(datagram)
    if version != _VERSION:
        raise Rejected(Drop.VERSION)
    key = ring.find(key_id)
    if key is None:
        raise Rejected(Drop.OTHER_CLUSTER)
    octets = memoryview(datagram)
    expected = hmac.digest(key.derived(_LABEL), octets[:-_HMAC], "sha256")
    if not hmac.compare_digest(expected, octets[-_HMAC:]):
        raise Rejected(Drop.BAD_SIGNATURE)
    try:
        return _unpack(octets[_HEAD.size : -_HMAC], flags)
    except (StructError, IndexError, ValueError):
        raise Rejected(Drop.MALFORMED) from None


def _unpack(octets: memoryview, flags: int) -> Hello:
    """Return the hello in what was signed; ValueError and the like if it is none."""
    (
        incarnation,
        high,
        low,
        wall,
        uptime,
        interval,
        weight,
        policy_revision,
        link_port,
        load,
        fitness,
        role,
        family,
        address,
        peer_port,
    ) = _BODY.unpack_from(octets)
    node, at = _read_text(octets, _BODY.size, LONGEST_NODE)
    version, at = _read_text(octets, at, LONGEST_VERSION)
    groups, at = _read_groups(octets, at)
    heard, at = _read_heard(octets, at)
    overrides, at = _read_overrides(octets, at)
    if at != len(octets) or flags > _ASKS or not interval:
        raise ValueError
    return Hello(
        node=node,
        address=_address(family, address),
        link_port=link_port,
        incarnation=incarnation,
        sequence=high << 32 | low,
        wall=wall / 1e6,
        uptime=uptime / 1e6,
        interval=interval / 1e6,
        version=version,
        role=_NODE_ROLES[role],
        weight=weight,
        load=load,
        fitness=Fitness(fitness),
        policy_revision=policy_revision,
        asks=flags == _ASKS,
        groups=groups,
        heard=heard,
        peer_port=peer_port,
        overrides=overrides,
    )


def _address(family: int, octets: bytes) -> IPv4Address | IPv6Address:
    if family == 6:
        return IPv6Address(octets)
    if family != 4 or any(octets[4:]):
        raise ValueError
    return IPv4Address(octets[:4])


def _read_text(octets: memoryview, at: int, longest: int) -> tuple[str, int]:
    """Return the text at ``at`` and where it ends."""
    start = at + 1
    end = start + octets[at]
    text = str(octets[start:end], "utf-8")
    if not start < end <= min(len(octets), start + longest) or not text.isprintable():
        raise ValueError
    return text, end


def _read_groups(octets: memoryview, at: int) -> tuple[tuple[GroupHello, ...], int]:
    number = octets[at]
    if number > MOST_GROUPS:
        raise ValueError
    at += 1
    groups = []
    for _ in range(number):
        name, at = _read_text(octets, at, LONGEST_GROUP)
        role, priority, interval = _GROUP.unpack_from(octets, at)
        if priority > CLAIMED or not interval:
            raise ValueError
        groups.append(GroupHello(name, _ROLES[role], priority, interval / 1e6))
        at += _GROUP.size
    return tuple(groups), at


def _read_heard(octets: memoryview, at: int) -> tuple[tuple[Heard, ...], int]:
    number = octets[at]
    if number > MOST_HEARD:
        raise ValueError
    start, end = at + 1, at + 1 + number * _HEARD.size
    heard = tuple(
        Heard(incarnation, high << 32 | low, held / 1e6)
        for incarnation, high, low, held in _HEARD.iter_unpack(octets[start:end])
    )
    if len(heard) != number:
        raise ValueError
    return heard, end


def _read_overrides(octets: memoryview, at: int) -> tuple[tuple[Override, ...], int]:
    number = octets[at]
    if number > MOST_OVERRIDES:
        raise ValueError
    at += 1
    overrides = []
    for _ in range(number):
        node, at = _read_text(octets, at, LONGEST_NODE)
        weight, stamp, origin = _OVERRIDE.unpack_from(octets, at)
        overrides.append(Override(node, None if weight == _NO_WEIGHT else weight, stamp, origin))
        at += _OVERRIDE.size
    return tuple(overrides), at
