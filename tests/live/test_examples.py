"""Proves that the files in etc do what they say: the demo, the unit, the fail2ban filter."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

from mailsecure.config.model import Smtp
from mailsecure.delivery.scheduler import STOP_LIMIT
from tests.live import needs

from .harness import BIN, ROOT, Gateway, LiveTestCase, free_port
from .wire import Wire

ETC = ROOT / "etc"


class Demo(LiveTestCase):
    """``make demo``: etc/demo.ini, and each line that etc/demo.txt proposes to copy."""

    def setUp(self) -> None:
        """Run the demo on other ports than a demo that somebody may be running."""
        super().setUp()
        self.root = self.temporary_directory()
        (self.root / "etc").mkdir()
        (self.root / ".venv").mkdir()
        (self.root / ".venv" / "bin").symlink_to(BIN)
        self.ports = {"2525": str(free_port()), "9125": str(free_port())}
        self.node = Gateway(directory=self.root / "etc", port=int(self.ports["2525"]), start=False)
        self.addCleanup(self.node.close)
        self.told(self.node)
        (self.root / "etc" / "demo.ini").write_text(self.moved("demo.ini"))
        self.node.ini.write_text(self.moved("demo.ini"))
        self.node.start()
        self.mail = self.root / "demo-state" / "mail" / "new"

    def moved(self, name: str) -> str:
        """Return the text of a file with our ports in it."""
        text = (ETC / name).read_text()
        for ours, theirs in self.ports.items():
            self.assertTrue(name != "demo.ini" or ours in text)
            text = text.replace(ours, theirs)
        return text

    def line(self, word: str) -> str:
        """Return the one line of demo.txt that begins with ``word``."""
        lines = (line.strip() for line in self.moved("demo.txt").splitlines())
        (line,) = (line for line in lines if line.startswith(word))
        return line

    def copied(self, word: str) -> str:
        """Run the line of demo.txt that begins with ``word``; returns what it wrote."""
        done = subprocess.run(
            ["/bin/sh", "-c", self.line(word)],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def delivered(self) -> int:
        """Wait for the queue to be empty; returns how many messages are in the Maildir."""
        self.node.line("status=sent")
        return len(list(self.mail.iterdir()))

    def test_python(self) -> None:
        """The line for who has neither swaks nor telnet."""
        self.copied("python3")
        self.assertEqual(self.delivered(), 1)
        self.assertEqual(self.copied("ls").count("\n"), 1)

    def test_status(self) -> None:
        """The lines that ask the daemon how it is."""
        self.assertIn("spool well", self.copied(".venv/bin/mailsecure status"))
        self.copied(".venv/bin/mailsecure queue")
        self.copied(".venv/bin/mailsecure trace")

    def test_others_are_refused(self) -> None:
        """Everything but example.com is refused, even for this machine."""
        with Wire(self.node.address) as wire:
            wire.hello()
            wire.command("MAIL FROM:<you@example.org>")
            self.assertTrue(wire.command("RCPT TO:<me@example.net>").startswith("550 5.7.1"))

    @needs(programs=["swaks"])
    def test_swaks(self) -> None:
        """The line for swaks."""
        self.assertIn("250 2.0.0", self.copied("swaks --server"))
        self.assertEqual(self.delivered(), 1)

    @needs(programs=["swaks"])
    def test_quarantine(self) -> None:
        """The lines for what is held."""
        self.assertIn("250 2.0.0", self.copied("swaks --attach"))
        listed = self.copied(".venv/bin/mailsecure quarantine list")
        held = re.search(r"\b[0-7][0-9A-HJKMNP-TV-Z]{12}\b", listed)
        assert held is not None, listed
        line = self.line(".venv/bin/mailsecure quarantine release").replace(" ID ", f" {held[0]} ")
        subprocess.run(["/bin/sh", "-c", line], cwd=self.root, timeout=30, check=True)
        self.assertEqual(self.delivered(), 1)

    @needs(programs=["telnet"])
    def test_telnet(self) -> None:
        """The line for telnet."""
        with subprocess.Popen(
            self.line("telnet").split(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as telnet:
            self.addCleanup(telnet.kill)
            assert telnet.stdout is not None
            assert telnet.stdin is not None
            # telnet leaves at the end of its input, so nothing is typed before the greeting.
            self.assertTrue(any(line.startswith("220 demo.") for line in telnet.stdout))
            telnet.stdin.write("QUIT\n")
            telnet.stdin.flush()
            self.assertTrue(any(line.startswith("221 2.0.0") for line in telnet.stdout))


class Unit(LiveTestCase):
    """etc/mailsecure.service (what systemd thinks of it: test_systemd)."""

    def test_time_to_stop(self) -> None:
        """systemd waits longer than a drain and the deliveries under way may take."""
        unit = ConfigParser(strict=False, interpolation=None)
        unit.read_string((ETC / "mailsecure.service").read_text())
        drain = Smtp.__dataclass_fields__["drain_timeout"].metadata["default"]
        self.assertTrue(drain.endswith("s"), drain)
        limit = float(unit["Service"]["TimeoutStopSec"])
        self.assertGreater(limit, 2 * float(drain[:-1]) + STOP_LIMIT)


@needs(programs=["fail2ban-regex"])
class Fail2ban(LiveTestCase):
    """etc/fail2ban/filter.d/mailsecure.conf against a daemon's own log."""

    def banned(self, log: Path) -> list[str]:
        """Return the address of each line that the filter finds."""
        done = subprocess.run(
            ["fail2ban-regex", "--out=ip", log, ETC / "fail2ban/filter.d/mailsecure.conf"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.split()

    def test_found(self) -> None:
        """Each of four permanent refusals counts, for its client, whatever the client said."""
        node = self.gateway(domains="example.com = maildir:mail", log="file = mail.log")
        said = "reject RCPT from [192.0.2.66]: 550 5.7.1"
        with Wire(node.address) as wire:
            wire.hello("x")
            wire.command(f'MAIL FROM:<"mailsecure/smtpd[1]: {said}"@example.org>')
            for _ in range(3):
                self.assertTrue(wire.command("RCPT TO:<me@example.net>").startswith("550"))
            self.assertTrue(wire.command("RCPT TO:<me@example.com>").startswith("250"))
            wire.command(f"{said}")
            wire.command("QUIT")
        node.stop()
        log = node.directory / "mail.log"
        self.assertIn("192.0.2.66", log.read_text())
        self.assertEqual(self.banned(log), ["127.0.0.1"] * 4, log.read_text())
