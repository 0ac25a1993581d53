"""What cannot be meant in the sections about judging mail; which answers of a list count."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.config.scan_kinds import answer_counts, parse_dns_lists
from mailsecure.errors import ConfigProblems


class Contradictions(SynchronousTestCase):
    """Each is told once, at its option."""

    def said(self, text: str) -> list[tuple[str, str, str]]:
        """Return (section, option, what) of every problem."""
        try:
            parse_config(text, "t.ini")
        except ConfigProblems as problems:
            return [(each.section, each.option, each.what) for each in problems.problems]
        return []

    def test_thresholds(self) -> None:
        self.assertEqual(
            self.said("[scan]\ntag = 12\n"), [("scan", "tag", "is more than quarantine")]
        )
        self.assertEqual(
            self.said("[scan]\nquarantine = never\ntag = 16\n"),
            [("scan", "tag", "is more than reject")],
        )
        self.assertEqual(self.said("[scan]\ntag = never\nreject = never\n"), [])
        self.assertEqual(
            self.said("[scan]\ntimeout = 1s\n"), [("scan", "check_timeout", "is more than timeout")]
        )

    def test_listeners(self) -> None:
        text = "[smtp]\nlisten = tcp:25\n    tcp:587\n[scan]\nrelay_only_listeners = {}\n"
        self.assertEqual(self.said(text.format("tcp:587")), [])
        ((section, option, what),) = self.said(text.format("tcp:588"))
        self.assertEqual((section, option), ("scan", "relay_only_listeners"))
        self.assertIn("tcp:588 is not one of", what)

    def test_profiles(self) -> None:
        text = (
            "[profile:a]\nrecipients = example.com .example.com x@example.net\n"
            "[profile:b]\n"
            "[profile:c]\nrecipients = example.com\n"
            "[profile:d]\nrecipients = @example.org\n"
            "[profile:e]\nrecipients = a@-b\n"
        )
        self.assertEqual(
            [(section, what.split(":")[0]) for section, _, what in self.said(text)],
            [
                ("profile:b", "is empty"),
                ("profile:c", "example.com is of [profile"),
                ("profile:d", "@example.org has no local part"),
                ("profile:e", "a@-b"),
            ],
        )

    def test_keys(self) -> None:
        self.assertEqual(
            [(section, option) for section, option, _ in self.said("[signing:a]\n")],
            [("signing:a", "key"), ("signing:a", "domains")],
        )

    def test_prefixes_and_passwords(self) -> None:
        text = "[greylist]\nipv4_prefix = 33\n[records]\npassword_file = p\ndatabase = r.db\n"
        self.assertEqual(
            [option for _, option, _ in self.said(text)], ["ipv4_prefix", "password_file"]
        )


class Answers(SynchronousTestCase):
    """Of a list in the DNS."""

    def test_which_count(self) -> None:
        plain, some = parse_dns_lists("a.test 1\nb.test=127.0.0.2-11|127.0.1.5 2")
        for address, all_, few in (
            ("127.0.0.2", True, True),
            ("127.0.0.11", True, True),
            ("127.0.0.12", True, False),
            ("127.0.1.5", True, True),
            ("127.1.0.2", True, False),
            ("10.0.0.2", False, False),
        ):
            self.assertEqual(answer_counts(plain, address), all_, address)
            self.assertEqual(answer_counts(some, address), few, address)
