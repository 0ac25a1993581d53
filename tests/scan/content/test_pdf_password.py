"""PDFs that are encrypted: which of them want a password."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content.pdf_password import is_closed

NAME = b"mailsecure test "
OWNER = hashlib.sha256(b"owner").digest()
#: By revision, and whether the metadata is encrypted, what /U is for the empty password.
USERS = {
    (2, True): "43025faec2e06e57416126b66cca19c9cf39293f6a208e2d0bce281934eca6fa",
    (3, True): "da1d6c10674da74fcd85146491ca5e6a" + "00" * 16,
    (4, True): "da1d6c10674da74fcd85146491ca5e6a" + "00" * 16,
    (4, False): "8085ec8e225c660b6b0d74e8ffd097cb" + "00" * 16,
    (5, True): "766edcd872bc061516ae2c8cd27773e4466e9961ccf7041db4e61118e86a657c"
    "73616c7473616c746b657973616c7421",
    (6, True): "f383e1cdcd8e7e67f45a599473d3f5a7bd181c381364391074cafe0713e3331d"
    "73616c7473616c746b657973616c7421",
}


def written(octets: bytes) -> bytes:
    """Return a string as PDF writes it in parentheses."""
    return b"(" + b"".join(b"\\%03o" % each for each in octets) + b")"


def dictionary(revision: int, metadata: bool, user: bytes, owner: bytes | None = None) -> bytes:
    """Return an encryption dictionary."""
    return b"<< /Filter /Standard /V 4 /R %d /Length 128 /P -3904 /O %s /U %s%s >>" % (
        revision,
        written(OWNER) if owner is None else owner,
        written(user),
        b"" if metadata else b" /EncryptMetadata false",
    )


def pdf(locked: bytes, name: bytes = b"<" + NAME.hex().encode() + b">") -> bytes:
    """Return a PDF with that dictionary, as object 5."""
    return b"%%PDF-1.6\n5 0 obj\n%s\nendobj\ntrailer << /Encrypt 5 0 R /ID [%s <00>] >>\n" % (
        locked,
        name,
    )


class PasswordTests(SynchronousTestCase):
    """is_closed."""

    def test_open(self) -> None:
        """What only its owner may change opens for everybody; with another password it is shut."""
        for (revision, metadata), digits in USERS.items():
            user = bytes.fromhex(digits)
            self.assertFalse(is_closed(pdf(dictionary(revision, metadata, user))), revision)
            other = bytes([user[0] ^ 1]) + user[1:]
            self.assertTrue(is_closed(pdf(dictionary(revision, metadata, other))), revision)

    def test_metadata(self) -> None:
        """Whether those are encrypted is a part of the key."""
        user = bytes.fromhex(USERS[4, True])
        self.assertTrue(is_closed(pdf(dictionary(4, False, user))))

    def test_strings(self) -> None:
        """Each way of writing a string: hexadecimal, escapes, parentheses, broken lines."""
        user = bytes.fromhex(USERS[3, True])
        owner = b"<" + OWNER.hex().upper().encode()[:20] + b"\n" + OWNER.hex().encode()[20:] + b">"
        for name in (
            b"(mailsecure test )",
            b"(mail\\\r\nsec\\\nure\\040te\\st )",
            b"<6d61696c 73656375 72652074 65737420>",
            b"<6d61696c7365637572652074657374 2>",
        ):
            found = is_closed(pdf(dictionary(3, True, user, owner), name))
            self.assertFalse(found, name)
        for name in (b"(a(b)c\\))", b"(\\n\\r\\t)", b"<zz>", b"(never closed"):
            self.assertTrue(is_closed(pdf(dictionary(3, True, user), name)), name)

    def test_places(self) -> None:
        """In the trailer itself; of two objects of one number the last counts."""
        good = dictionary(2, True, bytes.fromhex(USERS[2, True]))
        bad = dictionary(2, True, bytes(32))
        name = b" /ID [<" + NAME.hex().encode() + b">]"
        self.assertFalse(is_closed(b"trailer << /Encrypt " + good + name))
        self.assertTrue(is_closed(b"trailer << /Encrypt " + bad + name))
        self.assertFalse(is_closed(b"5 0 obj " + bad + b" endobj " + pdf(good)))
        self.assertTrue(is_closed(b"5 0 obj " + good + b" endobj " + pdf(bad)))

    def test_unknown(self) -> None:
        """What is not understood is shut, also a multitude; what is not encrypted is open."""
        user = bytes.fromhex(USERS[3, True])
        good = dictionary(3, True, user)
        for locked in (
            b"",
            good.replace(b"/Standard", b"/Other"),
            good.replace(b"/R 3", b"/R 1"),
            good.replace(b"/R 3", b"/R 3 0 R"),
            good.replace(b"/P -3904", b""),
            dictionary(3, True, user[:8]),
            good.replace(b"/Length 128", b""),
        ):
            self.assertTrue(is_closed(pdf(locked)), locked)
        many = b"".join(b"/Encrypt %d 0 R " % n for n in range(11))
        self.assertTrue(is_closed(many))
        self.assertFalse(is_closed(b"%PDF-1.4\ntrailer << /Root 5 0 R >> /EncryptMetadata"))

    @given(st.binary(max_size=200))
    def test_any_octets(self, octets: bytes) -> None:
        """Nothing is raised, whatever a dictionary holds."""
        for locked in (octets, dictionary(6, True, octets + bytes(48)), b"/O " + octets):
            self.assertIn(is_closed(pdf(b"/Filter /Standard /R 3 /P 1" + locked)), (True, False))
