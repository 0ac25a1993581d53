"""Accepting, and relaying end to end, side by side: the code of both measurements.

In each round every server gets the same load once, one after another (A B C D, A B C D,
…), so that whatever else the machine does hits all of them alike.  Reported for each
load: messages a second (median, least and most), CPU of the server a message, and ours
as a multiple of the better peer's median.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .peers import PEERS, Server

HERE = Path(__file__).parent
SOURCE = "/usr/sbin/smtp-source"
SINK = "/usr/sbin/smtp-sink"
#: Messages by size in KB; quick enough to repeat, long enough to settle.
MESSAGES = {1: 3000, 10: 3000, 100: 800}


@dataclass
class Load:
    """One kind of load."""

    size: int
    sessions: int
    #: All messages over as few sessions as there may be at once.
    several: bool
    messages: int

    def __str__(self) -> str:
        kind = "several a session" if self.several else "one a session"
        return f"{self.size} KB, {self.sessions} sessions, {kind}"


@dataclass
class Figure:
    """What one round of one server gave."""

    rate: float
    cpu_microseconds: float


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    with socket.socket() as wire:
        wire.bind(("127.0.0.1", 0))
        port: int = wire.getsockname()[1]
        return port


def send(port: int, load: Load) -> None:
    """Send the load with Postfix's smtp-source."""
    several = ["-d"] if load.several else []
    subprocess.run(
        [SOURCE, *several, "-s", str(load.sessions), "-m", str(load.messages),
         "-l", str(load.size * 1024), "-f", "from@example.org", "-t", "to@example.com",
         f"127.0.0.1:{port}"],
        check=True, timeout=300,
    )  # fmt: skip


def measure(kind: type[Server], load: Load, relay: bool, directory: Path) -> Figure:
    """Run one round of one server."""
    sink_port = free_port()
    with kind(directory / kind.name, free_port(), sink_port, hold=not relay) as server:
        sink = None
        if relay:
            sink = subprocess.Popen(
                [SINK, "-u", "nobody", "-M", str(load.messages), f"127.0.0.1:{sink_port}", "1000"],
                stderr=subprocess.DEVNULL,
            )
            time.sleep(0.3)
        try:
            cpu, start = server.cpu(), time.monotonic()
            send(server.port, load)
            if sink is not None:
                sink.wait(300)
            seconds, spent = time.monotonic() - start, server.cpu() - cpu
        finally:
            if sink is not None and sink.poll() is None:
                sink.kill()
                sink.wait()
    return Figure(load.messages / seconds, spent / load.messages * 1e6)


def main(title: str, relay: bool) -> None:
    """Measure, print the table, keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100], help="KB")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", default=[each.name for each in PEERS])
    parser.add_argument("--dir", type=Path, default=HERE / ".work", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="20 sessions, one a session, 3 rounds")
    options = parser.parse_args()
    kinds = []
    for kind in PEERS:
        if kind.name in options.peers:
            if lack := kind.missing():
                print(f"left out: {kind.name}: {lack}", file=sys.stderr)
            else:
                kinds.append(kind)
    sessions = [20] if options.quick else options.sessions
    rounds = 3 if options.quick else options.rounds
    results = []
    print(title)
    for size in options.sizes:
        for count in sessions:
            for several in (False,) if options.quick else (False, True):
                messages = MESSAGES.get(size, 1000) // (3 if count == 1 else 1)
                load = Load(size, count, several, messages)
                figures = {kind.name: [] for kind in kinds}  # type: dict[str, list[Figure]]
                for _ in range(rounds):
                    for kind in kinds:
                        figures[kind.name].append(measure(kind, load, relay, options.dir))
                show(load, figures)
                results.append(
                    {
                        "load": asdict(load),
                        "figures": {n: [asdict(f) for f in fs] for n, fs in figures.items()},
                    }
                )
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    name = "relay" if relay else "accept"
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1))


def show(load: Load, figures: dict[str, list[Figure]]) -> None:
    """Print the table of one load."""
    print(f"\n{load}")
    medians = {name: statistics.median(f.rate for f in found) for name, found in figures.items()}
    best = max((rate for name, rate in medians.items() if name != "mailsecure"), default=0.0)
    for name, found in figures.items():
        rates = [figure.rate for figure in found]
        cpu = statistics.median(figure.cpu_microseconds for figure in found)
        ratio = (
            f"  {medians[name] / best:5.2f} x the better peer"
            if name == "mailsecure" and best
            else ""
        )
        print(
            f"  {name:20} {medians[name]:8.0f}/s ({min(rates):.0f}-{max(rates):.0f})"
            f"  {cpu:7.0f} us CPU a message{ratio}",
            flush=True,
        )
