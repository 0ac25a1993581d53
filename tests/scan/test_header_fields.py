"""A header section is cut where its fields end, and no octet of it is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.header_fields import MAX_FIELDS, TooManyFields, cut, named, split_fields

HEADER = (
    b"Received: from a\r\n\tby b\r\n"
    b"X-Mark: one\r\n"
    b"no field at all\r\n"
    b"x-mark : two\r\n  folded\r\n"
    b"Subject:  hello\r\n"
    b"X-Mark: three"
)
#: What sections are made of, and what makes them hard to cut.
SECTIONS = st.lists(
    st.sampled_from([b"a: b", b"A", b"b", b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\xff"])
    | st.binary(max_size=6)
).map(b"".join)


def names(section: bytes, loose: bool = False) -> list[bytes]:
    """Return the name of each piece, b"" where it is no field."""
    return [name[1] if name else b"" for _, name in cut(section, loose)]


class Cutting(SynchronousTestCase):
    """Into pieces."""

    def test_fields_are_told_apart(self) -> None:
        self.assertEqual(
            names(HEADER), [b"Received", b"X-Mark", b"", b"x-mark", b"Subject", b"X-Mark"]
        )
        self.assertEqual(cut(b""), [])

    def test_where_the_value_begins(self) -> None:
        self.assertEqual(
            [piece[name.end() :] for piece, name in cut(HEADER) if name][2:],
            [b" two\r\n  folded\r\n", b"  hello\r\n", b" three"],
        )

    def test_a_bare_newline(self) -> None:
        section = b"a: 1\nb: 2\n c: 3\r\nd: 4"
        self.assertEqual(names(section), [b"a", b"d"])
        self.assertEqual(names(section, loose=True), [b"a", b"b", b"d"])

    def test_so_many_and_the_rest(self) -> None:
        pieces = [piece for piece, _ in cut(b"a:\r\n" * 5, most=2)]
        self.assertEqual(pieces, [b"a:\r\n", b"a:\r\n", b"a:\r\n" * 3])
        self.assertEqual(len(cut(b"a:\r\n" * 2, most=2)), 2)

    @given(SECTIONS, st.booleans(), st.integers(0, 3))
    def test_no_octet_is_lost(self, section: bytes, loose: bool, most: int) -> None:
        pieces = cut(section, loose, most)
        self.assertEqual(b"".join(piece for piece, _ in pieces), section)
        self.assertNotIn(b"", [piece for piece, _ in pieces])

    @given(SECTIONS, st.booleans())
    def test_a_fold_stays_with_its_field(self, section: bytes, loose: bool) -> None:
        end = b"\n" if loose else b"\r\n"
        pieces = [piece for piece, _ in cut(section, loose)]
        for piece in pieces[1:]:
            self.assertNotIn(piece[:1], (b" ", b"\t"))
        for piece in pieces[:-1]:
            self.assertTrue(piece.endswith(end))
        for piece in pieces:
            for line in piece.removesuffix(end).split(end)[1:]:
                self.assertIn(line[:1], (b" ", b"\t"))

    @given(SECTIONS)
    def test_named_finds_what_cutting_finds(self, section: bytes) -> None:
        found = [(section[a:b], name) for a, b, name in named(section, ("a", "ab", "b"))]
        wanted = [
            (piece, name[1].decode("ascii").lower())
            for piece, name in cut(section)
            if name and name[1].lower() in (b"a", b"ab", b"b")
        ]
        self.assertEqual(found, wanted)

    def test_names_that_are_none(self) -> None:
        self.assertEqual(list(named(b": x\r\n\xff: y\r\n", ("", "\u00ff", "a b"))), [])
        self.assertEqual(list(named(b": x\r\na.: y\r\nab: z\r\n", ("", "a."))), [(5, 12, "a.")])


class Splitting(SynchronousTestCase):
    """Into what signatures want."""

    def test_too_many(self) -> None:
        for section in (b"a:\r\n" * (MAX_FIELDS + 1), b"\r\n".join([b"a:"] * (MAX_FIELDS + 1))):
            self.assertRaises(TooManyFields, split_fields, section)
        self.assertEqual(len(split_fields(b"a:\r\n" * MAX_FIELDS + b"\r\nx")), MAX_FIELDS)

    def test_the_last_line_end(self) -> None:
        self.assertEqual(split_fields(b"a: b"), [(b"a", b" b\r\n")])
        self.assertEqual(split_fields(b"a: b\r\nno field"), [(b"a", b" b\r\n")])

    def test_a_name_too_long(self) -> None:
        self.assertEqual(
            split_fields(b"x" * 101 + b": y\r\n" + b"z" * 100 + b":\r\n")[0][1], b"\r\n"
        )

    @given(SECTIONS)
    def test_only_what_stands_there(self, section: bytes) -> None:
        head = (b"\r\n" + section).partition(b"\r\n\r\n")[0] + b"\r\n"
        for name, value in split_fields(section):
            self.assertIn(value, head)
            self.assertIn(b"\r\n" + name, head)
