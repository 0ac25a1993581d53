"""Balancing side by side: ours, HAProxy as shipped and tuned, nginx.

``python -m benchmarks.balance [--quick]``.  Three loads:

* **sessions**: one message of 1 KB a session, from Postfix's smtp-source to two of its
  smtp-sinks, at 20, 100 and 500 sessions at once.  Sessions a second, and CPU a session.
* **bulk**: octets over bare TCP, 1 and 4 connections at once.  The sender sends a file's
  pages and the sink throws them away unread, so that the balancer is what is measured.
  Megabytes (10^6) a second, and CPU a gigabyte.
* **idle**: memory (PSS) an idle session, at 5,000.

As in benchmarks/sidebyside.py each round gives the same load to each in turn, each freshly
started and warmed up, and ratios are taken round by round.  Ours, and our splicer alone, are
compared with HAProxy in each of its forms.  Where others kept the processors busy, only CPU
can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from .balancers import (
    BALANCERS,
    HOSTS,
    SINK_PORT,
    SINKS,
    Balancer,
    Daemon,
    Haproxy,
    HaproxyFull,
    HaproxyTuned,
    Splicer,
)
from .idle import Clients, settled
from .lan import alone
from .peers import ROOT
from .sidebyside import (
    HERE,
    Load,
    busy,
    prepare_directory,
    send,
    telling_logs,
    tidy_end,
    write_results,
)

#: Sends so many octets over so many connections: address, port, octets of each, connections.
SENDER = """
import os, selectors, socket, sys
host, (port, octets, count) = sys.argv[1], map(int, sys.argv[2:])
pages = os.memfd_create("pages")
os.write(pages, bytes(1 << 20))
selector, left = selectors.DefaultSelector(), {}
for _ in range(count):
    wire = socket.create_connection((host, port), 20)
    assert wire.recv(100).startswith(b"220")
    wire.setblocking(False)
    selector.register(wire, selectors.EVENT_WRITE)
    left[wire] = octets
while left:
    for key, _ in selector.select():
        wire = key.fileobj
        if key.events == selectors.EVENT_READ:
            assert wire.recv(1) == b""
            selector.unregister(wire)
            del left[wire]
            continue
        try:
            left[wire] -= os.sendfile(wire.fileno(), pages, 0, min(left[wire], 1 << 20))
        except BlockingIOError:
            continue
        if not left[wire]:
            wire.shutdown(socket.SHUT_WR)
            selector.modify(wire, selectors.EVENT_READ)
"""
#: What an idle client runs: address, port, sessions, third octet of their addresses.
IDLE = """
import resource, socket, sys
host, (port, count, third) = sys.argv[1], map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 50,) * 2)
wires = []
for number in range(count):
    source = (f"127.0.{third}.{number % 200 + 1}", 0)
    wires.append(socket.create_connection((host, port), 60, source))
    assert wires[-1].recv(100).startswith(b"220")
print("ready", flush=True)
sys.stdin.read()
"""
MESSAGES = 4000
MEGABYTES = 4000
QUICK_MESSAGES = 2000
QUICK_MEGABYTES = 1500
IDLE_SESSIONS = 5000
SHARE = 2500


@dataclass
class Figure:
    """What one round of one balancer gave: by the second, CPU seconds a unit, and others' CPU."""

    rate: float
    cpu: float
    others: float


class IdleClients(Clients):
    """Sessions that say nothing."""

    script = IDLE


