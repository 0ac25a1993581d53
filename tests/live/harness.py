"""The real daemon as a child process, for tests on real sockets.

:class:`Gateway` writes an ini into a directory of its own, starts ``twistd mailsecure``
on a free loopback port, waits for its greeting, and is the hands of a postmaster on it:
log lines, signals, restarts, the command line.  Every wait is bounded and tells, when it
fails, what the daemon wrote last.

:class:`LiveTestCase` cleans up and adds the daemon's last lines to every failed
assertion.  :func:`shared` keeps one daemon for all tests of a class, because trial does
not call ``setUpClass``; the next class, or the end of the run, stops it.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from mailsecure.control.client import ask
from mailsecure.control.server import SOCKET_NAME

from .hearing import Hearing

__all__ = ["BIN", "ROOT", "Gateway", "LiveTestCase", "free_port", "program", "shared", "until"]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

T = TypeVar("T")

#: What every test's ini holds unless the test says otherwise: a stranger's view of the
#: gateway, without the waits that only cost time here.
DEFAULTS = {
    "node": {"name": "mx", "hostname": "mx.test", "state": "state"},
    "smtp": {"greeting_delay": "0s", "session_rate": "0", "message_rate": "0"}
    | {"recipient_rate": "0", "drain_timeout": "5s"},
    "relay": {"networks": ""},
    "domains": {},
    "delivery": {"retry": "200ms 200ms 400ms 1s", "dns_servers": "127.0.0.1:1"},
    "spool": {"min_free": "0"},
    # Tests of what judges and remembers say so.
    "scan": {"checks": ""},
    "records": {"enabled": "no"},
    "log": {"colour": "no"},
}


_BLOCK = 100
_BLOCKS = range(15_000, 31_000, _BLOCK)
#: What keeps blocks of ports for this process, and the ports of them that are left.
_blocks: list[socket.socket] = []
_ports: list[int] = []


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port nobody listens on, outside the range the kernel lends clients.

    So a restarted daemon finds its port free, however many connections were made since.
    A port is returned once, and not by another run of tests on this machine: each has
    blocks of its own, which a name in the kernel (an abstract Unix socket) keeps for it.
    """
    while _ports or _reserve():
        port = _ports.pop()
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    raise AssertionError("no free port between 15000 and 31000")


def _reserve() -> bool:
    """Keep one more block of ports for this process; say whether there was one."""
    for first in random.sample(_BLOCKS, len(_BLOCKS)):
        keeper = socket.socket(socket.AF_UNIX)
        try:
            keeper.bind(f"\0mailsecure-tests-ports-{first}")
        except OSError:
            keeper.close()
            continue
        _blocks.append(keeper)
        _ports.extend(range(first, first + _BLOCK))
        return True
    return False


