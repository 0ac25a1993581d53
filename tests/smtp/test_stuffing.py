"""Dots are stuffed and messages ended alike in every chunking; nothing unclean goes out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.smtp.stuffing import DotStuffer, UncleanBody, stuffed

LINES = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".b", b"c.", b"x" * 50]), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]


def in_pieces(pieces: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join([*map(stuffer.feed, pieces), stuffer.end()])


class StuffingTests(SynchronousTestCase):
    @given(LINES, st.booleans(), st.lists(st.integers(0, 500), max_size=8))
    def test_any_chunking_and_back(self, lines, ended, places):
        body = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
        wire = stuffed(body)
        self.assertEqual(in_pieces(cut(body, places)), wire)
        # What a receiver does: find the end, take the dots out.
        framed = b"\r\n" + wire
        self.assertEqual(framed.find(b"\r\n.\r\n"), len(framed) - 5)
        received = framed[2:-3].replace(b"\r\n.", b"\r\n")
        received = received[1:] if received[:1] == b"." else received
        self.assertEqual(received, body if body[-2:] == b"\r\n" or not body else body + b"\r\n")

    @given(st.text("\r\n\0.a", max_size=12), st.lists(st.integers(0, 12), max_size=4))
    def test_nothing_unclean_in_any_chunking(self, text, places):
        body = text.encode()
        clean = "\r" not in text.replace("\r\n", "") and "\n" not in text.replace("\r\n", "")
        if clean and "\0" not in text:
            self.assertEqual(in_pieces(cut(body, places)), stuffed(body))
        else:
            self.assertRaises(UncleanBody, stuffed, body)
            self.assertRaises(UncleanBody, in_pieces, cut(body, places))
