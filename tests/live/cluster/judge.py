"""The judge: a program on hosts of its own that sees whether an address answers, and whose it is.

``python judge.py WITNESS PERIOD ADDRESS...`` runs on one host, as a client would, and asks
each address for its banner every PERIOD seconds: every attempt is a connection of its own,
made whether the ones before were answered or not, and given up after :data:`PATIENCE`.  A
SYN that was lost therefore costs that attempt alone.  The first label of the host in
``220 name.test …`` says who answered.

On a second host, the namespace WITNESS, it asks the whole network for the owner of each
address, by ARP (RFC 826) and neighbour solicitation (RFC 4861 §4.3), and hears every
answer: two answers to one question are two owners.  It does so apart from the client,
whose own neighbour cache must be healed by the nodes' announcements and by nothing else.

Each line of standard input is a moment of CLOCK_MONOTONIC; all that was seen since is
printed as one line of JSON (times are of that clock)::

    {"now": t, "late": s, "attempts": [[began, ended, address, outcome], …],
     "sightings": [[t, address, MAC, "answer" | "announcement"], …]}

An outcome is a name, or in parentheses how it failed.  ``late`` is the most by which the
judge itself was late: its gaps mean nothing below that.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from itertools import takewhile

PORT = 25
PATIENCE = 0.5
#: How often the owner of an address is asked for, in seconds.
ASKED = 0.05
#: What is kept of either kind: the last minutes.
_MOST = 60_000
_CLONE_NEWNET = 0x40000000
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_ARP = 0x0806
_IPV6 = 0x86DD
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_BROADCAST = b"\xff" * 6
#: Close with a reset: thousands of connections are not to linger in TIME_WAIT.
_NO_LINGER = struct.pack("ii", 1, 0)


class Witness:
    """Asks for owners on a host of its own, and hears who says to be one."""

    def __init__(self, space: str, addresses: list[str]) -> None:
        self.addresses = {ip_address(each).packed: each for each in addresses}
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{space}", os.O_RDONLY)
        libc = ctypes.CDLL(None)
        assert libc.setns(there, _CLONE_NEWNET) == 0
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.wire.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self.wire.bind(("eth0", _ETH_P_ALL))
        self.wire.setblocking(False)
        self.mac: bytes = self.wire.getsockname()[4]
        self.own = {4: _source("10.77.0.1"), 6: _source("fd77::1")}
        assert libc.setns(here, _CLONE_NEWNET) == 0
        self.sightings: deque[tuple[float, str, str, str]] = deque(maxlen=_MOST)

    def ask(self) -> None:
        """Ask for the owner of each address."""
        for packed in self.addresses:
            frame = self._arp(packed) if len(packed) == 4 else self._solicitation(packed)
            with suppress(OSError):
                self.wire.send(frame)

    def _arp(self, wanted: bytes) -> bytes:
        head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        body = head + self.mac + self.own[4] + bytes(6) + wanted
        return _BROADCAST + self.mac + struct.pack("!H", _ARP) + body

    def _solicitation(self, wanted: bytes) -> bytes:
        group = IPv6Address("ff02::1:ff00:0").packed[:13] + wanted[13:]
        body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + wanted + b"\1\1" + self.mac
        false_head = self.own[6] + group + struct.pack("!II", len(body), _ICMPV6)
        body = body[:2] + struct.pack("!H", checksum(false_head + body)) + body[4:]
        head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + self.own[6] + group
        return b"\x33\x33" + group[12:] + self.mac + struct.pack("!H", _IPV6) + head + body

    def hear(self) -> None:
        """Take what came in."""
        while True:
            try:
                frame = self.wire.recv(2048)
            except OSError:
                return
            kind = struct.unpack_from("!H", frame, 12)[0] if len(frame) > 14 else 0
            answer = frame[:6] == self.mac
            if kind == _ARP and len(frame) >= 42:
                self._see(frame[28:32], frame[22:28], answer)
            elif kind == _IPV6 and _advertises(frame):
                self._see(frame[62:78], frame[80:86], answer)

    def _see(self, packed: bytes, mac: bytes, answer: bool) -> None:
        address = self.addresses.get(packed)
        if address is not None:
            kind = "answer" if answer else "announcement"
            self.sightings.append((time.monotonic(), address, mac.hex(":"), kind))


class Judge:
    """Some addresses under watch."""

    def __init__(self, space: str, period: float, addresses: list[str]) -> None:
        self.period = period
        self.addresses = addresses
        self.witness = Witness(space, addresses)
        self.poll = select.epoll()
        self.poll.register(0, select.EPOLLIN)
        self.poll.register(self.witness.wire.fileno(), select.EPOLLIN)
        self.open: dict[int, tuple[socket.socket, float, str]] = {}
        self.due: deque[tuple[float, int, socket.socket]] = deque()
        self.attempts: deque[tuple[float, float, str, str]] = deque(maxlen=_MOST)
        self.next = self.next_question = time.monotonic()
        self.late = 0.0

    def run(self) -> None:
        """Watch until standard input ends."""
        print("ready", flush=True)
        while True:
            for number, _ in self.poll.poll(max(0.0, self.next - time.monotonic())):
                if number == 0:
                    said = os.read(0, 1000)
                    if not said:
                        return
                    self.tell(float(said.split()[-1]))
                elif number == self.witness.wire.fileno():
                    self.witness.hear()
                else:
                    self.read(number)
            now = time.monotonic()
            if now >= self.next:
                self.turn(now)

    def turn(self, now: float) -> None:
        """Make the attempts that are due, and give up those that wait too long."""
        self.late = max(self.late, now - self.next)
        # Never two at once to catch up: they would see the same moment.
        self.next = max(self.next + self.period, now)
        while self.due and self.due[0][0] <= now:
            _, number, wire = self.due.popleft()
            if number in self.open and self.open[number][0] is wire:
                self.close(number, "(silent)")
        for address in self.addresses:
            self.attempt(now, address)
        if now >= self.next_question:
            self.next_question = now + ASKED
            self.witness.ask()

    def attempt(self, now: float, address: str) -> None:
        """Connect to an address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        wire = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        try:
            wire.connect((address, PORT))
        except BlockingIOError:
            pass
        except OSError as error:
            wire.close()
            self.attempts.append((now, now, address, f"({error.strerror})"))
            return
        number = wire.fileno()
        self.open[number] = (wire, now, address)
        self.due.append((now + PATIENCE, number, wire))
        self.poll.register(number, select.EPOLLIN)

    def read(self, number: int) -> None:
        """Take the banner of one attempt, or its end."""
        if number not in self.open:
            return
        try:
            banner = self.open[number][0].recv(200)
        except OSError as error:
            self.close(number, f"({error.strerror})")
            return
        name = banner[4:].split(b".")[0].decode("ascii", "replace")
        words = banner[:40].decode("ascii", "replace").strip()
        self.close(number, name if banner.startswith(b"220 ") else f"({words or 'closed'})")

    def close(self, number: int, outcome: str) -> None:
        """End one attempt."""
        wire, began, address = self.open.pop(number)
        wire.close()
        self.attempts.append((began, time.monotonic(), address, outcome))

    def tell(self, since: float) -> None:
        """Print what was seen since then, and how late we were."""
        ended = takewhile(lambda each: each[1] >= since, reversed(self.attempts))
        attempts = [each for each in ended if each[0] >= since][::-1]
        seen_since = takewhile(lambda each: each[0] >= since, reversed(self.witness.sightings))
        sightings = [*seen_since][::-1]
        now = time.monotonic()
        seen = {"now": now, "late": self.late, "attempts": attempts, "sightings": sightings}
        self.late = 0.0
        sys.stdout.write(json.dumps(seen) + "\n")
        sys.stdout.flush()
        self.next = self.next_question = time.monotonic()


def _advertises(frame: bytes) -> bool:
    """Say whether an IPv6 frame is a neighbour advertisement with the link-layer address."""
    known = len(frame) >= 86 and frame[20] == _ICMPV6 and frame[54] == _ADVERTISEMENT
    return known and frame[78:80] == b"\2\1"


def _source(stranger: str) -> bytes:
    """Return our own address of eth0, as a socket would choose it."""
    family = socket.AF_INET6 if ":" in stranger else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((stranger, 9))
        return ip_address(probe.getsockname()[0]).packed


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


if __name__ == "__main__":
    # Ahead of the nodes if we may: a judge who sleeps sees gaps that are none.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    Judge(sys.argv[1], float(sys.argv[2]), sys.argv[3:]).run()
