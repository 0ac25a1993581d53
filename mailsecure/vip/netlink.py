"""The kernel of Linux by netlink and a packet socket: the real :class:`.api.Kernel`.

Addresses are set by ``pyroute2`` over one socket that stays open; its calls take about a
millisecond and are made in the reactor's thread.  A second socket says when an interface
changes (rtnetlink(7), group RTMGRP_LINK); only then are the interfaces asked for again, so
that their state is known without asking.  Frames leave through a packet socket that
receives nothing.

``tap`` makes one for the World.  Its sockets are opened when it is first used, while the
process may still be root: setting addresses needs CAP_NET_ADMIN each time, the packet
socket CAP_NET_RAW only when it is opened.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from twisted.internet.abstract import FileDescriptor

from ..errors import LocalFault
from .api import Address, Interface, Standing

__all__ = ["LinuxKernel"]

_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13
_RTMGRP_LINK = 1
_IFF_UP, _IFF_LOWER_UP = 1, 1 << 16
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200
_FOR_EVER = 0xFFFFFFFF
_READ = 65536


class LinuxKernel:
    """See the module's text; ``reactor`` is what reads the socket that tells of changes."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._netlink: Any = None
        self._packets: socket.socket | None = None
        self._told: _Changes | None = None
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
        return lambda: self._watchers.remove(changed)

    def _open(self) -> None:
        if self._netlink is not None:
            return
        self._netlink = IPRoute()
        with suppress(PermissionError):
            # Protocol 0: nothing is received.
            self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._told = _Changes(self._reactor, self._look)
        self._known = self._asked()

    def _look(self) -> None:
        """Something changed: find out what, and tell."""
        before, self._known = self._known, self._asked()
        for name in {**before, **self._known}:
            if before.get(name) != self._known.get(name):
                for each in list(self._watchers):
                    each(name)

    def _asked(self) -> dict[str, Interface]:
        try:
            found = [_interface(link) for link in self._netlink.get_links()]
        except (NetlinkError, OSError) as error:
            raise _fault("cannot list the interfaces", error) from None
        return {each.name: each for each in found}

    # -- addresses

    def addresses(self, index: int) -> Sequence[Standing]:
        """Return what stands on the interface ``index``."""
        self._open()
        try:
            return [_standing(each) for each in self._netlink.get_addr(index=index)]
        except (NetlinkError, OSError) as error:
            raise _fault("cannot list the addresses", error) from None

    def lease(self, index: int, address: Address, seconds: int) -> None:
        """Add ``address`` for ``seconds``, or keep it for so long from now.

        An IPv6 address is there at once (no duplicate address detection, which would keep
        it from being used for a second) and is never chosen as a source.
        """
        self._open()
        six = address.version == 6
        try:
            self._netlink.addr(
                "replace",
                index=index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                flags=_IFA_F_NOPREFIXROUTE | (_IFA_F_NODAD if six else 0),
                IFA_CACHEINFO={"ifa_preferred": 0 if six else seconds, "ifa_valid": seconds},
            )
        except (NetlinkError, OSError) as error:
            raise _fault(f"the kernel does not take {address}", error) from None

    def release(self, index: int, address: Address) -> None:
        """Remove ``address``; that it, or the interface, is absent is fine."""
        self._open()
        try:
            self._netlink.addr(
                "del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
            )
        except (NetlinkError, OSError) as error:
            if _number(error) not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise _fault(f"the kernel keeps {address}", error) from None

    def send(self, index: int, frame: bytes) -> None:
        """Send an Ethernet frame as it is."""
        self._open()
        if self._packets is None:
            raise LocalFault("CAP_NET_RAW is missing")
        try:
            name = socket.if_indextoname(index)
            self._packets.sendto(frame, (name, 0))
        except OSError as error:
            raise _fault("a frame could not be sent", error) from None

    def close(self) -> None:
        """Close all sockets."""
        if self._told is not None:
            self._told.close()
        if self._packets is not None:
            self._packets.close()
        if self._netlink is not None:
            self._netlink.close()
        self._netlink = self._packets = self._told = None


class _Changes(FileDescriptor):
    """Calls ``changed`` when the kernel says that an interface changed.

    What it says is not read but asked for again: so nothing is missed when there was too
    much to be kept (ENOBUFS).
    """

    def __init__(self, reactor: Any, changed: Callable[[], None]) -> None:
        super().__init__(reactor)
        self._changed = changed
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
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


def _standing(each: Any) -> Standing:
    # IFA_LOCAL is our own where the link is point-to-point (rtnetlink(7)).
    text = each.get("IFA_LOCAL") or each.get("IFA_ADDRESS")
    valid = (each.get("IFA_CACHEINFO") or {}).get("ifa_valid", _FOR_EVER)
    address = ip_interface(f"{text}/{each['prefixlen']}")
    return Standing(address, None if valid == _FOR_EVER else float(valid))


def _number(error: NetlinkError | OSError) -> int:
    return int(error.code if isinstance(error, NetlinkError) else error.errno or 0)


def _fault(what: str, error: NetlinkError | OSError) -> LocalFault:
    return LocalFault(f"{what}: {os.strerror(_number(error))}")
