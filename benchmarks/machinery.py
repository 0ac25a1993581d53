"""What the cluster's machinery costs: CPU of nodes that only watch each other.

``python -m benchmarks.failover --cpu``.

*In a cluster*: five of our daemons in network namespaces on one switch, one virtual group,
advertisement interval 0.1 s, nothing else to do; a sixth is the same daemon without
``[cluster]``.  Reported is the CPU of each as a share of one core over half a minute (user
and system, all threads, as the scheduler counts it in nanoseconds), less that of the sixth.

*A hello*: what a node does with one datagram from the four others of such a cluster:
signature, decoding, membership, election, timers.  The datagrams are real ones, the clock
and the kernel are those of the tests, so that only the work is measured, in one process.
"""

from __future__ import annotations

import random
import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_interface
from pathlib import Path

from twisted.internet.task import Clock

from mailsecure.cluster.group import GroupParts, VirtualGroup
from mailsecure.cluster.hello import decode, encode
from mailsecure.cluster.keys import KeyRing, new_key
from mailsecure.cluster.membership import Accepted, Membership
from mailsecure.cluster.notify import Notices
from mailsecure.cluster.values import Fitness, GroupHello, Heard, Hello, Role, View
from mailsecure.config.model import NodeRole, StartAs, Virtual
from mailsecure.testing.kernel import MemoryKernel
from mailsecure.testing.resolver import FakeResolver
from mailsecure.units import Seconds
from mailsecure.world import World

from .lan import Lan
from .pairs import ADDRESS, Ours, new_key_file
from .sidebyside import write_results

__all__ = ["main"]

INTERVAL = 0.1
NODES = ["n1", "n2", "n3", "n4", "n5"]
ALONE = "alone"
#: Seconds until everybody has found his place, and of the measurement.
SETTLING = 8.0
SECONDS = 30.0
#: Hellos handled; the first few are not counted.
HELLOS = 20_000
UNCOUNTED = 1000
#: What is aimed at: shares of a core, microseconds.
AIM_SHARE = 0.01
AIM_HELLO = 100.0


class Alone(Ours):
    """Our daemon without a cluster."""

    def cluster(self) -> str:
        """Return no section."""
        return ""


def cpu(pid: int) -> float:
    """Return the seconds of CPU of a process, all its threads, to the nanosecond."""
    rows = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(row.read_text().split()[0]) for row in rows) / 1e9


def shares(directory: Path, seconds: float) -> dict[str, float]:
    """Return the share of a core that each daemon takes."""
    with ExitStack() as stack:
        lan = stack.enter_context(Lan("c", [*NODES, ALONE]))
        directory.mkdir(parents=True, exist_ok=True)
        new_key_file(directory / "cluster.key")
        nodes: dict[str, Ours] = {}
        for number, host in enumerate([*NODES, ALONE]):
            kind = Alone if host == ALONE else Ours
            nodes[host] = kind(lan, host, directory / host, 200 - 20 * number, INTERVAL)
            stack.callback(nodes[host].close)
            nodes[host].start()
        time.sleep(SETTLING)
        holders = [host for host in NODES if lan.holds(host, ADDRESS)]
        if holders != NODES[:1]:
            raise SystemExit(f"Master is not n1, but {holders}\n{nodes['n1'].tail()}")
        pids = {host: node.processes["daemon"].pid for host, node in nodes.items()}
        before = {host: cpu(pid) for host, pid in pids.items()}
        start = time.monotonic()
        time.sleep(seconds)
        taken = time.monotonic() - start
        return {host: (cpu(pid) - before[host]) / taken for host, pid in pids.items()}


