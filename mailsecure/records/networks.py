"""A network of clients, as a search names it: ``192.0.2.0/24`` (pure).

Clients are texts in the history, so the part that all addresses of a network begin with is
looked for, which an index finds, and what else has it is left out here.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

__all__ = ["Network", "holds", "network_of", "part_of"]

Network = IPv4Network | IPv6Network


def network_of(text: str) -> Network | None:
    """Return the network that ``text`` names; None where it is none, as a plain address."""
    if "/" not in text:
        return None
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        return None


def part_of(network: Network) -> str:
    """Return what stands in the text of each address of ``network``, as much as there is."""
    if isinstance(network, IPv4Network):
        fixed = network.prefixlen // 8
        octets = str(network.network_address).split(".")[:fixed]
        return ".".join(octets) + "." * (fixed < 4)
    # Groups of zeros may be left out of the text of an address: what is before them stays.
    groups = network.network_address.exploded.split(":")[: network.prefixlen // 16]
    numbers = [int(group, 16) for group in groups]
    fixed = numbers.index(0) if 0 in numbers else len(numbers)
    return ":".join(f"{number:x}" for number in numbers[:fixed]) + ":" * (fixed < 8)


def holds(network: Network, client: str) -> bool:
    """Say whether ``client``, an address and perhaps a name behind it, is in ``network``."""
    try:
        return ip_address(client.partition(" ")[0]) in network
    except ValueError:
        return False
