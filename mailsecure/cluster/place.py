"""Where this node is: its own address in the cluster, and on which interface.

The ini names an interface, an address, or both; what it leaves open is looked up in the
kernel.  :mod:`.service` asks once, before it opens its sockets.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from ..config.model import Config
from ..config.places import parse_place
from ..errors import LocalFault
from ..vip.api import Kernel

__all__ = ["own_place"]


def own_place(config: Config, kernel: Kernel) -> tuple[IPv4Address | IPv6Address, int]:
    """Return our address, and the index of the interface; LocalFault if there is none.

    Of the addresses of an interface it is the first that is of the group's family, neither
    link-local nor virtual.
    """
    settings = config.cluster
    if settings.address:
        return ip_address(settings.address), _index_of(kernel, settings.interface, settings.address)
    interface = kernel.interface(settings.interface)
    if interface is None:
        raise LocalFault(f"[cluster] interface: there is no interface {settings.interface}")
    six = ":" in parse_place(settings.group, 0)[0]
    virtual = {each.ip for group in config.virtual.values() for each in group.addresses}
    for standing in kernel.addresses(interface.index):
        address = standing.address.ip
        fits = (address.version == 6) == six and not address.is_link_local
        if fits and address not in virtual:
            return address, interface.index
    family = "IPv6" if six else "IPv4"
    raise LocalFault(f"[cluster] interface: {settings.interface} has no {family} address")


def _index_of(kernel: Kernel, named: str, address: str) -> int:
    """Return the index of the interface ``named``, or, if "", of that with ``address``."""
    for interface in kernel.interfaces():
        standing = kernel.addresses(interface.index)
        if interface.name == named or (
            not named and any(str(each.address.ip) == address for each in standing)
        ):
            return interface.index
    if named:
        raise LocalFault(f"[cluster] interface: there is no interface {named}")
    raise LocalFault(f"[cluster] address: {address} is on no interface of this machine")
