"""A stranger on the network: hears every hello, sends what he likes, but has not the key.

:class:`Forger` sits on a host that is no node.  :meth:`Forger.overhear` records hello
datagrams with their senders; :meth:`Forger.say` sends a datagram to the group under any
source address, in frames of his own, for the kernel would not let him lie.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address

from .judge import checksum
from .network import Network

__all__ = ["GROUP", "Forger", "Overheard"]

GROUP = ("239.255.25.25", 5025)
_ETH_P_IP = 0x0800
_UDP = 17
_HEADS = 14 + 20 + 8


@dataclass(frozen=True, slots=True)
class Overheard:
    """A datagram, the address it came from, and when it came (CLOCK_MONOTONIC)."""

    source: str
    octets: bytes
    when: float


class Forger:
    """See the module's text; ``close`` it."""

    def __init__(self, network: Network, host: str) -> None:
        self.own = network.address(host)
        self._wire, self._udp = network.inside(host, _sockets)
        self._mac: bytes = self._wire.getsockname()[4]

    def close(self) -> None:
        """Go away."""
        self._wire.close()
        self._udp.close()

    def overhear(self, seconds: float) -> list[Overheard]:
        """Return the hellos of the next ``seconds``."""
        self._drain()
        return self._record(time.monotonic() + seconds)

    def listen(self) -> None:
        """Forget what came in so far; :meth:`heard` returns what comes from now on."""
        self._drain()

    def heard(self) -> list[Overheard]:
        """Return what came in since :meth:`listen`."""
        return self._record(time.monotonic() + 0.05)

    def _drain(self) -> None:
        self._record(time.monotonic())

    def _record(self, until: float) -> list[Overheard]:
        found: list[Overheard] = []
        self._wire.settimeout(0.01)
        while True:
            try:
                frame = self._wire.recv(2048)
            except TimeoutError:
                if time.monotonic() >= until:
                    return found
                continue
            if frame[23] == _UDP and struct.unpack_from("!H", frame, 36)[0] == GROUP[1]:
                length = struct.unpack_from("!H", frame, 38)[0]
                source = str(ip_address(frame[26:30]))
                octets = frame[_HEADS : _HEADS - 8 + length]
                found.append(Overheard(source, octets, time.monotonic()))

    def say(self, octets: bytes, source: str = "") -> None:
        """Send a datagram to the group, as if from ``source``."""
        sender = ip_address(source or self.own).packed
        group = ip_address(GROUP[0]).packed
        udp = struct.pack("!HHHH", GROUP[1], GROUP[1], 8 + len(octets), 0) + octets
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 1, _UDP, 0) + sender + group
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        there = b"\x01\x00\x5e" + bytes([group[1] & 0x7F]) + group[2:]
        self._wire.send(there + self._mac + struct.pack("!H", _ETH_P_IP) + head + udp)

    def say_much(self, octets: bytes) -> None:
        """Send a datagram of any size to the group, in fragments where it must be."""
        self._udp.sendto(octets, GROUP)


def _sockets() -> tuple[socket.socket, socket.socket]:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    wire.bind(("eth0", _ETH_P_IP))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    interface = struct.pack("@4s4si", bytes(4), bytes(4), socket.if_nametoindex("eth0"))
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
    return wire, udp
