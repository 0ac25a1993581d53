"""Who the process is: bound ports first, then an ordinary user, for good.

Called by :mod:`mailsecure.life` once everything is bound that needs root.  Also here:
no core file and no debugger may see the memory, because passwords and keys are in it,
and as many descriptors as the system grants.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
from dataclasses import dataclass

from ..errors import LocalFault

__all__ = ["Identity", "drop_privileges", "identity_of", "keep_secrets", "raise_descriptor_limit"]

_PR_SET_DUMPABLE = 4


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


def drop_privileges(identity: Identity) -> None:
    """Become ``identity`` for good; LocalFault if that is not possible."""
    if os.geteuid() == identity.uid:
        return
    try:
        os.initgroups(identity.user, identity.gid)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise LocalFault(f"cannot become user {identity.user}: {error.strerror}") from None
    if identity.uid != 0:
        try:
            os.setuid(0)
        except OSError:
            return
        raise LocalFault(f"became user {identity.user}, but could become root again")


def keep_secrets() -> None:
    """No core files, no ptrace by the same user, no files for others."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
