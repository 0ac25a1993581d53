"""Which files a worker may read: Linux's Landlock (landlock(7)).

The filter of :mod:`.syscalls` lets files be read, since Python imports modules when they are
first needed, and libraries written in C read what they like.  What is worth reading is none of
that: the spool, the keys, other people's files.  So the process that forks workers gives up
all files but those it loads code from, for itself and whoever it forks: the directories of
Python and of the modules that are there, and those of the system's libraries.

What is given up cannot be had again.  A kernel without Landlock (before 5.13, or where it is
switched off) leaves everything readable that the daemon's user may read; the status says so.

Called by :mod:`.forking`; imports no Twisted.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Final

__all__ = ["code_places", "read_only_from"]

# The numbers are the same on all machines (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_TELL_VERSION, _PATH_BENEATH = 1, 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
#: All rights of the first version but one: a worker has yet to write its oom_score_adj.
_FIRST: Final = (1 << 13) - 1 - _WRITE_FILE
#: LANDLOCK_ACCESS_FS_REFER and _IOCTL_DEV, and the versions that know them.
_LATER: Final = ((2, 1 << 13), (5, 1 << 15))

#: Where the system keeps libraries and what they need.
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null")

_library = ctypes.CDLL(None, use_errno=True)


def code_places() -> list[str]:
    """Return the directories (and a few files) that code is loaded from in this process."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    loaded = {Path(file).resolve() for file in files if file}
    searched = {Path(each).resolve() for each in sys.path} - {Path("/")}
    # Only those that something came from: Python searches the working directory, too.
    used = {str(place) for place in searched if any(place in file.parents for file in loaded)}
    return [*_SYSTEM, *sorted({sys.prefix, sys.base_prefix} | used)]


def read_only_from(places: Iterable[str]) -> bool:
    """Give up all files but those at or below ``places``, which can be read and listed.

    False where the kernel does not offer it.  The process must have no_new_privs set
    (:func:`.confining.give_up_rights`).
    """
    version = _library.syscall(_CREATE_RULESET, None, 0, _TELL_VERSION)
    if version < 1:
        return False
    handled = _FIRST | sum(right for since, right in _LATER if version >= since)
    rules = _library.syscall(_CREATE_RULESET, struct.pack("Q", handled), 8, 0)
    if rules < 0:
        return False
    try:
        for place in places:
            # What is not there needs no right.
            with suppress(FileNotFoundError):
                _allow(rules, place)
        return bool(_library.syscall(_RESTRICT_SELF, rules, 0) == 0)
    except OSError:
        # Rather all files than a process that finds no modules.
        return False
    finally:
        os.close(rules)


def _allow(rules: int, place: str) -> None:
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        directory = S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _READ_FILE | _READ_DIR if directory else _READ_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        if _library.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) < 0:
            raise OSError(f"no rule for {place}")
    finally:
        os.close(descriptor)
