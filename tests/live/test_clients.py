"""Real clients send through us: what they are told, what they log, what arrives.

swaks, smtp-source, curl, msmtp, Python's smtplib; and Postfix and Exim, which send the
final dot and QUIT in one go and must find our 250, with our message id, in their logs.
"""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage

from tests.live import needs

from .certificates import Authority
from .harness import Gateway, LiveTestCase, free_port, shared, until
from .load import unique_message
from .peers import Exim, Postfix
from .sinks import Sink, Taken, unique_of
from .wire import send_message

_QUEUED = re.compile(r"250 2\.0\.0 Ok: queued as ([0-9A-Z]{13})")


@dataclass
class _Stage:
    node: Gateway
    sink: Sink
    authority: Authority
    tls_port: int


def _stage() -> tuple[_Stage, Callable[[], None]]:
    sink = Sink()
    node = Gateway(start=False)
    authority = Authority(node.directory)
    identity = authority.identity("mx.test", "127.0.0.1")
    tls_port = free_port()
    node.configure(
        domains=f"example.com = {sink.route}",
        smtp=f"tls_certificate = {identity.certificate}\ntls_key = {identity.key}\n"
        f"listen_tls = tcp:{tls_port}:interface=127.0.0.1",
    )
    node.start()

    def close() -> None:
        node.close()
        sink.close()

    return _Stage(node, sink, authority, tls_port), close


class ClientTestCase(LiveTestCase):
    """A daemon with TLS, and a next hop, for all clients."""

    def setUp(self) -> None:
        """Take them, at rest."""
        super().setUp()
        stage = shared("clients", _stage)
        self.node, self.sink, self.authority = stage.node, stage.sink, stage.authority
        self.port, self.tls_port = str(self.node.port), stage.tls_port
        self.told(self.node)
        self.sink.clear()
        self.unique, self.content = unique_message()

    def run_client(self, *command: str, send: bytes = b"") -> str:
        """Run a client; fail where it fails.  Returns what it printed."""
        done = subprocess.run(command, input=send, capture_output=True, timeout=60, check=False)
        told = (done.stdout + done.stderr).decode("utf-8", "replace")
        self.assertEqual(done.returncode, 0, told)
        return told

    def arrived(self) -> Taken:
        """Wait for this test's message at the next hop."""
        until(lambda: self.unique in self.sink.uniques(), "its delivery", 20, self.node.tail)
        return next(each for each in self.sink.taken() if unique_of(each.raw) == self.unique)

    def file(self) -> str:
        """Return a file with this test's message."""
        path = self.temporary_directory() / "message.eml"
        path.write_bytes(self.content)
        return str(path)


@needs(programs=("swaks",))
class Swaks(ClientTestCase):
    """The Swiss army knife."""

    def swaks(self, *options: str) -> str:
        told = self.run_client(
            *("swaks", "--server", "127.0.0.1", "--port", self.port, "--helo", "client.test"),
            *("--from", "s@client.test", "--to", "a@example.com"),
            *("--header", f"X-Unique: {self.unique}", "--body", "hello", *options),
        )
        self.assertRegex(told, _QUEUED)
        return told

    def test_plain(self) -> None:
        """swaks sends a message."""
        self.swaks()
        self.assertIn(b"with ESMTP\r\n", self.arrived().content)

    def test_tls(self) -> None:
        """swaks -tls sends it through STARTTLS."""
        self.swaks("-tls")
        self.assertIn(b"with ESMTPS (TLSv1", self.arrived().content)

    def test_implicit_tls(self) -> None:
        """swaks --tls-on-connect finds TLS from the first octet."""
        self.swaks("--tls-on-connect", "--port", str(self.tls_port))
        self.assertIn(b"with ESMTPS (TLSv1", self.arrived().content)

    def test_pipeline(self) -> None:
        """swaks --pipeline does not wait for answers."""
        self.swaks("--pipeline")
        self.arrived()

    def test_pipeline_tls(self) -> None:
        """Nor inside TLS."""
        self.swaks("--pipeline", "-tls")
        self.arrived()


