"""The third host: does the virtual address answer, and who is it that answers?

``python -m benchmarks.judge ADDRESS PORT SECONDS`` connects to the address every so many
seconds, whether earlier attempts were answered or not, and takes the banner for the
answer.  Each attempt is a connection of its own and is given up after half a second, so a
SYN that was lost (TCP sends the next one a second later) costs that attempt alone: what
is seen is when the address answers, not when one unlucky client gets through.

It runs in a namespace of its own and is told by lines on its standard input: ``go``
begins a watch, ``now`` prints one line of JSON on whose answers come, since when without
another's between them, and when the last came; ``stop`` ends the watch and prints all::

    {"name": name, "since": seconds, "last": seconds, "hello": {address: seconds, …}}
    {"answers": [[seconds, name], …], "late": seconds}

The times are CLOCK_MONOTONIC's, which all processes of the machine share; a name is the
first label of the host in the banner ``220 name.test …``; ``late`` is the most by which
the judge itself was late, below which its gaps mean nothing.

It also overhears the nodes, ours and VRRP's, and says when each address last said
something (``hello``): so a node can be made to fail at a chosen moment of its interval.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping

#: How long one attempt may wait for its banner, in seconds.
PATIENCE = 0.5
#: Close with a reset: thousands of connections are not to linger in TIME_WAIT.
_NO_LINGER = struct.pack("ii", 1, 0)
#: Where ours say hello, and VRRP's group and protocol (RFC 9568 §5.1.1).
OURS = ("239.255.25.25", 5025)
VRRP = ("224.0.0.18", 112)


class Judge:
    """One address under watch."""

    def __init__(self, address: str, port: int, every: float) -> None:
        self.place = (address, port)
        self.every = every
        self.poll = select.epoll()
        self.poll.register(0, select.EPOLLIN)
        self.ears: dict[int, socket.socket] = {}
        self.heard: dict[str, float] = {}
        self.open: dict[int, socket.socket] = {}
        self.due: deque[tuple[float, socket.socket]] = deque()
        self.answers: list[tuple[float, str]] = []
        self.since = 0.0
        self.late = 0.0
        self.next = 0.0
        self.going = False

    def listen(self) -> None:
        """Join the groups in which nodes speak."""
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ours.bind(OURS)
        vrrp = socket.socket(socket.AF_INET, socket.SOCK_RAW, VRRP[1])
        for ear, group in ((ours, OURS[0]), (vrrp, VRRP[0])):
            index = socket.if_nametoindex("eth0")
            request = struct.pack("@4s4xi", socket.inet_aton(group), index)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            self.ears[ear.fileno()] = ear
            self.poll.register(ear.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Obey until the standard input ends."""
        while True:
            wait = max(0.0, self.next - time.monotonic()) if self.going else -1
            for descriptor, _ in self.poll.poll(wait):
                if descriptor in self.ears:
                    _, source = self.ears[descriptor].recvfrom(2048)
                    self.heard[source[0]] = time.monotonic()
                elif descriptor != 0:
                    self.read(descriptor)
                elif not (said := os.read(0, 100)):
                    return
                else:
                    for word in said.split():
                        self.obey(word)
            if self.going and time.monotonic() >= self.next:
                self.probe()

    def obey(self, word: bytes) -> None:
        """Do what a line says."""
        if word == b"go":
            self.answers, self.late = [], 0.0
            self.going, self.next = True, time.monotonic()
        elif word == b"now":
            last, name = self.answers[-1] if self.answers else (0.0, "")
            found = {"name": name, "since": self.since, "last": last, "hello": self.heard}
            self.say(found)
        elif word == b"stop":
            self.going = False
            while self.due:
                self.close(self.due.popleft()[1])
            self.say({"answers": self.answers, "late": self.late})

    def say(self, found: Mapping[str, object]) -> None:
        """Print one line of JSON."""
        print(json.dumps(found), flush=True)

    def probe(self) -> None:
        """Make one attempt, and give up those that wait too long."""
        now = time.monotonic()
        self.late = max(self.late, now - self.next)
        # Never two at once to catch up: they would see the same moment.
        self.next = max(self.next + self.every, now)
        while self.due and self.due[0][0] <= now:
            self.close(self.due.popleft()[1])
        wire = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        with contextlib.suppress(BlockingIOError):
            try:
                wire.connect(self.place)
            except BlockingIOError:
                raise
            except OSError:
                wire.close()
                return
        self.open[wire.fileno()] = wire
        self.poll.register(wire.fileno(), select.EPOLLIN)
        self.due.append((now + PATIENCE, wire))

    def read(self, descriptor: int) -> None:
        """Take the banner of one attempt, or its refusal."""
        wire = self.open.get(descriptor)
        if wire is None:
            return
        with contextlib.suppress(OSError):
            banner = wire.recv(200)
            if banner.startswith(b"220 "):
                name = banner[4:].split(b".")[0].decode("ascii", "replace")
                now = time.monotonic()
                if not self.answers or self.answers[-1][1] != name:
                    self.since = now
                self.answers.append((now, name))
        self.close(wire)

    def close(self, wire: socket.socket) -> None:
        """Forget one attempt."""
        if wire.fileno() in self.open:
            del self.open[wire.fileno()]
            wire.close()


if __name__ == "__main__":
    # Ahead of everybody else if we may: a judge who sleeps sees gaps that are none.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    judge = Judge(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    judge.listen()
    judge.run()
