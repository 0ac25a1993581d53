"""Tests on real sockets, with the real daemon, real clients and real disks.

Each says what it needs with :func:`needs`.  Where that is missing the test is skipped,
in plain words; with ``MAILSECURE_LIVE=require`` (as in ``.ci/run``) it fails instead, so
that nothing goes untested in silence.
"""

from __future__ import annotations

import os
import shutil
import unittest
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["missing", "needs"]

_T = TypeVar("_T", bound=type)

REQUIRED = os.environ.get("MAILSECURE_LIVE") == "require"


def missing(root: bool = False, programs: Sequence[str] = (), variables: Sequence[str] = ()) -> str:
    """Return what of all this is missing here, in plain words, or ""."""
    lacks = []
    if root and os.geteuid() != 0:
        lacks.append("must be root")
    lacks += [
        f"{program} is not installed"
        for program in programs
        if not (shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin"))
    ]
    lacks += [f"${variable} is not set" for variable in variables if not os.environ.get(variable)]
    return ", ".join(lacks)


def needs(
    root: bool = False, programs: Sequence[str] = (), variables: Sequence[str] = ()
) -> Callable[[_T], _T]:
    """Decorate a test (case) that runs only where all this is there."""
    lack = missing(root, programs, variables)

    def decorate(test: _T) -> _T:
        if not lack:
            return test
        if not REQUIRED:
            return unittest.skip(lack)(test)
        return _failing(test, lack)

    return decorate


def _failing(test: _T, lack: str) -> _T:
    def fail(case: unittest.TestCase) -> None:
        case.fail(f"required, but {lack}")

    if isinstance(test, type):
        test.setUp = fail  # type: ignore[attr-defined]
        return test
    return fail  # type: ignore[return-value]
