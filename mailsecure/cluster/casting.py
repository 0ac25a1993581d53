"""Hello datagrams in and out: one UDP socket, multicast or unicast.

:class:`Casting` is the Twisted protocol below :mod:`.service`; it knows addresses and
sockets and nothing of what a datagram says.  With a group it sends to the group and joins
it on one interface; with unicast peers it sends to each of them.  Either way it takes
whatever comes to its port: who sent it is for the signature to say, not for the address.

Datagrams leave with TTL 1 (hop limit 1 in IPv6), so that a multicast stays on its link,
and with the class selector of network control (RFC 2474 §4.2.2.2), as VRRP's do.  Joining
is done with the interface's index, because one address may stand on two interfaces and
because an IPv6 group cannot be joined otherwise.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

from ..errors import LocalFault

__all__ = ["Casting", "Place"]

#: An address and a port.
Place = tuple[str, int]

# Linux's numbers, which Python's socket module does not all name.
_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29
_NETWORK_CONTROL = 0xC0
#: One octet more than a hello may have is enough to see that it is too long.
_LONGEST = 2048


class Casting(DatagramProtocol):
    """The socket of one node; ``received(octets, source)`` gets each datagram.

    ``group`` is where hellos go; its port is ours too.  With ``peers`` they go there
    instead, and only what comes to ``address`` is taken.
    """

    noisy = False

    def __init__(
        self,
        group: Place,
        address: str,
        peers: Sequence[Place],
        received: Callable[[bytes, str], None],
    ) -> None:
        self._group = group
        self._address = address
        self._targets = tuple(peers) or (group,)
        self._multicast = not peers
        self._received = received
        self._port: Any = None
        self._joined = 0
        #: Datagrams that could not be sent, and why the last one.
        self.failures = 0
        self.failure = ""

    # -- life

    def bind(self, reactor: Any, index: int) -> None:
        """Open the socket and join on the interface ``index``; LocalFault says why not."""
        six = ip_address(self._group[0] if self._multicast else self._address).version == 6
        host = ("::" if six else "") if self._multicast else self._address
        listen = reactor.listenMulticast if self._multicast else reactor.listenUDP
        shared = {"listenMultiple": True} if self._multicast else {}
        try:
            self._port = listen(
                self._group[1], self, interface=host, maxPacketSize=_LONGEST, **shared
            )
            self._set_options(six)
            self.join(index)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise LocalFault(f"cannot listen on UDP port {self._group[1]}: {reason}") from None
        except OSError as error:
            raise LocalFault(f"cannot join {self._group[0]}: {error.strerror}") from None

    def _set_options(self, six: bool) -> None:
        handle = self._port.getHandle()
        if six:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _NETWORK_CONTROL)
        else:
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _NETWORK_CONTROL)
        if not self._multicast:
            return
        if six:
            handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
        else:
            handle.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)

    def join(self, index: int) -> None:
        """Join the group on the interface ``index``, and send from there; OSError if not.

        Call it again when the interface was made anew: its index is another then.
        """
        if not self._multicast or index == self._joined:
            return
        handle = self._port.getHandle()
        group = ip_address(self._group[0])
        try:
            if isinstance(group, IPv6Address):
                handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                request = group.packed + struct.pack("@I", index)
                handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
            else:
                # struct ip_mreqn: group, address, index (ip(7)).
                request = group.packed + struct.pack("@4xi", index)
                handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                handle.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        self._joined = index

    def close(self) -> Deferred[None]:
        """Close the socket."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)

    # -- work

    def send(self, datagram: bytes) -> None:
        """Send to everybody; what cannot be sent is counted, and never raises."""
        if self._port is None:
            return
        for place in self._targets:
            try:
                self._port.write(datagram, place)
            except OSError as error:
                self.failures += 1
                self.failure = error.strerror or str(error)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Twisted's call for each datagram."""
        self._received(datagram, addr[0])
