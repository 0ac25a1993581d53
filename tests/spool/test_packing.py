"""Compressed bodies: what goes in comes out, in bounded memory; damage is told."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.spool.api import SpoolBroken, SpoolFull
from mailsecure.spool.body import BodyStore, FileBody, MemoryBody
from mailsecure.spool.packing import PackedBody, packed


def kept(octets: bytes, claimed: int) -> PackedBody:
    """A body that is kept as ``octets`` and says that it has ``claimed``."""
    return PackedBody(MemoryBody([octets]), claimed)


class PackingTests(SynchronousTestCase):
    """:func:`packed` and :class:`PackedBody`."""

    def setUp(self) -> None:
        """Make a place for files without a name."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.binary(max_size=300), max_size=5),
        st.integers(1, 50),
        st.integers(1, 2000),
    )
    def test_round_trip(self, chunks: list[bytes], times: int, size: int) -> None:
        """Whatever the chunks and the size of pieces, the octets are the same."""
        body = packed(MemoryBody(chunks * times), Path("/nowhere"))
        whole = b"".join(chunks * times)
        pieces = list(body.pieces(size))
        self.assertEqual((b"".join(pieces), body.octets), (whole, len(whole)))
        if isinstance(body, PackedBody):
            self.assertLess(body.stored.octets, len(whole))
            self.assertLessEqual(max(map(len, pieces)), size)

    def test_nothing_saved(self) -> None:
        """What does not get smaller stays as it is."""
        body = MemoryBody([os.urandom(5000)])
        self.assertIs(packed(body, self.directory), body)

    def test_large(self) -> None:
        """A large one lies in a file, and is read from there in small pieces."""
        builder = BodyStore(self.directory, 1 << 20, spill_at=1000).begin()
        line = os.urandom(500).hex().encode() + b"\r\n"
        for _ in range(3000):
            builder.write(line[::-1] + os.urandom(500))
        body = builder.finish(b"Received: x\r\n")
        self.assertIsInstance(body, FileBody)
        small = packed(body, self.directory)
        assert isinstance(small, PackedBody)
        self.assertIsInstance(small.stored, FileBody)
        self.assertEqual(list(self.directory.iterdir()), [])
        pieces = list(small.pieces(4096))
        self.assertLessEqual(max(map(len, pieces)), 4096)
        self.assertEqual(b"".join(pieces), b"".join(body.pieces()))

    def test_zeros(self) -> None:
        """What shrinks to nothing does not grow beyond a piece at a time."""
        body = packed(MemoryBody([bytes(1 << 20)] * 64), self.directory)
        assert isinstance(body, PackedBody)
        self.assertLess(body.stored.octets, 1 << 17)
        self.assertEqual(max(map(len, body.pieces(4096))), 4096)

    def test_damage(self) -> None:
        """Octets that changed, are missing, or are too many are told, not delivered."""
        content = b"".join(b"line %d\r\n" % n for n in range(1000))
        whole = zlib.compress(content)
        for damaged, claimed in (
            (whole[:-1], len(content)),
            (whole[: len(whole) // 2], len(content)),
            (b"", len(content)),
            (b"", 0),
            (whole + b"x", len(content)),
            (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], len(content)),
            (whole[:-1] + bytes([whole[-1] ^ 1]), len(content)),
            (b"garbage" * 30, 50),
            (whole, len(content) - 1),
            (whole, len(content) + 1),
            (zlib.compress(bytes(1 << 24)), 100),
        ):
            with self.assertRaises(SpoolBroken, msg=(damaged[:20], claimed)):
                for piece in kept(damaged, claimed).pieces(512):
                    self.assertLessEqual(len(piece), 512)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 100))
    def test_any_octets(self, octets: bytes, claimed: int) -> None:
        """Any octets on a damaged disk are a SpoolBroken, or what they should be."""
        try:
            content = b"".join(kept(octets, claimed).pieces())
        except SpoolBroken:
            return
        self.assertEqual(len(content), claimed)

    def test_no_room(self) -> None:
        """A disk without room is told as such, and no descriptor is left open."""
        before = len(os.listdir("/proc/self/fd"))
        body = MemoryBody([os.urandom(1 << 20) + bytes(1 << 20), os.urandom(1 << 20)])
        with self.assertRaises((SpoolFull, SpoolBroken)):
            packed(body, self.directory / "absent")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
