"""Addresses, ports and interfaces as a postmaster writes them (pure).

The parsers of the kinds that :mod:`.kinds` names for ``[cluster]``, ``[virtual:NAME]`` and
for DNS servers.  Each takes one text and returns a value, or raises ``ValueError`` with a
text that a postmaster understands.

A *place* is an address and a port; the ini keeps it as text, and who opens a socket takes
it apart with :func:`parse_place`, which takes whatever the ini took.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

from .model import Interface

__all__ = [
    "parse_address",
    "parse_interface",
    "parse_multicast",
    "parse_node_address",
    "parse_peer",
    "parse_place",
    "parse_port",
    "parse_virtual_address",
    "write_place",
]

_PLACE = re.compile(r"\[([^\]]*)\](?::([0-9]+))?|([^:]*):([0-9]+)")
#: Where hello datagrams go unless the ini says otherwise.
_HELLO_PORT = 5025
_LARGEST_PORT = 65535
# Linux: IFNAMSIZ is 16 with the final NUL; dev_valid_name forbids the rest.
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_NO_NAMES = frozenset({".", ".."})


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """Return an IP address, of whatever sort."""
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def parse_port(text: str) -> int:
    """Return a port from 1 to 65535."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= _LARGEST_PORT:
        raise ValueError(f"{text[:20]!r} is no port: a number from 1 to {_LARGEST_PORT}")
    return int(text)


def parse_place(text: str, port: int) -> tuple[str, int]:
    """Return address and port of ``address``, ``address:port`` or ``[address]:port``.

    ``port`` is the one meant where none is written.
    """
    match = _PLACE.fullmatch(text)
    if match is None:
        return str(parse_address(text)), port
    bracketed, its_port, bare, bare_port = match.groups()
    address = parse_address(bare if bracketed is None else bracketed)
    written = its_port or bare_port
    return str(address), parse_port(written) if written else port


def write_place(address: str, port: int) -> str:
    """Return a place as one writes it, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def parse_multicast(text: str) -> str:
    """Return a multicast group with its port, 5025 if none is written."""
    place = parse_place(text, _HELLO_PORT)
    address = ip_address(place[0])
    if not address.is_multicast:
        raise ValueError(
            f"{address} is no multicast address: write one of 239.0.0.0/8 or ff02::/16"
        )
    _no_zone(address)
    return write_place(*place)


def parse_peer(text: str) -> str:
    """Return another node's address, with a port only where one is written."""
    address, port = parse_place(text, 0)
    checked = _unicast(address)
    return write_place(checked, port) if port else checked


def parse_node_address(text: str) -> str:
    """Return the address of one machine."""
    return _unicast(text)


def parse_interface(text: str) -> str:
    """Return the name of a network interface; that it is there cannot be told here."""
    if text in _NO_NAMES or not _INTERFACE.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a network interface: up to 15 characters")
    return text


def parse_virtual_address(text: str) -> Interface:
    """Return an address with its prefix, which is that of one host if none is written."""
    try:
        interface = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no address: write 192.0.2.25, 192.0.2.25/24 or 2001:db8::25"
        ) from None
    _unicast(text.partition("/")[0])
    network = interface.network
    if network.prefixlen < interface.max_prefixlen - 1:
        if interface.ip == network.network_address:
            raise ValueError(f"{text!r} is the network itself, no address in it")
        if isinstance(interface.ip, IPv4Address) and interface.ip == network.broadcast_address:
            raise ValueError(f"{text!r} is the broadcast address of its network")
    return interface


def _unicast(text: str) -> str:
    """Return the address of one machine in its usual form."""
    address = parse_address(text)
    _no_zone(address)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise ValueError(f"{text!r}: write IPv4 as IPv4")
    if address.is_multicast:
        raise ValueError(f"{text!r} is a multicast address")
    if address.is_unspecified or address == IPv4Address("255.255.255.255"):
        raise ValueError(f"{text!r} is the address of no machine")
    return str(address)


def _no_zone(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and address.scope_id:
        raise ValueError(f"{str(address)!r}: leave out the zone; interface says it")
