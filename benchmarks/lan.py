"""A switch and some hosts, each in a network namespace of its own; the machine sees none.

:class:`Lan` makes them and takes them down again, with what a killed run left behind.
:class:`Watch` is the judge (:mod:`.judge`) at work on one of the hosts.  Where one host is
enough, :func:`alone` goes on in a namespace that ends with the process.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["NETWORK", "Lan", "Watch", "alone", "ip", "missing"]

#: The names of our namespaces: whose process they belong to can be read from them.
PREFIX = "msbench"
NETWORK = "10.77.0"
#: Set for a process that is in a network of its own.
INSIDE = "MAILSECURE_BENCHMARK_INSIDE"


def missing() -> str:
    """Say what is missing for namespaces, or ""."""
    if os.geteuid() != 0:
        return "namespaces need root"
    return (
        ""
        if any(Path(each, "ip").exists() for each in ("/sbin", "/usr/sbin", "/bin"))
        else ("ip is missing: apt-get install iproute2")
    )


def ip(*words: str) -> str:
    """Run iproute2's ip; return what it says, SystemExit if it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def alone(module: str, addresses: list[str], resolv_conf: str = "") -> None:
    """Go on in a network of our own, which has ``eth0`` with ``addresses`` and the loopback.

    With ``resolv_conf`` all programs in there find that text in /etc/resolv.conf; nobody
    else does.  The first call does not return: it runs the module again in there, with the
    same arguments.  SystemExit where that cannot be.
    """
    if os.environ.get(INSIDE) != "yes":
        if lack := missing():
            raise SystemExit(lack)
        words = ["unshare", "--net", "--mount", sys.executable, "-m", module, *sys.argv[1:]]
        os.execvpe("unshare", words, {**os.environ, INSIDE: "yes"})
    if resolv_conf:
        with tempfile.NamedTemporaryFile("w") as file:
            os.chmod(file.name, 0o644)
            file.write(resolv_conf)
            file.flush()
            # The mount keeps the file, whose name is gone at the end of this.
            words = ["mount", "--bind", file.name, "/etc/resolv.conf"]
            subprocess.run(words, check=True, timeout=10)
    ip("link", "set", "lo", "up")
    # All addresses are this machine's, so nothing ever goes through the cable.
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "nowhere")
    for each in addresses:
        ip("address", "add", f"{each}/24", "dev", "eth0")
    for device in ("nowhere", "eth0"):
        ip("link", "set", device, "up")
    # Sessions by the thousand from one address to another: without this, the kernel would
    # look for a free port for longer than all else takes.
    for option, value in (("ip_local_port_range", "1100 65000"), ("tcp_tw_reuse", "1")):
        Path("/proc/sys/net/ipv4", option).write_text(value)


class Lan:
    """Hosts on one switch; a context manager.

    Host number n has ``eth0`` with 10.77.0.(11 + n)/24.  ``tag`` tells two networks of one
    process apart; they do not reach each other, so their addresses may be the same.
    """

    def __init__(self, tag: str, hosts: list[str]) -> None:
        self.tag = tag
        self.hosts = hosts
        # Ready at the switch: a new process for each word would take many milliseconds.
        self.hand: subprocess.Popen[bytes] | None = None

    def space(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{PREFIX}-{os.getpid()}-{self.tag}-{host}"

    def address(self, host: str) -> str:
        """Return the address of a host's own."""
        return f"{NETWORK}.{11 + self.hosts.index(host)}"

    def command(self, host: str, words: list[str]) -> list[str]:
        """Return the command that runs ``words`` on a host, in the same process."""
        return ["ip", "netns", "exec", self.space(host), *words]

    def __enter__(self) -> Lan:
        self.sweep()
        switch = self.space("switch")
        try:
            ip("netns", "add", switch)
            # No spanning tree and no snooping: a port works from the moment it is up.
            kind = ["type", "bridge", "stp_state", "0", "mcast_snooping", "0"]
            ip("-n", switch, "link", "add", "br0", *kind)
            ip("-n", switch, "link", "set", "br0", "up")
            for host in self.hosts:
                self.plug(switch, host)
            words = ["ip", "-n", switch, "-batch", "-"]
            self.hand = subprocess.Popen(words, stdin=subprocess.PIPE)
        except BaseException:
            self.__exit__()
            raise
        return self

    def plug(self, switch: str, host: str) -> None:
        """Make a host and connect it to the switch."""
        space = self.space(host)
        ip("netns", "add", space)
        peer = ["peer", "name", "eth0", "netns", space]
        ip("-n", switch, "link", "add", f"p-{host}", "type", "veth", *peer)
        ip("-n", switch, "link", "set", f"p-{host}", "master", "br0", "up")
        ip("-n", space, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")

    def __exit__(self, *_: object) -> None:
        if self.hand is not None:
            self.hand.kill()
            self.hand.communicate()
        for host in (*self.hosts, "switch"):
            subprocess.run(
                ["ip", "netns", "delete", self.space(host)], stderr=subprocess.DEVNULL, check=False
            )

    def sweep(self) -> None:
        """Remove the namespaces of runs that were killed."""
        for name in re.findall(rf"^{PREFIX}-\d+-\S+", ip("netns", "list"), re.MULTILINE):
            if not Path("/proc", name.split("-")[1]).exists():
                ip("netns", "delete", name)

    def cable(self, host: str, up: bool) -> None:
        """Take a host's cable out of the switch, or put it back; it is done at once."""
        words = f"link set p-{host} {'up' if up else 'down'}\n"
        assert self.hand is not None
        assert self.hand.stdin is not None
        self.hand.stdin.write(words.encode())
        self.hand.stdin.flush()

    def holds(self, host: str, address: str) -> bool:
        """Say whether the kernel of a host has an address."""
        return bool(ip("-n", self.space(host), "-o", "address", "show", "to", address))


class Watch:
    """The judge on one host, of one address."""

    def __init__(self, lan: Lan, host: str, address: str, port: int, every: float) -> None:
        words = [sys.executable, "-m", "benchmarks.judge", address, str(port), str(every)]
        self.process = subprocess.Popen(
            lan.command(host, words),
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def say(self, word: bytes) -> None:
        """Tell the judge."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + b"\n")
        self.process.stdin.flush()

    def go(self) -> None:
        """Begin to watch."""
        self.say(b"go")

    def hear(self) -> dict[str, Any]:
        """Return what the judge says."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(10):
                raise SystemExit("the judge does not answer")
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def stop(self) -> tuple[list[tuple[float, str]], float]:
        """End the watch; return the answers (when, whose) and how late the judge was."""
        self.say(b"stop")
        found = self.hear()
        return [(when, name) for when, name in found["answers"]], found["late"]

    def await_phase(self, address: str, interval: float, phase: float) -> float:
        """Sleep until ``phase`` seconds after a hello of ``address``; return when that was."""
        self.say(b"now")
        hello: float = self.hear()["hello"].get(address, 0.0)
        due = hello + phase
        while due < time.monotonic() + 0.005:
            due += interval
        time.sleep(max(0.0, due - time.monotonic() - 0.001))
        while (now := time.monotonic()) < due:
            pass
        return now

    def settled(self, name: str, quiet: float, patience: float) -> bool:
        """Wait until only ``name`` has answered for ``quiet`` seconds; False if it does not."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.say(b"now")
            found, now = self.hear(), time.monotonic()
            if found["name"] == name and now - found["last"] < 0.1 and now - found["since"] > quiet:
                return True
            time.sleep(0.05)
        return False

    def close(self) -> None:
        """End the judge."""
        self.process.kill()
        self.process.communicate()
