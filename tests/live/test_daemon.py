"""The daemon's life as a postmaster sees it: start, settings, log, command line, end."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from tests.live import needs

from .certificates import Authority
from .harness import BIN, ROOT, Gateway, LiveTestCase, until
from .load import unique_message
from .sinks import Maildir, Sink, unique_of
from .wire import Closed, Wire, send_message

MESSAGE = b"Subject: life\r\n\r\nbody\r\n"


class DaemonTestCase(LiveTestCase):
    """A test with a next hop for example.com."""

    def setUp(self) -> None:
        """Begin with a sink."""
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.close)
        self.domains = f"example.com = {self.sink.route}"

    def ended(self, node: Gateway) -> tuple[int, str]:
        """Start a daemon that cannot; returns its exit code and what it wrote."""
        node.launch()
        code = node.wait()
        return code, "\n".join(node.lines)


#: Python with nothing of ours.
TWISTED_ALONE = [sys.executable, "-c", "import twisted.internet.reactor, twisted.protocols.tls"]


class Start(DaemonTestCase):
    """It starts at once, or says why not."""

    def test_under_a_second(self) -> None:
        """From the command to the greeting it takes less than a second.

        On a machine that is busy with other things: a few times what Twisted alone takes.
        """
        node = self.gateway(domains=self.domains)
        times, bare = [node.seconds_to_start], []
        for _ in range(3):
            node.stop()
            began = time.monotonic()
            subprocess.run(TWISTED_ALONE, check=True, timeout=30)
            bare.append(time.monotonic() - began)
            times.append(node.restart())
        self.assertLess(min(times), max(1.0, 5 * max(bare)), f"{times}, Twisted alone: {bare}")

    def test_what_it_says(self) -> None:
        """It says where it listens and where mail goes."""
        node = self.gateway(domains=self.domains)
        node.line(rf"listening .*127\.0\.0\.1:{node.port}")
        node.line(rf"example\.com .*{re.escape(self.sink.route)}")

    def test_bad_ini(self) -> None:
        """A bad ini stops it with every problem at once, each with its line."""
        node = self.gateway(start=False)
        node.ini.write_text(
            "[smtp]\nlisten = tcp:2525\nmax_sesions = 5\ncommand_timeout = 5\n"
            "[domians]\n[relay]\nnetworks = 0.0.0.0/0\n[domains]\nexample.com = nowhere\n"
        )
        code, told = self.ended(node)
        self.assertEqual(code, os.EX_CONFIG)
        for expected in (
            r"mailsecure\.ini:3: .*max_sesions.*max_sessions",
            r"mailsecure\.ini:4: .*command_timeout",
            r"mailsecure\.ini:5: .*domians.*domains",
            r"mailsecure\.ini:7: .*networks",
            r"mailsecure\.ini:9: .*example\.com",
        ):
            self.assertRegex(told, expected)
        self.assertNotIn("Traceback", told)

    def test_no_ini(self) -> None:
        """A missing ini is named."""
        node = self.gateway(start=False)
        node.ini.unlink()
        code, told = self.ended(node)
        self.assertEqual(code, os.EX_CONFIG)
        self.assertIn(str(node.ini), told)
        self.assertNotIn("Traceback", told)

    def test_port_taken(self) -> None:
        """A port that cannot be bound is fatal, with the address and the reason."""
        node = self.gateway(start=False, domains=self.domains)
        with socket.socket() as other:
            other.bind(node.address)
            other.listen()
            code, told = self.ended(node)
        self.assertNotEqual(code, 0)
        self.assertRegex(told, rf"cannot listen on .*{node.port}.*: Address already in use")
        self.assertNotIn("Traceback", told)

    def test_state_taken(self) -> None:
        """Two daemons never share a state directory."""
        node = self.gateway(domains=self.domains)
        other = self.gateway(start=False, domains=self.domains, node=f"state = {node.state}")
        code, told = self.ended(other)
        self.assertNotEqual(code, 0)
        self.assertIn(str(node.state), told)
        self.assertNotIn("Traceback", told)
        self.assertTrue(node.greets())

    def test_state_unusable(self) -> None:
        """A state directory that is none is fatal, with the reason."""
        node = self.gateway(start=False, domains=self.domains)
        node.state.write_text("not a directory")
        code, told = self.ended(node)
        self.assertNotEqual(code, 0)
        self.assertIn(str(node.state), told)
        self.assertNotIn("Traceback", told)

    def test_in_the_background(self) -> None:
        """Without -n it becomes a daemon with a pidfile, and SIGTERM removes that."""
        directory = self.temporary_directory()
        node = self.gateway(
            start=False, directory=directory, domains=self.domains, log="file = mail.log"
        )
        pidfile = directory / "mailsecure.pid"
        done = subprocess.run(
            [BIN / "twistd", f"--pidfile={pidfile}", "mailsecure", "-c", node.ini],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=20,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        until(pidfile.exists, "the pidfile", 10)
        pid = int(pidfile.read_text())
        try:
            until(node.greets, "the greeting", 10)
            self.assertTrue(send_message(node.address, MESSAGE, "a@example.com").startswith("250"))
            self.sink.wait(1)
            self.assertEqual(stat.S_IMODE(node.state.stat().st_mode), 0o700)
        finally:
            os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), "its end", 15)
        self.assertFalse(pidfile.exists())
        self.assertIn("status=sent", (directory / "mail.log").read_text())


class End(DaemonTestCase):
    """SIGTERM."""

    def test_drain(self) -> None:
        """A transaction finishes, an idle session is told, a new one is not taken."""
        node = self.gateway(domains=self.domains)
        unique, content = unique_message()
        with Wire(node.address) as busy, Wire(node.address) as idle:
            idle.hello()
            busy.hello()
            for command in ("MAIL FROM:<s@client.test>", "RCPT TO:<a@example.com>", "DATA"):
                busy.command(command)
            busy.send(content[:100])
            began = time.monotonic()
            node.signal(signal.SIGTERM)
            self.assertTrue(idle.reply().startswith("421 4.3.2"))
            idle.close()
            time.sleep(0.3)
            with self.assertRaises((ConnectionRefusedError, Closed, AssertionError)):
                Wire(node.address).reply()
            busy.send(content[100:] + b".\r\n")
            self.assertTrue(busy.reply().startswith("250 2.0.0"))
            busy.close()
            self.assertIn(node.wait(), (0, -signal.SIGTERM))
        self.assertLess(time.monotonic() - began, 4)
        if unique not in self.sink.uniques():
            node.restart()
            until(lambda: unique in self.sink.uniques(), "its delivery", 15, node.tail)

    def test_drain_with_a_rude_client(self) -> None:
        """A client that is told to go and stays does not hold up the end."""
        node = self.gateway(domains=self.domains)
        with Wire(node.address) as idle:
            idle.hello()
            began = time.monotonic()
            node.signal(signal.SIGTERM)
            self.assertTrue(idle.reply().startswith("421 4.3.2"))
            node.wait()
        self.assertLess(time.monotonic() - began, 4)

    def test_drain_is_bounded(self) -> None:
        """A transaction that does not finish is ended after drain_timeout."""
        node = self.gateway(domains=self.domains, smtp="drain_timeout = 1s")
        with Wire(node.address) as busy:
            busy.hello()
            for command in ("MAIL FROM:<s@client.test>", "RCPT TO:<a@example.com>", "DATA"):
                busy.command(command)
            began = time.monotonic()
            node.signal(signal.SIGTERM)
            self.assertTrue(busy.reply().startswith("421 4.3.2"))
            node.wait(10)
        self.assertGreater(time.monotonic() - began, 0.8)

    def test_a_sink_that_stalls(self) -> None:
        """A delivery that hangs does not keep the daemon from ending; the mail is kept."""
        node = self.gateway(domains=self.domains)
        self.sink.stalled.set()
        unique, content = unique_message()
        send_message(node.address, content, "a@example.com")
        until(lambda: self.sink.open, "the delivery", 10, node.tail)
        node.stop(timeout=40)
        self.sink.stalled.clear()
        node.restart()
        until(lambda: unique in self.sink.uniques(), "its delivery", 15, node.tail)


class Reload(DaemonTestCase):
    """SIGHUP."""

    def test_good(self) -> None:
        """What can be applied is applied at once; sessions go on."""
        node = self.gateway(domains=self.domains)
        with Wire(node.address) as session:
            session.hello()
            said = node.reload(
                domains=f"{self.domains}\nnew.test = {self.sink.route}",
                smtp="max_message_size = 70K\nbanner = hello there",
            )
            self.assertIn("max_message_size", said)
            session.command("MAIL FROM:<s@client.test>")
            self.assertTrue(session.command("RCPT TO:<a@new.test>").startswith("250"))
        with Wire(node.address) as wire:
            self.assertEqual(wire.reply(), "220 mx.test hello there")
            self.assertIn("SIZE 71680", wire.command("EHLO client.test"))

    def test_bad(self) -> None:
        """A bad ini changes nothing at all, and the log has every problem."""
        node = self.gateway(domains=self.domains)
        said = node.reload(
            domains=f"{self.domains}\nnew.test = {self.sink.route}",
            smtp="banner = hello there\nmax_recipients = many\nfoo = bar",
        )
        node.line(r"error: .*max_recipients")
        node.line(r"error: .*foo")
        self.assertIn("old settings", said)
        with Wire(node.address) as wire:
            self.assertEqual(wire.reply(), "220 mx.test ESMTP mailsecure")
            wire.command("EHLO client.test")
            wire.command("MAIL FROM:<s@client.test>")
            self.assertTrue(wire.command("RCPT TO:<a@new.test>").startswith("550"))

    def test_needs_a_restart(self) -> None:
        """What cannot be applied is named."""
        node = self.gateway(domains=self.domains)
        node.reload(domains=self.domains, spool="segment_size = 32M")
        self.assertRegex(node.line(r".*segment_size.*").group(), "restart")

    def test_certificate(self) -> None:
        """A new certificate is used from the next handshake."""
        directory = self.temporary_directory()
        authority = Authority(directory)
        first, second = authority.identity("mx.test"), authority.identity("mx.test")
        tls = f"tls_certificate = {first.certificate}\ntls_key = {first.key}"
        node = self.gateway(domains=self.domains, smtp=tls)
        before = self.certificate(node, authority)
        first.certificate.write_bytes(second.certificate.read_bytes())
        first.key.write_bytes(second.key.read_bytes())
        node.reload(domains=self.domains, smtp=tls)
        self.assertNotEqual(self.certificate(node, authority), before)

    def certificate(self, node: Gateway, authority: Authority) -> bytes | None:
        with Wire(node.address) as wire:
            wire.hello()
            wire.command("STARTTLS")
            wire.start_tls(authority.client_context())
            return wire.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]

    def test_log_rotation(self) -> None:
        """The log file is opened again, as logrotate asks."""
        node = self.gateway(domains=self.domains, log="file = mail.log")
        log = node.directory / "mail.log"
        log.rename(node.directory / "mail.log.1")
        node.signal(signal.SIGHUP)
        until(log.exists, "a new log file", 10)
        send_message(node.address, MESSAGE, "a@example.com")
        until(lambda: "status=sent" in log.read_text(), "its lines", 10)


class LogLines(DaemonTestCase):
    """One line a session, a message, an attempt."""

    def test_one_message(self) -> None:
        """The id of the 250 is in the line of acceptance, of delivery, and in the trace."""
        node = self.gateway(domains=self.domains)
        reply = send_message(node.address, MESSAGE, "a@example.com")
        message = reply.rsplit(" ", 1)[1]
        node.line(rf"smtpd\[\d+\]: {message}: accepted .*from=<s@client\.test>")
        node.line(rf"delivery\[\d+\]: {message}: to=<a@example\.com>.*status=sent")
        node.line(r"session \w{13}: client=\[127\.0\.0\.1\].*messages=1 .*end=quit")
        self.assertIn(f"id {message}".encode(), self.sink.wait(1)[0].content)
        self.assertEqual(len(node.matching(message)), 2)

    def test_json(self) -> None:
        """As JSON every line is an object with the same facts."""
        node = self.gateway(domains=self.domains, log="format = json")
        reply = send_message(node.address, MESSAGE, "a@example.com")
        message = reply.rsplit(" ", 1)[1]
        node.line(f"{message}.*status=sent")
        events = [each for each in node.json_lines() if each.get("message") == message]
        self.assertEqual({each["room"] for each in events}, {"smtpd", "delivery"})
        self.assertIn("a@example.com", {each.get("recipient") for each in events})

    def test_strangers_text(self) -> None:
        """What a client says stays on its line, and cannot colour a terminal."""
        node = self.gateway(domains=self.domains)
        with Wire(node.address) as wire:
            wire.hello("x\\x0a[1;31m")
            wire.command("MAIL FROM:<\u202eevil\u2028mailsecure: forged@client.test> SMTPUTF8")
            wire.command('RCPT TO:<"\u202e\u0085 a"@example.com>')
            wire.command("NONSENSE \x1b[31m")
            wire.command("QUIT")
        node.line("end=quit")
        time.sleep(0.3)
        stamped = re.compile(r"\d{4}-\d\d-\d\dT\S+ mx\.test mailsecure/\w+\[\d+\]: ")
        for line in node.lines:
            self.assertTrue(line.isprintable(), ascii(line))
            self.assertRegex(line, stamped)


class CommandLine(DaemonTestCase):
    """mailsecure, the command."""

    def test_check(self) -> None:
        """check says yes to a good ini, and all problems of a bad one."""
        node = self.gateway(start=False, domains=self.domains)
        self.assertEqual(node.cli("check").returncode, 0)
        node.configure(smtp="foo = 1\nbanner =\nmax_recipients = 0")
        done = node.cli("check")
        self.assertEqual(done.returncode, os.EX_CONFIG)
        told = done.stdout + done.stderr
        self.assertIn("foo", told)
        self.assertIn("max_recipients", told)

    def test_not_running(self) -> None:
        """Without a daemon it says so and exits with EX_UNAVAILABLE."""
        node = self.gateway(start=False, domains=self.domains)
        node.state.mkdir()
        done = node.cli("status")
        self.assertEqual(done.returncode, os.EX_UNAVAILABLE, done.stderr)
        self.assertIn("not running", done.stderr)

    def test_status(self) -> None:
        """status tells of the work done, to people and to programs."""
        node = self.gateway(domains=self.domains)
        send_message(node.address, MESSAGE, "a@example.com")
        node.settle()
        done = node.cli("status")
        self.assertEqual(done.returncode, 0, done.stderr)
        status = json.loads(node.cli("status", "--json").stdout)
        self.assertEqual(status["counters"]["messages_accepted"], 1)
        self.assertEqual(status["counters"]["delivered"], 1)
        self.assertEqual(status["pid"], node.pid)

    def test_queue(self) -> None:
        """What waits can be listed, shown, held, released, deleted, flushed."""
        self.sink.answers["dot"] = "451 4.2.0 later"
        node = self.gateway(domains=self.domains, delivery="retry = 1h")
        message = send_message(node.address, MESSAGE, "a@example.com").rsplit(" ", 1)[1]
        other = send_message(node.address, MESSAGE, "b@example.com").rsplit(" ", 1)[1]
        node.line(rf"{other}: .*status=deferred")
        listed = node.cli("queue", "list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        self.assertIn(message, listed.stdout)
        self.assertIn("later", listed.stdout)
        shown = node.cli("queue", "show", message, "--full")
        self.assertIn("Subject: life", shown.stdout)
        self.assertEqual(node.cli("queue", "hold", other).returncode, 0)
        self.sink.answers.clear()
        self.assertEqual(node.cli("queue", "flush", "--all").returncode, 0)
        self.sink.wait(1)
        self.assertEqual(self.sink.clear()[0].recipients, ("a@example.com",))
        self.assertEqual(node.cli("queue", "release", other).returncode, 0)
        self.assertEqual(self.sink.wait(1)[0].recipients, ("b@example.com",))
        node.settle()
        gone = node.cli("queue", "show", message)
        self.assertNotEqual(gone.returncode, 0)
        self.assertIn(message, gone.stderr)

    def test_bounce(self) -> None:
        """A postmaster can return a message to its sender."""
        self.sink.answers["dot"] = "451 4.2.0 later"
        node = self.gateway(
            domains=f"{self.domains}\nclient.test = {self.sink.route}", delivery="retry = 1h"
        )
        message = send_message(node.address, MESSAGE, "a@example.com").rsplit(" ", 1)[1]
        node.line(rf"{message}: .*status=deferred")
        self.sink.answers.clear()
        self.assertEqual(node.cli("queue", "bounce", message).returncode, 0)
        bounce = self.sink.wait(1)[0]
        self.assertEqual((bounce.sender, bounce.recipients), ("", ("s@client.test",)))


@needs(root=True)
class Privileges(DaemonTestCase):
    """It binds as root and works as somebody else."""

    def test_user(self) -> None:
        """On a port below 1024 it runs as the user of [node], in a state of mode 0700."""
        nobody = pwd.getpwnam("nobody")
        node = self.gateway(
            start=False,
            domains=f"{self.domains}\nbox.test = maildir:mail",
            node="user = nobody",
        )
        node.directory.chmod(0o777)
        low = _low_port()
        node.configure(
            domains=f"{self.domains}\nbox.test = maildir:mail",
            node="user = nobody",
            smtp=f"listen =\n  tcp:{node.port}:interface=127.0.0.1\n"
            f"  tcp:{low}:interface=127.0.0.1",
        )
        node.start()
        status = Path(f"/proc/{node.pid}/status").read_text()
        for name, number in (("Uid", nobody.pw_uid), ("Gid", nobody.pw_gid)):
            self.assertRegex(status, rf"{name}:\t{number}\t{number}\t{number}\t{number}")
        self.assertRegex(status, r"Groups:\s*(\d+\s*)?\n")
        self.assertRegex(status, r"CapEff:\t0+\n")
        state = node.state.stat()
        self.assertEqual((state.st_uid, stat.S_IMODE(state.st_mode)), (nobody.pw_uid, 0o700))
        for file in node.state.rglob("*"):
            self.assertEqual(file.stat().st_uid, nobody.pw_uid, str(file))
            if not file.is_dir():
                self.assertEqual(file.stat().st_mode & 0o077, 0, str(file))
        limits = Path(f"/proc/{node.pid}/limits").read_text()
        self.assertRegex(limits, r"Max core file size\s+0")
        unique, content = unique_message()
        reply = send_message(("127.0.0.1", low), content, "a@example.com", "b@box.test")
        self.assertTrue(reply.startswith("250"), reply)
        node.settle()
        self.assertEqual(unique_of(self.sink.wait(1)[0].raw), unique)
        self.assertEqual(len(Maildir(node.directory / "mail").messages()), 1)
        self.assertEqual(node.cli("status").returncode, 0)

    def test_reload_as_user(self) -> None:
        """A reload works without privileges."""
        node = self.gateway(domains=self.domains, node="user = nobody")
        node.directory.chmod(0o755)
        node.reload(domains=self.domains, node="user = nobody", smtp="banner = changed")
        with Wire(node.address) as wire:
            self.assertEqual(wire.reply(), "220 mx.test changed")


def _low_port() -> int:
    """Return a free port below 1024."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port below 1024")
