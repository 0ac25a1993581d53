"""Proves that people are understood when they say when."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.moments import parse_moment

#: 2026-11-30 12:30:00 UTC.
NOW = 1_796_041_800.0
MIDNIGHT = 1_795_996_800.0
DAY = 86400.0


class MomentTests(SynchronousTestCase):
    """:func:`parse_moment`."""

    def test_words(self):
        for text, begin, end in (
            ("now", NOW, NOW),
            ("today", MIDNIGHT, MIDNIGHT + DAY),
            ("Yesterday", MIDNIGHT - DAY, MIDNIGHT),
            (" this  MORNING ", MIDNIGHT, MIDNIGHT + DAY / 2),
            ("8h", NOW - 8 * 3600, NOW - 8 * 3600),
            ("1d 2h", NOW - DAY - 7200, NOW - DAY - 7200),
            ("08:15", MIDNIGHT + 8 * 3600 + 900, MIDNIGHT + 8 * 3600 + 900),
            ("8:15:30", MIDNIGHT + 8 * 3600 + 930, MIDNIGHT + 8 * 3600 + 930),
            ("12:30", NOW, NOW),
            ("12:31", NOW + 60 - DAY, NOW + 60 - DAY),
            ("23:15", MIDNIGHT - 45 * 60, MIDNIGHT - 45 * 60),
            ("2026-11-29", MIDNIGHT - DAY, MIDNIGHT),
            ("2026-11-30T08:15", MIDNIGHT + 8 * 3600 + 900, MIDNIGHT + 8 * 3600 + 900),
            ("2026-11-30 09:15+01:00", MIDNIGHT + 8 * 3600 + 900, MIDNIGHT + 8 * 3600 + 900),
            ("2026-11-30T08:15:00Z", MIDNIGHT + 8 * 3600 + 900, MIDNIGHT + 8 * 3600 + 900),
        ):
            self.assertEqual(parse_moment(text, NOW), begin, text)
            self.assertEqual(parse_moment(text, NOW, end=True), end, text)

    def test_what_is_no_time(self):
        for text in (
            "",
            "soon",
            "25:00",
            "08:60",
            "2026-13-01",
            "8",
            "-1h",
            "0001-01-01T00:00+14:00",
        ):
            error = self.assertRaises(ValueError, parse_moment, text, NOW)
            self.assertIn("yesterday", str(error))

    @given(st.text(max_size=30))
    def test_anything(self, text):
        with contextlib.suppress(ValueError):
            self.assertIsInstance(parse_moment(text, NOW), float)
