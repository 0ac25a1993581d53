"""Listening, also at an address that is not there yet.

A virtual address stands on one node of a cluster at a time, but every node listens at it
from its start, so that nothing is left to do when the address comes.  Linux binds a socket
to an address that is absent if it is told so (IP_FREEBIND in ip(7)).  Nobody is told so
about any other address: there, an absent one is a mistake in the ini.

:class:`.service.Gateway` listens by :func:`listen`.
"""

from __future__ import annotations

import socket
from collections.abc import Container
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from ..config.endpoints import Place, place_of

__all__ = ["listen"]

# Linux's numbers, which Python's socket module does not name.
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
#: Twisted's own.
_BACKLOG = 50


async def listen(
    reactor: Any, description: str, factory: Any, virtual: Container[IPv4Address | IPv6Address]
) -> IListeningPort:
    """Listen where ``description`` says; an address among ``virtual`` may be absent.

    CannotListenError or OSError where that is not possible.
    """
    place = place_of(description)
    if place is not None and place.interface in virtual:
        return _listen_ahead(reactor, place, factory)
    port: IListeningPort = await serverFromString(reactor, description).listen(factory)
    return port


def _listen_ahead(reactor: Any, place: Place, factory: Any) -> IListeningPort:
    six = place.interface.version == 6
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            listener.bind((str(place.interface), place.port))
            listener.listen(_BACKLOG if place.backlog is None else place.backlog)
        except OSError as error:
            raise CannotListenError(str(place.interface), place.port, error) from None
        # The reactor makes a descriptor of its own; ours is closed here.
        port: IListeningPort = reactor.adoptStreamPort(listener.fileno(), family, factory)
        return port
