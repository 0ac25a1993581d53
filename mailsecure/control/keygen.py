"""The steps of ``mailsecure cluster keygen``: a key file made, and its key changed.

A key is changed without a gap in three steps, each of which is done on every node before
the next begins: the new key is added (all believe it), the new key signs, the old key is
dropped.  A file is replaced in one go, so the daemon never reads half of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ..cluster.keyfile import read_keys
from ..cluster.keys import KeyRing, format_keys, new_key
from ..errors import LocalFault
from .wire import Kind, Refusal

__all__ = ["keep_keys"]


def keep_keys(path: Path, step: str) -> tuple[list[str], Sequence[str]]:
    """Do a step (new, add, use, drop); return the ids of the keys, and what to say.

    In the lines FILE stands for the file's name.  Raises Refusal, and nothing has changed.
    """
    ring = _STEPS[step](path)
    return [key.id.hex() for key in ring.keys], _NEXT[step]


def _made(path: Path) -> KeyRing:
    """Write a new key file; never over an old one."""
    ring = KeyRing((new_key(os.urandom(32)),))
    try:
        _write(path, ring, os.O_EXCL)
    except FileExistsError:
        raise Refusal(
            Kind.USAGE,
            f"{path} exists, and is not overwritten",
            ("A new key for a running cluster begins with: cluster keygen --add",),
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None
    return ring


def _added(path: Path) -> KeyRing:
    (old, *more) = _read(path).keys
    if more:
        raise Refusal(
            Kind.USAGE, f"{path} holds two keys already", ("Next: --use-new, or --drop-old.",)
        )
    return _replaced(path, KeyRing((old, new_key(os.urandom(32)))))


def _used(path: Path) -> KeyRing:
    keys = _read(path).keys
    if len(keys) < 2:
        raise Refusal(Kind.USAGE, f"{path} holds one key only", ("Begin with --add.",))
    return _replaced(path, KeyRing(keys[::-1]))


def _dropped(path: Path) -> KeyRing:
    keys = _read(path).keys
    if len(keys) < 2:
        raise Refusal(Kind.USAGE, f"{path} holds one key only: it stays")
    return _replaced(path, KeyRing(keys[:1]))


def _read(path: Path) -> KeyRing:
    try:
        return read_keys(path)
    except LocalFault as fault:
        raise Refusal(Kind.ABSENT, str(fault)) from None


def _replaced(path: Path, ring: KeyRing) -> KeyRing:
    """Put a new key file in the place of the old one; its owner stays."""
    beside = path.with_name(f"{path.name}.new")
    try:
        there = path.stat()
        beside.unlink(missing_ok=True)
        _write(beside, ring, os.O_EXCL)
        if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(beside, there.st_uid, there.st_gid)
        beside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    return ring


def _write(path: Path, ring: KeyRing, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(format_keys(ring))
        stream.flush()
        os.fsync(stream.fileno())


def _unwritable(path: Path, error: OSError) -> Refusal:
    kind = Kind.FORBIDDEN if isinstance(error, PermissionError) else Kind.DISK
    return Refusal(kind, f"cannot write {path}: {error.strerror}")


_STEPS: dict[str, Callable[[Path], KeyRing]] = {
    "new": _made,
    "add": _added,
    "use": _used,
    "drop": _dropped,
}
_NEXT = {
    "new": (
        "FILE written: the key of a new cluster.",
        "Copy it to every other node, readable by its owner only (chmod 600),",
        "and name it on each: [cluster] key_file = FILE",
    ),
    "add": (
        "FILE holds a second key now; hellos are signed with the first still.",
        "Copy it to every other node and reload them all (mailsecure reload).",
        "Then, on each node: cluster keygen --use-new, and reload.",
    ),
    "use": (
        "FILE: the new key signs from the next reload on, the old one is still believed.",
        "When every node has done this and was reloaded: cluster keygen --drop-old, and reload.",
    ),
    "drop": ("FILE holds the new key only; reload, and the old one is worth nothing here.",),
}
