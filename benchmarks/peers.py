"""The servers that are measured: ours, Postfix and Haraka, each in a directory of its own.

Each is started fresh for a round, on one port of loopback, with its queue on the same
disk; ``hold`` keeps accepted mail in the queue (for the measurement of accepting alone),
else it is relayed to the sink.  CPU is that of all processes of the server together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

__all__ = [
    "PEERS",
    "ROOT",
    "TICK",
    "Haraka",
    "Ours",
    "Postfix",
    "PostfixAsShipped",
    "Server",
    "stat",
]

ROOT = Path(__file__).parent.parent
CACHE = Path(__file__).parent / ".cache"
#: Ticks of CPU a second, as /proc counts them.
TICK = os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; none once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Server:
    """One server; a context manager."""

    name = ""
    host = "127.0.0.1"

    def __init__(self, directory: Path, port: int, sink: int, hold: bool) -> None:
        self.directory = directory
        self.port = port
        self.sink = sink
        self.hold = hold
        self.process: subprocess.Popen[bytes] | None = None
        self.known: dict[int, str] = {}

    @classmethod
    def missing(cls) -> str:
        """Say what has to be installed first, or ""."""
        return ""

    def prepare(self) -> list[str]:
        """Write the configuration; return the command that runs in the foreground."""
        raise NotImplementedError

    def __enter__(self) -> Server:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.directory.chmod(0o755)
        command = self.prepare()
        with (self.directory / "output").open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self.host, self.port), 1) as wire:
                    wire.settimeout(5)
                    if wire.recv(3) == b"220":
                        return self
            except OSError:
                time.sleep(0.1)
        said = (self.directory / "output").read_text(errors="replace")[-2000:]
        self.__exit__()
        raise SystemExit(f"{self.name} does not greet. It said:\n{said}")

    def __exit__(self, *_: object) -> None:
        for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            tree = self.tree()
            for pid, born in tree.items():
                if self.born(pid) == born:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and any(
                self.born(pid) == born for pid, born in tree.items()
            ):
                time.sleep(0.02)
        self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def born(self, pid: int) -> str:
        """Return when a process began, in ticks since boot; "" once it is gone."""
        if self.process is not None and pid == self.process.pid:
            self.process.poll()
        fields = stat(pid)
        return fields[19] if fields and fields[0] != "Z" else ""

    def tree(self) -> dict[int, str]:
        """Return the server's processes and when each began.

        By descent, not by process group: Postfix's master leaves the group it was started
        in.  What was once found stays known, as its parent may end before it.
        """
        if self.process is None:
            return {}
        found = [pid for pid, born in self.known.items() if self.born(pid) == born]
        self.known = {pid: self.known[pid] for pid in found}
        every = {int(entry.name): stat(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
        ours = {self.process.pid, *self.known}
        while more := {pid for pid, row in every.items() if row and int(row[1]) in ours} - ours:
            ours |= more
        self.known = {pid: born for pid in ours if (born := self.born(pid))}
        return self.known

    def processes(self) -> dict[int, int]:
        """Return the ticks of CPU of the server's processes (ended children included) by pid."""
        rows = {pid: stat(pid) for pid in self.tree()}
        return {pid: sum(map(int, row[11:15])) for pid, row in rows.items() if row}

    def cpu(self) -> float:
        """Return the seconds of CPU that the server has used."""
        return sum(self.processes().values()) / TICK


class Ours(Server):
    """mailsecure."""

    name = "mailsecure"
    script = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"

    #: The peers do not judge either; see benchmarks/scanning.py for where they do.
    judging = "[scan]\nchecks =\n[records]\nenabled = no\n"

    def prepare(self) -> list[str]:
        """Trust loopback; hold by routing to a port where nobody is."""
        next_hop = 9 if self.hold else self.sink
        (self.directory / "m.ini").write_text(
            f"[node]\nhostname = ours.test\nstate = {self.directory}/state\n"
            f"[smtp]\nlisten = tcp:{self.port}:interface=127.0.0.1:backlog=1000\n"
            f"max_sessions = 11000\n"
            f"[domains]\nexample.com = smtp://127.0.0.1:{next_hop}\n"
            f"[log]\nfile = {self.directory}/mail.log\n{self.judging}"
        )
        return [
            sys.executable, "-c", self.script, *self.options(), "--nodaemon", "--pidfile=",
            "mailsecure", "--config", str(self.directory / "m.ini"),
        ]  # fmt: skip

    def options(self) -> list[str]:
        """Return further options of twistd."""
        return []


