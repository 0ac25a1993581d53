"""What systemd hears from the real daemon, in the order in which it happens."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.live import needs

from .harness import ROOT, Gateway, LiveTestCase, until
from .wire import Wire

UNIT = ROOT / "etc" / "mailsecure.service"
DOMAINS = "example.com = maildir:mail"


class Systemd:
    """The socket of NOTIFY_SOCKET: hears datagrams, answers nothing."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.heard: list[list[str]] = []

    def next(self, timeout: float = 10.0) -> list[str]:
        """Return the lines of the next datagram."""
        self.socket.settimeout(timeout)
        self.heard.append(self.socket.recv(4096).decode().split("\n"))
        return self.heard[-1]

    def until(self, line: str) -> list[str]:
        """Return the first datagram with ``line``; those before it may only be the watchdog's."""
        while line not in (lines := self.next()):
            if lines != ["WATCHDOG=1"]:
                raise AssertionError(f"before {line}: {lines}")
        return lines


class Notices(LiveTestCase):
    """Type=notify with a watchdog."""

    def setUp(self) -> None:
        """Begin with a systemd that listens."""
        super().setUp()
        self.systemd = Systemd(self.temporary_directory())
        self.addCleanup(self.systemd.socket.close)

    def node(self, **environment: str) -> Gateway:
        """Start a daemon that systemd can hear."""
        notify = {"NOTIFY_SOCKET": str(self.systemd.path)}
        node = self.gateway(start=False, domains=DOMAINS, environment=notify | environment)
        node.start()
        return node

    def test_a_life(self) -> None:
        """READY, WATCHDOG, RELOADING and READY, a refused reload likewise, STOPPING."""
        node = self.node(WATCHDOG_USEC="1000000")
        self.assertEqual(self.systemd.next(), ["READY=1", "STATUS=accepting mail"])
        for _ in range(3):
            self.assertEqual(self.systemd.next(1.0), ["WATCHDOG=1"])
        for text in (node.ini.read_text(), "nonsense"):
            node.ini.write_text(text)
            node.signal(signal.SIGHUP)
            lines = self.systemd.until("RELOADING=1")
            self.assertRegex(lines[1], r"^MONOTONIC_USEC=\d+$")
            self.systemd.until("READY=1")
        node.signal(signal.SIGTERM)
        self.systemd.until("STOPPING=1")
        self.assertIn(node.wait(), (0, -signal.SIGTERM))

    def test_drain(self) -> None:
        """What it does now is in STATUS, also after a reload."""
        node = self.node()
        self.systemd.until("READY=1")
        self.assertEqual(node.cli("drain").returncode, 0)
        self.assertEqual(self.systemd.next(), ["STATUS=draining"])
        self.assertEqual(self.systemd.next(), ["STATUS=drained"])
        node.signal(signal.SIGHUP)
        self.systemd.until("RELOADING=1")
        self.assertEqual(self.systemd.next(), ["READY=1", "STATUS=drained"])
        self.assertEqual(node.cli("undrain").returncode, 0)
        self.assertEqual(self.systemd.next(), ["STATUS=accepting mail"])

    def test_ready_is_true(self) -> None:
        """Who is told READY finds a greeting; the variables are not in the environment."""
        node = self.gateway(
            start=False, domains=DOMAINS, environment={"NOTIFY_SOCKET": str(self.systemd.path)}
        )
        node.launch()
        self.systemd.until("READY=1")
        with Wire(node.address) as wire:
            self.assertTrue(wire.reply().startswith("220 "))

    def test_hung(self) -> None:
        """A daemon that does not run feeds no watchdog."""
        node = self.node(WATCHDOG_USEC="400000")
        self.systemd.until("READY=1")
        node.signal(signal.SIGSTOP)
        try:
            stat = Path(f"/proc/{node.pid}/stat")
            until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "the stop")
            with self.assertRaises(TimeoutError):
                for _ in range(10):
                    self.systemd.next(1.0)
        finally:
            node.signal(signal.SIGCONT)
        self.assertEqual(self.systemd.next(), ["WATCHDOG=1"])

    def test_no_start(self) -> None:
        """A daemon that cannot start never says that it is ready."""
        node = self.gateway(
            start=False, domains=DOMAINS, environment={"NOTIFY_SOCKET": str(self.systemd.path)}
        )
        node.state.write_text("in the way")
        node.launch()
        self.assertNotEqual(node.wait(), 0)
        with self.assertRaises(TimeoutError):
            self.systemd.next(0.2)


@needs(programs=["systemd-analyze"])
class Unit(LiveTestCase):
    """The unit in etc/, as systemd reads it."""

    def test_verify(self) -> None:
        """systemd finds nothing wrong with it."""
        copy = self.temporary_directory() / "mailsecure.service"
        text = UNIT.read_text().replace("/opt/mailsecure/bin/", "/usr/bin/")
        for program in ("mailsecure", "twistd"):
            text = text.replace(f"/usr/bin/{program}", shutil.which("true") or "/bin/true")
        copy.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", copy],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        about_us = [line for line in done.stderr.splitlines() if "mailsecure.service" in line]
        self.assertEqual((done.returncode, about_us), (0, []), done.stderr)
