"""A reload can tell what has changed, and what of it waits for a restart."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.change import Change, as_ini, changes
from mailsecure.config.load import defaults, parse_config
from mailsecure.config.model import Config


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

    def test_a_family(self) -> None:
        def parsed(text: str) -> Config:
            return parse_config(f"[cluster]\nkey_file = k\ninterface = eth0\n{text}", "")

        kept = "[virtual:a]\naddresses = 192.0.2.25\n"
        old = parsed(f"{kept}[virtual:b]\naddresses = 192.0.2.26")
        new = parsed(f"[virtual:c]\naddresses = 192.0.2.26\n{kept}priority = 200\ninterface = eth1")
        found = changes(old, new)
        self.assertEqual(
            [each for each in found if each.section == "virtual:a"],
            [
                Change("virtual:a", "interface", "eth0", "eth1", False),
                Change("virtual:a", "priority", "100", "200", False),
            ],
        )
        for title, came in (("virtual:b", False), ("virtual:c", True)):
            its = {each.option: each for each in found if each.section == title}
            for option, text in (("addresses", "192.0.2.26"), ("interface", "eth0")):
                self.assertEqual(
                    its[option],
                    Change(title, option, *(("", text) if came else (text, "")), False),
                )
        self.assertEqual({each.section for each in found}, {"virtual:a", "virtual:b", "virtual:c"})

    def test_what_of_the_cluster_waits(self) -> None:
        text = "[cluster]\nkey_file = {}\ninterface = eth{}\nlink_listen = 502{}\nrole = {}\n"
        found = changes(
            parse_config(text.format("k", 0, 5, "both"), ""),
            parse_config(text.format("l", 1, 6, "director"), ""),
        )
        self.assertEqual(
            {each.option: each.needs_restart for each in found},
            {
                "key_file": False,
                "interface": True,
                "link_listen": True,
                "role": True,
                "weight": False,
            },
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