class Others(ClientTestCase):
    """Other people's clients."""

    @needs(programs=("smtp-source",))
    def test_smtp_source(self) -> None:
        """smtp-source sends 200 messages in 10 sessions."""
        self.run_client(
            *("smtp-source", "-s", "10", "-m", "200", "-l", "3000", "-f", "s@client.test"),
            *("-t", "a@example.com", f"127.0.0.1:{self.port}"),
        )
        self.assertEqual(len(self.sink.wait(200, 30)), 200)

    @needs(programs=("smtp-source",))
    def test_smtp_source_reusing(self) -> None:
        """smtp-source sends 200 messages, many a session."""
        self.run_client(
            *("smtp-source", "-d", "-s", "5", "-m", "200", "-l", "70000", "-f", "s@client.test"),
            *("-t", "a@example.com", f"127.0.0.1:{self.port}"),
        )
        self.assertEqual(len(self.sink.wait(200, 30)), 200)

    @needs(programs=("curl",))
    def test_curl(self) -> None:
        """curl uploads a message."""
        self.curl()
        self.assertIn(b"with ESMTP\r\n", self.arrived().content)

    @needs(programs=("curl",))
    def test_curl_tls(self) -> None:
        """curl insists on TLS, and on our certificate."""
        self.curl("--ssl-reqd", "--cacert", str(self.authority.path))
        self.assertIn(b"with ESMTPS", self.arrived().content)

    def curl(self, *options: str) -> None:
        self.run_client(
            *("curl", "-sS", f"smtp://127.0.0.1:{self.port}/client.test", "-T", self.file()),
            *("--mail-from", "s@client.test", "--mail-rcpt", "a@example.com", *options),
        )

    @needs(programs=("msmtp",))
    def test_msmtp(self) -> None:
        """msmtp sends a message."""
        self.msmtp("--tls=off")
        self.assertIn(b"with ESMTP\r\n", self.arrived().content)

    @needs(programs=("msmtp",))
    def test_msmtp_tls(self) -> None:
        """msmtp trusts our authority and starts TLS."""
        self.msmtp("--tls=on", f"--tls-trust-file={self.authority.path}")
        self.assertIn(b"with ESMTPS", self.arrived().content)

    def msmtp(self, *options: str) -> None:
        self.run_client(
            *("msmtp", "--host=127.0.0.1", f"--port={self.port}", "--from=s@client.test"),
            *(*options, "a@example.com"),
            send=self.content,
        )

    def test_smtplib(self) -> None:
        """Python's own client sends through STARTTLS."""
        message = EmailMessage()
        message["From"], message["To"] = "s@client.test", "a@example.com"
        message["X-Unique"] = self.unique
        message.set_content("Grüße\n.\n..\nfrom Python\n")
        with smtplib.SMTP("127.0.0.1", self.node.port, timeout=20) as client:
            client.starttls(context=self.authority.client_context())
            self.assertEqual(client.send_message(message), {})
        self.assertIn(b"with ESMTPS", self.arrived().content)

    def test_smtplib_utf8(self) -> None:
        """An address in Unicode passes through to a next hop that takes it."""
        with smtplib.SMTP("127.0.0.1", self.node.port, timeout=20) as client:
            client.ehlo()
            client.sendmail(
                "jürgen@client.test",
                ["käthe@example.com"],
                self.content.decode(),
                mail_options=["SMTPUTF8", "BODY=8BITMIME"],
            )
        taken = self.arrived()
        self.assertEqual(taken.recipients, ("käthe@example.com",))
        self.assertIn(b"with UTF8SMTP", taken.content)

    def test_helo_only(self) -> None:
        """A client from before ESMTP is served too."""
        with smtplib.SMTP("127.0.0.1", self.node.port, timeout=20) as client:
            client.helo("old.test")
            client.sendmail("s@client.test", ["a@example.com"], self.content)
        self.assertIn(b"with SMTP\r\n", self.arrived().content)


