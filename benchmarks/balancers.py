"""The balancers that are measured: ours, HAProxy as shipped and tuned, nginx; one core each.

Each passes connections on to two sinks in turn, with nothing done to the octets.  HAProxy
"as shipped" has what most configurations have (``option splice-auto``); "tuned" always
splices, through pipes as large as ours.  All of them may have as many descriptors as the
machine gives.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .peers import ROOT, Server

__all__ = ["BALANCERS", "Balancer"]


class Balancer(Server):
    """A server in front of sinks."""

    def __init__(self, directory: Path, port: int, sinks: list[int]) -> None:
        super().__init__(directory, port, sinks[0], hold=False)
        self.sinks = sinks


class Splicer(Balancer):
    """mailsecure's door, picker and splicer."""

    name = "mailsecure"

    def prepare(self) -> list[str]:
        """Run them alone; see benchmarks/spliced.py."""
        places = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        script = places + "from benchmarks.spliced import main; main()"
        return [sys.executable, "-c", script, str(self.port), *map(str, self.sinks)]


class Haproxy(Balancer):
    """HAProxy, one thread, ``option splice-auto``."""

    name = "haproxy"
    program = "/usr/sbin/haproxy"
    tuning = ""
    options = "option splice-auto"

    @classmethod
    def missing(cls) -> str:
        """Debian's package."""
        return "" if Path(cls.program).exists() else "Debian's haproxy is not installed"

    def prepare(self) -> list[str]:
        """Write its configuration."""
        servers = "\n".join(
            f"  server s{number} 127.0.0.1:{port}" for number, port in enumerate(self.sinks)
        )
        config = self.directory / "haproxy.cfg"
        config.write_text(
            f"global\n  nbthread 1\n  maxconn 6000\n  {self.tuning}\n"
            "defaults\n  mode tcp\n  balance roundrobin\n"
            f"  {self.options}\n"
            "  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n"
            f"listen all\n  bind 127.0.0.1:{self.port} backlog 4096\n{servers}\n"
        )
        return [self.program, "-db", "-f", str(config)]


class HaproxyTuned(Haproxy):
    """HAProxy that always splices, with large pipes."""

    name = "haproxy-tuned"
    tuning = "tune.pipesize 524288"
    options = "option splice-request\n  option splice-response"


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
        servers = " ".join(f"server 127.0.0.1:{port};" for port in self.sinks)
        config = self.directory / "nginx.conf"
        config.write_text(
            f"load_module {self.module};\nuser root;\n"
            f"daemon off; worker_processes 1; pid {self.directory}/pid; error_log stderr crit;\n"
            "worker_rlimit_nofile 20000;\nevents { worker_connections 14000; }\n"
            f"stream {{ upstream sinks {{ {servers} }}\n"
            f"server {{ listen 127.0.0.1:{self.port} backlog=4096; proxy_pass sinks;"
            " proxy_timeout 300s; } }\n"
        )
        return ["/usr/sbin/nginx", "-c", str(config), "-p", str(self.directory)]


BALANCERS: tuple[type[Balancer], ...] = (Splicer, Haproxy, HaproxyTuned, Nginx)
