"""Mail that is judged by the running daemon, as clients, recipients and postmasters see it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import textwrap
import time
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.names import dns

from mailsecure.testing.messages import multipart, zipped

from .harness import BIN, Gateway, LiveTestCase, free_port, until
from .names import Names, address, mx
from .sinks import Sink
from .wire import Wire, send_message

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
HEAD = (
    b"From: s@client.test\r\nTo: a@example.com\r\nSubject: %s\r\nMessage-ID: <%s@client.test>\r\n"
)
#: Within so many seconds what greylisting learnt is in its file.
WRITTEN = 6.0


def plain(subject: str, body: bytes = b"hello\r\n") -> bytes:
    """Return a message of text."""
    name = subject.encode()
    return HEAD % (name, name.replace(b" ", b"-")) + b"\r\n" + body


def attached(subject: str, name: str, octets: bytes) -> bytes:
    """Return a message with a file."""

    part = (
        f'Content-Type: application/octet-stream; name="{name}"\r\n'
        f'Content-Disposition: attachment; filename="{name}"\r\n'
        "Content-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + base64.encodebytes(octets).replace(b"\n", b"\r\n")
    text = b"Content-Type: text/plain\r\n\r\nsee the file\r\n"
    key = subject.encode()
    return HEAD % (key, key.replace(b" ", b"-")) + multipart([text, part])


def txt(text: str) -> dns.IRecord:
    """Return a TXT record."""
    return dns.Record_TXT(*[each.encode() for each in textwrap.wrap(text, 200)], ttl=60)


class ScanTestCase(LiveTestCase):
    """A gateway that judges and keeps a history, before a sink."""

    def setUp(self) -> None:
        """Make the sink."""
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.close)

    def scanning(self, scan: str = "checks = attachments markers", **more: Any) -> Gateway:
        """Start it; ``scan`` are lines of [scan]."""
        sections = {
            "domains": f"example.com = {self.sink.route}",
            "records": "enabled = yes",
            "scan": scan,
        }
        return self.gateway(**(sections | more))

    def json(self, node: Gateway, *command: str) -> list[dict[str, Any]]:
        """Return what a command of one object a line says."""
        done = node.cli(*command, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def said(self, node: Gateway, *command: str) -> str:
        """Return what a command says to people."""
        done = node.cli(*command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


class Content(ScanTestCase):
    """What is in a message."""

    def test_what_is_refused_and_why(self) -> None:
        node = self.scanning()
        for subject, message in (
            ("eicar", attached("eicar", "a.txt", EICAR)),
            ("zipped", attached("zipped", "a.zip", zipped({"b/c.txt": EICAR}))),
            (
                "nested",
                attached("nested", "a.zip", zipped({"b.zip": zipped({"c.txt": EICAR})})),
            ),
            ("gtube", plain("gtube", b"x\r\n" + GTUBE + b"\r\n")),
            ("program", attached("program", "harmless.txt", b"MZ\x90\0" + bytes(300))),
        ):
            reply = send_message(node.address, message, "a@example.com")
            match = re.fullmatch(r"554 5\.7\.1 .*\((\w{13})\)", reply)
            assert match is not None, (subject, reply)
            self.assertNotIn("EICAR-STANDARD", reply)
            why = self.why(node, match[1])
            self.assertIn(subject, why)
            self.assertRegex(why, r"(?i)reject")
        reply = send_message(node.address, plain("good one"), "a@example.com")
        self.assertTrue(reply.startswith("250"), reply)
        node.settle()
        (taken,) = self.sink.taken()
        self.assertIn(b"\r\nX-Spam-Status: No, score=0 required=5\r\n", b"\r\n" + taken.content)
        counters = node.status()["counters"]
        self.assertEqual((counters["messages_rejected"], counters["messages_malware"]), (5, 3))

    def why(self, node: Gateway, name: str) -> str:
        """Return what ``why`` says once the history has it."""
        until(lambda: node.cli("why", name).returncode == 0, "the history", 10)
        return self.said(node, "why", name)

    def test_what_cannot_be_read_is_held(self) -> None:
        node = self.scanning()
        deep = zipped({"0.txt": b"x"})
        for number in range(20):
            deep = zipped({f"{number}.zip": deep})
        reply = send_message(node.address, attached("deep", "a.zip", deep), "a@example.com")
        self.assertTrue(reply.startswith("250"), reply)
        (item,) = self.json(node, "quarantine", "list")[:1]
        self.assertIn("UNSCANNABLE", item["reason"])
        # The same, where the ini wants something else.
        node.reload(
            domains=f"example.com = {self.sink.route}",
            scan="checks = attachments markers\nunscannable = reject",
        )
        reply = send_message(node.address, attached("deep", "a.zip", deep), "a@example.com")
        self.assertTrue(reply.startswith("554"), reply)

    def test_recipients_get_what_is_theirs(self) -> None:
        node = self.scanning(
            attachments="macros = tag",
            **{
                "profile:strict": "recipients = strict@example.com\nquarantine = 0",
                "profile:abuse": "recipients = abuse@example.com\nscan = no",
            },
        )
        replies = [
            send_message(node.address, plain("both"), "a@example.com", "strict@example.com"),
            send_message(node.address, plain("spam", GTUBE + b"\r\n"), "abuse@example.com"),
        ]
        self.assertEqual([reply[:3] for reply in replies], ["250", "250"])
        until(lambda: len(self.sink.taken()) == 2, "both", 10, node.tail)
        recipients = sorted(each.recipients for each in self.sink.taken())
        self.assertEqual(recipients, [("a@example.com",), ("abuse@example.com",)])
        (held, *_) = self.json(node, "quarantine", "list")
        self.assertIn("strict@example.com", json.dumps(held))

    def test_only_relayed(self) -> None:
        other = free_port()
        node = self.gateway(
            start=False,
            domains=f"example.com = {self.sink.route}",
            scan=f"checks = markers\nrelay_only_listeners = tcp:{other}:interface=127.0.0.1",
        )
        node.configure(
            domains=f"example.com = {self.sink.route}",
            scan=f"checks = markers\nrelay_only_listeners = tcp:{other}:interface=127.0.0.1",
            smtp=f"listen = tcp:{node.port}:interface=127.0.0.1\n"
            f"    tcp:{other}:interface=127.0.0.1",
        )
        node.start()
        spam = plain("spam", GTUBE + b"\r\n")
        self.assertEqual(send_message(node.address, spam, "a@example.com")[:3], "554")
        reply = send_message(("127.0.0.1", other), spam, "a@example.com")
        self.assertEqual(reply[:3], "250", reply)
        node.settle()
        self.assertNotIn(b"X-Spam", self.sink.taken()[0].content)


class Postmasters(ScanTestCase):
    """What a postmaster asks and does."""

    def test_quarantine(self) -> None:
        node = self.scanning("checks = markers\nquarantine = 5\nreject = never")
        for number in range(3):
            subject = f"held {number}"
            reply = send_message(
                node.address, plain(subject, GTUBE + b"\r\n"), "a@example.com", "b@example.com"
            )
            self.assertEqual(reply[:3], "250", reply)
        self.assertEqual(node.queued(), 0)
        items = [each for each in self.json(node, "quarantine", "list") if "id" in each]
        self.assertEqual(sorted(each["subject"] for each in items), ["held 0", "held 1", "held 2"])
        self.assertIn("held 1", self.said(node, "quarantine", "list"))
        by_subject = {each["subject"]: each["id"] for each in items}
        whole = node.cli("quarantine", "show", "--full", by_subject["held 0"])
        self.assertIn(GTUBE.decode(), whole.stdout)
        self.said(node, "quarantine", "release", by_subject["held 0"], "--reason", "a mistake")
        until(self.sink.taken, "the released one", 10, node.tail)
        node.settle()
        # Once, to both, and not again.
        again = node.cli("quarantine", "release", by_subject["held 0"])
        self.assertEqual(again.returncode, 66, again.stdout + again.stderr)
        self.said(node, "quarantine", "delete", by_subject["held 1"])
        time.sleep(0.5)
        recipients = sorted(each for taken in self.sink.taken() for each in taken.recipients)
        self.assertEqual(recipients, ["a@example.com", "b@example.com"])
        self.said(node, "quarantine", "forward", by_subject["held 2"], "abuse@example.com")
        until(lambda: len(self.sink.taken()) >= 2, "the copy", 10, node.tail)
        forwarded = self.sink.taken()[-1]
        self.assertEqual(forwarded.recipients, ("abuse@example.com",))
        self.assertIn(GTUBE, forwarded.content)
        left = [each for each in self.json(node, "quarantine", "list") if "id" in each]
        self.assertEqual([each["subject"] for each in left], ["held 2"])

        def traced() -> bool:
            return "a mistake" in self.said(node, "trace", "--id", by_subject["held 0"])

        until(traced, "the deed in the history", 10)
        trace = self.said(node, "trace", "--id", by_subject["held 0"])
        for part in ("held 0", "GTUBE", "127.0.0.1", "a@example.com", "b@example.com", "250"):
            self.assertIn(part, trace)
        node.stop()
        node.restart()
        self.assertEqual(len([e for e in self.json(node, "quarantine", "list") if "id" in e]), 1)

    def test_trace_finds_what_was_refused(self) -> None:
        node = self.scanning()
        with Wire(node.address) as wire:
            wire.hello("some.client")
            wire.transact(plain("x"), "who@elsewhere.test", sender="thief@client.test")
            wire.command("QUIT")
        until(
            lambda: "elsewhere.test" in self.said(node, "trace", "--to", "who@else"),
            "the refusal in the history",
            10,
        )
        trace = self.said(node, "trace", "--from", "thief@")
        self.assertIn("Relaying denied", trace)

    def test_the_verdict_on_a_file(self) -> None:
        node = self.scanning()
        file = self.temporary_directory() / "m.eml"
        file.write_bytes(plain("x", GTUBE + b"\r\n").replace(b"\r\n", b"\n"))
        done = node.cli("scan", str(file), "--from", "a@b.test", "--to", "a@example.com")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r"reject, score 1000.*\n(.*\n)*.*GTUBE")
        done = subprocess.run(
            [str(BIN / "mailsecure"), "scan", "-", "-c", str(node.ini), "--json"],
            input=plain("fine"),
            capture_output=True,
            timeout=20,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["action"], "accept")
        for arguments, code in (
            (("scan", "/no/such/file"), 66),
            (("scan", str(file), "--client", "nonsense"), 64),
            (("scan", str(file), "--to", "nobody"), 64),
        ):
            self.assertEqual(node.cli(*arguments).returncode, code, arguments)
        self.assertEqual(self.sink.taken(), [])
        self.assertEqual(node.status()["counters"]["messages_scanned"], 0)

    def test_a_check_that_does_not_exist(self) -> None:
        node = self.gateway(start=False, scan="checks = atachments")
        node.launch()
        self.assertEqual(node.wait(), 78)
        line = "\n".join(node.lines)
        self.assertIn("[scan] checks: there is no check 'atachments'", line)
        self.assertIn("did you mean attachments?", line)
        self.assertEqual(node.cli("check").returncode, 78)

    def test_a_check_of_the_sites_own(self) -> None:
        folder = self.temporary_directory() / "plugins"
        folder.mkdir(mode=0o755)
        (folder / "lottery.py").write_text(
            textwrap.dedent(
                """
                from zope.interface import implementer
                from mailsecure.scan.api import ICheckMaker
                from mailsecure.scan.values import Finding, Stage, Symbol

                class Check:
                    name = "lottery"
                    stages = frozenset({Stage.DATA})
                    def __init__(self, word):
                        self.word = word.encode()
                    async def check(self, stage, facts):
                        if self.word in facts.content.header:
                            return Finding((Symbol("LOTTERY", 20.0, "the word"),))
                        return Finding()

                @implementer(ICheckMaker)
                class Maker:
                    name = "lottery"
                    def make(self, site):
                        return Check(site.config.check["lottery"].settings["word"])

                lottery = Maker()
                """
            )
        )
        node = self.scanning(
            f"checks = lottery\nplugins = {folder}", **{"check:lottery": "settings = word jackpot"}
        )
        self.assertEqual(send_message(node.address, plain("jackpot"), "a@example.com")[:3], "554")
        self.assertEqual(send_message(node.address, plain("hello"), "a@example.com")[:3], "250")

    def test_status_and_metrics(self) -> None:
        port = free_port()
        node = self.scanning(metrics=f"listen = tcp:{port}:interface=127.0.0.1")
        send_message(node.address, plain("x"), "a@example.com")
        status = self.said(node, "status")
        for part in ("checks: attachments markers", "history well", "scanned"):
            self.assertIn(part, status)
        done = subprocess.run(
            ["curl", "-s", f"http://127.0.0.1:{port}/metrics"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        self.assertIn("mailsecure_messages_scanned_total 1.0", done.stdout)
        self.assertIn("mailsecure_workers_processes", done.stdout)


class Identity(ScanTestCase):
    """Who sent it, and who the client is; the DNS is ours."""

    #: What clients seem to be, by way of a PROXY header: loopback is nobody's.
    CLIENT = "198.51.100.7"

    def setUp(self) -> None:
        """Make the names."""
        super().setUp()
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

        self.names = Names(
            {
                "good.test": [
                    mx(10, "mx.good.test"),
                    txt(f"v=spf1 ip4:{self.CLIENT} -all"),
                ],
                "_dmarc.good.test": [txt("v=DMARC1; p=reject")],
                "s._domainkey.good.test": [txt("v=DKIM1; p=" + base64.b64encode(public).decode())],
                "other.test": [mx(10, "mx.good.test"), txt("v=spf1 -all")],
                "mx.good.test": [address(self.CLIENT)],
                "7.100.51.198.in-addr.arpa": [dns.Record_PTR("mx.good.test", ttl=60)],
            }
        )
        self.addCleanup(self.names.close)

    def judging(self, scan: str, **more: str) -> Gateway:
        """Start a gateway behind a proxy, asking our names."""
        return self.scanning(
            scan,
            smtp="proxy_protocol = 127.0.0.0/8",
            delivery=f"dns_servers = {self.names.server}\ndns_timeout = 2s",
            **more,
        )

    def scanning(self, scan: str = "", **more: Any) -> Gateway:
        """Start it and do not expect a greeting without a header."""
        sections = {
            "domains": f"example.com = {self.sink.route}",
            "records": "enabled = yes",
            "scan": scan,
        }
        node = self.gateway(start=False, **(sections | more))
        node.launch()
        node.line("ready as", 20)
        return node

    def send(
        self, node: Gateway, content: bytes, sender: str = "s@good.test", client: str = CLIENT
    ) -> list[str]:
        """Send as ``client``; return the replies from MAIL on."""
        with Wire(node.address) as wire:
            wire.send(f"PROXY TCP4 {client} 192.0.2.1 5000 25\r\n".encode())
            wire.hello("mx.good.test")
            replies = wire.transact(content, "a@example.com", sender=sender)
            wire.command("QUIT")
            return replies

    def signed(self, content: bytes) -> bytes:
        """Return ``content`` signed by good.test."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        signature: bytes = dkim.sign(content, b"s", b"good.test", pem)
        return signature + content

    def test_authentication(self) -> None:
        node = self.judging("checks = authentication identity")
        content = b"From: s@good.test\r\nSubject: x\r\n\r\nhello\r\n"
        self.assertEqual(self.send(node, self.signed(content))[-1][:3], "250", node.tail())
        node.settle()
        (taken,) = self.sink.taken()
        head = taken.content.partition(b"\r\n\r\n")[0]
        for part in (b"spf=pass", b"dkim=pass", b"dmarc=pass", b"iprev=pass"):
            self.assertIn(part, head)
        # Forged: neither SPF nor a signature speaks for good.test.
        replies = self.send(node, content, "s@other.test")
        self.assertRegex(replies[-1], r"^554 5\.7\.\d+ .*good\.test")
        # Signed by the right key, but changed on its way.
        replies = self.send(node, self.signed(content).replace(b"hello", b"hellO"), "s@other.test")
        self.assertEqual(replies[-1][:3], "554")
        # A domain that is no domain.
        replies = self.send(node, content, "s@absent.test")
        self.assertEqual(replies[1][:3], "550", replies)

    def test_our_own_mail_is_signed(self) -> None:
        key = self.temporary_directory() / "dkim.pem"
        node = self.gateway(start=False)
        done = node.cli("dkim", "keygen", "--domain", "good.test", "--selector", "s", str(key))
        self.assertEqual(done.returncode, 0, done.stderr)
        published = re.sub(r'["()\s]+', "", done.stdout.partition("p=")[2].split(")")[0])
        node.configure(
            domains=f"example.com = {self.sink.route}",
            relay="networks = 127.0.0.0/8",
            scan="checks = markers\nrelay_only_networks = 127.0.0.2",
            **{"signing:good": f"domains = good.test\nselector = s\nkey = {key}"},
        )
        node.start()
        content = b"From: s@good.test\r\nSubject: x\r\n\r\nhello\r\n"
        for source in ("127.0.0.1", "127.0.0.2"):
            with Wire(node.address, source=source) as wire:
                wire.hello()
                wire.transact(content, "a@example.com", sender="s@good.test")
                wire.command("QUIT")
        node.settle()
        self.assertEqual(len(self.sink.taken()), 2)
        ours = {b"s._domainkey.good.test.": f"v=DKIM1; k=rsa; p={published}".encode()}
        for taken in self.sink.taken():
            verified = dkim.verify(taken.content, dnsfunc=lambda name, **_: ours.get(name))
            self.assertTrue(verified, taken.content)

    def test_lists_in_the_dns(self) -> None:
        self.names.records["7.100.51.198.bl.test"] = [address("127.0.0.2")]
        self.names.records["9.100.51.198.bl.test"] = [address("127.0.0.2")]
        self.names.records["9.100.51.198.wl.test"] = [address("127.0.0.3")]
        node = self.judging(
            "checks = dnsbl",
            dnsbl="lists = bl.test=127.0.0.2 9\n    wl.test -5\nreject = 8",
        )
        replies = self.send(node, plain("x"))
        self.assertRegex(replies[1], r"^550 5\.7\.1 .*bl\.test")
        self.assertEqual(self.send(node, plain("x"), client="198.51.100.9")[-1][:3], "250")
        until(
            lambda: (
                "bl.test" in self.said(node, "trace", "--client", self.CLIENT).lower()
                or "BL_TEST" in self.said(node, "trace", "--client", self.CLIENT)
            ),
            "the refusal in the history",
            10,
        )

    def test_greylisting(self) -> None:
        node = self.judging("checks = greylist", greylist="delay = 3s")
        replies = self.send(node, plain("x"))
        self.assertRegex(replies[1], r"^450 4\.7\.1 ")
        self.assertEqual(self.send(node, plain("x"))[1][:3], "450")
        time.sleep(3.2)
        self.assertEqual(self.send(node, plain("x"))[-1][:3], "250", node.tail())
        time.sleep(WRITTEN)
        node.kill()
        mark = len(node.lines)
        node.launch()
        node.line("ready as", 20, since=mark)
        self.assertEqual(node.matching("greylist", since=mark), [])
        self.assertEqual(self.send(node, plain("y"))[-1][:3], "250", node.tail())

    def test_a_silent_dns_delays_and_refuses_nothing(self) -> None:
        self.names.silent |= {"good.test", "_dmarc.good.test", "s._domainkey.good.test"}
        node = self.judging("checks = authentication\non_failure = accept\ncheck_timeout = 10s")
        content = b"From: s@good.test\r\nSubject: x\r\n\r\nhello\r\n"
        replies = self.send(node, content)
        self.assertIn(replies[-1][:3], ("250", "451"), replies)
