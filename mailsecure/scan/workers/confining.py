"""What a worker's process may not do: Linux's ways of giving up rights for good.

A worker reads what strangers send, with libraries written in C.  So it has no network, no
capabilities, writes no files, starts no programs, and ends with the process that forked it.
Everything here is done to the calling process and cannot be taken back.  What a kernel does
not offer is left out: the limits of setrlimit(2) are there on each.  (:mod:`.reading` and
:mod:`.syscalls` are the last of it.)

Called by :mod:`.forking` and :mod:`.child`; imports no Twisted.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

__all__ = ["die_with_parent", "give_up_rights", "limit_processor", "limit_resources", "nice"]

# prctl(2), capset(2) and unshare(2), which Python does not name.
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWNET = 0x40000000
_LAST_CAPABILITY = 63

#: Descriptors that a worker may have open at once: Python's imports need a few.
MAX_FILES = 64
#: The processor time above what a job may take after which the kernel ends the worker,
#: should the daemon not do it.
GRACE = 5

_library = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when ``parent`` ends; False if that has happened."""
    _library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def give_up_rights() -> None:
    """Give up the network, all capabilities, and the ways to get them again."""
    _library.unshare(_CLONE_NEWNET)
    _library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _library.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_LAST_CAPABILITY + 1):
        _library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _library.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def nice(priority: int, out_of_memory: int) -> None:
    """Take what processor time is left, and be the first to go when memory is short."""
    with suppress(OSError):
        os.nice(priority)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(out_of_memory), encoding="ascii")


def limit_resources(memory: int) -> None:
    """Limit the address space to ``memory`` octets, and forbid files, programs and cores."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    # Last: it hides /proc/self from this process.
    _library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_processor(used: float, seconds: float) -> None:
    """Have the kernel end this process when it has worked ``seconds`` more than ``used``."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + GRACE, hard))
