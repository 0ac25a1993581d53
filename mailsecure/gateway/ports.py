"""Listening, also at an address that is not there yet, and at either family's port apart.

A virtual address stands on one node of a cluster at a time, but every node listens at it
from its start, so that nothing is left to do when the address comes.  Linux binds a socket
to an address that is absent if it is told so (IP_FREEBIND in ip(7)).  Nobody is told so
about any other address: there, an absent one is a mistake in the ini.

A port at every IPv6 address takes IPv4 as well, as Twisted binds it (RFC 3493 §5.3).  That is
what somebody wants who lists ``tcp6:25`` alone.  Beside an
IPv4 address with that port the port would be taken, so there it is bound for IPv6 alone.

Where the load balancer accepts in our stead, TCP's ports are bound as bare sockets
(:attr:`Ports.entrances`), and Twisted does not know them.

:class:`.service.Gateway` has one :class:`Ports`.
"""

from __future__ import annotations

import socket
from collections.abc import Container, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.address import IPv4Address as At4
from twisted.internet.address import IPv6Address as At6
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort

from ..config.endpoints import Place, leaves_ipv4, place_of
from ..entrance import Entrance
from ..errors import LocalFault

__all__ = ["Ports", "listen"]

# Linux's numbers, which Python's socket module does not name.
_IP_FREEBIND = (socket.IPPROTO_IP, 15)
_IPV6_FREEBIND = (socket.IPPROTO_IPV6, 78)
_IPV6_ALONE = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
#: Accepted sockets inherit it: a reply is not to wait until the director acknowledges another.
_NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
#: Twisted's own, and that of the load balancer, which thousands may call upon at once.
_BACKLOG, _WIDE_BACKLOG = 50, 1024


class Ports:
    """The ports of one gateway; bound first, and not read before :meth:`begin`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        #: Addresses that may be absent, and all endpoints of the ini.
        self.virtual: Container[IPv4Address | IPv6Address] = ()
        self.listed: Sequence[str] = ()
        #: Where sessions of clients come in, for people.
        self.listening: list[str] = []
        #: Where the load balancer accepts.  It closes them.
        self.entrances: list[Entrance] = []
        #: Where the other nodes pass on sessions; 0: nowhere.
        self.peer_port = 0

    async def open(self, description: str, factory: Any, tls: bool, bare: bool) -> None:
        """Listen where ``description`` says; ``bare``: for the load balancer, if it is TCP.

        LocalFault says why we cannot.
        """
        place = place_of(description) if bare else None
        try:
            if place is None:
                self._keep(
                    await listen(self._reactor, description, factory, self.virtual, self.listed)
                )
                self.listening.append(_shown(self._ports[-1].getHost()))
                return
            option = _option(place, self.virtual, self.listed)
            wire = _listening_socket(place, option, _WIDE_BACKLOG)
            self.entrances.append(Entrance(wire, tls))
            self.listening.append(_joined(*wire.getsockname()[:2]))
        except CannotListenError as error:
            raise LocalFault(f"cannot listen on {description}: {_reason(error)}") from None
        except (OSError, ValueError) as error:
            raise LocalFault(f"cannot listen on {description}: {error}") from None

    def open_for_peers(self, address: IPv4Address | IPv6Address, port: int, factory: Any) -> None:
        """Listen for the other nodes; LocalFault says why we cannot."""
        place = Place(address, port, _WIDE_BACKLOG)
        try:
            self._keep(_adopt(self._reactor, place, factory, _NO_DELAY))
        except CannotListenError as error:
            where = _joined(str(address), port)
            reason = _reason(error)
            raise LocalFault(f"[cluster] peer_listen: cannot listen on {where}: {reason}") from None
        self.peer_port = self._ports[-1].getHost().port  # type: ignore[attr-defined]

    def _keep(self, port: IListeningPort) -> None:
        # Bound, but not read yet: the spool is not open.
        port.pauseProducing()  # type: ignore[attr-defined]
        self._ports.append(port)

    def begin(self) -> None:
        """Accept connections."""
        for port in self._ports:
            port.resumeProducing()  # type: ignore[attr-defined]

    def listeners(self) -> list[socket.socket]:
        """Return the sockets at which clients arrive, those of the load balancer too."""
        own = [port.socket for port in self._ports]  # type: ignore[attr-defined]
        wires = [wire for wire in own if wire.family != socket.AF_UNIX]
        return wires + [each.wire for each in self.entrances if each.wire.fileno() >= 0]

    async def close(self) -> None:
        """Accept no more, at our own ports."""
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)


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
    return _adopt(reactor, place, factory, option)


def _option(
    place: Place, virtual: Container[IPv4Address | IPv6Address], listed: Iterable[str]
) -> tuple[int, int] | None:
    """Return the level and name of the option that a socket at ``place`` needs."""
    if place.interface in virtual:
        return _IPV6_FREEBIND if place.interface.version == 6 else _IP_FREEBIND
    return _IPV6_ALONE if leaves_ipv4(place, listed) else None


def _adopt(
    reactor: Any, place: Place, factory: Any, option: tuple[int, int] | None
) -> IListeningPort:
    """Have the reactor listen on a socket of ours."""
    with _listening_socket(place, option, _BACKLOG) as listener:
        # The reactor makes a descriptor of its own; ours is closed here.
        port: IListeningPort = reactor.adoptStreamPort(listener.fileno(), listener.family, factory)
        return port


def _listening_socket(place: Place, option: tuple[int, int] | None, backlog: int) -> socket.socket:
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


def _shown(address: IAddress) -> str:
    if isinstance(address, At4 | At6):
        return _joined(address.host, address.port)
    return str(address)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: CannotListenError) -> object:
    return getattr(error.socketError, "strerror", None) or error.socketError
