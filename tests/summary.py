"""Run trial, and end with one line that a machine can read: ``N passed, N failed``.

``python -m tests.summary [trial's arguments]``, one process; :mod:`tests.lanes` has several of
them go beside each other, and is what ``make test`` runs.  Skipped tests are listed under what they
lack, because a test that was not run proves nothing.  With ``MAILSECURE_LIVE=require``
(see :mod:`tests.live`) a skipped live test counts as failed, however it was skipped; and
so does a run without a single test.  Appends its figures to the file that
``MAILSECURE_SUMMARY`` names, for :mod:`tests.lanes` and ``.ci/run``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.python import usage
from twisted.scripts import trial
from twisted.trial.reporter import Reporter

from tests.live import REQUIRED

LIVE = "tests.live."


class Summary(Reporter):
    """Says how long each module took, and, at the end, what failed."""

    _module = ""
    _tests = 0
    _began = 0.0

    def startTest(self, test: Any) -> None:
        """A test begins; the first of a module ends the module before."""
        super().startTest(test)
        module = test.id().rsplit(".", 2)[0]
        if module != self._module:
            self._tell()
            self._module, self._tests, self._began = module, 0, time.monotonic()
        self._tests += 1

    def done(self) -> None:
        """The last test ended."""
        self._tell()
        super().done()

    def _tell(self) -> None:
        if self._tests:
            took = time.monotonic() - self._began
            self._writeln("%6.1f s %4d tests  %s", took, self._tests, self._module)
            self._stream.flush()


def by_reason(skips: Iterable[tuple[Any, object]]) -> dict[str, list[str]]:
    """Return the names of the tests that were skipped, by what they lack."""
    found: dict[str, list[str]] = defaultdict(list)
    for test, reason in skips:
        found[str(reason)].append(test.id())
    return {reason: sorted(found[reason]) for reason in sorted(found)}


def count(result: Any, required: bool) -> tuple[int, int]:
    """Return how many tests passed and failed; with ``required``, skipped live ones failed."""
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    if required:
        failed += sum(test.id().startswith(LIVE) for test, _ in result.skips)
    if not result.successes and not failed:
        failed = 1
    return result.successes, failed


def main(arguments: Sequence[str]) -> int:
    """Run the tests; return the exit code."""
    # Also where whoever started us ignores it, as a shell does for what is in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = trial.Options()
    try:
        options.parseOptions(list(arguments))
    except usage.UsageError as error:
        print(error, file=sys.stderr)
        return os.EX_USAGE
    options["reporter"] = Summary
    trial._initialDebugSetup(options)
    suite = trial._getSuite(options)
    result = trial._makeRunner(options).run(suite)
    passed, failed = count(result, REQUIRED)
    for reason, tests in by_reason(result.skips).items():
        print(f"not run, {reason}:", *tests, sep="\n  ")
    if result.skips:
        print(f"{len(result.skips)} not run" + (", which counts as failed" if REQUIRED else ""))
    return conclude(passed, failed)


def conclude(passed: int, failed: int) -> int:
    """Say it in the last line, and to who reads figures; return the exit code."""
    if path := os.environ.get("MAILSECURE_SUMMARY"):
        with Path(path).open("a") as stream:
            stream.write(f"{passed} {failed}\n")
    print(f"{passed} passed, {failed} failed")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
