"""The state directory: ours alone (0700), or we do not start.

It holds mail and the control socket.  Where it is missing it is made; where somebody
else owns it, or others may look into it, nothing is repaired silently: the postmaster
is told, because it may be the wrong directory.
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
        directory.mkdir(mode=0o700, parents=True)
        if identity is not None and os.geteuid() == 0:
            os.chown(directory, identity.uid, identity.gid)
    except FileExistsError:
        _check(directory, owner)
    except OSError as error:
        raise LocalFault(f"cannot make [node] state {directory}: {error.strerror}") from None


def _check(directory: Path, owner: int) -> None:
    facts = directory.stat()
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
