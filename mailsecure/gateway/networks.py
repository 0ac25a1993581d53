"""Is an address in one of the networks of the ini?  Remembers its answers (pure).

:class:`.service.Gateway` asks for every session; most clients come again and again.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from ..config.model import Network

__all__ = ["NetworkList"]

#: Addresses whose networks were looked up; bounds the memory of a flood.
MAX_REMEMBERED = 20_000


class NetworkList:
    """Some networks; an address is text as the kernel gives it, perhaps with a zone."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: tuple[Network, ...] = ()) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        assert isinstance(address, str)
        if not self._networks:
            return False
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        return any(_contains(network, address) for network in self._networks)


def _contains(network: IPv4Network | IPv6Network, address: IPv4Address | IPv6Address) -> bool:
    plain = getattr(address, "ipv4_mapped", None) or address
    return network.version == plain.version and plain in network
