"""The balancers that are measured: ours, HAProxy as shipped and tuned, nginx; one core each.

Each passes connections on to two sinks in turn.  *Ours* is the daemon itself, a director of
weight 0, with all that it does for a session: limits, election, sealed PROXY header, log.
Beside it the *splicer* alone tells engine from daemon.  HAProxy "as shipped" has what most
configurations have (``option splice-auto``); "tuned" always splices, through pipes as large
as ours; "full" is as shipped and does for a session what ours does, as far as it can.  All of
them may have as many descriptors as the machine gives.

They stand in a network of their own (:func:`.lan.alone`), which has an interface for the
virtual address.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mailsecure.control.client import ask
from mailsecure.control.server import SOCKET_NAME
from mailsecure.errors import LocalFault

from .lan import NETWORK
from .pairs import ADDRESS, new_key_file
from .peers import ROOT, Server

__all__ = ["BALANCERS", "CLUSTER", "DIRECTOR", "HOSTS", "SINKS", "SINK_PORT", "Balancer"]

DIRECTOR = f"{NETWORK}.11"
SINKS = [f"{NETWORK}.12", f"{NETWORK}.13"]
SINK_PORT = 10025
PORT = 25
#: All addresses of the network.
HOSTS = [DIRECTOR, *SINKS]
#: What all our nodes have in ``[cluster]``.
CLUSTER = "topology = active-active\nhello_interval = 200ms\nslow_start = 0s\n"
#: How long our nodes may take to find each other, in seconds.
PATIENCE = 15.0


class Balancer(Server):
    """A server in front of sinks, at port 25 of :attr:`host`."""

    host = DIRECTOR
    #: Whether a PROXY header comes before each session.
    header = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, PORT, SINK_PORT, hold=False)


class Daemon(Balancer):
    """mailsecure, active-active, with weight 0."""

    name = "mailsecure"
    host = ADDRESS
    header = True
    scanners: subprocess.Popen[bytes] | None = None

    def prepare(self) -> list[str]:
        """Write its ini, with no limits that would refuse the load; start the scanners."""
        key = new_key_file(self.directory / "cluster.key")
        ini = self.directory / "mailsecure.ini"
        ini.write_text(
            f"[node]\nname = director\nhostname = director.test\nstate = {self.directory}/state\n"
            f"[smtp]\nlisten = tcp:{PORT}:backlog=4096\ngreeting_delay = 0s\nsession_rate = 0\n"
            f"max_sessions = 1000\nmax_sessions_per_client = 1000\n"
            f"[spool]\nmin_free = 0\n[scan]\nchecks =\n[records]\nenabled = no\n"
            f"[log]\nfile = {self.directory}/mail.log\n"
            f"[cluster]\nkey_file = {key}\ninterface = eth0\naddress = {DIRECTOR}\n"
            f"role = director\nweight = 0\nunicast_peers = {' '.join(SINKS)}\n{CLUSTER}"
            f"[virtual:mail]\naddresses = {ADDRESS}\npriority = 255\n"
            f"advertisement_interval = 200ms\n"
        )
        words = [sys.executable, "-m", "benchmarks.scanners", str(key), str(SINK_PORT), *SINKS]
        with (self.directory / "scanners.output").open("wb") as output:
            self.scanners = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=output)
        script = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
        return [
            sys.executable, "-c", script, "--nodaemon", "--pidfile=", "mailsecure",
            "--config", str(ini),
        ]  # fmt: skip

    def __enter__(self) -> Daemon:
        super().__enter__()
        deadline = time.monotonic() + PATIENCE
        while not self.shares():
            if time.monotonic() > deadline:
                said = (self.directory / "scanners.output").read_text()[-2000:]
                said += (self.directory / "mail.log").read_text()[-2000:]
                self.__exit__()
                raise SystemExit(f"the nodes did not find each other\n{said}")
            time.sleep(0.1)
        return self

    def __exit__(self, *about: object) -> None:
        if self.scanners is not None:
            self.scanners.kill()
            self.scanners.wait()
        super().__exit__(*about)

    def shares(self) -> bool:
        """Say whether each of the sinks gets sessions."""
        path = self.directory / "state" / SOCKET_NAME
        try:
            ((_, status),) = ask(path, "cluster.status", {}, timeout=5)
        except (LocalFault, OSError):
            return False
        nodes: list[dict[str, Any]] = list(status["balance"]["nodes"].values())
        return len([each for each in nodes if each["state"] == "in"]) == 1 + len(SINKS)


class Splicer(Balancer):
    """mailsecure's door, picker and splicer, without all else."""

    name = "splicer"

    def prepare(self) -> list[str]:
        """Run them alone; see benchmarks/spliced.py."""
        places = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        script = places + "from benchmarks.spliced import main; main()"
        return [sys.executable, "-c", script, self.host, str(PORT), str(SINK_PORT), *SINKS]


