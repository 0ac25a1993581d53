"""The parts of messages, well and badly made."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content.entities import MAX_PATH, Entity, entities, inner_path
from mailsecure.scan.content.limits import Budget, Limits
from mailsecure.scan.faults import Unscannable
from mailsecure.testing.messages import multipart


def leaves(octets: bytes, limits: Limits | None = None) -> list[Entity]:
    """Return the leaves of a message."""
    return list(entities(octets, "message", 0, Budget(limits or Limits())))


def part(text: bytes, fields: bytes = b"") -> bytes:
    """Return a part."""
    return fields + b"\r\n" + text


class EntityTests(SynchronousTestCase):
    """entities."""

    def test_plain(self) -> None:
        """A message without parts is its only leaf."""
        [leaf] = leaves(b"Content-Type: text/plain; charset=x\r\n\r\nHello\r\n")
        self.assertEqual(leaf, Entity("message", 0, "text/plain", (), "x", b"Hello\r\n"))

    def test_parts(self) -> None:
        """In order, with paths; nested; the line break before a delimiter is not theirs."""
        inner = multipart([part(b"b"), part(b"c\r\n")], "inner")
        named = b'Content-Disposition: attachment; filename="x/../d.exe"\r\n'
        found = leaves(multipart([part(b"a"), inner, part(b"d", named)], "outer"))
        self.assertEqual(
            [(leaf.path, leaf.depth, leaf.content) for leaf in found],
            [
                ("message/1", 1, b"a"),
                ("message/2/1", 2, b"b"),
                ("message/2/2", 2, b"c\r\n"),
                ("message/d.exe", 1, b"d"),
            ],
        )

    def test_boundaries_in_disguise(self) -> None:
        """Comments are allowed, mistakes are made; what some program understands, we do."""
        for kind in (
            'multipart/mixed; boundary="b" (that is it)',
            "multipart/mixed; boundary=b (that is it)",
            "multipart/mixed; (that is it) boundary=b",
            'multipart/mixed; boundary=(that is it)"b"',
            "(that is it) multipart/mixed; boundary=b",
            'multipart/mixed; boundary="\\b"',
            "multipart/mixed; boundary='b'",
            'multipart/mixed; boundary="b',
            "multipart/mixed boundary=b",
            "multipart/mixed, boundary=b",
            "multipart/mixed; boundary=other; boundary=b",
            "multipart/mixed; boundary=other",
            "multipart/mixed",
            "multipart; boundary=b",
            '"multipart/mixed"; boundary=b',
        ):
            head = f"Content-Type: {kind}\r\n\r\n".encode()
            found = leaves(head + b"--b\r\n\r\none\r\n--b \r\n\r\ntwo\r\n--b--\r\n")
            self.assertEqual([leaf.content for leaf in found], [b"one", b"two"], kind)
        head = b'Content-Type: multipart/mixed; boundary="=?utf-8?q?b?="\r\n\r\n'
        for delimiter in (b"--b", b"--=?utf-8?q?b?="):
            [leaf] = leaves(head + delimiter + b"\r\n\r\none\r\n" + delimiter + b"--\r\n")
            self.assertEqual(leaf.content, b"one")
        [leaf] = leaves(b"Content-Type: multipart/mixed\r\n\r\nHello\r\n-- \r\nSignature")
        self.assertEqual(leaf.content, b"Hello\r\n-- \r\nSignature")
        [leaf] = leaves(b"Content-Type: text (multipart/mixed; boundary=b)\r\n\r\n--b\r\n\r\none")
        self.assertEqual(leaf.declared, "")

    def test_encodings_in_disguise(self) -> None:
        """Of what nobody knows both count: what stands in it, and none."""
        for encoding, contents in (
            ("(x) base64", [b"one"]),
            ('"base64"', [b"one"]),
            ("x-base64", [b"b25l", b"one"]),
            ("base64, 8bit", [b"one"]),
            ("=?utf-8?q?base-64?=", [b"b25l", b"one"]),
            ("utf-8", [b"b25l"]),
        ):
            found = leaves(f"Content-Transfer-Encoding: {encoding}\r\n\r\nb25l".encode())
            self.assertEqual([leaf.content for leaf in found], contents, encoding)

    def test_fields_behind_junk(self) -> None:
        """A line that is no field does not hide those of MIME that follow."""
        for junk in (b"junk\r\n", b" ", b"\t", b"a b: c\r\n"):
            [leaf] = leaves(junk + b"Content-Transfer-Encoding: base64\r\n\r\nb25l")
            self.assertEqual(leaf.content, b"one", junk)
        for text in (b"Hello.\r\n\r\nContent-Type: a/b\r\n", b"x" * 3000 + b"\nContent-Type: a/b"):
            [leaf] = leaves(text)
            self.assertEqual((leaf.content, leaf.declared), (text, ""))

    def test_messages(self) -> None:
        """Messages in messages, encoded or not, are gone into."""
        inner = b"Subject: x\r\n\r\nHello"
        plain = b"Content-Type: message/rfc822\r\n\r\n" + inner
        encoded = (
            b"Content-Type: message/rfc822; name=a.eml\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            + base64.b64encode(plain)
        )
        found = leaves(multipart([plain, encoded]))
        self.assertEqual([leaf.content for leaf in found], [b"Hello", b"Hello"])
        self.assertEqual([leaf.depth for leaf in found], [2, 3])
        self.assertEqual(found[1].path, "message/a.eml")

    def test_prefix(self) -> None:
        """A delimiter that only begins as ours is none; white space after it is allowed."""
        text = (
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\nx --b\r\n'
            b"--b \t\r\n\r\none\r\n--bb\r\n"
            b"--b\n\ntwo\n--b--\r\nafter\r\n--b\r\n\r\nthree"
        )
        self.assertEqual(
            [leaf.content for leaf in leaves(text)], [b"one\r\n--bb", b"two", b"three"]
        )

    def test_broken(self) -> None:
        """Without an end, without a boundary, without parts."""
        head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        self.assertEqual(leaves(head + b"--b\r\n\r\nabc")[0].content, b"abc")
        self.assertEqual(leaves(head + b"--b\r\n--b\r\n--b--")[0].content, b"")
        self.assertEqual(leaves(head + b"abc")[0].content, b"abc")
        self.assertEqual(leaves(b"Content-Type: multipart/mixed\r\n\r\nabc")[0].content, b"abc")

    def test_two_ways(self) -> None:
        """Fields that are there twice are understood in both ways."""
        twice = b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n\r\nYWJj"
        self.assertEqual([leaf.content for leaf in leaves(twice)], [b"abc", b"YWJj"])
        types = b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        found = leaves(types + b"--b\r\n\r\nabc\r\n--b--")
        self.assertEqual([leaf.path for leaf in found], ["message", "message/1"])
        two = b"Content-Type: multipart/mixed; boundary=b; boundary=c\r\n\r\n"
        found = leaves(two + b"--b\r\n\r\nabc\r\n--b--\r\n--c\r\n\r\ndef\r\n--c--")
        self.assertIn(b"def", [leaf.content for leaf in found])

    def test_encoded_multipart(self) -> None:
        """A multipart in base64 is forbidden, and read by some."""
        inner = b"--b\r\n\r\nabc\r\n--b--"
        head = b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n"
        self.assertEqual(leaves(head + b"\r\n" + base64.b64encode(inner))[0].content, b"abc")

    def test_names(self) -> None:
        """All names of a part, different ones, as they will be understood."""
        text = (
            b"Content-Type: a/b; name*0=in; name*1=voice.exe\r\n"
            b'Content-Disposition: inline; filename="=?utf-8?q?invoice.pdf?="; size=3\r\n\r\nx'
        )
        self.assertEqual(leaves(text)[0].names, ("invoice.pdf", "invoice.exe"))

    def test_fragment(self) -> None:
        """A part of a message that comes in several cannot be looked into."""
        with self.assertRaises(Unscannable):
            leaves(b"Content-Type: message/partial; id=x; number=1\r\n\r\nx")

    def test_bounds(self) -> None:
        """Too many parts, too deep."""
        limits = Limits(max_parts=3, max_depth=2)
        many = multipart([part(b"x")] * 3)
        deep = multipart([multipart([multipart([part(b"x")], "c")], "b")], "a")
        for octets in (many, deep):
            with self.assertRaises(Unscannable):
                leaves(octets, limits)
        self.assertEqual(len(leaves(multipart([part(b"x")] * 2), limits)), 2)

    def test_paths(self) -> None:
        """Paths are bounded: the middle is left out."""
        self.assertEqual(inner_path("a", "b"), "a/b")
        path = inner_path("message", "x" * 300 + ".exe")
        self.assertEqual(len(path), MAX_PATH)
        self.assertTrue(path.startswith("message/x") and path.endswith("x.exe"))

    @given(st.lists(st.binary(max_size=50), max_size=5), st.binary(max_size=20))
    def test_any_octets(self, texts: list[bytes], noise: bytes) -> None:
        """Nothing but Unscannable is raised."""
        try:
            leaves(multipart([part(text, noise) for text in texts]) + noise)
        except Unscannable:
            return
