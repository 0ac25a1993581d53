"""Listening, also at an address that is not there yet, and at either family's port apart.

A virtual address stands on one node of a cluster at a time, but every node listens at it
from its start, so that nothing is left to do when the address comes.  Linux binds a socket
to an address that is absent if it is told so (IP_FREEBIND in ip(7)).  Nobody is told so
about any other address: there, an absent one is a mistake in the ini.

A port at every IPv6 address takes IPv4 as well, as Twisted binds it (RFC 3493 §5.3).  That is
what somebody wants who lists ``tcp6:25`` alone.  Beside an
IPv4 address with that port the port would be taken, so there it is bound for IPv6 alone.

:class:`.service.Gateway` listens by :func:`listen`, and makes the sockets at which the load
balancer accepts by :func:`entrance`.
"""

from __future__ import annotations

import socket
from collections.abc import Container, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from ..config.endpoints import Place, leaves_ipv4, place_of

__all__ = ["entrance", "listen", "listening_socket"]

# Linux's numbers, which Python's socket module does not name.
_IP_FREEBIND = (socket.IPPROTO_IP, 15)
_IPV6_FREEBIND = (socket.IPPROTO_IPV6, 78)
_IPV6_ALONE = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
#: Twisted's own, and that of the load balancer, which thousands may call upon at once.
_BACKLOG, _WIDE_BACKLOG = 50, 1024


async def listen(
    reactor: Any,
    description: str,
    factory: Any,
    virtual: Container[IPv4Address | IPv6Address],
    listed: Iterable[str] = (),
) -> IListeningPort:
    """Listen where ``description`` says; an address among ``virtual`` may be absent.

    ``listed`` are all endpoints of the ini.  CannotListenError or OSError where we cannot
    listen.
    """
    place = place_of(description)
    option = None if place is None else _option(place, virtual, listed)
    if place is None or option is None:
        port: IListeningPort = await serverFromString(reactor, description).listen(factory)
        return port
    with listening_socket(place, option) as listener:
        # The reactor makes a descriptor of its own; ours is closed here.
        adopted: IListeningPort = reactor.adoptStreamPort(
            listener.fileno(), listener.family, factory
        )
        return adopted


def entrance(
    description: str, virtual: Container[IPv4Address | IPv6Address], listed: Iterable[str] = ()
) -> socket.socket | None:
    """Return a socket that listens where ``description`` says, as :func:`listen` would.

    None for an endpoint that is not one of TCP.
    """
    place = place_of(description)
    if place is None:
        return None
    return listening_socket(place, _option(place, virtual, listed), _WIDE_BACKLOG)


def _option(
    place: Place, virtual: Container[IPv4Address | IPv6Address], listed: Iterable[str]
) -> tuple[int, int] | None:
    """Return the level and name of the option that a socket at ``place`` needs."""
    if place.interface in virtual:
        return _IPV6_FREEBIND if place.interface.version == 6 else _IP_FREEBIND
    return _IPV6_ALONE if leaves_ipv4(place, listed) else None


def listening_socket(
    place: Place, option: tuple[int, int] | None = None, backlog: int = _BACKLOG
) -> socket.socket:
    """Return a socket that listens at ``place`` and does not block, with ``option`` set.

    CannotListenError where that cannot be.
    """
    family = socket.AF_INET6 if place.interface.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if option is not None:
            listener.setsockopt(*option, 1)
        listener.bind((str(place.interface), place.port))
        listener.listen(backlog if place.backlog is None else place.backlog)
    except OSError as error:
        listener.close()
        raise CannotListenError(str(place.interface), place.port, error) from None
    return listener