class Haproxy(Balancer):
    """HAProxy, one thread, ``option splice-auto``."""

    name = "haproxy"
    program = "/usr/sbin/haproxy"
    tuning = ""
    options = "option splice-auto"
    rules = ""

    @classmethod
    def missing(cls) -> str:
        """Debian's package."""
        return "" if Path(cls.program).exists() else "Debian's haproxy is not installed"

    def prepare(self) -> list[str]:
        """Write its configuration."""
        header = " send-proxy-v2" * self.header
        servers = "\n".join(
            f"  server s{number} {sink}:{SINK_PORT}{header}" for number, sink in enumerate(SINKS)
        )
        config = self.directory / "haproxy.cfg"
        config.write_text(
            f"global\n  nbthread 1\n  maxconn 6000\n  {self.tuning}\n"
            "defaults\n  mode tcp\n  balance roundrobin\n"
            f"  {self.options}\n"
            "  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n"
            f"listen all\n  bind {self.host}:{PORT} backlog 4096\n{self.rules}{servers}\n"
        )
        return [self.program, "-db", "-f", str(config)]


class HaproxyTuned(Haproxy):
    """HAProxy that always splices, with large pipes."""

    name = "haproxy-tuned"
    tuning = "tune.pipesize 524288"
    options = "option splice-request\n  option splice-response"


class HaproxyFull(Haproxy):
    """HAProxy that limits each client, logs each session, and tells the client's address."""

    name = "haproxy-full"
    header = True
    tuning = "log stdout format raw local0"
    options = "option splice-auto\n  log global\n  option tcplog"
    rules = (
        "  stick-table type ip size 50k expire 1m store conn_cur,conn_rate(60s)\n"
        "  tcp-request connection track-sc0 src\n"
        "  tcp-request connection reject if { sc0_conn_cur gt 1000 }\n"
        "  tcp-request connection reject if { sc0_conn_rate gt 1000000 }\n"
    )


class Nginx(Balancer):
    """nginx's stream module, one worker."""

    name = "nginx"
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

    @classmethod
    def missing(cls) -> str:
        """Debian's packages."""
        if shutil.which("nginx", path="/usr/sbin") and cls.module.exists():
            return ""
        return "Debian's nginx and libnginx-mod-stream are not installed"

    def prepare(self) -> list[str]:
        """Write its configuration."""
        servers = " ".join(f"server {sink}:{SINK_PORT};" for sink in SINKS)
        config = self.directory / "nginx.conf"
        config.write_text(
            f"load_module {self.module};\nuser root;\n"
            f"daemon off; worker_processes 1; pid {self.directory}/pid; error_log stderr crit;\n"
            "worker_rlimit_nofile 20000;\nevents { worker_connections 14000; }\n"
            f"stream {{ upstream sinks {{ {servers} }}\n"
            f"server {{ listen {self.host}:{PORT} backlog=4096; proxy_pass sinks;"
            " proxy_timeout 300s; } }\n"
        )
        return ["/usr/sbin/nginx", "-c", str(config), "-p", str(self.directory)]


BALANCERS: tuple[type[Balancer], ...] = (
    Daemon, Splicer, Haproxy, HaproxyTuned, HaproxyFull, Nginx,
)  # fmt: skip
