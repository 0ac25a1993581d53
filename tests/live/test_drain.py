"""A node that is in no cluster is drained and put to work again.

``mailsecure drain`` is run as a postmaster does, with clients in all states; SIGTERM
likewise, where it does the same.  :mod:`.test_drain_pair` has the Master of a pair.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from urllib.request import urlopen

from .harness import BIN, ROOT, Gateway, LiveTestCase, free_port, until
from .wire import Wire

DOMAINS = "example.com = maildir:mail"
RCPT = "RCPT TO:<a@example.com>"
GOODBYE = "421 4.3.2"


def begin(node: Gateway, *arguments: str) -> subprocess.Popen[str]:
    """Start ``mailsecure drain`` and do not wait for it."""
    return subprocess.Popen(
        [str(BIN / "mailsecure"), "drain", *arguments, "-c", str(node.ini)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Alone(LiveTestCase):
    """A node in no cluster."""

    def setUp(self) -> None:
        """Begin with a node at work."""
        super().setUp()
        self.node = self.gateway(domains=DOMAINS)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a drain, which ends with the test; returns when the daemon knows of it."""
        process = begin(self.node, *arguments)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        until(lambda: self.state() != "working", "the drain", tell=self.node.tail)
        return process

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, list[str]]:
        """Wait for a command's end; return its exit code and what it printed."""
        out, _ = process.communicate(timeout=20)
        return process.returncode, out.splitlines()

    def state(self) -> str:
        """Return how far the drain is."""
        return str(self.node.status()["drain"]["state"])

    def drain(self, *arguments: str) -> str:
        """Drain, to the end."""
        done = self.node.cli("drain", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def undrain(self) -> str:
        """Undrain; return what it said."""
        done = self.node.cli("undrain")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def turned_away(self) -> None:
        """A new session is told 421, and is over."""
        with Wire(self.node.address) as wire:
            (said,) = wire.rest()
        self.assertTrue(said.startswith(GOODBYE), said)

    def test_idle(self) -> None:
        """Nobody is there: it is drained at once, refuses, and greets again after undrain."""
        with self.quicker_than(2):
            self.assertEqual(self.drain(), "drained\n")
        self.turned_away()
        self.assertIn("drained: mailsecure undrain", self.node.cli("status").stdout)
        with self.quicker_than(2):
            self.assertEqual(self.drain(), "drained\n")
        self.assertEqual(self.undrain(), "at work again\n")
        self.assertTrue(self.node.greets())
        self.assertEqual(self.undrain(), "was not drained\n")
        self.assertTrue(self.node.greets())
        self.node.line("drained: 0 sessions here")
        self.node.line("working: 0 sessions here")

    def test_a_transaction_under_way(self) -> None:
        """Sessions go on, begin further transactions, and end by themselves."""
        with Wire(self.node.address) as wire:
            wire.hello()
            for line in ("MAIL FROM:<s@client.test>", RCPT, "DATA"):
                wire.command(line)
            drain = self.begin()
            self.turned_away()
            wire.send(b"Subject: one\r\n\r\nx\r\n.\r\n")
            self.assertTrue(wire.reply().startswith("250 2.0.0"))
            self.assertEqual(self.state(), "draining")
            self.assertTrue(wire.command("MAIL FROM:<s@client.test>").startswith("250"))
            self.assertTrue(wire.command("RSET").startswith("250"))
            self.assertTrue(wire.command("QUIT").startswith("221"))
        with self.quicker_than(2):
            code, lines = self.ended(drain)
        self.assertEqual((code, lines[-1]), (0, "drained"))
        self.assertRegex(lines[0], r"^draining: 1 sessions here, (5m|4m\d\ds) left$")
        mail = self.node.directory / "mail" / "new"
        until(lambda: mail.is_dir() and any(mail.iterdir()), "the delivery")

    def test_the_time_is_over(self) -> None:
        """The idle are told so; a transaction may end, the next does not begin."""
        with Wire(self.node.address) as idle, Wire(self.node.address) as busy:
            idle.hello()
            busy.hello()
            for line in ("MAIL FROM:<s@client.test>", RCPT, "DATA"):
                busy.command(line)
            began = time.monotonic()
            drain = self.begin("--timeout", "1s")
            self.assertTrue(idle.reply().startswith(GOODBYE))
            self.assertGreater(time.monotonic() - began, 0.9)
            self.assertTrue(busy.is_silent(0.5))
            busy.send(b"Subject: last\r\n\r\nx\r\n.\r\n")
            self.assertTrue(busy.reply().startswith("250 2.0.0"))
            self.assertTrue(busy.reply().startswith(GOODBYE))
        self.assertEqual(self.ended(drain)[0], 0)

    def test_another_time(self) -> None:
        """Two postmasters: the later word is the one that counts, and both are answered."""
        with Wire(self.node.address) as wire:
            wire.hello()
            one = self.begin("--timeout", "10m")
            two = self.begin("--timeout", "1s")
            self.assertTrue(wire.reply().startswith(GOODBYE))
        for process in (one, two):
            code, lines = self.ended(process)
            self.assertEqual((code, lines[-1]), (0, "drained"))

    def test_called_off(self) -> None:
        """Undrained meanwhile: sessions go on, and whoever waits is told."""
        with Wire(self.node.address) as wire:
            wire.hello()
            self.assertIn("1 sessions here", self.drain("--no-wait"))
            waiting = self.begin("--timeout", "10m")
            until(lambda: self.node.status()["drain"]["left"] > 400, "the later word")
            self.assertEqual(self.undrain(), "at work again\n")
            code, lines = self.ended(waiting)
            self.assertEqual(code, os.EX_TEMPFAIL)
            self.assertEqual(lines[-1], "at work again: somebody undrained it")
            self.assertTrue(self.node.greets())
            self.assertTrue(wire.is_silent(0.5))
            self.assertTrue(wire.command("NOOP").startswith("250"))

    def test_called_off_at_the_last_moment(self) -> None:
        """Undrained after the last goodbyes: those who come then are not cut off with them."""
        with Wire(self.node.address) as rude:
            rude.hello()
            drain = self.begin("--timeout", "0s")
            self.assertTrue(rude.reply().startswith(GOODBYE))
            self.undrain()
            with Wire(self.node.address) as wire:
                wire.hello()
                self.assertTrue(wire.is_silent(2.5))
                self.assertTrue(wire.command("NOOP").startswith("250"))
        self.ended(drain)

    def test_restart(self) -> None:
        """A restart ends it."""
        self.drain()
        self.node.stop()
        self.node.restart()
        self.assertEqual(self.state(), "working")

    def test_metric(self) -> None:
        """``mailsecure_draining`` says it."""
        port = free_port()
        node = self.node = self.gateway(
            domains=DOMAINS, metrics=f"listen = tcp:{port}:interface=127.0.0.1"
        )

        def value() -> str:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
            return next(each for each in lines if each.startswith("mailsecure_draining "))

        self.assertEqual(float(value().split()[1]), 0)
        self.drain()
        self.assertEqual(float(value().split()[1]), 1)
        self.assertTrue(node.greets() is False)

    def test_terminated_twice(self) -> None:
        """A second SIGTERM changes nothing: the transaction may end; no traceback."""
        with Wire(self.node.address) as wire:
            wire.hello()
            for line in ("MAIL FROM:<s@client.test>", RCPT, "DATA"):
                wire.command(line)
            self.node.signal(signal.SIGTERM)
            self.node.line("stopping: ")
            self.node.signal(signal.SIGTERM)
            self.node.line("stopping already")
            wire.send(b"Subject: last\r\n\r\nx\r\n.\r\n")
            self.assertTrue(wire.reply().startswith("250 2.0.0"))
        self.assertIn(self.node.wait(), (0, -signal.SIGTERM))
        self.assertEqual(self.node.matching("Traceback|Unhandled|not running"), [])
