"""The jobs under hostile messages and records: the right word for each, and an end."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.header_fields import split_fields
from mailsecure.scan.jobs import canonical, signatures, spf
from mailsecure.scan.jobs.canonical import Message, body_of, split_policy
from mailsecure.scan.jobs.keys import NoKey, read_key
from mailsecure.scan.private_keys import key_record, new_key

from .auth_site import NOW

KEY = new_key(2048)
assert isinstance(KEY, RSAPrivateKey)
RECORD = key_record(KEY)
ED = key_record(new_key(0))
NAME = "TXT m._domainkey.b.example"
HEADER = b"From: a@b.example\r\nSubject: x\r\n"
BODY = b"Hello\r\n"
#: 512 bits, from dkimpy's suite: nobody makes such a key any more.
SMALL = (
    "p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBANmBe10IgY+u7h3enWTukkqtUD5PR52T"
    "b/mPfjC0QJTocVBq6Za/PlzfV+Py92VaCak19F4WrbVTK5Gg5tW220MCAwEAAQ=="
)


def signed(**tags: Any) -> bytes:
    """Return a DKIM-Signature that is right but for ``tags``; None leaves one out."""
    message = Message(split_fields(HEADER), BODY)
    body = base64.b64encode(message.body_hash("relaxed")).decode()
    made = {"v": "1", "a": "rsa-sha256", "c": "relaxed/relaxed", "d": "b.example", "s": "m"}
    made |= {"h": "from:subject", "bh": body, **tags}
    text = "; ".join(f"{name}={value}" for name, value in made.items() if value is not None)
    value = f" {text}; b=".encode("utf-8", "surrogateescape")
    names = [each.encode() for each in str(made["h"]).lower().split(":")]
    digest = message.header_digest("relaxed", [*names, b"from"], (b"DKIM-Signature", value))
    signature = KEY.sign(digest, PKCS1v15(), Prehashed(SHA256()))  # type: ignore[union-attr, call-arg]
    return b"DKIM-Signature:" + value + base64.b64encode(signature) + b"\r\n"


def verify(message: bytes, record: Any = RECORD, most: int = 5, arc: bool = True) -> dict[str, Any]:
    answers = {NAME: [record] if isinstance(record, str) else record}
    arguments = {"dkim": most, "arc": arc, "now": NOW, "answers": answers}
    return signatures.verify(arguments, message)


class SignatureTests(SynchronousTestCase):
    """Each fault has its result (RFC 8601 §2.7.1)."""

    def result(self, field: bytes, record: Any = RECORD) -> tuple[str, str]:
        (found,) = verify(field + HEADER + b"\r\n" + BODY, record)["dkim"]
        return found["result"], found["reason"]

    def test_good_ones(self) -> None:
        good: list[dict[str, Any]] = [
            {},
            {"v": None},
            {"i": "x@sub.b.example"},
            {"t": int(NOW), "x": int(NOW) + 5},
            {"l": 7},
            {"q": "dns/txt"},
            {"D": "x"},
        ]
        for tags in good:
            self.assertEqual(self.result(signed(**tags)), ("pass", ""), tags)

    def test_faults(self) -> None:
        faults: list[tuple[dict[str, Any], str, str]] = [
            ({"a": "rsa-sha1"}, "policy", "rsa-sha1 is not believed (RFC 8301)"),
            ({"a": "rsa-md5"}, "neutral", "unknown algorithm"),
            ({"a": "ed25519-sha256"}, "permerror", "key of another kind"),
            ({"c": "odd"}, "neutral", "c= names no canonicalization"),
            ({"c": "relaxed/odd"}, "neutral", "c= names no canonicalization"),
            ({"c": "relaxed"}, "pass", ""),
            ({"d": "com"}, "neutral", "d= or s= is no name"),
            ({"d": "b.example(.evil.example"}, "neutral", "d= or s= is no name"),
            ({"d": None}, "neutral", "no d="),
            ({"bh": ""}, "neutral", "no bh="),
            ({"bh": "AAAA"}, "fail", "body has changed"),
            ({"bh": "AA*A"}, "neutral", "not Base64"),
            ({"h": "subject"}, "neutral", "From is not signed"),
            ({"h": "from:a b"}, "neutral", "h= cannot be read"),
            ({"h": ":".join(["from"] * 300)}, "neutral", "h= cannot be read"),
            ({"i": "x@evilb.example"}, "neutral", "i= is not of d="),
            ({"i": "b.example"}, "pass", ""),
            ({"t": "soon"}, "neutral", "t= is no time"),
            ({"x": "9" * 99}, "neutral", "x= is no time"),
            ({"t": int(NOW) + 9000}, "policy", "signed in the future"),
            ({"x": int(NOW) - 9000}, "policy", "signature expired"),
            ({"t": int(NOW) - 1, "x": int(NOW) - 2}, "neutral", "expires before it was made"),
            ({"l": "-1"}, "neutral", "l= is no number"),
            ({"l": 8}, "permerror", "l= is longer than the body"),
            ({"l": 3}, "fail", "body has changed"),
            ({"v": "2"}, "neutral", "v= is not 1"),
            ({"q": "dns/odd"}, "neutral", "q= is not dns/txt"),
            ({"z": "x" * 9000}, "policy", "signature of more than 8192 octets"),
        ]
        for tags, result, reason in faults:
            self.assertEqual(self.result(signed(**tags)), (result, reason), tags)
        self.assertEqual(self.result(b"DKIM-Signature: x\r\n"), ("neutral", "not a list of tags"))
        other = signed().replace(b"; b=", b"; b=AAAA")
        self.assertEqual(self.result(other), ("fail", "signature does not match"))

    def test_keys(self) -> None:
        strict = RECORD + "; t=s"
        for record, result, reason in (
            ([], "permerror", "no key"),
            (None, "temperror", "the DNS gave no answer for the key"),
            ("v=DKIM1; p=", "permerror", "key revoked"),
            ([ED], "permerror", "key of another kind"),
            (["nonsense", RECORD], "pass", ""),
            (RECORD + "; h=sha1:sha256; s=email; t=y:x; n=note", "pass", ""),
            (strict, "pass", ""),
        ):
            self.assertEqual(self.result(signed(), record), (result, reason), record)
        below = self.result(signed(i="@sub.b.example"), strict)
        self.assertEqual(below, ("permerror", "i= is not of exactly the domain"))

    def test_more_froms(self) -> None:
        """A From field beside the signed one breaks the signature, wherever it stands."""
        for message in (
            signed() + b"From: x@evil.example\r\n" + HEADER + b"\r\n" + BODY,
            signed() + HEADER + b"From: x@evil.example\r\n\r\n" + BODY,
            b"From: x@evil.example\r\n" + signed() + HEADER + b"\r\n" + BODY,
        ):
            self.assertEqual(verify(message)["dkim"][0]["result"], "fail")

    def test_none_asked(self) -> None:
        found = verify(signed() * 3 + HEADER + b"\r\n" + BODY, most=0, arc=False)
        self.assertEqual((found["dkim"], found["ignored"]), ([], 0))

    def test_doubles_count_once(self) -> None:
        found = verify(signed() * 9 + HEADER + b"\r\n" + BODY)
        self.assertEqual((len(found["dkim"]), found["ignored"]), (1, 0))

    @given(st.binary(max_size=200))
    def test_any_signature(self, octets: bytes) -> None:
        field = b"DKIM-Signature: " + octets.replace(b"\n", b"").replace(b"\r", b"") + b"\r\n"
        found = verify(field + HEADER + b"\r\n" + BODY)
        self.assertTrue("needs" in found or found["dkim"])

    @given(st.text(st.sampled_from("arvbcdhsxl=;:/ 1-.ABe256"), max_size=60))
    def test_any_tags(self, text: str) -> None:
        for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"):
            field = name + b": i=1; " + text.encode() + b"\r\n"
            found = verify(field * 2 + HEADER + b"\r\n" + BODY)
            self.assertEqual(found["arc"]["result"], "fail")

    @given(st.binary(max_size=300))
    def test_any_message(self, octets: bytes) -> None:
        self.assertIn("from", verify(octets))


class KeyTests(SynchronousTestCase):
    """Keys in the DNS."""

    def test_unusable(self) -> None:
        huge = base64.b64encode(b"0" * 3000).decode()
        for record, reason in (
            ("v=DKIM2; p=AAAA", "key record of another version"),
            ("s=tlsrpt; p=AAAA", "key for another service"),
            ("h=sha1; p=AAAA", "key for another hash"),
            ("v=DKIM1", "key record without a key"),
            ("k=dsa; p=AAAA", "key of an unknown kind"),
            ("p=!!!", "key cannot be read"),
            ("p=AAAA", "key cannot be read"),
            (f"p={huge}", "key cannot be read"),
            ("k=ed25519; p=AAAA", "key cannot be read"),
            ("p=\u00e9", "key cannot be read"),
            (ED.replace("k=ed25519", "k=rsa"), "key cannot be read"),
            ("p", "key record cannot be read"),
        ):
            error = self.assertRaises(NoKey, read_key, [record])
            self.assertEqual(str(error), reason)

    def test_sizes(self) -> None:
        self.assertEqual((read_key([RECORD]).bits, read_key([RECORD]).kind), (2048, "rsa"))
        self.assertEqual((read_key([ED]).bits, read_key([ED]).kind), (256, "ed25519"))
        self.assertEqual(read_key([SMALL]).bits, 512)

    @given(st.text(max_size=80))
    def test_any_record(self, text: str) -> None:
        for record in (text, f"p={text}", f"k=ed25519; p={text}"):
            with contextlib.suppress(NoKey):
                read_key([record])


class BodyTests(SynchronousTestCase):
    """Canonical bodies (RFC 6376 §3.4.3-5), and large ones."""

    def test_canonical(self) -> None:
        for body, simple, relaxed in (
            (b"", b"\r\n", b""),
            (b"\r\n", b"\r\n", b""),
            (b"\r\n\r\n", b"\r\n", b""),
            (b" \r\n", b" \r\n", b""),
            (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
            (b"x", b"x\r\n", b"x\r\n"),
            (b"x \t", b"x \t\r\n", b"x\r\n"),
            (b"x\r\r\n\r\n", b"x\r\r\n", b"x\r\r\n"),
            (b"\n\r\n\r\n", b"\n\r\n", b"\n\r\n"),
        ):
            self.assertEqual(canonical._simple(body), simple, body)
            self.assertEqual(canonical._relaxed(body), relaxed, body)

    def test_parts(self) -> None:
        self.assertEqual(body_of(b"a: b\r\n\r\nc"), b"c")
        self.assertEqual(body_of(b"\r\nc"), b"c")
        self.assertEqual(body_of(b"a: b\r\n"), b"")
        self.assertEqual(split_policy("relaxed"), ("relaxed", "simple"))

    def test_large_bodies_end(self) -> None:
        """What takes dkimpy's expressions an hour or a day is done at once."""
        field = signed()
        for body in (b" " * 4_000_000 + b"x", b"\r\n" * 1_000_000, b" \t\r\n" * 500_000 + b"x"):
            found = verify(field + HEADER + b"\r\n" + body)
            self.assertEqual(found["dkim"][0]["reason"], "body has changed")

    def test_long_folds_end(self) -> None:
        field = signed().replace(b"; b=", b";" + b"\r\n " * 2000 + b"b=")
        self.assertEqual(verify(field + HEADER + b"\r\n" + BODY)["dkim"][0]["result"], "pass")

    def test_headers_without_end(self) -> None:
        for header in (b"X: y\r\n" * 60_000, b"X: " + b"y" * 300_000 + b"\r\n", b"a:\r\n" * 10_000):
            found = verify(header + HEADER + b"\r\n" + BODY)
            self.assertTrue(found["trouble"].startswith(("more than", "header section of")))
        self.assertEqual(verify(b"\r\n" + HEADER)["problem"], "missing")


