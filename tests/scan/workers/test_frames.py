"""Frames between the daemon and a worker: any chunking, any content, bounded."""

from __future__ import annotations

import contextlib
import itertools
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan.workers import frames
from mailsecure.scan.workers.frames import (
    MAX_OCTETS,
    MAX_RESULT,
    PREFIX_OCTETS,
    FrameReader,
    encode_frame,
    read_object,
    read_prefix,
)

OBJECTS = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=3),
    max_size=4,
)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at ``cuts``, each modulo its length."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


class FrameTests(SynchronousTestCase):
    """encode_frame and FrameReader."""

    @given(st.lists(OBJECTS, max_size=4), st.lists(st.integers(min_value=0), max_size=8))
    def test_any_chunking(self, objects: list[dict[str, object]], cuts: list[int]) -> None:
        """What is encoded is read again, however it is cut."""
        data = b"".join(map(encode_frame, objects))
        reader = FrameReader()
        read = [each for chunk in chunks(data, cuts) for each in reader.feed(chunk)]
        self.assertEqual(read, objects)

    @given(st.binary(max_size=200))
    def test_only_remote_faults(self, data: bytes) -> None:
        """Whatever comes, nothing but RemoteFault is raised."""
        with contextlib.suppress(RemoteFault):
            FrameReader().feed(data)

    def test_octets(self) -> None:
        """The lengths stand in front."""
        frame = encode_frame({"a": 1}, 12345)
        self.assertEqual(read_prefix(frame[:PREFIX_OCTETS]), (len(frame) - PREFIX_OCTETS, 12345))
        self.assertEqual(read_object(frame[PREFIX_OCTETS:]), {"a": 1})

    def test_bounds(self) -> None:
        """Neither side can be made to hold more than MAX_RESULT."""
        with self.assertRaises(ValueError):
            encode_frame({"a": "x" * MAX_RESULT})
        with self.assertRaises(ValueError):
            encode_frame({}, MAX_OCTETS + 1)
        with self.assertRaises(RemoteFault):
            FrameReader().feed(frames._PREFIX.pack(MAX_RESULT + 1, 0))
        with self.assertRaises(RemoteFault):
            FrameReader().feed(frames._PREFIX.pack(2, 1) + b"{}x")

    def test_nonsense(self) -> None:
        """Text that is no JSON object."""
        for text in (b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000):
            with self.assertRaises(RemoteFault):
                read_object(text)
        self.assertEqual(read_object(json.dumps({"ü": "ü"}).encode()), {"ü": "ü"})
