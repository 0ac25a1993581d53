"""How much memory an idle session costs, after the greeting and EHLO.

``python -m benchmarks.idle [--sessions 10000]``.  The clients live in processes of their
own and come from many addresses of loopback.  Measured is the proportional set size (PSS)
of all the server's processes before and after: shared pages count once, however many
processes share them.  Twenty sessions come first and stay, so that what a server takes
once (buffers, compiled code, its first child) is not charged to the sessions.

Postfix has a process a session, so it is measured with 200 sessions, and told for one.
"""

from __future__ import annotations

import argparse
import resource
import selectors
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .peers import Postfix, Server
from .sidebyside import HERE, choose, free_port, prepare_directory, tidy_end, write_results

#: What a process of clients runs: address, port, sessions, third octet of their addresses.
CLIENT = """
import resource, socket, sys
host, (port, count, third) = sys.argv[1], map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 50,) * 2)
wires = []
for number in range(count):
    source = (f"127.0.{third}.{number % 200 + 1}", 0)
    wire = socket.create_connection((host, port), 60, source)
    if not wire.recv(500).startswith(b"220"):
        sys.exit(f"session {number} was not greeted")
    wire.sendall(b"EHLO idle.test\\r\\n")
    if not wire.recv(2000).startswith(b"250"):
        sys.exit(f"session {number} got no answer to EHLO")
    wires.append(wire)
print("ready", flush=True)
sys.stdin.read()
"""
#: Sessions of one process of clients.
SHARE = 2500
FIRST = 20
#: Seconds that one process of clients may take to connect.
PATIENCE = 180.0
POSTFIX_SESSIONS = 200


class PostfixOfMany(Postfix):
    """Postfix, allowed more processes than sessions that are measured."""

    limit = POSTFIX_SESSIONS + FIRST + 50


def memory(server: Server) -> int:
    """Return the PSS of the server's processes, in octets."""
    total = 0
    for pid in server.tree():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def settled(server: Server) -> int:
    """Return the PSS once the server has been left alone for a moment."""
    time.sleep(2)
    return memory(server)


class Clients:
    """Idle sessions, in processes of their own."""

    script = CLIENT

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def connect(self, server: Server, sessions: int) -> None:
        """Open so many more sessions; raise SystemExit if the server does not take them."""
        command = [sys.executable, "-c", self.script, server.host, str(server.port)]
        command += [str(sessions), str(len(self.processes) + 1)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(process)
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(PATIENCE) or process.stdout.readline() != b"ready\n":
                raise SystemExit(f"{server.name} did not take {sessions} more sessions")

    def end(self) -> None:
        """Close them all."""
        for process in self.processes:
            process.kill()
            process.communicate()


def measure(kind: type[Server], sessions: int, directory: Path) -> float:
    """Return the octets of one idle session."""
    clients = Clients()
    with kind(directory / kind.name, free_port(), 9, hold=True) as server:
        try:
            clients.connect(server, FIRST)
            before = settled(server)
            left = sessions
            while left > 0:
                clients.connect(server, min(left, SHARE))
                left -= SHARE
            return (settled(server) - before) / sessions
        finally:
            clients.end()


def main() -> None:
    """Measure, print, keep the figures as JSON."""
    parser = argparse.ArgumentParser(description="memory of an idle session")
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved")
    parser.add_argument("--peers", nargs="+", default=["mailsecure", "postfix", "haraka"])
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    parser.add_argument("--quick", action="store_true", help="2,000 sessions, one round")
    options = parser.parse_args()
    if options.quick:
        options.sessions, options.rounds = 2000, 1
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < options.sessions + 500:
        raise SystemExit(f"the limit of open files is {hard}: too low for that many sessions")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kinds = choose(options.peers)
    prepare_directory(options.dir)
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    counts: dict[str, int] = {}
    with tidy_end():
        for _ in range(options.rounds):
            for kind in kinds:
                forking = issubclass(kind, Postfix)
                counts[kind.name] = POSTFIX_SESSIONS if forking else options.sessions
                measured = PostfixOfMany if forking else kind
                octets = measure(measured, counts[kind.name], options.dir)
                found[kind.name].append(octets / 1024)
    print("memory of an idle session")
    for name, figures in found.items():
        print(
            f"  {name:12} {statistics.median(figures):8.1f} KB"
            f" ({min(figures):.1f}-{max(figures):.1f}), {counts[name]} sessions"
        )
    results: list[object] = [{"sessions": counts, "kilobytes": found}]
    write_results("idle", results, options.dir)


if __name__ == "__main__":
    main()