def program(name: str) -> str:
    """Return where a program is; daemons' are not in everybody's path."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert found is not None, f"{name} is not installed"
    return found


def until(
    true: Callable[[], T], what: str, timeout: float = 10.0, tell: Callable[[], str] = str
) -> T:
    """Ask ``true`` until it says something true; fail with ``what`` after ``timeout``."""
    deadline = time.monotonic() + timeout
    while not (value := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}\n{tell()}")
        time.sleep(0.01)
    return value


class Gateway:
    """One mailsecure of a test; each keyword is a section of its ini, as text.

    ``prefix`` is put in front of the command (``strace …``, ``prlimit …``); ``listen``
    overrides the address to listen on.  ``seconds_to_start`` is how long the last start
    took until the greeting.
    """

    def __init__(
        self,
        *,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        directory: Path | None = None,
        port: int = 0,
        start: bool = True,
        **sections: str,
    ) -> None:
        self._own = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="mailsecure-live-"))
        self.directory.chmod(0o755)
        self.ini = self.directory / "mailsecure.ini"
        self.port = port or free_port()
        self.prefix = list(prefix)
        self.environment = environment or {}
        self.seconds_to_start = 0.0
        self._hearing = Hearing()
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(**sections)
        atexit.register(self.close)
        if start:
            self.start()

    # -- the ini

    def configure(self, **sections: str) -> None:
        """Write the ini anew: the defaults of tests and these sections over them."""
        whole = {name: dict(options) for name, options in DEFAULTS.items()}
        whole["smtp"]["listen"] = f"tcp:{self.port}:interface=127.0.0.1"
        for name, text in sections.items():
            whole.setdefault(name, {}).update(_options(text))
        self.sections = whole
        self.ini.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
                for name, options in whole.items()
                if options
            )
        )

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.directory / self.sections["node"]["state"]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    # -- its life

    def launch(self, *arguments: str) -> None:
        """Start the daemon and do not wait."""
        if self.process is not None and self.process.poll() is None:
            raise AssertionError(f"the daemon runs already\n{self.tail()}")
        twistd = [str(BIN / "twistd"), "-n", "--pidfile=", "mailsecure", "-c", str(self.ini)]
        self.process = subprocess.Popen(
            [*self.prefix, *(arguments or twistd)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._hearing.begin(self.process.stdout)

    def start(self, timeout: float = 20.0) -> float:
        """Start the daemon and wait for its greeting; returns how long that took."""
        began = time.monotonic()
        self.launch()
        while not self.greets():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the daemon ended at once\n{self.tail()}")
            if time.monotonic() - began > timeout:
                raise AssertionError(f"no greeting within {timeout:g} s\n{self.tail()}")
            time.sleep(0.005)
        self.seconds_to_start = time.monotonic() - began
        return self.seconds_to_start

    def greets(self) -> bool:
        """Say whether somebody greets with 220 on the port now."""
        with suppress(OSError), socket.create_connection(self.address, 5) as probe:
            probe.settimeout(5)
            greeting = probe.recv(512)
            probe.sendall(b"QUIT\r\n")
            probe.recv(512)
            return greeting.startswith(b"220")
        return False

    @property
    def pid(self) -> int:
        """The daemon's own process, not that of a prefix."""
        if self.process is None:
            raise AssertionError("the daemon was not started")
        return _twistd_below(self.process.pid) if self.prefix else self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for the daemon's end; returns its exit code (negative: the signal)."""
        if self.process is None:
            raise AssertionError("the daemon was not started")
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {timeout:g} s\n{self.tail()}") from None

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and wait for the end."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def restart(self) -> float:
        """Start again after :meth:`stop` or :meth:`kill`."""
        return self.start()

    def reload(self, timeout: float = 10.0, **sections: str) -> str:
        """Write the ini anew, send SIGHUP; returns the lines that the daemon then wrote."""
        mark = len(self.lines)
        self.configure(**sections)
        self.signal(signal.SIGHUP)
        self.line(r"(?i)reload|re-read|settings", since=mark, timeout=timeout)
        # It answers when it has said it all.
        self.status()
        return "\n".join(self.lines[mark:])

    def close(self) -> None:
        """End it in any case and remove its directory."""
        self.kill()
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    # -- what it says

    @property
    def lines(self) -> list[str]:
        """Every line that it has written until now, in all its lives."""
        return self._hearing.lines

    def line(self, pattern: str, timeout: float = 10.0, since: int = 0) -> re.Match[str]:
        """Wait for a line in which ``pattern`` is found; returns the match."""
        if match := self._hearing.line(pattern, timeout, since):
            return match
        raise AssertionError(f"no line with {pattern!r} within {timeout:g} s\n{self.tail()}")

    def matching(self, pattern: str, since: int = 0) -> list[str]:
        """Return the lines so far in which ``pattern`` is found."""
        found = re.compile(pattern)
        return [line for line in self.lines[since:] if found.search(line)]

    def tail(self, lines: int = 40) -> str:
        """Return the last lines, for people who look for what went wrong."""
        return "\n".join(["--- the daemon's last lines ---", *self.lines[-lines:], "---"])

    # -- its command line

    def cli(self, *arguments: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Run ``mailsecure COMMAND -c INI …`` and return what it did."""
        return subprocess.run(
            [str(BIN / "mailsecure"), *arguments, "-c", str(self.ini)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """Return what ``mailsecure status --json`` says."""
        for word, value in ask(self.state / SOCKET_NAME, "status", {}, timeout=10):
            if word == "done":
                return value
        raise AssertionError("status gave no answer")

    def queued(self) -> int:
        """Return how many messages are in the spool."""
        return int(self.status()["spool"].get("messages", -1))

    def settle(self, timeout: float = 20.0) -> None:
        """Wait until no session is open and nothing is left in the spool."""

        def settled() -> bool:
            status = self.status()
            return status["sessions"] == 0 and status["spool"].get("messages") == 0

        until(settled, "the queue empty and all sessions over", timeout, self.tail)

    def sessions_over(self, timeout: float = 20.0) -> None:
        """Wait until no session is open."""
        until(lambda: self.status()["sessions"] == 0, "all sessions over", timeout, self.tail)

    def memory(self) -> int:
        """Return the daemon's resident octets."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", text)
        return int(match[1]) * 1024 if match else 0

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """Yield the log's lines as objects; only with ``[log] format = json``."""
        for line in list(self.lines):
            yield json.loads(line)


def _twistd_below(pid: int) -> int:
    """Return the process that runs twistd: ``pid`` or one that it started."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if words[1:2] and words[1].endswith(b"/twistd"):
        return pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(AssertionError, OSError):
            return _twistd_below(int(child))
    raise AssertionError(f"no twistd below process {pid}")


def _options(text: str) -> dict[str, str]:
    """Return the options of ``text``; an indented line continues the one above."""
    options: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if not line.strip():
            continue
        if line[0].isspace() and last:
            options[last] += "\n    " + line.strip()
            continue
        last, _, value = (part.strip() for part in line.partition("="))
        options[last] = value
    return options


# -- one daemon for many tests

#: Holds at most one entry: what is shared now, and what closes it.
_shared: dict[Hashable, tuple[Any, Callable[[], None]]] = {}


def shared(key: Hashable, make: Callable[[], tuple[T, Callable[[], None]]]) -> T:
    """Return what ``make`` made for ``key``; what was shared before is closed.

    ``make`` returns a value and what closes it.
    """
    if key not in _shared:
        close_shared()
        _shared[key] = make()
    value: T = _shared[key][0]
    return value


def close_shared() -> None:
    """Close what is shared now, if anything is."""
    while _shared:
        _, (_, close) = _shared.popitem()
        close()


atexit.register(close_shared)


class LiveTestCase(unittest.TestCase):
    """A test with daemons; a failed assertion shows their last lines."""

    def setUp(self) -> None:
        """Begin without daemons."""
        self._told: list[Gateway] = []

    def gateway(self, **options: Any) -> Gateway:
        """Start a daemon for this test alone; it ends with the test."""
        gateway = Gateway(start=False, **{k: v for k, v in options.items() if k != "start"})
        self.addCleanup(gateway.close)
        self.told(gateway)
        if options.get("start", True):
            gateway.start()
        return gateway

    def told(self, gateway: Gateway) -> None:
        """Have ``gateway``'s last lines shown when an assertion fails."""
        self._told.append(gateway)

    def temporary_directory(self) -> Path:
        """Return a directory that is removed after the test."""
        directory = Path(tempfile.mkdtemp(prefix="mailsecure-live-"))
        directory.chmod(0o755)
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def _formatMessage(self, msg: Any, standardMsg: str) -> str:
        told = "\n".join(gateway.tail() for gateway in getattr(self, "_told", ()))
        return f"{super()._formatMessage(msg, standardMsg)}\n{told}"

    @contextmanager
    def quicker_than(self, seconds: float) -> Iterator[None]:
        """Fail where the block takes longer."""
        began = time.monotonic()
        yield
        self.assertLess(time.monotonic() - began, seconds)
