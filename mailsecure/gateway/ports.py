"""Listening, also at an address that is not there yet, and at either family's port apart.

A virtual address stands on one node of a cluster at a time, but every node listens at it
from its start, so that nothing is left to do when the address comes.  Linux binds a socket
to an address that is absent if it is told so (IP_FREEBIND in ip(7)).  Nobody is told so
about any other address: there, an absent one is a mistake in the ini.

A port at every IPv6 address takes IPv4 as well, as Twisted binds it (RFC 3493 §5.3).  That is
what somebody wants who lists ``tcp6:25`` alone.  Beside an
IPv4 address with that port the port would be taken, so there it is bound for IPv6 alone.

:class:`.service.Gateway` listens by :func:`listen`.
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

__all__ = ["listen"]

# Linux's numbers, which Python's socket module does not name.
_IP_FREEBIND = (socket.IPPROTO_IP, 15)
_IPV6_FREEBIND = (socket.IPPROTO_IPV6, 78)
_IPV6_ALONE = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
#: Twisted's own.
_BACKLOG = 50


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
    if place is not None and place.interface in virtual:
        six = place.interface.version == 6
        return _adopt(reactor, place, factory, _IPV6_FREEBIND if six else _IP_FREEBIND)
    if place is not None and leaves_ipv4(place, listed):
        return _adopt(reactor, place, factory, _IPV6_ALONE)
    port: IListeningPort = await serverFromString(reactor, description).listen(factory)
    return port


def _adopt(reactor: Any, place: Place, factory: Any, option: tuple[int, int]) -> IListeningPort:
    """Have the reactor listen on a socket of ours, which has a level's ``option`` set."""
    family = socket.AF_INET6 if place.interface.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(*option, 1)
        try:
            listener.bind((str(place.interface), place.port))
            listener.listen(_BACKLOG if place.backlog is None else place.backlog)
        except OSError as error:
            raise CannotListenError(str(place.interface), place.port, error) from None
        # The reactor makes a descriptor of its own; ours is closed here.
        port: IListeningPort = reactor.adoptStreamPort(listener.fileno(), family, factory)
        return port
