"""Engines' options against each other."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.errors import ConfigProblems


class EngineContradictionTests(SynchronousTestCase):
    """engine_contradictions."""

    def found(self, ini: str) -> list[str]:
        try:
            parse_config(ini, "test.ini")
        except ConfigProblems as problems:
            return [f"{each.section}.{each.option} {each.what}" for each in problems.problems]
        return []

    def test_defaults(self) -> None:
        """All engines at once are well as they come."""
        self.assertEqual(self.found("[scan]\nengines = clamav rspamd spamassassin icap milter"), [])

    def test_timeout(self) -> None:
        """An engine cannot have more time than all checks together."""
        ini = "[scan]\nengines = clamav\ntimeout = 20s\n[clamav]\ntimeout = 21s"
        self.assertEqual(self.found(ini), ["clamav.timeout is more than [scan] timeout"])
        self.assertEqual(self.found(ini.replace("engines = clamav", "engines = ")), [])

    def test_schemes(self) -> None:
        """Rspamd speaks HTTP, an ICAP server ICAP."""
        ini = "[scan]\nengines = rspamd icap\n[rspamd]\nurl = icap://h/x\n[icap]\nurl = http://h"
        self.assertEqual(
            self.found(ini),
            [
                "rspamd.url icap://h/x: that is not what rspamd speaks",
                "icap.url http://h: that is not what icap speaks",
            ],
        )
