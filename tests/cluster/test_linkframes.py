"""Proves that messages of links come out as they went in, however they are cut."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.linkframes import FRAME_LIMIT, Kind, Message, Reader, encode_message
from mailsecure.errors import RemoteFault

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
messages = st.builds(Message, st.sampled_from(Kind), st.dictionaries(st.text(), values))


def frame(kind, content=b""):
    return (1 + len(content)).to_bytes(4) + bytes([kind]) + content


def read(octets, size):
    reader = Reader()
    return [
        message
        for begin in range(0, len(octets), size)
        for message in reader.feed(octets[begin : begin + size])
    ]


class Frames(SynchronousTestCase):
    """The codec."""

    @given(st.lists(messages, max_size=5), st.integers(1, 50))
    def test_round_trip(self, said, size):
        """Any messages, in any chunks."""
        octets = b"".join(map(encode_message, said))
        self.assertEqual(read(octets, size), said)

    @given(st.binary(max_size=300), st.integers(1, 50))
    def test_anything(self, octets, size):
        """Octets of a stranger raise RemoteFault and nothing else."""
        with contextlib.suppress(RemoteFault):
            read(octets, size)

    @given(st.sampled_from(Kind), st.binary(max_size=100))
    def test_any_content(self, kind, content):
        """The same where the frame itself is right."""
        with contextlib.suppress(RemoteFault):
            read(frame(kind, content), 1000)

    def test_unknown_kind(self):
        """A kind of a later version is passed over."""
        octets = frame(99, b"whatever") + encode_message(Message(Kind.BYE))
        self.assertEqual(read(octets, 3), [Message(Kind.BYE)])

    def test_not_a_message(self):
        """Lengths and contents that no node of ours sends."""
        for octets in (
            bytes(4),
            (FRAME_LIMIT + 1).to_bytes(4),
            frame(Kind.PING, b"[]"),
            frame(Kind.PING, b"{"),
            frame(Kind.PING, b'{"a":NaN}'),
            frame(Kind.PING, b"\xff"),
            frame(Kind.PING, b"[" * 60_000),
            frame(Kind.PING, b"1" * 60_000),
        ):
            self.assertRaises(RemoteFault, read, octets, 70_000)

    def test_limit(self):
        """64 KiB can be said, and one octet more cannot."""
        empty = len(json.dumps({"a": ""}, separators=(",", ":"))) + 1
        longest = Message(Kind.PING, {"a": "x" * (FRAME_LIMIT - empty)})
        self.assertEqual(read(encode_message(longest), 70_000), [longest])
        longer = Message(Kind.PING, {"a": "x" * (FRAME_LIMIT - empty + 1)})
        self.assertRaises(ValueError, encode_message, longer)
