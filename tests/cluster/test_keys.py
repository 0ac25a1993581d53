"""The keys of a cluster: what a key file may hold, what is derived, and that nothing tells."""

from __future__ import annotations

import hmac
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.keys import Key, KeyRing, format_keys, new_key, parse_keys

OLD, NEW, OTHER = (Key(bytes([number]) * 32) for number in (1, 2, 3))


def written(secret: bytes) -> str:
    """Return ``secret`` as a key file writes it."""
    return b64encode(secret).decode("ascii")


def sha256(key: bytes, octets: bytes) -> bytes:
    """Return the HMAC."""
    return hmac.digest(key, octets, "sha256")


class KeyTests(SynchronousTestCase):
    """Key."""

    def test_derived(self) -> None:
        """A derived key is HKDF's (RFC 5869 §2, one block), and another for each label."""
        secret = bytes(range(32))
        extracted = sha256(bytes(32), secret)
        key = Key(secret)
        for label in (b"hello", b"link", b"hello"):
            expected = sha256(extracted, b"mailsecure cluster " + label + b"\x01")
            self.assertEqual(key.derived(label), expected)
        self.assertEqual(key.id, sha256(extracted, b"mailsecure cluster id\x01")[:4])

    def test_length(self) -> None:
        """A key has 32 octets."""
        for octets in (0, 31, 33):
            with self.assertRaisesRegex(ValueError, f"32 octets, not {octets}"):
                new_key(bytes(octets))

    def test_equality(self) -> None:
        """Keys of one secret are one key."""
        self.assertEqual(new_key(b"\x01" * 32), OLD)
        self.assertEqual(len({new_key(b"\x01" * 32), OLD, NEW}), 2)
        self.assertNotEqual(OLD, NEW)
        self.assertNotEqual(OLD, "key")

    @given(st.binary(min_size=32, max_size=32))
    def test_tells_nothing(self, secret: bytes) -> None:
        """What is printed of a key is its id."""
        key = Key(secret)
        self.assertEqual(repr(key), f"<Key {key.id.hex()}>")
        self.assertEqual(repr(KeyRing((key,))), f"<KeyRing {key.id.hex()}>")
        self.assertEqual(f"{key}", repr(key))


class KeyRingTests(SynchronousTestCase):
    """KeyRing."""

    def test_find(self) -> None:
        """Each key is found by its id, whichever signs."""
        ring = KeyRing((NEW, OLD))
        self.assertEqual(ring.find(OLD.id), OLD)
        self.assertEqual(ring.find(NEW.id), NEW)
        self.assertIsNone(ring.find(OTHER.id))

    def test_bounds(self) -> None:
        """One key or two, not the same."""
        for keys, expected in (
            ((), "no key"),
            ((OLD, NEW, OTHER), "3 keys: 2 at most"),
            ((OLD, OLD), "the same key twice"),
        ):
            with self.assertRaisesRegex(ValueError, expected):
                KeyRing(keys)

    def test_equality(self) -> None:
        """Rings are the same with the same keys in the same order."""
        self.assertEqual(KeyRing((OLD, NEW)), KeyRing((OLD, NEW)))
        self.assertEqual(len({KeyRing((OLD,)), KeyRing((OLD,))}), 1)
        self.assertNotEqual(KeyRing((OLD, NEW)), KeyRing((NEW, OLD)))
        self.assertNotEqual(KeyRing((OLD,)), OLD)


class ParseTests(SynchronousTestCase):
    """parse_keys, format_keys."""

    def test_reads(self) -> None:
        """Blank lines and comments are nothing; the order is kept."""
        text = f"# ours\r\n\r\n  {written(bytes([2]) * 32)}  # new\n{written(bytes([1]) * 32)}"
        self.assertEqual(parse_keys(text), KeyRing((NEW, OLD)))

    def test_refuses(self) -> None:
        """What is wrong is told with its line."""
        good = written(bytes(32))
        for text, expected in (
            ("", "holds no key: mailsecure cluster keygen writes one"),
            ("# nothing\n\n", "holds no key: mailsecure cluster keygen writes one"),
            (good[:-1], "line 1 is no key: not Base64"),
            (f"{good}\n{good[:20]}!{good[20:]}", "line 2 is no key: not Base64"),
            (f"\n{good} {good}", "line 2 is no key: not Base64"),
            ("schlüssel", "line 1 is no key: not Base64"),
            (written(bytes(31)), "line 1 is no key: 31 octets in Base64 instead of 32"),
            (f"{good}\n{good}", "holds the same key twice"),
            (
                "\n".join(written(bytes([number]) * 32) for number in range(3)),
                "holds 3 keys: 2 at most, the old and the new",
            ),
        ):
            with self.assertRaises(ValueError) as caught:
                parse_keys(text)
            self.assertEqual(str(caught.exception), expected)

    @given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=2, unique=True))
    def test_round_trip(self, secrets: list[bytes]) -> None:
        """What is written is read again."""
        ring = KeyRing(tuple(map(Key, secrets)))
        self.assertEqual(parse_keys(format_keys(ring)), ring)

    @given(
        st.text() | st.lists(st.sampled_from(["A" * 43, "=", "#", "\n", "\x00", " "])).map("".join)
    )
    def test_anything(self, text: str) -> None:
        """Whatever stands there is a ring or a ValueError that does not quote it."""
        try:
            parse_keys(text)
        except ValueError as error:
            self.assertNotIn("AAAA", str(error))
            self.assertIsNone(error.__cause__)
            self.assertTrue(error.__suppress_context__ or error.__context__ is None)
