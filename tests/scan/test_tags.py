"""Fields, tags, and the keys that signatures ask for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.header_fields import (
    MAX_FIELDS,
    TooManyFields,
    split_fields,
    unfolded,
    values_of,
)
from mailsecure.scan.tags import (
    TagsBroken,
    chosen_signatures,
    instance_of,
    key_name,
    key_names,
    parse_tags,
)


class FieldsTests(SynchronousTestCase):
    """:func:`split_fields`."""

    def test_fields(self) -> None:
        fields = split_fields(b"A: 1\r\n\t2\r\nno field\r\nb : x\r\n\r\nBody: y\r\n")
        self.assertEqual(fields, [(b"A", b" 1\r\n\t2\r\n"), (b"b", b" x\r\n")])
        self.assertEqual(split_fields(b"\r\nA: 1\r\n"), [])
        self.assertEqual(split_fields(b""), [])
        self.assertEqual(values_of(fields, b"a"), [b" 1\r\n\t2\r\n"])
        self.assertEqual(unfolded(b" 1\r\n\t\xff2\r\n"), "1\t\ufffd2")

    def test_many(self) -> None:
        self.assertEqual(len(split_fields(b"a:\r\n" * MAX_FIELDS)), MAX_FIELDS)
        self.assertRaises(TooManyFields, split_fields, b"a:\r\n" * (MAX_FIELDS + 2))

    @given(st.binary(max_size=100))
    def test_anything(self, header: bytes) -> None:
        for name, value in split_fields(header):
            self.assertTrue(name and value.endswith(b"\r\n"))


class TagsTests(SynchronousTestCase):
    """Lists of tags."""

    def test_tags(self) -> None:
        self.assertEqual(parse_tags(" v=1 ; b = a=b;\t"), {"v": "1", "b": "a=b"})
        self.assertEqual(parse_tags(""), {})
        for text in ("v", "=1", "v=1;v=1", "v=1;;", "1=2", "a b=c"):
            self.assertRaises(TagsBroken, parse_tags, text)

    def test_names_of_keys(self) -> None:
        self.assertEqual(
            key_name({"s": "Sel.b", "d": "Example.COM"}), "sel.b._domainkey.example.com"
        )
        for selector, domain in (
            ("", "a.b"),
            ("s", ""),
            ("s", "com"),
            ("s", "a(.b"),
            ("s s", "a.b"),
        ):
            self.assertEqual(key_name({"s": selector, "d": domain}), "")
        self.assertEqual(key_name({"s": "s", "d": "a." * 130 + "b"}), "")

    def test_chosen(self) -> None:
        fields = split_fields(
            b"DKIM-Signature: a\r\n" * 3 + b"dkim-signature: b\r\nDKIM-Signature: c\r\n"
        )
        chosen = chosen_signatures(fields, 2)
        self.assertEqual((chosen.values, chosen.ignored), ((b" a\r\n", b" b\r\n"), 1))
        self.assertEqual(chosen_signatures(fields, 9).ignored, 0)

    def test_instances(self) -> None:
        for value, number in (
            (b" i=1; a=b", 1),
            (b" a=b;\r\n\ti = 12", 12),
            (b"i=1", 1),
            (b"x=1", 0),
            (b" ai=3;", 0),
            (b"i=99999;", 0),
        ):
            self.assertEqual(instance_of(value), number, value)

    def test_what_is_asked(self) -> None:
        header = (
            b"ARC-Seal: i=2; d=two.example; s=s\r\n"
            b"ARC-Message-Signature: i=2; d=two.example; s=m\r\n"
            b"ARC-Seal: i=1; d=one.example; s=s\r\n"
            b"ARC-Message-Signature: i=1; d=one.example; s=m\r\n"
            b"DKIM-Signature: d=three.example; s=s\r\n"
            b"DKIM-Signature: broken\r\n"
            b"DKIM-Signature: d=; s=s\r\n"
        )
        fields = split_fields(header)
        dkim = ["s._domainkey.three.example"]
        # The older message signature is not verified.
        arc = ["m._domainkey.two.example", "s._domainkey.two.example", "s._domainkey.one.example"]
        self.assertEqual(key_names(fields, 5, False), dkim)
        self.assertEqual(key_names(fields, 0, True), arc)
        self.assertEqual(key_names(fields, 5, True), dkim + arc)

    @given(st.text(max_size=60))
    def test_anything(self, text: str) -> None:
        try:
            tags = parse_tags(text)
        except TagsBroken:
            return
        self.assertIsInstance(key_name(tags), str)
