"""Run trial, and end with one line that a machine can read: ``N passed, N failed``.

``python -m tests.summary [trial's arguments]``.  Skipped tests are listed with their
reasons, because a test that was not run proves nothing; with ``MAILSECURE_LIVE=require``
there are none (see :mod:`tests.live`).  Appends its figures to the file that
``MAILSECURE_SUMMARY`` names, for ``.ci/run``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.python import usage
from twisted.scripts import trial
from twisted.trial.reporter import Reporter


class Summary(Reporter):
    """Says only what failed."""


def main(arguments: Sequence[str]) -> int:
    """Run the tests; return the exit code."""
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
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.successes
    for test, reason in result.skips:
        print(f"skipped {test.id()}: {reason}")
    if path := os.environ.get("MAILSECURE_SUMMARY"):
        with Path(path).open("a") as stream:
            stream.write(f"{passed} {failed}\n")
    print(f"{passed} passed, {failed} failed, {len(result.skips)} skipped")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
