"""The state directory: ours alone (0700), or we do not start.

It holds mail and the control socket.  Where it is missing it is made; where somebody
else owns it, or others may look into it, nothing is repaired silently: the postmaster
is told, because it may be the wrong directory.  The directory above must be there: one
made along the way would be root's alone, and the user of ``[node]`` could not pass it.

Called by :mod:`mailsecure.life` while it may still be root.  The new directory is given
away by its descriptor and not by its name, which the owner of the directory above could
by then have made a link to something else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import LocalFault
from .privileges import Identity

__all__ = ["prepare_state"]


def prepare_state(directory: Path, identity: Identity | None) -> None:
    """Make ``directory`` for ``identity`` (None: whoever we are), or say what is wrong."""
    owner = identity.uid if identity is not None else os.geteuid()
    try:
        directory.mkdir(mode=0o700)
        if identity is not None and os.geteuid() == 0:
            _give(directory, identity)
    except FileExistsError:
        _check(directory, owner)
    except FileNotFoundError:
        raise LocalFault(
            f"cannot make [node] state {directory}: there is no directory {directory.parent}"
        ) from None
    except OSError as error:
        raise LocalFault(f"cannot make [node] state {directory}: {error.strerror}") from None


def _give(directory: Path, identity: Identity) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, identity.uid, identity.gid)
    finally:
        os.close(descriptor)


def _check(directory: Path, owner: int) -> None:
    try:
        facts = directory.stat()
    except OSError as error:
        raise LocalFault(f"cannot use [node] state {directory}: {error.strerror}") from None
    if not stat.S_ISDIR(facts.st_mode):
        raise LocalFault(f"[node] state {directory} is not a directory")
    if facts.st_uid != owner:
        raise LocalFault(
            f"[node] state {directory} belongs to uid {facts.st_uid}, not to {owner}: "
            f"chown it, or choose another directory"
        )
    if facts.st_mode & 0o077:
        raise LocalFault(
            f"[node] state {directory} is open to others"
            f" (mode {facts.st_mode & 0o777:o}): chmod 700 it"
        )
