"""The steps of ``mailsecure cluster keygen``: a key file made, and its key changed.

A key is changed without a gap in three steps: the new key is added (all believe it), the
new key signs, the old key is dropped.  After each the file is copied to every node, and
all are reloaded, before the next.  A file is replaced in one go, so the daemon never
reads half of one; owner and mode stay.

The daemon reads the file again at each reload, when it is no longer root.  So a file that
root makes is given to the user that the daemon becomes, as far as that is known.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..cluster.keyfile import read_keys
from ..cluster.keys import KeyRing, format_keys, new_key
from ..errors import LocalFault
from .secrets import PRIVATE, write_secret
from .wire import Kind, Refusal

__all__ = ["keep_keys"]

_OWNER_ONLY = 0o700


def keep_keys(path: Path, step: str, user: str = "") -> tuple[list[str], Sequence[str]]:
    """Do a step (new, add, use, drop); return the ids of the keys, and what to say.

    ``user`` is who the daemon becomes, "" if that is not known.  In the lines FILE stands
    for the file's name.  Raises Refusal, and nothing has changed.
    """
    if step == "new":
        ring, lines = _made(path, user)
    else:
        ring = _STEPS[step](path, _read(path))
        _replace(path, ring)
        lines = _NEXT[step]
    ids = [key.id.hex() for key in ring.keys]
    signing = f"Key {ids[0]} signs" + "".join(f", {other} is believed" for other in ids[1:])
    return ids, [lines[0], f"{signing}.", *lines[1:]]


def _made(path: Path, user: str) -> tuple[KeyRing, Sequence[str]]:
    """Write a new key file; never over an old one."""
    ring = KeyRing((new_key(os.urandom(32)),))
    try:
        owner = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
    except KeyError:
        owner = None
    try:
        write_secret(
            path, format_keys(ring), PRIVATE, (owner.pw_uid, owner.pw_gid) if owner else None
        )
    except FileExistsError:
        raise Refusal(
            Kind.USAGE,
            f"{path} exists, and is not overwritten",
            ("A new key for a running cluster begins with: cluster keygen --add",),
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None
    belongs = f"It belongs to {user}, as it must on every node"
    must = f"It must belong to {user or 'the user that the daemon becomes'}, on every node"
    return ring, (
        "FILE written: the key of a new cluster.",
        f"{belongs if owner else must}, and only its owner may read it (chmod 600).",
        "Copy it to the other nodes: scp -p FILE NODE:FILE",
        "Name it on each of them: [cluster] key_file = FILE",
    )


def _added(path: Path, ring: KeyRing) -> KeyRing:
    (old, *more) = ring.keys
    if more:
        raise Refusal(
            Kind.USAGE, f"{path} holds two keys already", ("Next: --use-new, or --drop-old.",)
        )
    return KeyRing((old, new_key(os.urandom(32))))


def _used(path: Path, ring: KeyRing) -> KeyRing:
    if len(ring.keys) < 2:
        raise Refusal(Kind.USAGE, f"{path} holds one key only", ("Begin with --add.",))
    return KeyRing(ring.keys[::-1])


def _dropped(path: Path, ring: KeyRing) -> KeyRing:
    if len(ring.keys) < 2:
        raise Refusal(Kind.USAGE, f"{path} holds one key only: it stays")
    return KeyRing(ring.keys[:1])


def _read(path: Path) -> KeyRing:
    try:
        path.open("rb").close()
    except OSError as error:
        kind = Kind.FORBIDDEN if isinstance(error, PermissionError) else Kind.ABSENT
        raise Refusal(kind, f"cannot read {path}: {error.strerror}") from None
    try:
        return read_keys(path)
    except LocalFault as fault:
        raise Refusal(Kind.CONFIG, str(fault)) from None


def _replace(path: Path, ring: KeyRing) -> None:
    """Put a new key file in the place of the old one."""
    # A link to the file must stay one.
    real = Path(os.path.realpath(path))
    beside = real.with_name(f"{real.name}.new")
    try:
        there = real.stat()
        owner = (there.st_uid, there.st_gid)
        same = owner == (os.geteuid(), os.getegid())
        beside.unlink(missing_ok=True)
        write_secret(
            beside, format_keys(ring), there.st_mode & _OWNER_ONLY, None if same else owner
        )
        beside.replace(real)
        _keep(real.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise _unwritable(path, error) from None


def _keep(directory: Path) -> None:
    """Have the disk know the new name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> Refusal:
    kind = Kind.FORBIDDEN if isinstance(error, PermissionError) else Kind.DISK
    if isinstance(error, FileNotFoundError):
        return Refusal(Kind.ABSENT, f"there is no directory {path.parent}")
    return Refusal(kind, f"cannot write {path}: {error.strerror}")


_STEPS: dict[str, Callable[[Path, KeyRing], KeyRing]] = {
    "add": _added,
    "use": _used,
    "drop": _dropped,
}
_NEXT = {
    "add": (
        "FILE holds a second key now.",
        "Copy it to every other node, and reload them all (mailsecure reload).",
        "Then, here: mailsecure cluster keygen --use-new FILE",
    ),
    "use": (
        "FILE: the new key comes first now, and signs from the next reload on.",
        "Copy it to every other node, and reload them all (mailsecure reload).",
        "Then, here: mailsecure cluster keygen --drop-old FILE",
    ),
    "drop": (
        "FILE holds one key now.",
        "Copy it to every other node, and reload them all (mailsecure reload):",
        "the old key is worth nothing then.",
    ),
}
