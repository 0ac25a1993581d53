"""How much memory an idle session costs, after the greeting and EHLO.

``python -m benchmarks.idle [--sessions 10000]``.  The clients live in processes of their
own and come from several addresses of loopback.  Measured is the proportional set size
(PSS) of all the server's processes before and after.  Postfix has a process a session,
so it is measured with 80, Haraka with 500; told is one.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from .peers import PEERS, Server
from .sidebyside import HERE, free_port

CLIENT = """
import resource, socket, sys
port, count, first = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 50,) * 2)
wires = []
for number in range(count):
    source = f"127.0.{first}.{number % 200 + 1}"
    wire = socket.create_connection(("127.0.0.1", port), 60, (source, 0))
    wire.recv(500)
    wire.sendall(b"EHLO idle.test\\r\\n")
    wire.recv(2000)
    wires.append(wire)
print("ready", flush=True)
sys.stdin.read()
"""


def memory(server: Server) -> int:
    """Return the PSS of the server's processes, in octets."""
    total = 0
    for pid in server.processes():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def measure(kind: type[Server], sessions: int, directory: Path) -> float:
    """Return the octets of one idle session."""
    with kind(directory / kind.name, free_port(), 9, hold=True) as server:
        time.sleep(2)
        before = memory(server)
        clients = []
        share = min(sessions, 2500)
        try:
            for first in range(sessions // share):
                client = subprocess.Popen(
                    [sys.executable, "-c", CLIENT, str(server.port), str(share), str(first + 1)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )  # fmt: skip
                clients.append(client)
                if client.stdout is None or client.stdout.readline() != b"ready\n":
                    raise SystemExit(f"{kind.name} did not take {sessions} sessions")
            time.sleep(2)
            return (memory(server) - before) / sessions
        finally:
            for client in clients:
                client.kill()
                client.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--peers", nargs="+", default=["mailsecure", "postfix", "haraka"])
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for kind in PEERS:
        if kind.name not in options.peers:
            continue
        if lack := kind.missing():
            print(f"left out: {kind.name}: {lack}", file=sys.stderr)
            continue
        sessions = {"postfix": 80, "haraka": 500}.get(kind.name, options.sessions)
        octets = measure(kind, sessions, options.dir)
        print(f"{kind.name:12} {octets / 1024:8.1f} KB a session ({sessions} sessions)", flush=True)


if __name__ == "__main__":
    main()
