"""What a process may do besides being who it is: capabilities(7) over the change of user.

An ordinary user may not move addresses.  Root who becomes one loses all capabilities,
unless it asked to keep them (PR_SET_KEEPCAPS); :mod:`.privileges` then gives away all but
the few that are needed.  What is kept is effective and permitted, but neither inheritable
nor ambient: programs that we start have none of it.

The calls go through :class:`Capabilities`, so that they can be tried without being root;
:class:`LinuxCapabilities` is the real one.  Capabilities belong to a thread: this is done
before there is a second one.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["CAP_NET_ADMIN", "CAP_NET_RAW", "Capabilities", "LinuxCapabilities", "Sets"]

#: To set addresses; to send frames (linux/capability.h).
CAP_NET_ADMIN, CAP_NET_RAW = 12, 13

_PR_SET_KEEPCAPS = 8
_VERSION_3 = 0x20080522
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Sets:
    """The four sets of a thread, each as a number with a bit for each capability."""

    effective: int
    permitted: int
    inheritable: int
    ambient: int


class Capabilities(Protocol):
    """The thread's capabilities; OSError where the kernel refuses."""

    def sets(self) -> Sets:
        """Return what they are."""

    def survive(self) -> None:
        """Have the permitted ones survive a change of user."""

    def restrict(self, capabilities: int) -> None:
        """Have these, effective and permitted, and no others in any way."""


class LinuxCapabilities:
    """See the module's text."""

    def sets(self) -> Sets:
        """Return what /proc says of this thread."""
        found = {}
        for line in Path("/proc/thread-self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            found[name] = value
        return Sets(*(int(found[each], 16) for each in ("CapEff", "CapPrm", "CapInh", "CapAmb")))

    def survive(self) -> None:
        """Set the flag that prctl(2) calls PR_SET_KEEPCAPS."""
        _called("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)

    def restrict(self, capabilities: int) -> None:
        """Call capset(2); what is not inheritable ceases to be ambient."""
        low, high = capabilities & _WORD, capabilities >> 32
        _called(
            "capset",
            struct.pack("=Ii", _VERSION_3, 0),
            struct.pack("=6I", low, low, 0, high, high, 0),
        )


def _called(name: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
