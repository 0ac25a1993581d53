"""Whose mail it says it is: every address of every From field, however it is written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.authors import MAX_AUTHORS, Authors, authors_of, domains_in
from mailsecure.scan.header_fields import split_fields

ADDRESSES = [
    ("a@b.example", ["b.example"]),
    ('"Doe, John" <a@B.Example.>', ["b.example"]),
    ("A <a@b.example>, c@d.example", ["b.example", "d.example"]),
    ("Group: a@b.example, c@d.example;", ["b.example", "d.example"]),
    ("undisclosed-recipients: ;", []),
    ("", []),
    ("<>", []),
    ("<@a.example,@b.example:c@d.example>", ["d.example"]),
    # What is in front of the brackets is a name, whatever it looks like.
    ("a@victim.example <b@evil.example>", ["evil.example"]),
    ('"a@victim.example" <b@evil.example>', ["evil.example"]),
    ("(a@victim.example (b)) c@evil.example", ["evil.example"]),
    (r'"a\" <x@victim.example>" <b@evil.example>', ["evil.example"]),
    (r"(a\) b@victim.example) c@evil.example", ["evil.example"]),
    # Nobody knows which of several a reader is shown: all count.
    ("<a@victim.example> <b@evil.example>", ["victim.example", "evil.example"]),
    ("<a@victim.example,b@evil.example>", ["victim.example", "evil.example"]),
    # Quotes and comments that are never closed.
    ('"a <b@evil.example>', ["evil.example"]),
    ("a@b.example (", ["b.example"]),
    ("(a@b.example", ["b.example"]),
    ('(") a@b.example', ["b.example"]),
    ("a@b.example)", ["b.example"]),
    ("a @ b . example", ["b.example"]),
    ("a@[192.0.2.1]", [""]),
    ("a@m\u00fcnchen.example", ["xn--mnchen-3ya.example"]),
    ("a@b_\u00e4@", [""]),
    ("John Doe", [""]),
    ("=?utf-8?q?a=40b.example?=", [""]),
    ("@", [""]),
]


class AuthorsTests(SynchronousTestCase):
    """:func:`domains_in` and :func:`authors_of`."""

    def authors(self, *values: str) -> Authors:
        header = "".join(f"From: {value}\r\n" for value in values)
        return authors_of(split_fields(header.encode()))

    def test_addresses(self) -> None:
        for text, domains in ADDRESSES:
            self.assertEqual(domains_in(text), domains, text)

    def test_fields(self) -> None:
        self.assertEqual(self.authors(), Authors((), "missing"))
        self.assertEqual(self.authors("a@b.example"), Authors(("b.example",)))
        both = Authors(("b.example", "c.example"), "several")
        self.assertEqual(self.authors("a@b.example", "a@c.example"), both)
        self.assertEqual(self.authors("nobody"), Authors((), "unreadable"))
        self.assertEqual(self.authors("x: ;"), Authors((), "unreadable"))
        self.assertEqual(self.authors("a@b.example, x"), Authors(("b.example",), "unreadable"))

    def test_obsolete_and_folded(self) -> None:
        """A blank before the colon and folds hide nothing."""
        fields = split_fields(
            b"FROM \t: a\r\n <b@c\r\n .example>\r\nfrom: d@e.example\r\n\r\nFrom: x@y.z"
        )
        self.assertEqual(authors_of(fields).domains, ("c.example", "e.example"))

    def test_many(self) -> None:
        addresses = ", ".join(f"a@d{i}.example" for i in range(MAX_AUTHORS + 1))
        many = self.authors(addresses)
        self.assertEqual((len(many.domains), many.problem), (MAX_AUTHORS, "many"))
        self.assertEqual(self.authors(*["a@b.example"] * (MAX_AUTHORS + 1)).problem, "many")
        self.assertEqual(self.authors("a@b.example" + " " * 9000), Authors((), "many"))

    @given(st.text(st.sampled_from('<>(),;:"\\@ ab.'), max_size=60))
    def test_anything(self, text: str) -> None:
        for domain in domains_in(text):
            self.assertNotIn("@", domain)

    @given(st.binary(max_size=200))
    def test_any_header(self, header: bytes) -> None:
        authors = authors_of(split_fields(header))
        self.assertIn(authors.problem, ("", "missing", "several", "unreadable", "many"))
        self.assertTrue(authors.domains or authors.problem)
