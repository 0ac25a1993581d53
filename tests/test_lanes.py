"""Proves that lanes are counted rightly, whatever becomes of them, and told one after another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .lanes import ROOT, lanes

SAMPLE = """
import os, signal, sys, time
from pathlib import Path
from twisted.trial.unittest import SynchronousTestCase
class Case(SynchronousTestCase):
    def test_body(self):
        {body}
"""
MAIN = """
from pathlib import Path
from tests.lanes import Lane, run
print(*run([Lane({lanes})], {processors}, Path({place!r})), sep=" and ")
"""
ENDED = """
from pathlib import Path
from tests import lanes
lanes.lanes = lambda: [lanes.Lane("long", [{module!r}])]
raise SystemExit(lanes.main(Path({place!r})))
"""
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("MAILSECURE_")}


class Lanes(SynchronousTestCase):
    """``tests.lanes.run`` on test modules of this test's own."""

    def run_on(self, *bodies: str, processors: int = 2, **options: str) -> list[str]:
        """Return what is said of lanes with a test each."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        made = []
        for number, body in enumerate(bodies):
            module = folder / f"test_lane{number}.py"
            module.write_text(SAMPLE.format(body=body))
            more = options.get(f"lane{number}", "")
            made.append(f"'{number}', [{str(module)!r}], {more}")
        program = MAIN.format(lanes="), Lane(".join(made), processors=processors, place=str(folder))
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=CLEAN,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.splitlines()

    def assert_ordered(self, lines: Sequence[str], *wanted: str) -> None:
        """Check that lines with these texts come one after another."""
        left = iter(lines)
        for text in wanted:
            self.assertTrue(
                any(text in line for line in left), f"no {text!r} in its place: {lines}"
            )

    def test_told_in_order(self) -> None:
        """The first lane is told first, though it ends last; each with what it printed."""
        lines = self.run_on('time.sleep(0.5); print("slow")', 'print("quick")')
        self.assertEqual(lines[-1], "2 and 0")
        self.assert_ordered(
            lines, "slow", "1 passed, 0 failed", "== lane 0", "quick", "1 passed", "== lane 1"
        )

    def test_failure(self) -> None:
        """What fails is counted."""
        lines = self.run_on("self.fail()", "pass")
        self.assertEqual(lines[-1], "1 and 1")

    def test_death(self) -> None:
        """A lane that dies in the middle has failed; the others count all the same."""
        lines = self.run_on("os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "pass")
        self.assertEqual(lines[-1], "1 and 2")
        self.assert_ordered(lines, "died: exit status -9", "died: exit status 0", "1 passed")

    def test_alone(self) -> None:
        """Who goes alone begins when the others have ended, as all do on one processor."""
        mark = Path(self.mktemp()).absolute()
        first = f'time.sleep(0.5); Path("{mark}").touch()'
        then = f'self.assertTrue(Path("{mark}").exists())'
        self.assertEqual(self.run_on(first, then, lane1="alone=True")[-1], "2 and 0")
        mark.unlink()
        self.assertEqual(self.run_on(first, then, processors=1)[-1], "2 and 0")

    def test_ended(self) -> None:
        """Who ends the run ends the lanes."""
        mark = Path(self.mktemp()).absolute()
        module = mark.with_name("test_long.py")
        module.write_text(
            SAMPLE.format(body=f'Path("{mark}").write_text(str(os.getpid())); time.sleep(60)')
        )
        program = ENDED.format(module=str(module), place=str(mark.parent))
        with subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, env=CLEAN, stdout=subprocess.DEVNULL
        ) as parent:
            deadline = time.monotonic() + 60
            while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
                time.sleep(0.05)
            parent.terminate()
            self.assertEqual(parent.wait(60), 128 + signal.SIGTERM)
        self.assertFalse(Path("/proc", mark.read_text()).exists())

    def test_modest(self) -> None:
        """Who stands back does so with all that it starts."""
        lines = self.run_on('time.sleep(0.1); os.system("nice")', lane0="modest=True")
        self.assertIn("5", lines)

    def test_each_module_once(self) -> None:
        """No module of tests is forgotten, none runs twice, none is named that is not there."""
        modules = [each for lane in lanes() for each in lane.modules]
        files = (path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
        self.assertEqual(
            sorted(modules), sorted(str(each)[:-3].replace("/", ".") for each in files)
        )
