"""Authentication-Results: what we write others read, and what claims to be ours is known."""

from __future__ import annotations

import authres
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.authresults import authentication_results, is_ours, read_results
from mailsecure.scan.values import AuthResult

OURS = "mx.example.com"
RESULTS = (
    AuthResult("spf", "pass", (("smtp.mailfrom", "a.example"),), "ip4:192.0.2.1"),
    AuthResult(
        "dkim", "fail", (("header.d", "b.example"), ("header.b", "ab+/c=")), "body (has) changed"
    ),
    AuthResult("dmarc", "none", (("header.from", "c.example"),)),
)


class WritingTests(SynchronousTestCase):
    """:func:`authentication_results`."""

    def test_written(self) -> None:
        self.assertEqual(
            authentication_results(OURS, RESULTS),
            "mx.example.com;\r\n\t"
            "spf=pass (ip4:192.0.2.1) smtp.mailfrom=a.example;\r\n\t"
            'dkim=fail (body \\(has\\) changed) header.d=b.example header.b="ab+/c=";\r\n\t'
            "dmarc=none header.from=c.example",
        )
        self.assertEqual(authentication_results(OURS, ()), "mx.example.com; none")

    def test_others_read_it(self) -> None:
        text = authentication_results(OURS, RESULTS)
        header = authres.AuthenticationResultsHeader.parse(f"Authentication-Results: {text}")
        self.assertEqual(header.authserv_id, OURS)
        self.assertEqual(
            [
                (each.method, each.result, [p.value for p in each.properties])
                for each in header.results
            ],
            [
                ("spf", "pass", ["a.example"]),
                ("dkim", "fail", ["b.example", "ab+/c="]),
                ("dmarc", "none", ["c.example"]),
            ],
        )

    @given(st.text(max_size=80), st.text(max_size=80))
    def test_nothing_breaks_out(self, value: str, comment: str) -> None:
        """Whatever a stranger writes, it stays one value and one comment."""
        result = AuthResult("dkim", "pass", (("header.i", value),), comment)
        text = authentication_results(OURS, [result])
        self.assertTrue(text.isascii())
        self.assertEqual(text.count("\r"), text.count("\r\n\t"))
        self.assertEqual(text.count("\n"), text.count("\r\n\t"))
        (found,) = read_results(text)
        self.assertEqual((found.method, found.result), ("dkim", "pass"))
        self.assertEqual(list(found.properties), ["header.i"])
        plain = " ".join("".join(c if " " <= c <= "~" else " " for c in value).split())
        self.assertEqual(" ".join(found.properties["header.i"].split()), plain)
        self.assertTrue(is_ours(text, OURS))

    def test_lines_are_short(self) -> None:
        many = AuthResult("dkim", "pass", tuple((f"header.x{i}", "a" * 30) for i in range(20)))
        self.assertLess(max(map(len, authentication_results(OURS, [many]).split("\r\n"))), 90)
        long = AuthResult("dkim", "pass", (("header.i", "a" * 9000),), "c" * 9000)
        self.assertLess(len(authentication_results(OURS, [long])), 600)


class ReadingTests(SynchronousTestCase):
    """:func:`is_ours` and :func:`read_results`."""

    def test_ours(self) -> None:
        for value in (
            "mx.example.com; dkim=pass",
            "MX.Example.COM.; dkim=pass",
            "mx.example.com 1; dkim=pass",
            "mx.example.com",
            "(c) mx.example.com (d); dkim=pass",
            "mx (x) .example.com; dkim=pass",
            "mx(x(y)).example(z).com; none",
            '"mx.example.com"; dkim=pass',
            "<mx.example.com>; dkim=pass",
            "mx.example.com/1; dkim=pass",
            "mx.example.com, other.example; dkim=pass",
            "((mx.example.com; dkim=pass",
            "\u200bmx.example.com; dkim=pass",
            '"mx\\.example".com; dkim=pass',
            "(a\\) b) mx.example.com; dkim=pass",
            "mx.example.com(never closed; dkim=pass",
            '"mx.example.com; dkim=pass',
            "\tmx.\r\n example.com; dkim=pass",
        ):
            self.assertTrue(is_ours(value, OURS), value)
            self.assertTrue(is_ours(value, "MX.example.com."), value)

    def test_not_ours(self) -> None:
        for value in (
            "mx.example.org; dkim=pass",
            "amx.example.com; dkim=pass",
            "mx.example.com.evil.example; dkim=pass",
            "(mx.example.com) mx.other.example; dkim=pass",
            "other.example; x=mx.example.com",
            "other.example; mx.example.com",
            "",
            ";mx.example.com",
        ):
            self.assertFalse(is_ours(value, OURS), value)

    def test_long_ones(self) -> None:
        """Where the name may be behind what is looked at, it is ours; no hiding there."""
        for value in ("a " * 100_000, "(" * 100_000, f"({'x' * 5000}) {OURS}; dkim=pass"):
            self.assertTrue(is_ours(value, OURS))
        self.assertFalse(is_ours("other.example; " + "a " * 100_000, OURS))
        self.assertFalse(is_ours("a " * 100, OURS))

    def test_results(self) -> None:
        value = (
            "i=1; mx.google.example; dkim=pass header.i=@a.example header.s=s header.b=x/y;\r\n"
            " spf = pass (google.example: domain of b@c.example) smtp.mailfrom=b@c.example;\r\n"
            " dmarc/1=Pass (p=REJECT sp=REJECT dis=NONE) action=none Header.From = c.example;"
            ' arc=none; x; ptr.y=z; dkim="fail"; (dmarc=fail) none'
        )
        found = [(each.method, each.result, each.properties) for each in read_results(value)]
        self.assertEqual(
            found,
            [
                ("i", "1", {}),
                ("dkim", "pass", {"header.i": "@a.example", "header.s": "s", "header.b": "x/y"}),
                ("spf", "pass", {"smtp.mailfrom": "b@c.example"}),
                ("dmarc", "pass", {"header.from": "c.example"}),
                ("arc", "none", {}),
                ("dkim", "fail", {}),
            ],
        )

    @given(st.text(st.sampled_from('();"\\= \t.ab1'), max_size=60))
    def test_anything(self, value: str) -> None:
        is_ours(value, OURS)
        for each in read_results(value):
            self.assertTrue(each.method)
