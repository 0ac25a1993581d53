"""Hosts on one switch, each in a network namespace of its own; the machine sees none of it.

:class:`Network` makes them and takes them down again, at the latest when the process ends,
and with them whatever a killed run left behind.  The names of the namespaces hold the
process's number, so runs beside each other do not meet.

Host number n has ``eth0`` with 10.77.0.(11 + n)/24 and fd77::(11 + n)/64.  What is said
between them passes the switch (:mod:`.switch`), where it can be made to suffer.  With
``bridged`` the switch is the kernel's own bridge: no faults, but as fast as it gets.

:func:`inside` runs a function in a namespace: a socket that is made there stays there.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import json
import os
import re
import selectors
import socket
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import TypeVar

__all__ = ["Network", "inside", "ip"]

PREFIX = "mslive"
SWITCH = "switch"
_HERE = Path(__file__).parent
_CLONE_NEWNET = 0x40000000
#: ethtool's ioctl, and its numbers for checksums, TSO, GSO and GRO.
_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)
_PATIENCE = 10.0

T = TypeVar("T")

#: Tells the networks of this process apart.
_numbers = count()


def ip(*words: str) -> str:
    """Run iproute2's ip and return what it says; AssertionError if it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise AssertionError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def inside(space: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a namespace, in a thread of its own, and return what it returns."""
    results: list[T] = []
    faults: list[BaseException] = []

    def enter() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path("/run/netns", space).open() as door:
                if libc.setns(door.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"cannot enter {space}")
            results.append(work())
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return results[0]


class Network:
    """Hosts on a switch; ``close`` removes everything."""

    def __init__(self, hosts: Sequence[str], *, bridged: bool = False) -> None:
        self.hosts = list(hosts)
        self._bridged = bridged
        self._number = next(_numbers)
        self._switch: subprocess.Popen[bytes] | None = None
        self._faults: dict[str, dict[str, float]] = {}
        _sweep()
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    # -- what is where

    def space(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{PREFIX}-{os.getpid()}-{self._number}-{host}"

    def address(self, host: str, version: int = 4) -> str:
        """Return the address of a host's own."""
        number = 11 + self.hosts.index(host)
        return f"10.77.0.{number}" if version == 4 else f"fd77::{number}"

    def command(self, host: str) -> list[str]:
        """Return the words that run a command on a host, in the same process."""
        return ["ip", "netns", "exec", self.space(host)]

    def inside(self, host: str, work: Callable[[], T]) -> T:
        """Run ``work`` on a host; see :func:`inside`."""
        return inside(self.space(host), work)

    def mac(self, host: str) -> str:
        """Return the Ethernet address of a host."""
        found = re.search(r"link/ether (\S+)", ip("-n", self.space(host), "link", "show", "eth0"))
        assert found is not None
        return found[1]

    def holds(self, host: str, address: str) -> bool:
        """Say whether a host's kernel has an address."""
        version = ip_address(address).version
        words = ("-o", f"-{version}", "address", "show", "to", address)
        return bool(ip("-n", self.space(host), *words))

    # -- building

    def _build(self) -> None:
        ip("netns", "add", self.space(SWITCH))
        if self._bridged:
            bridge = ("type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
            ip("-n", self.space(SWITCH), "link", "add", "bridge", "up", *bridge)
        for host in self.hosts:
            ip("netns", "add", self.space(host))
            self._plug(host)
        if self._bridged:
            return
        self._switch = subprocess.Popen(
            [*self.command(SWITCH), sys.executable, "-S", str(_HERE / "switch.py"), *self.hosts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._tell()

    def _plug(self, host: str) -> None:
        space, switch = self.space(host), self.space(SWITCH)
        inside(space, _quiet_kernel)
        peer = ("peer", "name", "eth0", "netns", space)
        ip("-n", switch, "link", "add", f"p-{host}", "type", "veth", *peer)
        if self._bridged:
            ip("-n", switch, "link", "set", f"p-{host}", "master", "bridge")
        else:
            for where, device in ((space, "eth0"), (switch, f"p-{host}")):
                inside(where, partial(_no_offload, device))
        for version, bits in ((4, 24), (6, 64)):
            own = f"{self.address(host, version)}/{bits}"
            ip("-n", space, "address", "add", own, "dev", "eth0")
        for where, device in ((space, "lo"), (space, "eth0"), (switch, f"p-{host}")):
            ip("-n", where, "link", "set", device, "up")

    def close(self) -> None:
        """Take everything down."""
        atexit.unregister(self.close)
        switch, self._switch = self._switch, None
        if switch is not None:
            switch.kill()
            switch.communicate()
        for host in (*self.hosts, SWITCH):
            _delete(self.space(host))

    # -- faults

    def faults(self, faults: Mapping[str, Mapping[str, float]]) -> None:
        """Have these faults of the network, by direction, and no others (:mod:`.switch`)."""
        self._faults = {name: dict(fault) for name, fault in faults.items()}
        self._tell()

    def cut(self, ones: Iterable[str], others: Iterable[str], both: bool = True) -> None:
        """Let nothing pass any more from ``ones`` to ``others``, and back if ``both``."""
        others = list(others)
        for one in ones:
            for other in others:
                self._faults[f"{one}>{other}"] = {"loss": 1.0}
                if both:
                    self._faults[f"{other}>{one}"] = {"loss": 1.0}
        self._tell()

    def heal(self) -> None:
        """Have no faults any more."""
        self.faults({})

    def _tell(self) -> None:
        if self._bridged:
            assert not self._faults, "a bridge has no faults"
            return
        assert self._switch is not None
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.write(json.dumps(self._faults).encode() + b"\n")
        self._switch.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._switch.stdout, selectors.EVENT_READ)
            if not selector.select(_PATIENCE) or self._switch.stdout.readline() != b"ok\n":
                raise AssertionError("the switch does not answer")

    def link(self, host: str, up: bool, *, at_switch: bool = False) -> None:
        """Set a host's interface down or up, or the switch's end of its cable."""
        where, device = (SWITCH, f"p-{host}") if at_switch else (host, "eth0")
        ip("-n", self.space(where), "link", "set", device, "up" if up else "down")

    def mend(self) -> None:
        """Plug all cables in, and have no faults."""
        for host in self.hosts:
            for at_switch in (False, True):
                self.link(host, True, at_switch=at_switch)
        self.heal()


def _quiet_kernel() -> None:
    """Have IPv6 addresses work at once, and stay where a link goes down and comes back."""
    for which in ("all", "default"):
        settings = Path("/proc/sys/net/ipv6/conf", which)
        for name, value in (("accept_dad", "0"), ("accept_ra", "0"), ("keep_addr_on_down", "1")):
            (settings / name).write_text(value)


def _no_offload(device: str) -> None:
    """Have real checksums and sizes: the switch copies frames as they are (ethtool(8))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for number in _OFFLOADS:
            value = array("I", (number, 0))
            request = struct.pack("16sP", device.encode(), value.buffer_info()[0])
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def _sweep() -> None:
    """Remove the namespaces of processes that are no more."""
    for name in re.findall(rf"^{PREFIX}-\d+-\S+", ip("netns", "list"), re.MULTILINE):
        if not Path("/proc", name.split("-")[1]).exists():
            _delete(name)


def _delete(space: str) -> None:
    with suppress(AssertionError):
        ip("netns", "delete", space)
