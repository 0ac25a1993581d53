"""The directory of a zip."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.content.zips import directory_of
from mailsecure.testing.messages import zipped


class DirectoryTests(SynchronousTestCase):
    """directory_of."""

    def test_names(self) -> None:
        """As the directory has them, and nothing in front."""
        self.assertEqual(directory_of(zipped({"x/a": b"1", "b": b"2"})), (("x/a", "b"), b""))
        self.assertEqual(directory_of(zipped({})), ((), b""))
        self.assertEqual(directory_of(b"junk" + zipped({"a": b"1"})), (("a",), b""))

    def test_front(self) -> None:
        """Another zip is something in front."""
        first, second = zipped({"a": b"1"}), zipped({"b": b"2"})
        self.assertEqual(directory_of(first + second), (("b",), first))

    def test_broken(self) -> None:
        """What cannot be read says nothing."""
        whole = zipped({"a": b"1" * 100})
        for content in (b"", b"PK\x03\x04", whole[:-30], b"x" * 100):
            self.assertEqual(directory_of(content), ((), b""))

    @given(st.integers(0, 150), st.binary(min_size=1, max_size=8))
    def test_any_octets(self, at: int, octets: bytes) -> None:
        """Nothing is raised, whatever is wrong."""
        whole = bytearray(zipped({"a": b"1", "b": b"2"}))
        whole[-at - len(octets) : -at or None] = octets
        names, front = directory_of(bytes(whole))
        self.assertLessEqual(len(front), len(whole))
        self.assertIsInstance(names, tuple)
