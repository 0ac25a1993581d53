"""Paths and parameters: what is taken, what it becomes, and only RemoteFault else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.smtp.commands import Offer, clean_helo, parse_bdat, parse_mail, parse_rcpt
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.grammar import (
    canonical_domain,
    canonical_local,
    parse_domain,
    parse_parameters,
    parse_path,
    valid_xtext,
)
from mailsecure.smtp.replies import Reply

OFFER = Offer("us.example", 1000, 100, 10, 10, True)


class PathTests(SynchronousTestCase):
    """parse_path."""

    def test_taken(self) -> None:
        """Each of these is an address, and this is its canonical text."""
        for text, mailbox, local, domain in (
            (b"<a@b.example>", "a@b.example", "a", "b.example"),
            (b"<A.b@B.Example>", "A.b@b.example", "A.b", "b.example"),
            (b" <a@b.example>", "a@b.example", "a", "b.example"),
            (b"a@b.example", "a@b.example", "a", "b.example"),
            (b"<>", "", "", ""),
            (b"<postmaster>", "postmaster", "postmaster", ""),
            (b"<@x.example,@y.example:a@b.example>", "a@b.example", "a", "b.example"),
            (b'<"a b"@c.example>', '"a b"@c.example', "a b", "c.example"),
            (b'<"a\\"b"@c.example>', '"a\\"b"@c.example', 'a"b', "c.example"),
            (b'<"plain"@c.example>', "plain@c.example", "plain", "c.example"),
            (b"<a..b@c.example>", '"a..b"@c.example', "a..b", "c.example"),
            (b"<a.@c.example>", '"a."@c.example', "a.", "c.example"),
            (b"<a@[192.0.2.1]>", "a@[192.0.2.1]", "a", "[192.0.2.1]"),
            (b"<a@[IPv6:2001:DB8::0:1]>", "a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"),
            (b"<a@my_host.example>", "a@my_host.example", "a", "my_host.example"),
            (b"<a@localhost>", "a@localhost", "a", "localhost"),
            (b"<v%evil@us.example>", "v%evil@us.example", "v%evil", "us.example"),
        ):
            path, rest = parse_path(b"FROM:" + text, b"FROM:", False)
            self.assertEqual((path, rest), ((mailbox, local, domain), b""), text)

    def test_utf8(self) -> None:
        """With SMTPUTF8 local parts are UTF-8, and domains become A-labels."""
        path, _ = parse_path("TO:<jörg@bücher.example>".encode(), b"TO:", True)
        self.assertEqual(path[0], "jörg@xn--bcher-kva.example")
        for domain in ("a\u2024.example", "\u00ad", "xn--\u00e9"):
            self.assertRaises(RemoteFault, canonical_domain, domain)

    def test_refused(self) -> None:
        """None of these is an address."""
        for text in (
            b"",
            b"<",
            b"<a@b.example",
            b"<a@>",
            b"<@b.example>",
            b"<a@b.example.>",
            b"<a@.example>",
            b"<a@-b.example>",
            b"<a@b-.example>",
            b"<a@b.-c.example>",
            b"<v@evil@us.example>",
            b"<a b@c.example>",
            b'<"a"b@c.example>',
            b'<""@c.example>',
            b"<a@[192.0.2.999]>",
            b"<a@[192.0.2.1>",
            b"<a@[IPv6:zz]>",
            b"<" + b"x" * 65 + b"@c.example>",
            b"<a@" + b"x" * 64 + b".example>",
            b"<a@" + b"xxxxxxxxx." * 26 + b"example>",
            b"<@a:b@c.example",
            b"<@-a:b@c.example>",
            b"<j\xc3\xb6rg@c.example>",
            b"<a@b\x00.example>",
        ):
            self.assertRaises(RemoteFault, parse_path, b"TO:" + text, b"TO:", False)
        self.assertRaises(RemoteFault, parse_path, b"TO<a@b.example>", b"TO:", False)
        self.assertRaises(RemoteFault, parse_path, b"TO:<\xff@b.example>", b"TO:", True)

    @given(st.binary(max_size=80), st.booleans())
    def test_only_remote_fault(self, octets: bytes, utf8: bool) -> None:
        """Any octets give a path or RemoteFault, and what comes out reads the same again."""
        try:
            path, _ = parse_path(b"TO:<" + octets, b"TO:", utf8)
        except RemoteFault:
            return
        again, _ = parse_path(f"TO:<{path[0]}>".encode(), b"TO:", True)
        self.assertEqual(again, path)

    @given(
        st.text(
            st.characters(codec="ascii", min_codepoint=32, max_codepoint=126),
            min_size=1,
            max_size=30,
        )
    )
    def test_canonical_local(self, local: str) -> None:
        """Whatever a local part holds, its canonical text stands for it."""
        path, _ = parse_path(f"TO:<{canonical_local(local)}@b.example>".encode(), b"TO:", False)
        self.assertEqual(path[1], local)

    def test_names(self) -> None:
        """Names in EHLO are domains, literals, or at least a word."""
        self.assertEqual(parse_domain("Mx.Example"), "mx.example")
        self.assertEqual(clean_helo(b"my host"), "")
        self.assertEqual(clean_helo(b"what!ever"), "what!ever")
        self.assertEqual(clean_helo(b"h\xc3\xb6"), "")


class ParameterTests(SynchronousTestCase):
    """Parameters of MAIL and RCPT."""

    def test_parameters(self) -> None:
        """Keywords in any case, values as they are, spaces in any number."""
        self.assertEqual(
            parse_parameters(b"  size=5  SMTPUTF8 ", False), {"SIZE": "5", "SMTPUTF8": ""}
        )
        self.assertEqual(parse_parameters(b"   ", False), {})
        for bad in (b"X=1", b" =1", b" a=b=c", b" A A", b" \xc3\xb6=1"):
            self.assertRaises(RemoteFault, parse_parameters, bad, False)
        self.assertRaises(RemoteFault, parse_parameters, b" A=\xff", True)
        self.assertEqual(parse_parameters(" A=ö".encode(), True), {"A": "ö"})

    def test_mail(self) -> None:
        """What MAIL asks for arrives."""
        got = parse_mail(
            b"FROM:<a@b.example> SIZE=12 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=x+2Dy", OFFER
        )
        self.assertEqual(got, (("a@b.example", "a", "b.example"), 12, True, True, "HDRS", "x+2Dy"))
        self.assertEqual(
            parse_mail("FROM:<ö@b.example> SMTPUTF8".encode(), OFFER),
            (("ö@b.example", "ö", "b.example"), 0, False, True, "", ""),
        )
        self.assertEqual(parse_mail(b"FROM:<>", OFFER), (("", "", ""), 0, False, False, "", ""))

    def test_mail_refused(self) -> None:
        """Each mistake has the code that its standard names."""
        for argument, code in (
            (b"FROM:<a@b.example> SIZE=999999999999", 552),
            (b"FROM:<a@b.example> SIZE=-1", 501),
            (b"FROM:<a@b.example> SIZE=" + b"9" * 30, 501),
            (b"FROM:<a@b.example> UNKNOWN=1", 555),
            (b"FROM:<a@b.example> SMTPUTF8=1", 555),
            (b"FROM:<a@b.example> SIZE=1 SIZE=2", 501),
            (b"FROM:<a@b.example> BODY=9BIT", 501),
            (b"FROM:<a@b.example> RET=SOME", 501),
            (b"FROM:<a@b.example> ENVID=+", 501),
            (b"FROM:<a@b.example> ENVID=" + b"x" * 101, 501),
            (b"FROM:<a>", 501),
            ("FROM:<ö@b.example>".encode(), 501),
            (b"<a@b.example>", 501),
        ):
            got = parse_mail(argument, OFFER)
            self.assertIsInstance(got, Reply)
            self.assertEqual(got.code, code, argument)

    def test_rcpt(self) -> None:
        """What RCPT asks for arrives."""
        self.assertEqual(
            parse_rcpt(b"TO:<a@b.example> NOTIFY=delay,success ORCPT=rfc822;a+40b", False),
            (Recipient("a@b.example", "b.example", "SUCCESS,DELAY", "rfc822;a+40b"), "a"),
        )
        self.assertEqual(
            parse_rcpt(b"TO:<a@b.example> NOTIFY=NEVER ORCPT=x-y;z", False),
            (Recipient("a@b.example", "b.example", "NEVER", "x-y;z"), "a"),
        )
        self.assertEqual(
            parse_rcpt(b"TO:<Postmaster>", False), (Recipient("Postmaster", ""), "Postmaster")
        )

    def test_rcpt_refused(self) -> None:
        """Each mistake has its code."""
        for argument, code in (
            (b"TO:<>", 501),
            (b"TO:<someone>", 501),
            (b"TO:<a@b.example> NOTIFY=NEVER,DELAY", 501),
            (b"TO:<a@b.example> ORCPT=a@b", 501),
            (b"TO:<a@b.example> ORCPT=rfc822;+", 501),
            (b"TO:<a@b.example> ORCPT=rfc822;" + b"x" * 500, 501),
            (b"TO:<a@b.example> SIZE=1", 555),
            (b"TO:<a@b.example> X X", 501),
        ):
            got = parse_rcpt(argument, False)
            self.assertIsInstance(got, Reply)
            self.assertEqual(got.code, code, argument)

    def test_bdat(self) -> None:
        """BDAT has a count, perhaps LAST, and nothing else."""
        self.assertEqual(parse_bdat(b"12"), (12, False))
        self.assertEqual(parse_bdat(b"0 last"), (0, True))
        for bad in (b"", b"-1", b"1" * 20, b"5 FIRST", b"5 LAST x"):
            self.assertIsInstance(parse_bdat(bad), Reply)

    def test_xtext(self) -> None:
        """RFC 3461 §4."""
        self.assertTrue(valid_xtext("a+2Bb"))
        for bad in ("", "a=b", "a+2b", "a b"):
            self.assertFalse(valid_xtext(bad))

    @given(st.binary(max_size=120))
    def test_only_replies(self, octets: bytes) -> None:
        """Any octets give arguments or a reply, never an exception."""
        parse_mail(b"FROM:<a@b.example> " + octets, OFFER)
        parse_mail(octets, OFFER)
        parse_rcpt(b"TO:<a@b.example> " + octets, True)
        parse_bdat(octets)
        clean_helo(octets)
