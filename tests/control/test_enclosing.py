"""Proves that an enclosed message comes out as it went in, whatever it and its facts say."""

import email
import email.policy

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.enclosing import Cover, boundary_of, head, tail


def cover(**more):
    facts = {
        "name": "06B3K2M4N5P6R",
        "original": "06B3K2M4N5P6Q",
        "date": "Sun, 22 Nov 2026 12:00:00 +0000",
        "hostname": "mx1.example.com",
        "to": "admin@example.com",
        "facts": [("sender", "<m@evil.example>"), ("Subject", "hi")],
        "eight_bit": False,
        "utf8": False,
    }
    return Cover(**facts | more)


class EnclosingTests(SynchronousTestCase):
    """:func:`head` and :func:`tail`."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.binary(max_size=300), st.lists(st.tuples(st.just("Subject"), st.text())), st.booleans()
    )
    def test_any_original(self, original, facts, utf8):
        """Two parts, the second of which is the original to the octet."""
        boundary = boundary_of("06B3K2M4N5P6R", 5)
        eight_bit = not original.isascii()
        start = head(cover(facts=facts, eight_bit=eight_bit, utf8=utf8), boundary)
        content = start + original + tail(boundary)
        delimiter = f"\r\n--{boundary}".encode()
        _, text, enclosed, end = content.split(delimiter)
        self.assertEqual(end, b"--\r\n")
        self.assertEqual(enclosed.partition(b"\r\n\r\n")[2], original)
        self.assertLessEqual(max(map(len, start.split(b"\r\n"))), 998)
        self.assertEqual(text.count(b"\r\nSubject"), len(facts))
        for line in start.decode().split("\r\n"):
            self.assertTrue(line.isprintable())

    def test_as_mail_programs_see_it(self):
        both = {"eight_bit": True, "utf8": True}
        for original, facts, more, expected in (
            (b"plain", [], {}, ("7bit", "us-ascii", "message/rfc822")),
            (b"plain", [("Subject", "é")], {}, ("8bit", "utf-8", "message/rfc822")),
            (b"\xc3\xa9", [], {"eight_bit": True}, ("8bit", "us-ascii", "message/rfc822")),
            (b"\xc3\xa9", [], both, ("8bit", "us-ascii", "message/global")),
            (b"plain", [], {"utf8": True}, ("7bit", "us-ascii", "message/rfc822")),
            (b"plain", [], {"to": "é@example.com"}, ("8bit", "us-ascii", "message/rfc822")),
        ):  # fmt: skip
            content = head(cover(facts=facts, **more), "=_x") + original + tail("=_x")
            parsed = email.message_from_bytes(content, policy=email.policy.default)
            text, enclosed = parsed.iter_parts()
            found = (
                parsed["Content-Transfer-Encoding"],
                text.get_content_charset(),
                enclosed.get_content_type(),
            )
            self.assertEqual(found, expected)

    def test_boundary(self):
        self.assertEqual(boundary_of("N", (1 << 64) - 1), "=_N_ffffffffffffffff")