class Postfix(Server):
    """Debian's Postfix without ``in_flow_delay``: the fair comparison."""

    name = "postfix"
    extra = "in_flow_delay = 0\n"
    #: A process a session; 100 as shipped.
    limit = 100

    @classmethod
    def missing(cls) -> str:
        """Debian's package, and root."""
        if not shutil.which("postfix", path="/usr/sbin"):
            return "Debian's postfix is not installed"
        return "" if os.geteuid() == 0 else "postfix needs root"

    def prepare(self) -> list[str]:
        """Hold by the HOLD action: the message is durable, the queue manager never wakes.

        That is kinder to Postfix than defer_transports, where the queue manager opens and
        moves each message as well.
        """
        for name in ("conf", "queue", "data"):
            (self.directory / name).mkdir()
        shutil.chown(self.directory / "data", "postfix")
        settings = "".join(f"{name} = {value}\n" for name, value in self.settings().items())
        (self.directory / "conf" / "main.cf").write_text(settings + self.extra)
        lines = []
        for line in Path("/usr/share/postfix/master.cf.dist").read_text().splitlines():
            words = line.split()
            if not words or line[0] in "# \t":
                continue
            if words[0] == "smtp" and words[1] == "inet":
                words[0] = f"{self.host}:{self.port}"
            words[4] = "n"
            lines.append(" ".join(words))
        (self.directory / "conf" / "master.cf").write_text(
            "\n".join(lines + self.services()) + "\n"
        )
        return ["/usr/sbin/postfix", "-c", str(self.directory / "conf"), "start-fg"]

    def settings(self) -> dict[str, object]:
        """Return what is in main.cf."""
        restriction = "check_client_access static:HOLD, " if self.hold else ""
        return {
            "compatibility_level": 3.6,
            "myhostname": "postfix.test",
            "queue_directory": self.directory / "queue",
            "data_directory": self.directory / "data",
            "maillog_file": self.directory / "maillog",
            "maillog_file_prefixes": self.directory,
            "inet_interfaces": "loopback-only",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "local_recipient_maps": "",
            "alias_maps": "",
            "smtpd_peername_lookup": "no",
            "smtpd_client_connection_count_limit": 0,
            "disable_dns_lookups": "yes",
            "default_process_limit": self.limit,
            "default_transport": f"smtp:[127.0.0.1]:{self.sink}",
            "smtpd_recipient_restrictions": f"{restriction}permit_mynetworks, reject",
        }

    def services(self) -> list[str]:
        """Return further lines of master.cf."""
        return []


class PostfixAsShipped(Postfix):
    """Debian's Postfix as it is."""

    name = "postfix-as-shipped"
    extra = ""


class Haraka(Server):
    """Haraka: its outbound queue is a file a message.

    Each is written beside its place, synced, renamed, and then answered 250; the directory
    is not synced, so the name may be lost with the power (ours and Postfix's are not).
    One process, as shipped.
    """

    name = "haraka"
    program = CACHE / "node_modules" / "Haraka" / "bin" / "haraka"

    @classmethod
    def missing(cls) -> str:
        """Installed from npm into benchmarks/.cache."""
        if cls.program.exists():
            return ""
        return f"npm install --prefix {CACHE.relative_to(ROOT)} Haraka@3"

    def prepare(self) -> list[str]:
        """Allow relaying; route everything to the sink; spare it the DNS, as the others."""
        for name in ("config", "plugins", "queue"):
            (self.directory / name).mkdir()
        config = self.directory / "config"
        (config / "smtp.ini").write_text(f"listen=127.0.0.1:{self.port}\nnodes=0\n")
        (config / "plugins").write_text("everything\n")
        (config / "loglevel").write_text("WARN\n")
        (config / "me").write_text("haraka.test\n")
        (config / "outbound.ini").write_text(
            f"disabled={'true' if self.hold else 'false'}\nenable_tls=false\nconcurrency_max=20\n"
        )
        shipped = self.program.parent.parent / "config" / "connection.ini"
        shutil.copy(shipped, config / "connection.ini")
        (self.directory / "plugins" / "everything.js").write_text(
            "exports.hook_rcpt = (next, c) => { c.relaying = true; next(OK) }\n"
            "exports.hook_lookup_rdns = (next) => next(OK, 'client.test')\n"
            "exports.hook_get_mx = (next) =>"
            f" next(OK, {{priority: 0, exchange: '127.0.0.1', port: {self.sink}}})\n"
        )
        return ["node", str(self.program), "-c", str(self.directory)]


PEERS: tuple[type[Server], ...] = (Ours, Postfix, PostfixAsShipped, Haraka)
