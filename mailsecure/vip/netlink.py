"""The kernel of Linux by netlink and a packet socket: the real :class:`.api.Kernel`.

What stands where is asked with ``pyroute2``, whose calls take one to three milliseconds in
the reactor's thread.  Setting an address, which goes on for as long as we are Master, takes
a tenth of that by :mod:`.messages` over a socket of its own.  Another one says when an
interface changes (rtnetlink(7), group RTMGRP_LINK); only then are the interfaces asked for
again, so that their state is known without asking.  It is known at once; only of lost
carriers Linux tells no more than once a second.  Frames leave through a packet socket that
receives nothing.

``tap`` makes one for the World.  Its sockets are opened when it is first used, while the
process may still be root: setting addresses needs CAP_NET_ADMIN each time, the packet
socket CAP_NET_RAW only when it is opened.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, cast

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import LocalFault
from .api import Address, Interface, Standing
from .messages import add_address, answer_to, remove_address

__all__ = ["LinuxKernel"]

_log = Logger(namespace="vip")

_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13
_RTMGRP_LINK = 1
_IFF_UP, _IFF_LOWER_UP = 1, 1 << 16
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_FOR_EVER = 0xFFFFFFFF
_NUD_INCOMPLETE, _NUD_FAILED = 0x01, 0x20
#: Neighbours forgotten in one go: each takes about a millisecond.
_MOST_FORGOTTEN = 32
_READ = 65536
#: The kernel answers a request before it returns from taking it; so long, it never takes.
_PATIENCE = 1.0
#: A list is asked for again if it changed while it was made.
_TRIES = 5
_AGAIN = 0.1


class LinuxKernel:
    """See the module's text; ``reactor`` is what reads the socket that tells of changes."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._netlink: Any = None
        self._requests: socket.socket | None = None
        self._sequence = 0
        self._packets: socket.socket | None = None
        self._told: _Changes | None = None
        self._later: IDelayedCall | None = None
        self._known: dict[str, Interface] = {}
        self._watchers: list[Callable[[str], None]] = []

    # -- what we may

    def may_hold(self) -> str:
        """Return which capability is missing, or ""."""
        effective = _effective_capabilities()
        if not effective >> _CAP_NET_ADMIN & 1:
            return "CAP_NET_ADMIN is missing: no address can be added"
        if self._packets is None and not effective >> _CAP_NET_RAW & 1:
            return "CAP_NET_RAW is missing: no neighbour could be told of an address"
        return ""

    # -- interfaces

    def interfaces(self) -> Sequence[Interface]:
        """Return what was last known of all interfaces."""
        self._open()
        return tuple(self._known.values())

    def interface(self, name: str) -> Interface | None:
        """Return what was last known of ``name``; it is known as soon as it changes."""
        self._open()
        return self._known.get(name)

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call ``changed`` with the name of each interface that comes, goes or changes."""
        self._open()
        self._watchers.append(changed)

        def unwatch() -> None:
            if changed in self._watchers:
                self._watchers.remove(changed)

        return unwatch

    def _open(self) -> None:
        if self._netlink is not None:
            return
        self._netlink = IPRoute()
        self._requests = _netlink_socket()
        self._requests.settimeout(_PATIENCE)
        # The answer without the request in it.
        self._requests.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        with suppress(PermissionError):
            # Protocol 0: nothing is received.
            self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._told = _Changes(self._reactor, self._look)
        self._known = self._asked()

    def _look(self) -> None:
        """Something changed: find out what, and tell."""
        try:
            now = self._asked()
        except LocalFault as fault:
            _log.warn("{reason}; trying again", reason=str(fault))
            if self._later is None or not self._later.active():
                self._later = self._reactor.callLater(_AGAIN, self._look)
            return
        before, self._known = self._known, now
        for name in {**before, **self._known}:
            if before.get(name) != self._known.get(name):
                for each in list(self._watchers):
                    each(name)

    def _asked(self) -> dict[str, Interface]:
        links = self._listed("the interfaces", self._netlink.get_links)
        return {each.name: each for each in map(_interface, links)}

    def _listed(self, what: str, ask: Callable[[], Iterable[Any]]) -> list[Any]:
        for left in reversed(range(_TRIES)):
            try:
                return list(ask())
            except NetlinkDumpInterrupted as error:
                if not left:
                    raise LocalFault(f"cannot list {what}: they change all the time") from error
            except (NetlinkError, OSError) as error:
                raise LocalFault(f"cannot list {what}: {_reason(error)}") from None
        raise AssertionError

    # -- addresses

    def addresses(self, index: int) -> Sequence[Standing]:
        """Return what stands on the interface ``index``."""
        self._open()
        ask = partial(self._netlink.get_addr, index=index)
        return [_standing(each) for each in self._listed("the addresses", ask)]

    def lease(self, index: int, address: Address, seconds: int) -> None:
        """Add ``address`` for ``seconds``, or keep it for so long from now.

        See :func:`.messages.add_address` for what comes with it.
        """
        number = self._request(add_address, index, address, seconds)
        if number:
            raise LocalFault(f"the kernel does not take {address}: {os.strerror(number)}")

    def release(self, index: int, address: Address) -> None:
        """Remove ``address``; that it, or the interface, is absent is fine."""
        number = self._request(remove_address, index, address)
        if number not in (0, errno.EADDRNOTAVAIL, errno.ENODEV):
            raise LocalFault(f"the kernel keeps {address}: {os.strerror(number)}")

    def _request(self, make: Callable[..., bytes], *about: Any) -> int:
        """Send a request; return the ``errno`` that answers it, 0 if it was obeyed."""
        self._open()
        requests = cast(socket.socket, self._requests)
        self._sequence = self._sequence % _FOR_EVER + 1
        try:
            requests.send(make(self._sequence, *about))
            while (number := answer_to(self._sequence, requests.recv(_READ))) is None:
                continue
        except OSError as error:
            return error.errno or errno.ETIMEDOUT
        return number

    def forget_neighbours(self, name: str) -> None:
        """Forget whom the interface ``name`` asked for in vain; see :class:`.api.Kernel`.

        What cannot be forgotten costs a second and no more, so nothing is raised.
        """
        interface = self.interface(name)
        if interface is None:
            return
        for family in (socket.AF_INET, socket.AF_INET6):
            ask = partial(self._netlink.get_neighbours, family=family, ifindex=interface.index)
            try:
                vain = [each for each in self._listed("the neighbours", ask) if _in_vain(each)]
                for each in vain[:_MOST_FORGOTTEN]:
                    address = each.get("NDA_DST")
                    self._netlink.neigh("del", family=family, ifindex=interface.index, dst=address)
            except (LocalFault, NetlinkError, OSError) as error:
                _log.debug("cannot forget neighbours: {reason}", reason=str(error))

    def send(self, index: int, frame: bytes) -> None:
        """Send an Ethernet frame as it is."""
        self._open()
        if self._packets is None:
            raise LocalFault("CAP_NET_RAW is missing")
        names = [each.name for each in self._known.values() if each.index == index]
        if not names:
            raise LocalFault(f"a frame could not be sent: {os.strerror(errno.ENODEV)}")
        try:
            self._packets.sendto(frame, (names[0], 0))
        except OSError as error:
            raise LocalFault(f"a frame could not be sent: {error.strerror}") from None

    def close(self) -> None:
        """Close all sockets."""
        if self._later is not None and self._later.active():
            self._later.cancel()
        for each in (self._told, self._packets, self._requests, self._netlink):
            if each is not None:
                each.close()
        self._netlink = self._requests = self._packets = self._told = None


class _Changes(FileDescriptor):
    """Calls ``changed`` when the kernel says that an interface changed.

    What it says is not read but asked for again: so nothing is missed when there was too
    much to be kept (ENOBUFS).
    """

    def __init__(self, reactor: Any, changed: Callable[[], None]) -> None:
        super().__init__(reactor)
        self._changed = changed
        self._socket = _netlink_socket()
        self._socket.setblocking(False)
        self._socket.bind((0, _RTMGRP_LINK))
        self.connected = 1
        self.startReading()

    def fileno(self) -> int:
        """Twisted's question."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Take everything that was said, and look."""
        for _ in range(100):
            try:
                self._socket.recv(_READ)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
        self._changed()

    def close(self) -> None:
        """Read no more."""
        self.stopReading()
        self._socket.close()


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise AssertionError("no CapEff in /proc/self/status")


def _interface(link: Any) -> Interface:
    flags = link["flags"]
    up = bool(flags & _IFF_UP and flags & _IFF_LOWER_UP)
    mac = bytes.fromhex((link.get("IFLA_ADDRESS") or "").replace(":", ""))
    return Interface(link["index"], link.get("IFLA_IFNAME"), mac[:6].ljust(6, b"\0"), up)


def _in_vain(neighbour: Any) -> bool:
    return bool(neighbour["state"] & (_NUD_INCOMPLETE | _NUD_FAILED))


def _standing(each: Any) -> Standing:
    # IFA_LOCAL is our own where the link is point-to-point (rtnetlink(7)).
    text = each.get("IFA_LOCAL") or each.get("IFA_ADDRESS")
    valid = (each.get("IFA_CACHEINFO") or {}).get("ifa_valid", _FOR_EVER)
    address = ip_interface(f"{text}/{each['prefixlen']}")
    return Standing(address, None if valid == _FOR_EVER else float(valid))


def _reason(error: NetlinkError | OSError) -> str:
    return os.strerror(error.code if isinstance(error, NetlinkError) else error.errno or 0)


def _netlink_socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
