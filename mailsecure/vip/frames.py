"""Gratuitous ARP and unsolicited neighbour advertisements, octet by octet (pure).

What tells the neighbours that an address has moved to another machine: all that hold it in
their caches change it.  :mod:`.lease` sends these when an address is taken.

ARP: RFC 826; an announcement is a request for one's own address (RFC 5227 §2.3).  Some
stacks believe only requests, some only replies, so both are sent.  IPv6: a neighbour
advertisement to all nodes with the override flag (RFC 4861 §4.4, §7.2.6).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import pack

__all__ = ["announcements", "arp_reply", "arp_request", "neighbour_advertisement"]

_EVERYBODY = b"\xff" * 6
_NOBODY = bytes(6)
_ALL_NODES = IPv6Address("ff02::1")
_ARP, _IPV6, _ICMPV6 = 0x0806, 0x86DD, 58
_NEIGHBOUR_ADVERTISEMENT, _OVERRIDE, _TARGET_ADDRESS = 136, 0x20000000, 2


def announcements(address: IPv4Address | IPv6Address, mac: bytes) -> tuple[bytes, ...]:
    """Return the Ethernet frames that announce ``address`` at ``mac``."""
    if isinstance(address, IPv6Address):
        return (neighbour_advertisement(address, mac),)
    return arp_request(address, mac), arp_reply(address, mac)


def arp_request(address: IPv4Address, mac: bytes) -> bytes:
    """Return an ARP announcement in the form of a request (RFC 5227 §3)."""
    return _arp(1, address, mac, _NOBODY)


def arp_reply(address: IPv4Address, mac: bytes) -> bytes:
    """Return an ARP announcement in the form of a reply."""
    return _arp(2, address, mac, mac)


def _arp(operation: int, address: IPv4Address, mac: bytes, target: bytes) -> bytes:
    ethernet = _EVERYBODY + mac + pack("!H", _ARP)
    fixed = pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return ethernet + fixed + mac + address.packed + target + address.packed


def neighbour_advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """Return an unsolicited neighbour advertisement with its target's link-layer address."""
    option = pack("!BB", _TARGET_ADDRESS, 1) + mac
    body = pack("!I", _OVERRIDE) + address.packed + option
    length = 4 + len(body)
    pseudo = address.packed + _ALL_NODES.packed + pack("!II", length, _ICMPV6)
    plain = pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0) + body
    message = plain[:2] + pack("!H", _checksum(pseudo + plain)) + plain[4:]
    # RFC 4861 §7.1.2: the hop limit of 255 proves that no router was passed.
    header = pack("!IHBB", 6 << 28, length, _ICMPV6, 255) + address.packed + _ALL_NODES.packed
    # RFC 2464 §7: a multicast goes to 33:33 and the last four octets of the group.
    ethernet = b"\x33\x33" + _ALL_NODES.packed[-4:] + mac + pack("!H", _IPV6)
    return ethernet + header + message


def _checksum(octets: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of octets."""
    total = sum(int.from_bytes(octets[at : at + 2], "big") for at in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
