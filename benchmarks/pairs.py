"""The nodes whose fail-over is measured: ours, and keepalived with a service beside it.

Each kind makes one node of a :class:`.lan.Lan`.  The address is 10.77.0.25, the service is
on port 25 and greets with the node's name, so that the judge can tell who answers.  A
node's log stays in its directory until the next run.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mailsecure.control.client import ask
from mailsecure.control.server import SOCKET_NAME

from .lan import NETWORK, Lan

__all__ = ["ADDRESS", "PORT", "Keepalived", "Node", "Ours", "new_key_file"]

ADDRESS = f"{NETWORK}.25"
PORT = 25
#: How long a process may take to end, in seconds.
PATIENCE = 15.0

#: Greets everybody in the name of its argument and hangs up.
SERVICE = """
import contextlib, socket, sys
greeting = f"220 {sys.argv[1]}.test ESMTP\\r\\n".encode()
port = socket.create_server(("0.0.0.0", 25), backlog=1000)
while True:
    wire, _ = port.accept()
    with wire, contextlib.suppress(OSError):
        wire.sendall(greeting)
"""


class Node:
    """One host with what runs on it."""

    name = ""

    def __init__(
        self, lan: Lan, host: str, directory: Path, priority: int, interval: float
    ) -> None:
        self.lan = lan
        self.host = host
        self.directory = directory
        self.priority = priority
        self.interval = interval
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    @classmethod
    def missing(cls) -> str:
        """Say what has to be installed first, or ""."""
        return ""

    def launch(self, what: str, words: list[str]) -> None:
        """Run a program on the host."""
        with (self.directory / f"{what}.output").open("ab") as output:
            self.processes[what] = subprocess.Popen(
                self.lan.command(self.host, words),
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def end(self, what: str, number: signal.Signals) -> None:
        """Send a signal to a program and all it started; do not wait."""
        if (process := self.processes.get(what)) is not None:
            # SIGTERM is for the program itself, which ends its children.
            send = os.killpg if number is signal.SIGKILL else os.kill
            with contextlib.suppress(ProcessLookupError):
                send(process.pid, number)

    def ended(self, what: str) -> None:
        """Wait until a program has ended."""
        if (process := self.processes.pop(what, None)) is not None:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise SystemExit(f"{self.name} did not end on {self.host}") from None

    def start(self) -> None:
        """Start all that the node consists of and that does not run."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill all of it, at once."""
        for what in self.processes:
            self.end(what, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to stop in good order."""
        raise NotImplementedError

    def gone(self) -> None:
        """Wait until what was killed or asked to stop has ended."""
        raise NotImplementedError

    def resign(self, seconds: float) -> None:
        """Have it leave the address to the other for so long."""
        raise NotImplementedError

    def kill_alone(self) -> None:
        """Kill what moves the address, and not the service behind it."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything in any case."""
        self.kill()
        for what in list(self.processes):
            self.ended(what)

    def tail(self) -> str:
        """Return the ends of its logs."""
        logs = sorted(self.directory.glob("*.output")) + sorted(self.directory.glob("*.log"))
        return "\n".join(
            f"--- {each}\n{each.read_text('utf-8', 'replace')[-1500:]}" for each in logs
        )


def new_key_file(path: Path) -> Path:
    """Write a new cluster key."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    return path


class Ours(Node):
    """mailsecure: one process that moves the address and serves behind it."""

    name = "mailsecure"

    def start(self) -> None:
        """Start the daemon with no limits that would refuse the judge."""
        if "daemon" in self.processes:
            return
        ini = self.directory / "mailsecure.ini"
        ini.write_text(
            f"[node]\nname = {self.host}\nhostname = {self.host}.test\n"
            f"state = {self.directory}/state\n"
            f"[smtp]\nlisten = tcp:{PORT}\ngreeting_delay = 0s\nsession_rate = 0\n"
            f"max_sessions = 5000\nmax_sessions_per_client = 5000\n"
            f"[spool]\nmin_free = 0\n[scan]\nchecks =\n[records]\nenabled = no\n"
            f"[log]\nfile = {self.directory}/daemon.log\n{self.cluster()}"
        )
        script = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
        words = [sys.executable, "-c", script, "--nodaemon", "--pidfile=", "mailsecure"]
        self.launch("daemon", [*words, "--config", str(ini)])

    def cluster(self) -> str:
        """Return the sections that make it a node of a cluster."""
        return (
            f"[cluster]\nkey_file = {self.directory.parent}/cluster.key\ninterface = eth0\n"
            f"[virtual:mail]\naddresses = {ADDRESS}\npriority = {self.priority}\n"
            f"advertisement_interval = {self.interval * 1000:.0f}ms\n"
        )

    def terminate(self) -> None:
        """SIGTERM to the daemon."""
        self.end("daemon", signal.SIGTERM)

    def gone(self) -> None:
        """Wait for the daemon's end."""
        self.ended("daemon")

    def resign(self, seconds: float) -> None:
        """Do what ``mailsecure cluster resign --for`` does."""
        path = self.directory / "state" / SOCKET_NAME
        for _ in ask(path, "cluster.resign", {"group": "", "seconds": seconds}, timeout=10):
            pass


class Keepalived(Node):
    """keepalived (VRRPv3), and a service that greets."""

    name = "keepalived"

    @classmethod
    def missing(cls) -> str:
        """Say what has to be installed first, or ""."""
        found = shutil.which("keepalived", path="/usr/sbin:/sbin")
        return "" if found else "keepalived is missing: apt-get install keepalived"

    def start(self) -> None:
        """Start the service first, so that nobody owns an address without one."""
        if "service" not in self.processes:
            self.launch("service", [sys.executable, "-c", SERVICE, self.host])
        if "keepalived" in self.processes:
            return
        conf = self.directory / "keepalived.conf"
        conf.write_text(
            f"global_defs {{\n router_id {self.host}\n vrrp_version 3\n}}\n"
            f"vrrp_instance mail {{\n state BACKUP\n interface eth0\n virtual_router_id 25\n"
            f" priority {self.priority}\n advert_int {self.interval:g}\n"
            f" virtual_ipaddress {{\n  {ADDRESS}/32 dev eth0\n }}\n}}\n"
        )
        words = ["/usr/sbin/keepalived", "-n", "-l", "-D", "-P", "-f", str(conf)]
        words += ["-p", f"{self.directory}/pid", "-r", f"{self.directory}/vrrp.pid"]
        self.launch("keepalived", words)

    def terminate(self) -> None:
        """SIGTERM to keepalived; the service has no reason to stop with it."""
        self.end("keepalived", signal.SIGTERM)

    def kill_alone(self) -> None:
        """Kill keepalived, all its processes."""
        self.end("keepalived", signal.SIGKILL)

    def gone(self) -> None:
        """Wait for the end of keepalived, and of the service if it was killed too."""
        self.ended("keepalived")
        service = self.processes.get("service")
        if service is not None and service.poll() is not None:
            self.ended("service")