class SpfJobTests(SynchronousTestCase):
    """Records that mean harm."""

    def result(self, record: str, sender: str = "a@h.example", **more: Any) -> str:
        answers = {"TXT h.example": [record], **more}
        arguments = {
            "client": "192.0.2.1",
            "helo": "x",
            "sender": sender,
            "receiver": "mx.example.org",
            "now": NOW,
            "answers": answers,
        }
        found = spf.evaluate(arguments, b"")
        return "needs" if "needs" in found else str(found["mailfrom"]["result"])

    def test_records(self) -> None:
        for terms, result in (
            ("a" * 4000, "permerror"),
            ("x=%{l" + "." * 4000 + "}", "permerror"),
            ("exists:." + "a" * 4000 + "!", "permerror"),
            ("x=" + "%%." * 1300, "permerror"),
            ("a/" + "9" * 4000, "permerror"),
            ("a//" + "9" * 4000, "permerror"),
            ("ip6:" + ":" * 4000, "permerror"),
            ("exists:%{d" + "9" * 400 + "}.x.example", "needs"),
            ("exists:%{s}%{s}%{s}.example", "needs"),
            (" " * 4000, "neutral"),
            ("=" * 4000, "permerror"),
            ("redirect=h.example", "permerror"),
            ("include:h.example", "permerror"),
            ("x=%{l99999999999999999999}", "neutral"),
            ("mx:" + "a" * 64 + ".example", "neutral"),
        ):
            self.assertEqual(self.result(f"v=spf1 {terms}"), result, terms[:20])

    def test_long_records(self) -> None:
        self.assertEqual(self.result("v=spf1 " + "ip4:192.0.2.2 " * 400 + "-all"), "permerror")
        self.assertEqual(self.result("x" * 70_000), "none")

    def test_slips_of_the_library(self) -> None:
        """What pyspf does not expect is the record's fault, never ours."""

        def slip(query: Any) -> Any:
            raise IndexError

        self.patch(spf._Query, "check", slip)
        self.assertEqual(self.result("v=spf1"), "permerror")

    def test_void_and_other_limits(self) -> None:
        absent = {f"A {i}.example": [] for i in range(5)}
        record = "v=spf1 " + " ".join(f"a:{i}.example" for i in range(3))
        self.assertEqual(self.result(record, **absent), "permerror")
        record = "v=spf1 " + " ".join(f"a:{i}.example" for i in range(2))
        self.assertEqual(self.result(record, **absent), "neutral")
        there = {f"A {i}.example": ["192.0.2.9"] for i in range(11)}
        record = "v=spf1 " + " ".join(f"a:{i}.example" for i in range(11))
        self.assertEqual(self.result(record, **there), "permerror")
        hosts = {"MX h.example": [f"10 {i}.example" for i in range(11)]}
        self.assertEqual(self.result("v=spf1 mx", **hosts), "permerror")

    def test_ptr_without_answer(self) -> None:
        """RFC 7208 §5.5: it does not match, and is no temperror."""
        self.assertEqual(self.result("v=spf1 ptr -all", **{"PTR 192.0.2.1": None}), "fail")
        self.assertEqual(self.result("v=spf1 a -all", **{"A h.example": None}), "temperror")

    @given(st.text(st.sampled_from("aimxptrl:/=%{}d4 .-~+?12v"), max_size=60))
    def test_any_record(self, terms: str) -> None:
        results = ("needs", "none", "neutral", "pass", "fail", "softfail", "permerror", "temperror")
        self.assertIn(self.result(f"v=spf1 {terms}"), results)

    @given(st.text(max_size=40))
    def test_any_sender(self, sender: str) -> None:
        self.result("v=spf1 exists:%{l}.%{o} x=%{S} -all", f"{sender}@h.example")