class Listener:
    """The fifth node, Backup, that hears the four others; no daemon, no sockets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ring = KeyRing((new_key(secrets.token_bytes(32)),))
        self.membership = Membership("n5", INTERVAL, 5)
        world = World(
            reactor=None,
            clock=self.clock,
            wall=time.time,
            rng=random.Random(5),
            resolver=FakeResolver(),
        )
        kernel = MemoryKernel(self.clock)
        kernel.add_interface("eth0")
        settings = Virtual(
            addresses=(ip_interface(ADDRESS),),
            interface="eth0",
            priority=100,
            start_as=StartAs.BACKUP,
            advertisement_interval=Seconds(INTERVAL),
            preempt=True,
            preempt_delay=Seconds(0.0),
            notify="",
        )
        self.asked = 0
        own = IPv4Address("10.77.0.15")

        def view(group: str, priority: int, master: str | None) -> View:
            return self.membership.view(group, self.clock.seconds(), priority, own, master)

        def say(asks: bool) -> None:
            self.asked += asks

        parts = GroupParts(world, kernel, Notices(world), own, say, view, lambda _: None)
        self.group = VirtualGroup("mail", settings, parts)
        self.group.start()

    def datagrams(self) -> Iterator[bytes]:
        """Yield what the others say in one interval; the first of them is Master."""
        now, ours = self.clock.seconds(), self.membership.next_sequence(self.clock.seconds())
        for number in range(1, len(NODES)):
            others = [each for each in range(1, len(NODES)) if each != number]
            hello = Hello(
                node=f"n{number}",
                address=IPv4Address(f"10.77.0.{10 + number}"),
                link_port=5025,
                incarnation=number,
                sequence=ours,
                wall=time.time(),
                uptime=now,
                interval=INTERVAL,
                version="0.1.0",
                role=NodeRole.BOTH,
                weight=100,
                load=0,
                fitness=Fitness.FIT,
                policy_revision=0,
                asks=False,
                groups=(
                    GroupHello(
                        "mail",
                        Role.MASTER if number == 1 else Role.BACKUP,
                        220 - 20 * number,
                        INTERVAL,
                    ),
                ),
                heard=(
                    Heard(5, ours, 0.01),
                    *(Heard(each, ours, 0.05) for each in others),
                ),
            )
            yield encode(hello, self.ring.keys[0])

    def take(self, datagram: bytes) -> None:
        """Do what the service does with a datagram."""
        hello = decode(datagram, self.ring)
        outcome = self.membership.receive(self.clock.seconds(), time.time(), hello, "10.77.0.11")
        assert isinstance(outcome, Accepted)
        self.group.heard(hello, outcome.deaf)


def hello_times() -> list[float]:
    """Return the microseconds that each hello took."""
    listener = Listener()
    times: list[float] = []
    while len(times) < HELLOS:
        for datagram in listener.datagrams():
            start = time.perf_counter()
            listener.take(datagram)
            times.append((time.perf_counter() - start) * 1e6)
        listener.clock.advance(INTERVAL)
    if listener.group.role is not Role.BACKUP:
        raise SystemExit("the listener became Master: it did not believe what it heard")
    return times[UNCOUNTED:]


def main(directory: Path, quick: bool) -> None:
    """Measure both, print, keep the figures as JSON."""
    seconds = SECONDS / 3 if quick else SECONDS
    found = shares(directory / "machinery", seconds)
    alone = found.pop(ALONE)
    print(f"CPU of a node, {len(NODES)} nodes at {INTERVAL:g} s, over {seconds:.0f} s")
    print(f"  without a cluster {alone:8.3%} of a core")
    for host, share in found.items():
        print(f"  {host}{', the Master' if host == 'n1' else '':12} {share - alone:8.3%} more")
    most = max(found.values()) - alone
    print(f"    aim {AIM_SHARE:.0%}: {'met' if most <= AIM_SHARE else 'MISSED'}")
    times = sorted(hello_times())
    median, late = statistics.median(times), times[len(times) * 99 // 100]
    print(f"a hello, handled: {median:.1f} us, 99 of 100 within {late:.1f} us")
    print(f"    aim {AIM_HELLO:g} us: {'met' if median <= AIM_HELLO else 'MISSED'}")
    results: list[object] = [
        {"alone": alone, "shares": found, "seconds": seconds},
        {"hello_microseconds": {"median": median, "99 of 100": late, "least": times[0]}},
    ]
    write_results("machinery", results, directory)
