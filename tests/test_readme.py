"""Proves that what the README shows is valid: its markup, its ini, the files it names."""

import re
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsecure.config.load import parse_config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.rst").read_text()


class ReadmeTests(SynchronousTestCase):
    """README.rst, the project's front page and the wheel's description."""

    def test_markup(self):
        """docutils reads it without a warning."""
        try:
            from docutils.core import publish_string
        except ImportError as error:
            raise SkipTest(str(error)) from None
        publish_string(
            TEXT,
            writer="html",
            settings_overrides={"halt_level": 2, "report_level": 2, "warning_stream": ""},
        )

    def test_ini(self):
        """The example is an ini that mailsecure takes."""
        block, scan, cluster = re.findall(r"(?s)\.\. code-block:: ini\n\n(.*?)\n\S", TEXT)
        config = parse_config(re.sub(r"(?m)^   ", "", block), "README.rst")
        self.assertEqual(sorted(config.domains), ["*", ".example.com", "example.com"])
        self.assertEqual(config.smtp.listen, ("tcp:25", "tcp6:25"))
        self.assertEqual(len(config.relay.networks), 3)
        config = parse_config(re.sub(r"(?m)^   ", "", scan), "README.rst")
        self.assertEqual(config.scan.engines, ("clamav", "rspamd"))
        self.assertEqual(config.signing["example"].domains, ("example.com",))
        config = parse_config(re.sub(r"(?m)^   ", "", cluster), "README.rst")
        self.assertEqual(config.virtual["mail"].priority, 200)

    def test_files(self):
        """Each file and folder of the project that it names is there."""
        names = set(re.findall(r"(?:``| )((?:etc|docs|mailsecure|tests)/[\w./-]+)", TEXT))
        self.assertGreater(len(names), 10)
        made = {"docs/_build"}
        missing = [name for name in names - made if not (ROOT / name.rstrip(".")).exists()]
        self.assertEqual(missing, [])