@needs(root=True, programs=("postfix",))
class PostfixRelays(ClientTestCase):
    """Postfix as the server in front of us."""

    def relayed(self, extra: str = "") -> str:
        """Send this test's message through a Postfix; return our id in its log."""
        postfix = Postfix(self.node.port, extra)
        self.addCleanup(postfix.stop)
        postfix.start()
        send_message(postfix.address, self.content, "a@example.com")
        until(lambda: "status=" in postfix.tail(), "Postfix's delivery", 20, postfix.tail)
        line = next(line for line in postfix.tail().splitlines() if "status=" in line)
        self.assertIn("status=sent", line)
        found = _QUEUED.search(line)
        self.assertIsNotNone(found, line)
        return found[1] if found else ""

    def test_plain(self) -> None:
        """Postfix logs our 250 with the id that is in the trace field."""
        queued = self.relayed()
        self.assertIn(f"id {queued}".encode(), self.arrived().content)

    def test_tls(self) -> None:
        """The same through TLS."""
        queued = self.relayed("smtp_tls_security_level = encrypt")
        content = self.arrived().content
        self.assertIn(f"id {queued}".encode(), content)
        self.assertIn(b"with ESMTPS", content)

    @needs(programs=("smtp-source",))
    def test_many(self) -> None:
        """A hundred messages, some large, all arrive, each with a 250 of ours."""
        postfix = Postfix(self.node.port)
        self.addCleanup(postfix.stop)
        postfix.start()
        for size in ("2000", "200000"):
            self.run_client(
                *("smtp-source", "-s", "5", "-m", "50", "-l", size, "-f", "s@client.test"),
                *("-t", "a@example.com", f"127.0.0.1:{postfix.port}"),
            )
        self.sink.wait(100, 40)
        until(lambda: postfix.tail().count("status=sent") == 100, "its log", 10, postfix.tail)
        self.assertEqual(len(set(_QUEUED.findall(postfix.tail()))), 100)

    def test_refused_recipient(self) -> None:
        """A recipient that we refuse is refused in Postfix's log in our words."""
        postfix = Postfix(self.node.port)
        self.addCleanup(postfix.stop)
        postfix.start()
        send_message(postfix.address, self.content, "v@elsewhere.test", "a@example.com")
        until(lambda: postfix.tail().count("status=") >= 2, "its log", 20, postfix.tail)
        self.assertIn("status=bounced (host 127.0.0.1[127.0.0.1] said: 550 5.7.1", postfix.tail())
        self.arrived()


@needs(root=True, programs=("unshare",), variables=("MAILSECURE_EXIM",))
class EximRelays(ClientTestCase):
    """Exim as the server in front of us."""

    def relayed(self, chunking: bool, port: int = 0) -> str:
        exim = Exim(port or self.node.port, chunking)
        self.addCleanup(exim.close)
        told = exim.send(self.content, "a@example.com", "b@example.com")
        line = next((line for line in exim.log().splitlines() if " => a@" in line), "")
        found = _QUEUED.search(line)
        self.assertIsNotNone(found, exim.log() + told)
        return found[1] if found else ""

    def test_data(self) -> None:
        """Exim logs our 250 with the id that is in the trace field."""
        plain = self.gateway(domains=f"example.com = {self.sink.route}")
        queued = self.relayed(chunking=False, port=plain.port)
        self.assertIn(f"id {queued}".encode(), self.arrived().content)

    def test_tls(self) -> None:
        """Exim starts TLS by itself where we offer it."""
        queued = self.relayed(chunking=False)
        content = self.arrived().content
        self.assertIn(f"id {queued}".encode(), content)
        self.assertIn(b"with ESMTPS", content)

    def test_chunking(self) -> None:
        """Exim sends in chunks."""
        queued = self.relayed(chunking=True)
        self.assertIn(f"id {queued}".encode(), self.arrived().content)
