"""SIGHUP: read the ini again.  (SIGTERM and SIGINT are Twisted's: they stop services.)

Twisted would answer a second SIGTERM with a traceback: the reactor stops already.

A Python signal handler runs between two instructions of the main thread, while the
reactor may be asleep; ``callFromThread`` wakes it and runs the work in its turn.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

__all__ = ["on_another_end", "on_hangup"]


def on_hangup(reactor: Any, work: Callable[[], object]) -> None:
    """Have ``work`` called in the reactor's thread at each SIGHUP."""

    def handle(*_: object) -> None:
        reactor.callFromThread(work)

    signal.signal(signal.SIGHUP, handle)


def on_another_end(reactor: Any, work: Callable[[], object]) -> None:
    """Have ``work`` called, and nothing else, at each SIGTERM and SIGINT from now on."""

    def handle(*_: object) -> None:
        reactor.callFromThread(work)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
