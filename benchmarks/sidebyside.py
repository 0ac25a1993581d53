"""Accepting, and relaying end to end, side by side: the code of both measurements.

In each round every server gets the same load once, one after another (A B C D, A B C D,
…), so that whatever else the machine does hits all of them alike.  Each starts fresh, on
an empty queue, and gets a tenth of the load unmeasured first: processes are forked, code
is compiled, the first refused connection is over.  Then the disk is synced, so that
nobody pays for what the server before him wrote.

Reported for each load: messages a second (median, least and most), CPU of the server a
message, and ours as a multiple of the better peer, round by round: the median of those
ratios, with the least and the most.

A busy machine distorts even these: a server of many processes is given more turns than
one of a single process.  So it is told how many processors others kept busy meanwhile;
where that is not nearly 0, only the CPU a message can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from .peers import PEERS, TICK, Server, stat

__all__ = ["HERE", "OURS", "PATIENCE", "SINK", "SOURCE", "Figure", "Load", "Sender", "Sink"]
__all__ += ["choose", "free_port", "main", "measure", "options_of", "prepare_directory", "ratios"]
__all__ += ["send", "send_to", "show", "tidy_end", "write_results"]

HERE = Path(__file__).parent
SOURCE = "/usr/sbin/smtp-source"
SINK = "/usr/sbin/smtp-sink"
#: Messages by size in KB; quick enough to repeat, long enough to settle.
MESSAGES = {1: 3000, 10: 3000, 100: 800}
OURS = "mailsecure"
#: Seconds that one load may take.
PATIENCE = 300.0


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
    #: Processors that others kept busy meanwhile: neither the server nor the load.
    others: float


#: Sends a load to a server.
Sender = Callable[[Server, Load], None]


class Sink:
    """Postfix's smtp-sink, and how many messages it has.

    It is asked by its running counters (-c), not told to end after so many (-M): it would
    end before its last reply is sent, and whoever waits for that counts a failed delivery.
    """

    def __init__(self, port: int, output: Path) -> None:
        self.output = output.open("w+b")
        self.process = subprocess.Popen(
            [SINK, "-c", "-u", "nobody", f"127.0.0.1:{port}", "1000"],
            stdout=self.output,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise SystemExit("smtp-sink does not listen")

    def count(self) -> int:
        """Return how many messages came so far."""
        descriptor = self.output.fileno()
        end = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, 200, max(0, end - 200))
        last = tail.rpartition(b"\r")[0].rpartition(b"mesg=")[2]
        return int(last) if last else 0

    def wait(self, messages: int, who: str) -> None:
        """Wait until so many messages came."""
        deadline = time.monotonic() + PATIENCE
        while (have := self.count()) < messages:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"{who} brought {have} of {messages} messages to the sink")
            time.sleep(0.005)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.output.close()


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    with socket.socket() as wire:
        wire.bind(("127.0.0.1", 0))
        port: int = wire.getsockname()[1]
        return port


def send(port: int, load: Load, host: str = "127.0.0.1") -> None:
    """Send the load with Postfix's smtp-source, which ends at the first refusal."""
    several = ["-d"] if load.several else []
    command = [
        SOURCE, *several, "-s", str(load.sessions), "-m", str(load.messages),
        "-l", str(load.size * 1024), "-f", "from@example.org", "-t", "to@example.com",
        f"{host}:{port}",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, timeout=PATIENCE, stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{load}: not taken within {PATIENCE:.0f} seconds") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise SystemExit(f"{load}: smtp-source gave up: {said}") from None


def send_to(server: Server, load: Load) -> None:
    """Send the load to a server."""
    send(server.port, load, server.host)


def measure(
    kind: type[Server],
    load: Load,
    relay: bool,
    directory: Path,
    sender: Sender = send_to,
    helpers: Sequence[int] = (),
) -> Figure:
    """Run one round of one server; ``helpers`` are processes that count as the load."""
    sink_port = free_port()
    warm = Load(load.size, load.sessions, load.several, max(load.messages // 10, load.sessions))
    sink = Sink(sink_port, directory / f"{kind.name}.sink") if relay else None
    try:
        server = kind(directory / kind.name, free_port(), sink_port, hold=not relay)
        with server, telling_logs(server):
            sender(server, warm)
            if sink is not None:
                sink.wait(warm.messages, kind.name)
            os.sync()
            others = busy() - server.cpu() - load_cpu(sink, helpers)
            cpu, start = server.cpu(), time.monotonic()
            sender(server, load)
            if sink is not None:
                sink.wait(warm.messages + load.messages, kind.name)
            seconds, spent = time.monotonic() - start, server.cpu() - cpu
            others = busy() - server.cpu() - load_cpu(sink, helpers) - others
    finally:
        if sink is not None:
            sink.stop()
            (directory / f"{kind.name}.sink").unlink(missing_ok=True)
    return Figure(load.messages / seconds, spent / load.messages * 1e6, max(0.0, others / seconds))


@contextmanager
def telling_logs(server: Server) -> Iterator[None]:
    """Name the server and show the ends of its logs, before they go, if a round fails."""
    try:
        yield
    except SystemExit as failed:
        ends = [f"{server.name}: {failed}"]
        for name in ("output", "mail.log", "maillog"):
            log = server.directory / name
            if log.exists():
                ends.append(f"--- {name}\n{log.read_text(errors='replace')[-1500:]}")
        raise SystemExit("\n".join(ends)) from None


def busy() -> float:
    """Return the seconds that all processors were busy since boot (stolen time included)."""
    user, nice, system, _, _, irq, soft_irq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + soft_irq + steal) / TICK


def load_cpu(sink: Sink | None, helpers: Sequence[int]) -> float:
    """Return the seconds of CPU of the load.

    That is the sink, the helpers, the ended smtp-sources, and this process.
    """
    mine = os.times()
    pids = [*helpers, *([sink.process.pid] if sink is not None else [])]
    rows = [row for pid in pids if (row := stat(pid))]
    ticks = sum(int(row[11]) + int(row[12]) for row in rows)
    return mine.user + mine.system + mine.children_user + mine.children_system + ticks / TICK


def prepare_directory(directory: Path) -> None:
    """Make the directory of the work; refuse memory, on which nothing is durable."""
    directory.mkdir(parents=True, exist_ok=True)
    kind = filesystem(directory)
    if kind in ("tmpfs", "ramfs"):
        raise SystemExit(f"{directory} is on {kind}: name a directory on a disk with --dir")


def filesystem(directory: Path) -> str:
    """Return the kind of the file system of a directory."""
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def choose(names: list[str]) -> list[type[Server]]:
    """Return the servers of these names; say which are left out, and why."""
    known = [kind.name for kind in PEERS]
    if unknown := set(names).difference(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for tool in (SOURCE, SINK):
        if not Path(tool).exists():
            raise SystemExit(f"{tool} is missing: apt-get install postfix")
    kinds = []
    for kind in PEERS:
        if kind.name in names:
            if lack := kind.missing():
                print(f"left out: {kind.name}: {lack}", file=sys.stderr)
            else:
                kinds.append(kind)
    return kinds


def options_of(arguments: list[str] | None, title: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100], help="KB")
    parser.add_argument("--sessions", type=int, nargs="+", help="default 1 20 100; quick 20")
    parser.add_argument("--rounds", type=int, help="default 5; quick 3")
    parser.add_argument("--peers", nargs="+", default=[each.name for each in PEERS])
    parser.add_argument("--dir", type=Path, default=HERE / ".work", help="on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="20 sessions, one a session, 3 rounds")
    options = parser.parse_args(arguments)
    options.sessions = options.sessions or ([20] if options.quick else [1, 20, 100])
    options.rounds = options.rounds or (3 if options.quick else 5)
    return options


@contextmanager
def tidy_end() -> Iterator[None]:
    """Let SIGTERM end the run by an exception, so that no server is left behind."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(f"ended by signal {number}")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(title: str, relay: bool) -> None:
    """Measure, print the table, keep the figures as JSON."""
    options = options_of(None, title)
    kinds = choose(options.peers)
    prepare_directory(options.dir)
    loads = [
        Load(size, count, several, MESSAGES.get(size, 1000) // (3 if count == 1 else 1))
        for size in options.sizes
        for count in options.sessions
        for several in ((False,) if options.quick else (False, True))
    ]
    results: list[object] = []
    print(title)
    with tidy_end():
        for load in loads:
            figures: dict[str, list[Figure]] = {kind.name: [] for kind in kinds}
            for _ in range(options.rounds):
                for kind in kinds:
                    figures[kind.name].append(measure(kind, load, relay, options.dir))
            show(load, figures)
            by_name = {name: [asdict(one) for one in found] for name, found in figures.items()}
            results.append({"load": asdict(load), "figures": by_name})
            write_results("relay" if relay else "accept", results, options.dir)


def write_results(name: str, results: list[object], directory: Path) -> None:
    """Keep the figures, and on what they were measured."""
    machine = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": filesystem(directory),
        "load_average": os.getloadavg(),
        "unix_time": round(time.time()),
    }
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine, "results": results}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")


def ratios(figures: dict[str, list[Figure]]) -> list[float]:
    """Return ours as a multiple of the better peer, for each round."""
    peers = [found for name, found in figures.items() if name != OURS]
    if not peers:
        return []
    return [
        ours.rate / max(found[number].rate for found in peers)
        for number, ours in enumerate(figures.get(OURS, []))
    ]


def show(load: Load, figures: dict[str, list[Figure]], than: str = "the better peer") -> None:
    """Print the table of one load; ours as a multiple of all others, who are called ``than``."""
    print(f"\n{load}, {load.messages} messages")
    found_ratios = ratios(figures)
    for name, found in figures.items():
        rates = [figure.rate for figure in found]
        cpu = statistics.median(figure.cpu_microseconds for figure in found)
        line = (
            f"  {name:20} {statistics.median(rates):8.0f}/s ({min(rates):.0f}-{max(rates):.0f})"
            f"  {cpu:7.0f} us CPU a message"
            f"  others {statistics.median(figure.others for figure in found):.2f}"
        )
        if name == OURS and found_ratios:
            line += (
                f"  {statistics.median(found_ratios):5.2f} x {than}"
                f" ({min(found_ratios):.2f}-{max(found_ratios):.2f})"
            )
        print(line, flush=True)
