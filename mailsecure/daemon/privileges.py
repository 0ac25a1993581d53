"""Who the process is: bound ports first, then an ordinary user, for good.

Called by :mod:`mailsecure.life` once everything is bound that needs root.  Also here:
no core file and no debugger may see the memory, because passwords and keys are in it,
and as many descriptors as the system grants.

The calls to the system go through :class:`System`, whose real form is the module ``os``,
so that the order and the checks can be tried without being root (tests/daemon has a
kernel in memory that keeps the same contract).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, cast

from ..errors import LocalFault
from .capabilities import Capabilities, LinuxCapabilities, Sets

__all__ = [
    "Identity",
    "System",
    "drop_privileges",
    "identity_of",
    "keep_secrets",
    "raise_descriptor_limit",
]

_PR_SET_DUMPABLE = 4
#: No node needs more; some containers grant a thousand million.
_MAX_DESCRIPTORS = 1 << 20


class System(Protocol):
    """The part of ``os`` that says who a process is (credentials(7))."""

    def getresuid(self) -> tuple[int, int, int]:
        """Return the real, effective and saved user id."""

    def getresgid(self) -> tuple[int, int, int]:
        """Return the real, effective and saved group id."""

    def initgroups(self, username: str, gid: int, /) -> None:
        """Take the supplementary groups of ``username``, and ``gid``."""

    def setresgid(self, rgid: int, egid: int, sgid: int, /) -> None:
        """Set the three group ids."""

    def setresuid(self, ruid: int, euid: int, suid: int, /) -> None:
        """Set the three user ids."""

    def setuid(self, uid: int, /) -> None:
        """Set the user id as far as allowed."""


_SYSTEM = cast(System, os)
_CAPABILITIES = LinuxCapabilities()


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group, by number and by name."""

    user: str
    uid: int
    gid: int


def identity_of(user: str, group: str) -> Identity:
    """Return the ids of ``user`` and ``group`` (the user's own if "")."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise LocalFault(f"there is no user {user}") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError:
        raise LocalFault(f"there is no group {group}") from None
    return Identity(user, entry.pw_uid, gid)


def drop_privileges(
    identity: Identity,
    keep: Collection[int] = (),
    system: System = _SYSTEM,
    capabilities: Capabilities = _CAPABILITIES,
) -> None:
    """Become ``identity`` for good; LocalFault if that is not possible.

    Real, effective and saved ids are set, the groups first, because only root may.  Of the
    capabilities those in ``keep`` remain, as far as we have them now, and no other
    (:mod:`.capabilities`).  Then the way back is tried, and must be closed.
    """
    uids, gids = (identity.uid,) * 3, (identity.gid,) * 3
    if system.getresuid() == uids and system.getresgid() == gids:
        return
    kept = 0
    try:
        if identity.uid != 0:
            kept = sum(1 << each for each in set(keep)) & capabilities.sets().permitted
            capabilities.survive()
        system.initgroups(identity.user, identity.gid)
        system.setresgid(*gids)
        system.setresuid(*uids)
        if identity.uid != 0:
            capabilities.restrict(kept)
    except OSError as error:
        raise LocalFault(f"cannot become user {identity.user}: {error.strerror}") from None
    # The kernel may have opened the memory to core dumps again: see PR_SET_DUMPABLE in prctl(2).
    _hide_memory()
    if identity.uid == 0:
        return
    if capabilities.sets() != Sets(kept, kept, 0, 0):
        raise LocalFault(f"became user {identity.user}, but with other capabilities than wanted")
    try:
        system.setuid(0)
    except OSError:
        return
    raise LocalFault(f"became user {identity.user}, but could become root again")


def keep_secrets() -> None:
    """No core files, no ptrace by the same user, no files for others."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _hide_memory()


def _hide_memory() -> None:
    """Refuse core dumps, those to a program too (which RLIMIT_CORE does not stop)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise LocalFault(f"cannot keep the memory out of core dumps: {reason}")


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(hard, _MAX_DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
