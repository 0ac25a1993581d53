"""Why a connection failed, in words for logs and bounces."""

from __future__ import annotations

import os

from twisted.internet import error
from twisted.python.failure import Failure

__all__ = ["words_of"]


def words_of(reason: Failure) -> str:
    """Return why a connection failed, in one short line."""
    if reason.check(error.TimeoutError) is not None:
        return "timed out"
    if reason.check(error.UserError) is not None:
        return "given up"
    fault = reason.value
    if reason.check(error.ConnectionLost) is not None:
        return "not closed cleanly"
    number = getattr(fault, "osError", None)
    words = os.strerror(number) if isinstance(number, int) else str(fault)
    words = words or type(fault).__name__
    return " ".join(words.split())[:200]
