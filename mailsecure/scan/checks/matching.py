"""Who is who: clients' addresses and networks, and the pass lists of the ini (pure).

The checks of this package ask.  An address is text as the kernel gives it, perhaps with a
zone; an IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2) is the IPv4 address.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = [
    "Address",
    "Network",
    "digest",
    "is_listed_mailbox",
    "is_listed_name",
    "is_public",
    "is_within",
    "network_of",
    "read_address",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Where no stranger of the internet comes from (RFC 6890, RFC 6598).  The networks for
#: documentation are left out: nobody comes from there, and tests and manuals do.
_PRIVATE = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
)


def read_address(text: str) -> Address | None:
    """Return the address that ``text`` is, None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Say whether ``address`` is in one of ``networks``."""
    if address is None:
        return False
    return any(each.version == address.version and address in each for each in networks)


def is_public(address: Address) -> bool:
    """Say whether strangers can be asked about ``address``: it is not private, not ours."""
    return not is_within(address, _PRIVATE)


def network_of(client: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """Return the network of a client as text; for what is no address, the text itself."""
    address = read_address(client)
    if address is None:
        return client
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    return str(ip_network((address, prefix), strict=False))


def digest(*parts: str) -> str:
    """Return 32 characters that stand for ``parts`` and tell nothing of them."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16).hexdigest()


def is_listed_name(name: str, patterns: Iterable[str]) -> bool:
    """Say whether a host or domain is listed: as it is, or below a ``.domain``."""
    name = name.lower()
    return bool(name) and any(
        name.endswith(each) if each.startswith(".") else name == each
        for each in map(str.lower, patterns)
    )


def is_listed_mailbox(mailbox: str, patterns: Iterable[str]) -> bool:
    """Say whether a mailbox is listed: itself, by its domain, or below a ``.domain``."""
    mailbox = mailbox.lower()
    domain = mailbox.rpartition("@")[2]
    return any(
        mailbox == each if "@" in each else is_listed_name(domain, (each,))
        for each in map(str.lower, patterns)
    )