class Sinks:
    """Two sinks (:mod:`.sinks`), as a balancer wants them."""

    def __init__(self, kind: type[Balancer], bare: bool) -> None:
        words = [sys.executable, "-m", "benchmarks.sinks"]
        options = ["--header"] * kind.header + ["--bare"] * bare
        self.processes = [
            subprocess.Popen([*words, each, str(SINK_PORT), *options], cwd=ROOT) for each in SINKS
        ]
        for each in SINKS:
            await_listener(each)

    def cpu(self) -> float:
        """Return the seconds of CPU that they have used."""
        return sum(map(seconds_of, self.processes))

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def await_listener(address: str) -> None:
    """Wait until a sink listens."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection((address, SINK_PORT), 1).close()
            return
        time.sleep(0.02)
    raise SystemExit(f"nobody listens at {address}")


def seconds_of(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds of CPU of one process."""
    row = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(row[11]) + int(row[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(kind: type[Balancer], directory: Path, bare: bool) -> Iterator[tuple[Balancer, Sinks]]:
    """Run a balancer in front of sinks."""
    with Sinks(kind, bare) as sinks:
        server = kind(directory / kind.name)
        with server, telling_logs(server):
            yield server, sinks


def measure(server: Balancer, sinks: Sinks, units: float, load: Callable[[], object]) -> Figure:
    """Give it the load; ``units`` is how much that is."""
    mine = os.times()
    others = busy() - server.cpu() - sinks.cpu() - sum(mine[:4])
    cpu, start = server.cpu(), time.monotonic()
    load()
    seconds, spent = time.monotonic() - start, server.cpu() - cpu
    mine = os.times()
    others = busy() - server.cpu() - sinks.cpu() - sum(mine[:4]) - others
    return Figure(units / seconds, spent / units, max(0.0, others / seconds))


def sessions(kind: type[Balancer], count: int, options: argparse.Namespace) -> Figure:
    """Measure sessions of SMTP, so many at once."""
    total = QUICK_MESSAGES if options.quick else MESSAGES
    with running(kind, options.dir, bare=False) as (server, sinks):

        def have(messages: int) -> None:
            send(server.port, Load(1, count, False, messages), server.host)

        have(max(500, count))
        return measure(server, sinks, total, lambda: have(total))


def push(server: Balancer, megabytes: float, count: int) -> None:
    """Send so many megabytes over so many connections together."""
    octets = str(int(megabytes * 1e6 / count))
    command = [sys.executable, "-c", SENDER, server.host, str(server.port), octets, str(count)]
    subprocess.run(command, check=True, timeout=300)


def bulk(kind: type[Balancer], count: int, options: argparse.Namespace) -> Figure:
    """Measure octets over so many connections."""
    total = QUICK_MEGABYTES if options.quick else MEGABYTES
    with running(kind, options.dir, bare=True) as (server, sinks):
        push(server, 200, count)
        return measure(server, sinks, total, lambda: push(server, total, count))


def idle(kind: type[Balancer], count: int, options: argparse.Namespace) -> Figure:
    """Measure memory: ``rate`` is octets a session."""
    clients = IdleClients()
    with running(kind, options.dir, bare=True) as (server, _):
        try:
            clients.connect(server, 20)
            before = settled(server)
            for _ in range(count // SHARE):
                clients.connect(server, SHARE)
            return Figure((settled(server) - before) / count, 0.0, 0.0)
        finally:
            clients.end()


#: What is measured, with which figures, as what.
Run = Callable[[type[Balancer], int, argparse.Namespace], Figure]
KINDS: dict[str, tuple[Run, list[int], str, str, float]] = {
    "sessions": (sessions, [20, 100, 500], "sessions at once", "us a session", 1e6),
    "bulk": (bulk, [1, 4], "connections, MB/s", "ms a GB", 1e6),
    "idle": (idle, [IDLE_SESSIONS], "idle sessions, octets each", "", 0.0),
}


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the median of the ratios of the rounds, with the least and the most."""
    each = [a / b for a, b in zip(ours, theirs, strict=True) if b]
    if not each:
        return "-"
    return f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


def show(kind: str, count: int, figures: dict[str, list[Figure]]) -> None:
    """Print the table of one load."""
    _, _, what, unit, scale = KINDS[kind]
    print(f"\n{kind}: {count} {what}")
    for name, found in figures.items():
        rates = [figure.rate for figure in found]
        line = f"  {name:14} {statistics.median(rates):8.0f} ({min(rates):.0f}-{max(rates):.0f})"
        if unit:
            cpu = statistics.median(figure.cpu for figure in found) * scale
            others = statistics.median(figure.others for figure in found)
            line += f"  {cpu:7.0f} {unit}  others {others:.2f}"
        print(line)
    theirs_of = (Haproxy.name, HaproxyTuned.name, HaproxyFull.name)
    for mine, name in product((Daemon.name, Splicer.name), theirs_of):
        if mine in figures and name in figures:
            ours, theirs = figures[mine], figures[name]
            line = ratio([one.rate for one in ours], [one.rate for one in theirs])
            if unit:
                line += ", CPU " + ratio([one.cpu for one in ours], [one.cpu for one in theirs])
            print(f"    {mine} / {name}: {line}")
    sys.stdout.flush()


def options_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="balancing side by side")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--counts", type=int, nargs="+", help="sessions or connections at once")
    parser.add_argument("--rounds", type=int, help="default 5; quick 3")
    parser.add_argument("--peers", nargs="+", default=[each.name for each in BALANCERS])
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    parser.add_argument("--quick", action="store_true", help="20 sessions, 1 connection, 3 rounds")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    return options


def main() -> None:
    """Measure, print, keep the figures as JSON."""
    options = options_of()
    alone("benchmarks.balance", HOSTS)
    kinds = []
    for kind in BALANCERS:
        if kind.name in options.peers:
            if lack := kind.missing():
                print(f"left out: {kind.name}: {lack}", file=sys.stderr)
            else:
                kinds.append(kind)
    prepare_directory(options.dir)
    results: list[object] = []
    with tidy_end():
        for name in options.kinds:
            run, counts, *_ = KINDS[name]
            for count in options.counts or (counts[:1] if options.quick else counts):
                figures: dict[str, list[Figure]] = {kind.name: [] for kind in kinds}
                for _ in range(1 if name == "idle" else options.rounds):
                    for kind in kinds:
                        figures[kind.name].append(run(kind, count, options))
                show(name, count, figures)
                by_name = {each: [asdict(one) for one in got] for each, got in figures.items()}
                results.append({"kind": name, "count": count, "figures": by_name})
                write_results("balance", results, options.dir)


if __name__ == "__main__":
    main()
