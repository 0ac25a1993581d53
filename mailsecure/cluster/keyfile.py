"""The key file: read with care, because who has the key can be Master.

:mod:`.service` reads it at start and at each reload; the command ``cluster keygen``
writes it.  What is in it is :mod:`.keys`' matter.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import LocalFault
from .keys import KeyRing, parse_keys

__all__ = ["read_keys"]

_LIMIT = 4096


def read_keys(path: Path) -> KeyRing:
    """Return the keys in the file at ``path``; LocalFault says what is wrong with it."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            octets = stream.read(_LIMIT)
    except OSError as error:
        raise LocalFault(f"[cluster] key_file: {path} cannot be read: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LocalFault(f"[cluster] key_file: {path} can be read by others: chmod 600 {path}")
    try:
        return parse_keys(octets.decode("ascii", "replace"))
    except ValueError as error:
        raise LocalFault(f"[cluster] key_file: {path}: {error}") from None
