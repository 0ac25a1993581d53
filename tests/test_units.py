"""Durations and sizes, as postmasters write and read them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.units import format_octets, format_seconds, parse_octets, parse_seconds


class UnitsTests(SynchronousTestCase):
    """Parsing and formatting."""

    def test_seconds(self) -> None:
        """Each unit, and several together."""
        for text, seconds in (
            ("100ms", 0.1),
            ("1s", 1),
            ("1.5m", 90),
            ("4h", 14400),
            ("5d", 432000),
            ("1h 30m", 5400),
        ):
            self.assertEqual(parse_seconds(text), seconds)
        for bad in ("", "5", "5x", "m", "-1s", "1s2"):
            self.assertRaises(ValueError, parse_seconds, bad)

    def test_octets(self) -> None:
        """Powers of 1024."""
        for text, octets in (("812", 812), ("10K", 10240), ("50m", 50 << 20), ("1G", 1 << 30)):
            self.assertEqual(parse_octets(text), octets)
        for bad in ("", "K", "1.5M", "-1", "5T"):
            self.assertRaises(ValueError, parse_octets, bad)

    def test_format(self) -> None:
        """The two largest units that matter."""
        for seconds, text in (
            (0.05, "50ms"),
            (0.9994, "999ms"),
            (0.9999, "1s"),
            (1.5, "1.5s"),
            (90, "1m30s"),
            (3600, "1h"),
            (5400, "1h30m"),
            (273600, "3d4h"),
            (-5, "-5s"),
        ):
            self.assertEqual(format_seconds(seconds), text)
        for octets, text in ((812, "812"), (1536, "1.5K"), (50 << 20, "50M"), (3 << 30, "3G")):
            self.assertEqual(format_octets(octets), text)

    @given(st.floats(0, 1e9))
    def test_format_reads_back(self, seconds: float) -> None:
        """What is shown can be read, and is off by less than the smallest unit shown."""
        again = parse_seconds(format_seconds(seconds)) if seconds >= 1e-3 else seconds
        self.assertLessEqual(abs(again - seconds), max(3600.0 if seconds > 86400 else 60.0, 0.01))
