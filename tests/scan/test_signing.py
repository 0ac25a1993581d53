"""What we sign, others verify; what we seal, others and we believe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dkim
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import ConfigProblems, LocalFault
from mailsecure.scan.api import Unscannable, WorkerFault
from mailsecure.scan.checks.authentication import authentication
from mailsecure.scan.header_fields import split_fields
from mailsecure.scan.jobs.arc import chain_of
from mailsecure.scan.jobs.canonical import Message
from mailsecure.scan.jobs.dkim_signature import check_signature, read_signature
from mailsecure.scan.jobs.keys import read_key
from mailsecure.scan.private_keys import key_record, load_key, new_key, written
from mailsecure.scan.signing import Signer
from mailsecure.scan.tags import ARC_NAMES
from mailsecure.scan.values import AuthResult, Facts, Finding, Stage
from mailsecure.testing.resolver import FakeResolver, Zone
from mailsecure.testing.workers import OctetsBody

from .auth_site import NOW, content_of, site_with

RSA, OTHER, ED = (written(new_key(bits)) for bits in (2048, 2048, 0))
ZONE: Zone = {
    "mail._domainkey.example.com": {"TXT": [key_record(load_key(RSA))]},
    "ed._domainkey.example.com": {"TXT": [key_record(load_key(ED))]},
    "arc._domainkey.mx.example.org": {"TXT": [key_record(load_key(OTHER))]},
    "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
}
HEADER = b"From: A <a@example.com>\r\nTo: b@example.org,\r\n\tc@example.org\r\nSubject:  x   y \r\n"
BODY = b"Hello  \r\n\tworld.\r\n\r\n\r\n"
TRUSTED = Facts("s", "192.0.2.1", trusted=True)
RESULTS = (
    AuthResult("spf", "pass", (("smtp.mailfrom", "example.com"),)),
    AuthResult("arc", "none"),
    AuthResult("dmarc", "pass", (("header.from", "example.com"),), "p=reject"),
)


class Base(SynchronousTestCase):
    """Signs, and verifies with our check."""

    def setUp(self) -> None:
        self.resolver = FakeResolver(dict(ZONE))
        self.patch(dkim.time, "time", lambda: NOW)

    def key(self, pem: str, mode: int = 0o600) -> str:
        path = Path(self.mktemp())
        path.write_text(pem)
        path.chmod(mode)
        return str(path.absolute())

    def signing(self, name: str = "a", pem: str = RSA, more: str = "") -> str:
        return f"[signing:{name}]\ndomains = example.com\nkey = {self.key(pem)}\n{more}\n"

    def arc(self, pem: str = OTHER) -> str:
        return f"[arc]\nkey = {self.key(pem)}\n"

    def sign(
        self,
        ini: str,
        header: bytes = HEADER,
        body: bytes = BODY,
        facts: Facts = TRUSTED,
        results: tuple[AuthResult, ...] = (),
    ) -> bytes:
        """Sign a message that came with an X-Old field, which does not go out."""
        came = b"X-Old: yes\r\n"
        signer = Signer(site_with(self.resolver, ini))
        octets = OctetsBody(came + b"\r\n" + body)
        work = signer.sign(facts, header, octets, len(came), results)
        return self.successResultOf(Deferred.fromCoroutine(work))

    def verify(self, message: bytes, ini: str = "", header_from: str = "") -> Finding:
        facts = Facts("s", "192.0.2.9", notes={"spf": None}, content=content_of(message))
        check = authentication.make(site_with(self.resolver, ini))
        return self.successResultOf(Deferred.fromCoroutine(check.check(Stage.DATA, facts)))

    def dnsfunc(self, name: bytes, timeout: int = 5) -> bytes:
        entry: Any = self.resolver.zone[name.decode().rstrip(".")]
        return str(entry["TXT"][0]).encode()


class DkimTests(Base):
    """DKIM for our own mail."""

    def test_round_trip(self) -> None:
        for pem, selector, algorithm in ((RSA, "mail", "rsa"), (ED, "ed", "ed25519")):
            field = self.sign(self.signing("a", pem, f"selector = {selector}"))
            self.assertTrue(
                field.startswith(f"DKIM-Signature: v=1; a={algorithm}-sha256;".encode())
            )
            self.assertTrue(field.endswith(b"\r\n"))
            self.assertLess(max(map(len, field.split(b"\r\n"))), 90)
            message = field + HEADER + b"\r\n" + BODY
            finding = self.verify(message)
            self.assertEqual([each.name for each in finding.symbols], ["DKIM_PASS", "DMARC_PASS"])
            self.assertTrue(dkim.verify(message, dnsfunc=self.dnsfunc))

    def test_two_keys(self) -> None:
        """As many keys as there are, as many signatures."""
        ini = self.signing("a", RSA) + self.signing("b", ED, "selector = ed")
        field = self.sign(ini)
        self.assertEqual(field.count(b"DKIM-Signature:"), 2)
        results = self.verify(field + HEADER + b"\r\n" + BODY).results
        self.assertEqual([each.result for each in results if each.method == "dkim"], ["pass"] * 2)

    def test_nothing_can_be_added(self) -> None:
        field = self.sign(self.signing())
        for added in (
            b"Subject: z",
            b"From: x@example.com",
            b"To: x",
            b"Date: x",
            b"Cc: x",
            b"Reply-To: x",
        ):
            for message in (
                added + b"\r\n" + field + HEADER + b"\r\n" + BODY,
                field + HEADER + added + b"\r\n\r\n" + BODY,
            ):
                (result,) = [each for each in self.verify(message).results if each.method == "dkim"]
                self.assertEqual(result.result, "fail", added)
        message = b"X-Any: thing\r\n" + field + HEADER + b"\r\n" + BODY
        self.assertEqual(self.verify(message).symbols[0].name, "DKIM_PASS")

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.sampled_from([b" ", b"\t", b"a", b"\r\n", b".", b"\xe9", b"  x"]), max_size=30)
    )
    def test_any_body(self, pieces: list[bytes]) -> None:
        """Whatever the body, dkimpy and we agree on its hash."""
        # Without a CRLF at the end dkimpy leaves the blanks there (RFC 6376 §3.4.4 does not).
        body = b"".join(pieces) + b"\r\n"
        field = self.sign(self.signing(), body=body)
        message = field + HEADER + b"\r\n" + body
        self.assertEqual(self.verify(message).symbols[0].name, "DKIM_PASS")
        self.assertTrue(dkim.verify(message, dnsfunc=self.dnsfunc))

    def test_whose_mail(self) -> None:
        ini = self.signing()
        below = (
            f"[signing:b]\ndomains = .example.com\ndomain = example.com\nkey = {self.key(RSA)}\n"
        )
        other = HEADER.replace(b"@example.com", b"@sub.example.com")
        self.assertEqual(self.sign(ini, other), b"")
        self.assertIn(b"d=example.com;", self.sign(below, other))
        self.assertEqual(self.sign(ini, b"From: x@evilexample.com\r\n"), b"")
        self.assertEqual(self.sign(ini, b"Subject: x\r\n"), b"")
        both = b"From: x@other.example, y@example.com\r\n"
        self.assertIn(b"d=example.com;", self.sign(ini, both))
        self.assertEqual(self.sign(ini, facts=Facts("s", "192.0.2.1")), b"")
        self.assertEqual(self.sign("", HEADER), b"")

    def test_selector_and_domain(self) -> None:
        field = self.sign(self.signing("a", RSA, "selector = x.y\ndomain = d.example"))
        self.assertIn(b"d=d.example; s=x.y;", field)

    def test_many_fields(self) -> None:
        """A name is signed eight times at most, a message without end not at all."""
        field = self.sign(self.signing(), HEADER + b"Subject: x\r\n" * 100)
        self.assertEqual(field.count(b"subject"), 9)
        with self.assertRaises(LocalFault):
            self.sign_fails(HEADER + b"X: y\r\n" * 3000)

    def sign_fails(
        self, header: bytes = HEADER, cut: int = 2, fault: Exception | None = None
    ) -> None:
        site = site_with(self.resolver, self.signing())
        site.workers.fault = fault  # type: ignore[attr-defined]
        work = Signer(site).sign(TRUSTED, header, OctetsBody(b"X-\r\n"), cut, ())
        self.failureResultOf(Deferred.fromCoroutine(work)).raiseException()

    def test_never_unsigned_in_silence(self) -> None:
        for fault in (Unscannable("killed"), WorkerFault("stopping")):
            with self.assertRaises(LocalFault):
                self.sign_fails(fault=fault)
        # The gateway gives no header section where it is too long.
        with self.assertRaises(LocalFault):
            self.sign_fails(b"Received: x\r\n", cut=0)

    def test_message_without_header(self) -> None:
        signer = Signer(site_with(self.resolver, self.signing()))
        work = signer.sign(
            TRUSTED, b"Received: x\r\n", OctetsBody(b"\r\nFrom: a@example.com"), 0, ()
        )
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(work)), b"")


class KeyTests(Base):
    """What is wrong with keys is said at the start, and the keys are not."""

    def problems(self, ini: str) -> list[str]:
        error = self.assertRaises(ConfigProblems, Signer, site_with(self.resolver, ini))
        for pem in (RSA, ED):
            self.assertNotIn(pem.splitlines()[1], str(error))
        return [
            f"{each.section} {each.option} {each.what.partition(' ')[2]}" for each in error.problems
        ]

    def test_bad_keys(self) -> None:
        public = RSA.replace("PRIVATE", "PUBLIC")
        for pem, what in (
            ("", "is no private key in PEM"),
            ("\u00e9", "is no private key in PEM"),
            (public, "is no private key in PEM"),
            (_encrypted(), "is encrypted with a password"),
            (_elliptic(), "is neither an RSA nor an Ed25519 key"),
        ):
            self.assertEqual(self.problems(self.signing("x", pem)), [f"signing:x key {what}"])
        self.assertEqual(
            self.problems(self.arc(ED)), ["arc key is no RSA key: ARC has no other (RFC 8617)"]
        )

    def test_every_problem_at_once(self) -> None:
        ini = f"[signing:x]\ndomains = a.example\nkey = {self.mktemp()}\n"
        self.assertEqual(len(self.problems(ini + self.arc("") + self.signing("y", ""))), 3)

    def test_not_shown(self) -> None:
        signer = Signer(site_with(self.resolver, self.signing()))
        self.assertNotIn(RSA.splitlines()[1], repr(vars(signer)))


class ArcTests(Base):
    """ARC for what is relayed on."""

    STRANGER = Facts("s", "192.0.2.1")

    def seal(
        self, header: bytes, results: tuple[AuthResult, ...] = RESULTS, body: bytes = BODY
    ) -> bytes:
        return self.sign(self.arc(), header, body, self.STRANGER, results)

    def test_round_trip(self) -> None:
        fields = self.seal(HEADER)
        names = [each.partition(b":")[0] for each in fields.split(b"\r\n") if each[:1] not in b"\t"]
        self.assertEqual(
            names, [b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"]
        )
        self.assertIn(b"i=1; mx.example.org;\r\n\tspf=pass", fields)
        message = fields + HEADER + b"\r\n" + BODY
        finding = self.verify(message)
        self.assertIn("ARC_PASS", [each.name for each in finding.symbols])
        self.assertEqual(dkim.arc_verify(message, dnsfunc=self.dnsfunc)[0], b"pass")

    def chain(self, length: int) -> bytes:
        """Return a message that was sealed so many times."""
        header, results = HEADER, RESULTS
        for _ in range(length):
            header = self.seal(header, results) + header
            results = (RESULTS[0], AuthResult("arc", "pass"), RESULTS[2])
        return header + b"\r\n" + BODY

    def test_chains(self) -> None:
        for length in (2, 3, 6):
            message = self.chain(length)
            finding = self.verify(message)
            (told,) = [each for each in finding.results if each.method == "arc"]
            self.assertEqual((told.result, told.comment), ("pass", f"i={length}, mx.example.org"))
            self.assertEqual(dkim.arc_verify(message, dnsfunc=self.dnsfunc)[0], b"pass")

    def test_broken_chains(self) -> None:
        message = self.chain(2)
        seal = message.index(b"ARC-Seal: i=1")
        for broken, why in (
            (message.replace(b"Hello", b"Hullo"), "body has changed"),
            (message.replace(b"world", b"w0rld"), "body has changed"),
            (message.replace(b"i=1; mx.example.org", b"i=1; mx.example.net"), "does not match"),
            (message.replace(b"cv=pass", b"cv=fail"), "cv=fail"),
            (message.replace(b"cv=none", b"cv=pass"), "cv=pass"),
            (message[:seal] + b"X-" + message[seal:], "not whole"),
            (message.replace(b"ARC-Seal: i=2", b"ARC-Seal: i=3"), "not whole"),
            (message.replace(b"ARC-Seal: i=2", b"ARC-Seal: i=1"), "not in order"),
            (message.replace(b"ARC-Seal: i=2", b"ARC-Seal: i=51"), "not in order"),
            (message.replace(b"ARC-Seal: i=2", b"ARC-Seal: j=2"), "not in order"),
            (message.replace(b"cv=pass;", b"cv=pass; h=from;"), "cannot be read"),
            (message.replace(b"a=rsa-sha256; cv", b"a=rsa-sha1; cv"), "rsa-sha1"),
            (message.replace(b"s=arc", b"s=gone"), "no key"),
            (
                message.replace(
                    b"ARC-Message-Signature: i=2; ", b"ARC-Message-Signature: i=2; l=1; "
                ),
                "",
            ),
            (message.replace(b"i=1; mx", b"i=1; " + b"x" * 9000 + b" mx"), "more than"),
        ):
            self.assertNotEqual(broken, message, why)
            (told,) = [each for each in self.verify(broken).results if each.method == "arc"]
            self.assertEqual(told.result, "fail", why)
            self.assertIn(why, told.comment)

    def test_not_continued(self) -> None:
        """A chain that nobody verified gets no seal of ours."""
        sealed = self.chain(1).partition(b"\r\n\r\n")[0] + b"\r\n"
        for results in (
            (AuthResult("arc", "temperror"),),
            (AuthResult("arc", "none"),),
            (),
        ):
            self.assertEqual(self.seal(sealed, results), b"")
        self.assertEqual(self.seal(HEADER, (AuthResult("arc", "pass"),)), b"")
        whole = (AuthResult("arc", "pass"),)
        self.assertEqual(self.seal(sealed.replace(b"ARC-Seal", b"X-Seal"), whole), b"")
        self.assertIn(b"cv=pass", self.seal(sealed, whole))
        self.assertEqual(self.seal(HEADER + b"X: y\r\n" * 3000), b"")
        self.assertIn(b"i=1; mx.example.org; none", self.seal(HEADER, ()))
        self.assertEqual(self.sign(self.arc(), facts=TRUSTED), b"")

    def test_broken_chain_is_sealed_once(self) -> None:
        """RFC 8617 §5.1.2: the new set alone is sealed, with cv=fail; the next one stops there."""
        header = self.chain(2).partition(b"\r\n\r\n")[0] + b"\r\n"
        fail = (AuthResult("arc", "fail", (), "body has changed"),)
        for broken, instance in (
            (header, b"3"),
            (header.replace(b"ARC-Seal: i=2", b"ARC-Seal: i=1"), b"3"),
            (header.replace(b"ARC-Seal: i=2", b"ARC-Seal: i=7"), b"8"),
            (header.replace(b"ARC-Seal: i=2;", b"ARC-Seal: i=2; i=2;"), b"3"),
        ):
            fields = self.seal(broken, fail)
            self.assertIn(b"ARC-Seal: i=%s; a=rsa-sha256; cv=fail;" % instance, fields)
            self.assertEqual(self.seal(fields + broken, fail), b"")
            # As if it were the only one.
            alone = fields.replace(b"cv=fail", b"cv=none").replace(b"i=" + instance, b"i=1")
            sets = chain_of(split_fields(alone))
            self.assertEqual(len(sets), 1)
            seal = read_signature(*split_fields(fields)[0], NOW, sealed=True)
            covered = Message(split_fields(fields)[1:], b"")
            key = read_key(self.resolver.zone["arc._domainkey.mx.example.org"]["TXT"])
            check_signature(covered, seal, key, ARC_NAMES[:-1])
            told = self.verify(fields + broken + b"\r\n" + BODY).results
            self.assertEqual([each.result for each in told if each.method == "arc"], ["fail"])
        last = header.replace(b"ARC-Seal: i=2", b"ARC-Seal: i=50")
        self.assertEqual(self.seal(last, fail), b"")

    def test_trusted_sealer(self) -> None:
        """DMARC fails behind a forwarder that changed the message; its seal says it was good."""
        message = self.chain(1)
        told = {each.method: each for each in self.verify(message).results}
        self.assertEqual(told["dmarc"].result, "fail")
        ini = "[authentication]\ntrusted_sealers = example.org\n"
        finding = self.verify(message, ini)
        symbols = {each.name: each for each in finding.symbols}
        self.assertIn("DMARC_ARC", symbols)
        self.assertIsNone(symbols["DMARC_ARC"].action)
        self.assertIn("ARC of mx.example.org believed", finding.results[-1].comment)

    def test_not_vouched_for(self) -> None:
        ini = "[authentication]\ntrusted_sealers = example.org\n"
        failed = (AuthResult("dmarc", "fail", (("header.from", "example.com"),)),)
        other = (AuthResult("dmarc", "pass", (("header.from", "other.example"),)),)
        for results in (failed, other, ()):
            message = self.seal(HEADER, results) + HEADER + b"\r\n" + BODY
            names = [each.name for each in self.verify(message, ini).symbols]
            self.assertEqual(names, ["ARC_PASS", "DMARC_REJECT"])
        for sealers in ("ample.org", "mx2.example.org", "org.example"):
            ini = f"[authentication]\ntrusted_sealers = {sealers}\n"
            names = [each.name for each in self.verify(self.chain(1), ini).symbols]
            self.assertIn("DMARC_REJECT", names, sealers)


def _encrypted() -> str:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    locked = BestAvailableEncryption(b"secret")
    return load_key(RSA).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode()


def _elliptic() -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    return written(generate_private_key(SECP256R1()))  # type: ignore[arg-type]
