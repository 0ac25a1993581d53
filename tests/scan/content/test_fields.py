"""Header sections: what mail has, what it should not have, and what is too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content import fields
from mailsecure.scan.content.fields import (
    Fields,
    count_mailboxes,
    decode_words,
    mailboxes,
    media_type,
    parameters,
    read_fields,
)
from mailsecure.scan.content.text import decode, printable
from mailsecure.scan.faults import Unscannable


def read(octets: bytes) -> tuple[Fields, bytes]:
    """Read a section; return it and the body."""
    found, body = read_fields(octets, 0, len(octets))
    return found, octets[body:]


class SectionTests(SynchronousTestCase):
    """read_fields."""

    def test_ordinary(self) -> None:
        """Fields in order, folded, any case; the body after the first empty line."""
        found, body = read(b"Subject: a\r\n b\r\nSUBJECT : c\r\nTo:d\r\n\r\nbody\r\n\r\nmore")
        self.assertEqual(len(found), 3)
        self.assertEqual(found.all("subject"), [b" a\r\n b\r", b" c\r"])
        self.assertEqual(found.text("subject"), "a b")
        self.assertEqual(found.text("from"), "")
        self.assertEqual(body, b"body\r\n\r\nmore")

    def test_bare_newlines(self) -> None:
        """LF ends lines as CRLF does, within what was base64."""
        found, body = read(b"A: 1\nB: 2\n\nbody")
        self.assertEqual((found.text("a"), found.text("b"), body), ("1", "2", b"body"))

    def test_no_section(self) -> None:
        """An empty one, none at all, and text in its place."""
        for octets, left in (
            (b"\r\nbody", b"body"),
            (b"\nbody", b"body"),
            (b"", b""),
            (b"Hello, world\r\n\r\nmore", b"Hello, world\r\n\r\nmore"),
        ):
            found, body = read(octets)
            self.assertEqual((len(found), body), (0, left))

    def test_no_body(self) -> None:
        """A section without an empty line is all there is."""
        found, body = read(b"A: 1\r\nB: 2")
        self.assertEqual((found.text("b"), body), ("2", b""))

    def test_mbox(self) -> None:
        """The line that mbox puts in front is passed over."""
        found, body = read(b"From a@b Mon Jan  1\r\nA: 1\r\n\r\nx")
        self.assertEqual((found.text("a"), body), ("1", b"x"))
        self.assertEqual(read(b"From a@b")[1], b"")

    def test_nonsense_lines(self) -> None:
        """A line that is no field is passed over, with what continues it."""
        found, body = read(b"A: 1\r\nno field\r\n continued\r\nB: 2\r\nlast\r\n\r\nx")
        self.assertEqual((found.text("a"), found.text("b"), body), ("1", "2", b"x"))
        self.assertEqual(len(found), 2)

    def test_bounds(self) -> None:
        """Sections too long, with too many fields."""
        with self.assertRaises(Unscannable):
            read(b"A: 1\r\n" * 1001 + b"\r\n")
        with self.assertRaises(Unscannable):
            read(b"A: 1\r\n" + b" x\r\n" * 100_000 + b"\r\n")
        self.assertEqual(len(read(b"A: 1\r\n" * 1000 + b"\r\n")[0]), 1000)

    def test_different(self) -> None:
        """Of fields that are there twice, what differs; too long is too much."""
        found, _ = read(b"X: a\r\nX: a\r\nX: b\r\nX: c\r\n\r\n")
        self.assertEqual(found.different("x"), ["a", "b"])
        with self.assertRaises(Unscannable):
            read(b"X: " + b"a" * 9000 + b"\r\n\r\n")[0].different("x")

    @given(st.binary(max_size=300))
    def test_any_octets(self, octets: bytes) -> None:
        """Nothing is raised, and the body is within the octets."""
        found, body = read_fields(octets, 0, len(octets))
        self.assertLessEqual(body, len(octets))
        for name in ("a", "content-type", "to"):
            media_type(" ".join(found.different(name)))
            mailboxes(found.all(name))


class ValueTests(SynchronousTestCase):
    """Words, parameters, types."""

    def test_words(self) -> None:
        """RFC 2047, and what cannot be decoded."""
        for value, text in (
            ("plain", "plain"),
            ("=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
            ("=?iso-8859-1?b?/A==?= and more", "ü and more"),
            ("=?nonsense?q?=FC?=", "ü"),
            ("=?utf-8?q?unfinished", "=?utf-8?q?unfinished"),
            ("=?utf-8?b?AAAAA?=", "=?utf-8?b?AAAAA?="),
        ):
            self.assertEqual(decode_words(value), text)

    def test_parameters(self) -> None:
        """Quoted, RFC 2231, encoded words, several of a name."""
        value = "text/plain; NAME=\"a;b.exe\"; filename*=utf-8''%e2%82%ac.exe; x"
        self.assertEqual(parameters(value), [("name", "a;b.exe"), ("x", ""), ("filename", "€.exe")])
        self.assertEqual(
            parameters('a/b; name*0="inv"; name*1="oice.exe"'), [("name", "invoice.exe")]
        )
        self.assertEqual(parameters('a; name="=?utf-8?q?=C3=BC.exe?="'), [("name", "ü.exe")])
        self.assertEqual(parameters("a; name=x; name=y"), [("name", "x"), ("name", "y")])
        self.assertEqual(parameters("a; name*=zz'en'%fc"), [("name", "ü")])
        self.assertEqual(parameters("a; name*" + "9" * 5000 + "=x"), [])
        self.assertEqual(parameters(""), [])

    def test_types(self) -> None:
        """Lower case; nothing for nonsense."""
        self.assertEqual(media_type("Text/HTML; charset=x"), ("text/html", [("charset", "x")]))
        self.assertEqual(media_type(" multipart / mixed")[0], "multipart/mixed")
        self.assertEqual(media_type("text")[0], "")

    def test_text(self) -> None:
        """decode never fails, whatever the charset; printable is one line."""
        for charset in ("utf-8", "none", "", "idna", "hex", "a\0b", "unicode_escape", "x" * 9999):
            self.assertEqual(decode(b"\xff", charset), "ÿ")
        self.assertEqual(decode("ü".encode(), "ascii"), "ü")
        self.assertEqual(decode(b"\xfc", "latin-1"), "ü")
        self.assertEqual(printable("a\r\n\x1b[31mb\u202ec\ud800", 10), "a [31mb c")
        self.assertEqual(printable("x" * 100, 3), "xxx")


class AddressTests(SynchronousTestCase):
    """From, To and Cc."""

    def test_from(self) -> None:
        """The mailboxes, without names, comments and groups."""
        for value, found in (
            (b"a@b.example", ["a@b.example"]),
            (b'"x@y, z" <a@b.example>', ["a@b.example"]),
            (b"A (c@d, (e)) <a@b.example> (f), g@h.example", ["a@b.example", "g@h.example"]),
            (b"group: a@b.example, c@d.example;", ["a@b.example", "c@d.example"]),
            (b"=?utf-8?q?x?= <a@b.example>", ["a@b.example"]),
            (b"nobody )", []),
            (b"", []),
        ):
            self.assertEqual(mailboxes([value]), found)
        self.assertEqual(len(mailboxes([b"a@b," * 50])), 10)
        self.assertEqual(mailboxes([b"a@b", b"c@d"]), ["a@b", "c@d"])

    def test_count(self) -> None:
        """How many there are; so many are too many."""
        self.assertEqual(count_mailboxes([b"a@b, C <c@d>", b"e@f"]), 3)
        self.assertEqual(count_mailboxes([]), 0)
        self.assertEqual(count_mailboxes([b"(a) (b)"]), 0)
        for value in (b"," * 20_000, b"a@b " * 6000, b"(" * 30, b"(" * 100_000):
            with self.assertRaises(Unscannable):
                count_mailboxes([value])
        with self.assertRaises(Unscannable):
            mailboxes([b"(" * 21])

    def test_limits_are_generous(self) -> None:
        """An ordinary newsletter is nowhere near."""
        self.assertGreaterEqual(fields.MAX_MAILBOXES, 1000)
