"""What people know a message by, from whatever header section a stranger sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.headlines import Headlines, headlines


class Reading(SynchronousTestCase):
    """A header section."""

    def test_plain(self) -> None:
        self.assertEqual(
            headlines(b"From: A <a@b>\r\nSubject: hi\r\n there\r\nMessage-Id: <1@b>\r\n"),
            Headlines("hi there", "A <a@b>", "1@b"),
        )
        self.assertEqual(headlines(b""), Headlines("", "", ""))

    def test_encoded_words(self) -> None:
        for raw, text in (
            (b"=?utf-8?q?gr=C3=BCezi?= mitenand", "grüezi mitenand"),
            (b"=?iso-8859-1?b?5A==?=", "ä"),
            (b"=?no-such?q?a=FFb?=", "a\ufffdb"),
            (b"=?utf-8?b?A?=", "=?utf-8?b?A?="),
            (b"=?utf-8?q?a=0A=1Bb?=", "a b"),
            ("rôti".encode(), "rôti"),
        ):
            self.assertEqual(headlines(b"Subject: " + raw + b"\r\n").subject, text, raw)

    def test_bounded(self) -> None:
        found = headlines(b"Subject: " + b"x" * 100_000 + b"\r\nMessage-ID: " + b"y" * 9000)
        self.assertEqual((len(found.subject), len(found.message_id)), (250, 250))

    @given(st.binary(max_size=300))
    def test_anything(self, octets: bytes) -> None:
        found = headlines(b"Subject: " + octets + b"\r\nFrom: =?" + octets)
        for text in (found.subject, found.header_from):
            self.assertFalse([c for c in text if c < " " or "\x7f" <= c <= "\x9f"])
            text.encode()
