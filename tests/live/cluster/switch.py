"""The switch: takes frames from its ports and gives them to others, badly if so told.

``python switch.py PORT...`` runs in the namespace that holds one end of each cable, the
interface ``p-PORT``.  It learns which station is at which port, as a switch does, and
floods what it does not know.  This kernel may have no netem; so the faults of the network
are made here, for each direction between two ports, and changed while it runs.

One line of JSON on standard input sets all faults anew and is answered by ``ok``::

    {"a>b": {"loss": 0.3}, "a>*": {"delay": 0.01, "jitter": 0.01}, "*>a": {"double": 0.5}}

``loss`` and ``double`` are shares of the frames, ``delay`` is in seconds, ``jitter`` the
most by which a frame comes later than that; so jitter reorders.  The more exact of two
entries that match counts.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import select
import socket
import sys
import time
from contextlib import suppress

Fault = dict[str, float]

# Linux's numbers, which Python's socket module does not name.
_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
#: Frames taken from one port before the others have their turn.
_AT_ONCE = 32
_MOST_WAITING = 10_000


class Switch:
    """The ports, what stands at them, and what is on its way between them."""

    def __init__(self, ports: list[str]) -> None:
        self.ports = ports
        self.wires = {port: _wire(f"p-{port}") for port in ports}
        self.poll = select.epoll()
        self.poll.register(0, select.EPOLLIN)
        self.by_number = {}
        for port, wire in self.wires.items():
            self.poll.register(wire.fileno(), select.EPOLLIN)
            self.by_number[wire.fileno()] = port
        self.stations: dict[bytes, str] = {}
        self.faults: dict[tuple[str, str], Fault] = {}
        self.waiting: list[tuple[float, int, str, bytes]] = []
        self.numbers = itertools.count()

    def run(self) -> None:
        """Work until standard input ends."""
        said = b""
        while True:
            wait = max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else -1
            for number, _ in self.poll.poll(wait):
                if number:
                    self.take(self.by_number[number])
                    continue
                some = os.read(0, 65536)
                if not some:
                    return
                *lines, said = (said + some).split(b"\n")
                for line in lines:
                    self.obey(json.loads(line))
            now = time.monotonic()
            while self.waiting and self.waiting[0][0] <= now:
                _, _, port, frame = heapq.heappop(self.waiting)
                self.give(port, frame)

    def obey(self, faults: dict[str, Fault]) -> None:
        """Have these faults from now on, and no others."""
        found = {}
        for one, other in itertools.permutations(self.ports, 2):
            for name in (f"{one}>{other}", f"{one}>*", f"*>{other}", "*>*"):
                if name in faults:
                    found[one, other] = faults[name]
                    break
        self.faults = found
        print("ok", flush=True)

    def take(self, port: str) -> None:
        """Take what came in at a port, and send it on."""
        wire = self.wires[port]
        for _ in range(_AT_ONCE):
            try:
                frame = wire.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                # The cable was pulled.
                return
            self.stations[frame[6:12]] = port
            known = self.stations.get(frame[:6])
            if known is not None:
                if known != port:
                    self.send(port, known, frame)
                continue
            for other in self.ports:
                if other != port:
                    self.send(port, other, frame)

    def send(self, port: str, other: str, frame: bytes) -> None:
        """Send a frame from one port to another, as well as its faults allow."""
        fault = self.faults.get((port, other))
        if fault is None:
            self.give(other, frame)
            return
        if random.random() < fault.get("loss", 0.0):
            return
        for _ in range(1 + (random.random() < fault.get("double", 0.0))):
            delay = fault.get("delay", 0.0) + random.random() * fault.get("jitter", 0.0)
            if not delay:
                self.give(other, frame)
            elif len(self.waiting) < _MOST_WAITING:
                due = time.monotonic() + delay
                heapq.heappush(self.waiting, (due, next(self.numbers), other, frame))

    def give(self, port: str, frame: bytes) -> None:
        """Put a frame on a cable; one that cannot take it loses it."""
        with suppress(OSError):
            self.wires[port].send(frame)


def _wire(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    wire.setblocking(False)
    wire.bind((interface, _ETH_P_ALL))
    return wire


if __name__ == "__main__":
    # A switch does not wait until the nodes leave it a processor.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    Switch(sys.argv[1:]).run()
