"""The three netlink messages that move an address, octet by octet (pure).

:mod:`.netlink` sends them: they are all that is said over and over while this node is
Master, and made by hand they cost a tenth of what a general library takes for them.

A message is a header (netlink(7)), then for addresses an ``ifaddrmsg`` and attributes
(rtnetlink(7)), each of which is padded to four octets; everything in this machine's own
order of octets.  The kernel answers each request with an acknowledgement: an ``errno``,
negative, or 0.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Interface, IPv6Interface

__all__ = ["add_address", "answer_to", "remove_address"]

_HEADER = struct.Struct("=IHHII")
_IFADDRMSG = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=i")

_ERROR, _NEW_ADDRESS, _DELETE_ADDRESS = 2, 20, 21
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_AF_INET, _AF_INET6 = 2, 10
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_NODAD, _NOPREFIXROUTE = 0x02, 0x200


def add_address(
    sequence: int, index: int, address: IPv4Interface | IPv6Interface, seconds: int
) -> bytes:
    """Return what adds ``address`` to the interface ``index``, or renews it, for ``seconds``.

    No route to a network comes with it.  One of IPv6 is usable at once (no duplicate
    address detection, which would keep it from being used for a second) and deprecated
    from the start (RFC 4862 §5.5.4), so that it is never chosen as a source.
    """
    six = address.version == 6
    flags = _NOPREFIXROUTE | (_NODAD if six else 0)
    lifetimes = struct.pack("=IIII", 0 if six else seconds, seconds, 0, 0)
    return _message(
        _NEW_ADDRESS,
        _REQUEST | _ACK | _REPLACE | _CREATE,
        sequence,
        _place(index, address)
        + _attribute(_IFA_FLAGS, struct.pack("=I", flags))
        + _attribute(_IFA_CACHEINFO, lifetimes),
    )


def remove_address(sequence: int, index: int, address: IPv4Interface | IPv6Interface) -> bytes:
    """Return what removes ``address`` from the interface ``index``."""
    return _message(_DELETE_ADDRESS, _REQUEST | _ACK, sequence, _place(index, address))


def answer_to(sequence: int, octets: bytes) -> int | None:
    """Return the ``errno`` (0: done) that ``octets`` say of a request, None if of another."""
    if len(octets) < _HEADER.size + _NUMBER.size:
        return None
    _, kind, _, about, _ = _HEADER.unpack_from(octets)
    if kind != _ERROR or about != sequence:
        return None
    number: int = _NUMBER.unpack_from(octets, _HEADER.size)[0]
    return -number


def _place(index: int, address: IPv4Interface | IPv6Interface) -> bytes:
    family = _AF_INET6 if address.version == 6 else _AF_INET
    octets = address.ip.packed
    return (
        _IFADDRMSG.pack(family, address.network.prefixlen, 0, 0, index)
        + _attribute(_IFA_LOCAL, octets)
        + _attribute(_IFA_ADDRESS, octets)
    )


def _attribute(kind: int, value: bytes) -> bytes:
    # Every value here is a multiple of four octets long: nothing to pad.
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload
