"""Proves that the last line of a run tells the truth, and that nothing is skipped in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[1]

GOOD = """
from twisted.trial.unittest import SynchronousTestCase
class Case(SynchronousTestCase):
    def test_good(self):
        pass
"""
BAD = """
    def test_bad(self):
        self.assertEqual(1, 2)
    def test_broken(self):
        raise KeyError("x")
"""
SKIPPED = """
from tests.live import needs
@needs(programs=["no-such-program"])
class Lacking(SynchronousTestCase):
    def test_lacking(self):
        pass
"""


class Summary(SynchronousTestCase):
    """``python -m tests.summary`` on a test module of this test's own."""

    def run_on(self, text: str, **environment: str) -> tuple[int, list[str]]:
        """Return the exit code and the lines of a run over ``text``."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        module = folder / "test_sample.py"
        module.write_text(text)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAILSECURE_")}
        done = subprocess.run(
            [sys.executable, "-m", "tests.summary", f"--temp-directory={folder}/trial", module],
            cwd=ROOT,
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.splitlines()

    def test_good(self) -> None:
        """All passed: exit code 0."""
        code, lines = self.run_on(GOOD)
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed"))

    def test_bad(self) -> None:
        """Failures and errors both failed; each is named."""
        code, lines = self.run_on(GOOD + BAD)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 2 failed"))
        self.assertIn("test_sample.Case.test_bad", lines)

    def test_does_not_load(self) -> None:
        """A module that cannot be imported failed."""
        code, lines = self.run_on("import no_such_module")
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed"))

    def test_nothing(self) -> None:
        """No test at all is a failure."""
        code, lines = self.run_on("")
        self.assertEqual((code, lines[-1]), (1, "0 passed, 1 failed"))

    def test_skipped(self) -> None:
        """What is not run is named under what it lacks."""
        code, lines = self.run_on(GOOD + SKIPPED)
        self.assertEqual(code, 0)
        self.assertEqual(
            lines[-4:],
            [
                "not run, no-such-program is not installed:",
                "  test_sample.Lacking.test_lacking",
                "1 not run",
                "1 passed, 0 failed",
            ],
        )

    def test_required(self) -> None:
        """Where every live test is required, one that lacks something failed."""
        code, lines = self.run_on(GOOD + SKIPPED, MAILSECURE_LIVE="require")
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed"))

    def test_figures(self) -> None:
        """The figures are appended for .ci/run."""
        path = Path(self.mktemp())
        for _ in range(2):
            self.run_on(GOOD + BAD, MAILSECURE_SUMMARY=str(path.absolute()))
        self.assertEqual(path.read_text(), "1 2\n1 2\n")
