"""OpenDKIM verifies what we sign, and we verify what OpenDKIM signs.

``opendkim -t FILE`` takes a file through the filter, without a socket and without the DNS.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.checks.authentication import authentication
from mailsecure.scan.private_keys import key_record, load_key, new_key, written
from mailsecure.scan.signing import Signer
from mailsecure.scan.values import Facts, Stage
from mailsecure.testing.resolver import FakeResolver
from mailsecure.testing.workers import OctetsBody
from tests.scan.auth_site import content_of, site_with

from . import needs

NAME = "mail._domainkey.example.com"
HEADER = (
    b"From: A <a@example.com>\r\nTo: b@example.org,\r\n\tc@example.org\r\n"
    b"Subject:  x   y \r\nDate: Mon, 30 Nov 2026 01:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n"
)
BODY = b"Hello  \r\n\tworld.\r\n\r\n\r\n"


@needs(programs=["opendkim"])
class OpendkimTests(SynchronousTestCase):
    """Two implementations that know nothing of each other."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.pem = written(new_key(2048))
        self.record = key_record(load_key(self.pem))
        self.file("key", self.pem).chmod(0o600)

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def opendkim(self, message: bytes, settings: str, *options: str) -> str:
        conf = self.file("conf", f"Syslog no\nRequireSafeKeys no\n{settings}")
        file = self.file("message", message)
        command = ["/usr/sbin/opendkim", "-x", str(conf), *options, "-t", str(file)]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        return (done.stdout + done.stderr).decode()

    def test_it_verifies_ours(self) -> None:
        ini = f"[signing:a]\ndomains = example.com\nkey = {self.directory / 'key'}\n"
        signer = Signer(site_with(FakeResolver(), ini, time.time()))
        facts = Facts("s", "192.0.2.1", trusted=True)
        work = signer.sign(facts, HEADER, OctetsBody(HEADER + b"\r\n" + BODY), len(HEADER), ())
        field = self.successResultOf(Deferred.fromCoroutine(work))
        keys = self.file("dns", f"{NAME} {self.record}\n")
        message = field + HEADER + b"\r\n" + BODY
        settings = f"Mode v\nTestDNSData file:{keys}\n"
        self.assertIn("2048-bit key) succeeded", self.opendkim(message, settings, "-v"))
        changed = message.replace(b"Hello", b"Hullo")
        self.assertNotIn("succeeded", self.opendkim(changed, settings, "-v"))

    def test_we_verify_its(self) -> None:
        check = authentication.make(
            site_with(FakeResolver({NAME: {"TXT": [self.record]}}), now=time.time())
        )
        # Not simple header sections: from a file it takes the blank behind each colon off.
        for canonical in ("relaxed/relaxed", "relaxed/simple"):
            output = self.opendkim(
                HEADER + b"\r\n" + BODY,
                "Mode s\nDomain example.com\nSelector mail\nSignatureAlgorithm rsa-sha256\n"
                f"KeyFile {self.directory / 'key'}\nCanonicalization {canonical}\n",
            )
            found = re.search(r"^DKIM-Signature:.*(?:\n\s.*)*", output.replace("\r", ""), re.M)
            self.assertIsNotNone(found, output)
            field = found[0].replace("\n", "\r\n").encode()  # type: ignore[index]
            message = field + b"\r\n" + HEADER + b"\r\n" + BODY
            facts = Facts("s", "192.0.2.1", notes={"spf": None}, content=content_of(message))
            finding = self.successResultOf(Deferred.fromCoroutine(check.check(Stage.DATA, facts)))
            self.assertEqual(finding.results[0].result, "pass", (canonical, finding))
