"""Transfer encodings: what the most forgiving program would read."""

from __future__ import annotations

import base64
import binascii
import quopri

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content.decoding import MAX_FILES, decode_transfer, uuencoded_files


def uuencoded(content: bytes, name: str = "a.exe") -> bytes:
    """Return a file as uuencode writes it."""
    lines = [binascii.b2a_uu(content[at : at + 45]) for at in range(0, len(content), 45)]
    return f"begin 644 {name}\n".encode() + b"".join(lines) + b"`\nend\n"


class TransferTests(SynchronousTestCase):
    """decode_transfer."""

    @given(st.binary(max_size=300), st.sampled_from(["base64", "BASE64 ", '"base64"', "base64;x"]))
    def test_base64(self, content: bytes, name: str) -> None:
        """As it should be, however the encoding is written."""
        self.assertEqual(decode_transfer(base64.encodebytes(content), name), content)

    @given(st.binary(max_size=100), st.binary(max_size=100))
    def test_after_the_padding(self, one: bytes, two: bytes) -> None:
        """What comes after the padding is decoded, too."""
        both = base64.b64encode(one) + b"\r\n" + base64.b64encode(two)
        if b"=" in base64.b64encode(one):
            self.assertEqual(decode_transfer(both, "base64"), one + two)

    def test_junk(self) -> None:
        """What is no base64 is left out; what is cut off is decoded as far as it goes."""
        text = b"\0".join(bytes([each]) for each in base64.b64encode(b"abcdef"))
        self.assertEqual(decode_transfer(text, "base64"), b"abcdef")
        self.assertEqual(decode_transfer(b"YWJjZ", "base64"), b"abc")
        self.assertEqual(decode_transfer(b"YWJjZA", "base64"), b"abcd")
        self.assertEqual(decode_transfer(b"YWJjZ===YWJj", "base64"), b"abcabc")
        self.assertEqual(decode_transfer(b"====", "base64"), b"")

    @given(st.binary(max_size=300), st.text(max_size=20))
    def test_never_fails(self, octets: bytes, name: str) -> None:
        """Any octets, any encoding."""
        for each in (name, "base64", "quoted-printable", "x-uuencode"):
            decode_transfer(octets, each)

    @given(st.binary(max_size=200))
    def test_quoted_printable(self, content: bytes) -> None:
        """As it should be."""
        encoded = quopri.encodestring(content)
        self.assertEqual(decode_transfer(encoded, "Quoted-Printable"), quopri.decodestring(encoded))

    def test_identity(self) -> None:
        """All others change nothing."""
        for name in ("7bit", "8bit", "binary", "", "nonsense"):
            self.assertEqual(decode_transfer(b"a=20b", name), b"a=20b")

    def test_uuencode(self) -> None:
        """As a transfer encoding, with and without a file in it."""
        self.assertEqual(decode_transfer(uuencoded(b"hello"), "x-uuencode"), b"hello")
        self.assertEqual(decode_transfer(b"hello", "uuencode"), b"hello")


class UuencodeTests(SynchronousTestCase):
    """uuencoded_files."""

    @given(st.binary(min_size=1, max_size=300))
    def test_found(self, content: bytes) -> None:
        """Files stand in a text, one after the other."""
        text = b"Hello\n" + uuencoded(content) + b"and\n" + uuencoded(content, "b c") + b"bye"
        self.assertEqual(list(uuencoded_files(text)), [(b"a.exe", content), (b"b c", content)])

    def test_odd(self) -> None:
        """Lines that are none, a file without an end, one without content."""
        whole = uuencoded(b"x" * 90).replace(b"end\n", b"")
        self.assertEqual(list(uuencoded_files(whole)), [(b"a.exe", b"x" * 90)])
        spoilt = b"begin 644 a\n\nzzz\n" + b"#ab\xff\xff\n" + b"#86)C\nend\n"
        self.assertEqual(list(uuencoded_files(spoilt)), [(b"a", b"abc")])
        self.assertEqual(list(uuencoded_files(b"begin 644 a\nend\n")), [])
        self.assertEqual(list(uuencoded_files(b"to begin 644 a\n#86)C\nend\n")), [])

    def test_bound(self) -> None:
        """Not more than so many files."""
        text = uuencoded(b"x") * (MAX_FILES + 5)
        self.assertEqual(len(list(uuencoded_files(text))), MAX_FILES)
