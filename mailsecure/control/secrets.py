"""Files that nobody but their owner may read, written whole or not at all.

:mod:`.keygen` and :mod:`.dkim_keys` write keys with :func:`write_secret`.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PRIVATE", "write_secret"]

PRIVATE = 0o600


def write_secret(path: Path, text: str, mode: int, owner: tuple[int, int] | None) -> None:
    """Write a file that is not there yet, for ``owner`` (uid, gid); half of one is removed.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(text)
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
            stream.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink()
        raise
