"""Fields are put in front and taken out; everything else stays as it is, octet for octet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan.editing import (
    fields,
    first_values,
    prefixed_subject,
    without,
)
from mailsecure.scan.header_fields import cut
from mailsecure.scan.values import AddField, RemoveField

HEADER = (
    b"Received: from a\r\n\tby b\r\n"
    b"X-Mark: one\r\n"
    b"no field at all\r\n"
    b"x-mark : two\r\n  folded\r\n"
    b"Subject:  hello\r\n"
    b"X-Mark: three"
)


def marks(header: bytes) -> list[bytes]:
    """Return the values of the fields X-Mark."""
    return [
        raw.partition(b":")[2].strip()
        for raw, name in cut(header)
        if name and name[1].lower() == b"x-mark"
    ]


class Taking(SynchronousTestCase):
    """Out of a header section."""

    def test_values(self) -> None:
        self.assertEqual(
            first_values(HEADER, ("absent", "x-mark", "received")), ["", "one", "from a by b"]
        )
        self.assertEqual(first_values(HEADER, ("subject", "received")), ["hello", "from a by b"])

    def test_all_of_a_name(self) -> None:
        rest = without(HEADER, [RemoveField("X-MARK")])
        self.assertEqual(
            rest, b"Received: from a\r\n\tby b\r\nno field at all\r\nSubject:  hello\r\n"
        )

    def test_one_of_them(self) -> None:
        rest = without(HEADER, [RemoveField("x-mark", occurrence=2)])
        self.assertEqual(marks(rest), [b"one", b"three"])

    def test_those_with_a_value(self) -> None:
        rest = without(HEADER, [RemoveField("x-mark", value_matches=lambda v: "folded" in v)])
        self.assertEqual(marks(rest), [b"one", b"three"])

    def test_nothing(self) -> None:
        self.assertIs(without(HEADER, []), HEADER)

    def test_names_that_are_none(self) -> None:
        header = b"no field\r\n: x\r\n\xc3\xa9: y\r\n"
        edits = [RemoveField(""), RemoveField("\u00e9"), RemoveField("no field")]
        self.assertIs(without(header, edits), header)

    @given(st.lists(st.sampled_from([b"a: b", b"A", b"\r\n", b"\r", b"\n", b" ", b"\t", b":"])))
    def test_all_else_stays(self, pieces: list[bytes]) -> None:
        header = b"".join(pieces)
        kept = [raw for raw, name in cut(header) if not name or name[1].lower() != b"a"]
        self.assertEqual(without(header, [RemoveField("a")]), b"".join(kept))


class Putting(SynchronousTestCase):
    """In front."""

    def test_fields(self) -> None:
        self.assertEqual(
            fields([AddField("A", "x\r\n\ty "), AddField("B", "ü")]),
            "A: x\r\n\ty\r\nB: ü\r\n".encode(),
        )

    def test_what_cannot_be_a_field(self) -> None:
        for name, value in (
            ("", "x"),
            ("A b", "x"),
            ("A:", "x"),
            ("Ä", "x"),
            ("A", "x\r\nB: y"),
            ("A", "x\ny"),
            ("A", "x\ry"),
            ("A", "x\0"),
            ("A", "x" * 999),
        ):
            self.assertRaises(RemoteFault, fields, [AddField(name, value)])

    @given(st.text(max_size=20), st.text(max_size=40))
    def test_one_field_stays_one(self, name: str, value: str) -> None:
        try:
            octets = fields([AddField(name, value)])
        except RemoteFault:
            return
        self.assertEqual([found[1].decode() for _, found in cut(octets) if found], [name])


class Subjects(SynchronousTestCase):
    """Marked."""

    def test_the_first_subject(self) -> None:
        marked = prefixed_subject(b"A: b\r\nSubject: x\r\nSubject: y\r\n", "[SPAM]")
        self.assertEqual(marked, b"A: b\r\nSubject: [SPAM] x\r\nSubject: y\r\n")
        self.assertEqual(prefixed_subject(marked, "[SPAM]"), marked)

    def test_no_subject(self) -> None:
        self.assertEqual(prefixed_subject(b"A: b\r\n", "[X]"), b"A: b\r\nSubject: [X]\r\n")
