"""The errors of judging mail (pure; a job in a worker's process imports it, and no Twisted).

Everybody else takes them from :mod:`.api`.
"""

from __future__ import annotations

from ..errors import LocalFault, RemoteFault

__all__ = ["ScannerFault", "Unscannable", "WorkerFault"]


class Unscannable(RemoteFault):
    """The message cannot be read: too deep, too large, a bomb, broken beyond repair."""


class ScannerFault(LocalFault):
    """A scanner cannot be reached, is late, or makes no sense."""


class WorkerFault(LocalFault):
    """The pool of processes cannot do work now (it is stopping, or a process will not start)."""
