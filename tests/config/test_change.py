"""A reload can tell what has changed, and what of it waits for a restart."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.change import Change, as_ini, changes
from mailsecure.config.load import defaults, parse_config


class Changes(SynchronousTestCase):
    """Two configurations compared."""

    def test_nothing(self) -> None:
        self.assertEqual(changes(defaults(), parse_config("[smtp]\nlisten = tcp:25", "b")), [])

    def test_options_and_domains(self) -> None:
        old = parse_config("[domains]\na.example = mx\nb.example = mx", "")
        new = parse_config(
            "[smtp]\nlisten = tcp:25\n  tcp6:25\nmax_errors = 5\n"
            "[domains]\nb.example = lmtp://h\nc.example = mx\n[log]\nlevel = debug",
            "",
        )
        self.assertEqual(
            changes(old, new),
            [
                Change("smtp", "listen", "tcp:25", "tcp:25\ntcp6:25", True),
                Change("smtp", "max_errors", "20", "5", False),
                Change("domains", "a.example", "mx", "", False),
                Change("domains", "b.example", "mx", "lmtp://h:24", False),
                Change("domains", "c.example", "", "mx", False),
                Change("log", "level", "info", "debug", False),
            ],
        )

    def test_in_words(self) -> None:
        self.assertEqual(
            str(Change("smtp", "listen", "tcp:25", "tcp:25\ntcp6:25", True)),
            "[smtp] listen: tcp:25 → tcp:25 tcp6:25 (needs a restart)",
        )
        self.assertEqual(
            str(Change("domains", "a.example", "", "mx", False)),
            "[domains] a.example: (empty) → mx",
        )

    def test_written_out(self) -> None:
        text = as_ini(parse_config("[smtp]\nlisten = tcp:25\n  tcp6:25", ""))
        self.assertIn("[smtp]\nlisten = tcp:25\n    tcp6:25\nlisten_tls =\n", text)
