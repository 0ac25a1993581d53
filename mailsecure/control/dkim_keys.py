"""A key for DKIM or ARC made: its file, and its record for the DNS.

For the command ``dkim keygen``.  As with the cluster's key, the file is never written over
another, only its owner may read it, and it is given to the user that the daemon becomes.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ..scan.private_keys import key_record, new_key, written
from .secrets import PRIVATE, write_secret
from .wire import Kind, Refusal

__all__ = ["make_key", "zone_lines"]

#: The longest string of a TXT record (RFC 1035 §3.3), here with some to spare.
_STRING = 240


def make_key(path: Path, bits: int, user: str = "") -> str:
    """Write a new key to ``path``; return its TXT record.

    ``bits`` is the size of an RSA key, 0 for Ed25519; ``user`` is who the daemon becomes, ""
    if that is not known.  Raises Refusal, and there is no file.
    """
    key = new_key(bits)
    try:
        owner = pwd.getpwnam(user) if user and os.geteuid() == 0 else None
    except KeyError:
        owner = None
    try:
        write_secret(path, written(key), PRIVATE, (owner.pw_uid, owner.pw_gid) if owner else None)
    except FileExistsError:
        raise Refusal(
            Kind.USAGE,
            f"{path} exists, and is not overwritten",
            ("A new key belongs under a new selector: mail on its way needs the old one.",),
        ) from None
    except FileNotFoundError:
        raise Refusal(Kind.ABSENT, f"there is no directory {path.parent}") from None
    except OSError as error:
        kind = Kind.FORBIDDEN if isinstance(error, PermissionError) else Kind.DISK
        raise Refusal(kind, f"cannot write {path}: {error.strerror}") from None
    return key_record(key)


def zone_lines(name: str, record: str) -> list[str]:
    """Return ``record`` at ``name`` as a zone file has it, cut into strings."""
    strings = [record[at : at + _STRING] for at in range(0, len(record), _STRING)]
    if len(strings) == 1:
        return [f'{name}. IN TXT "{record}"']
    return [f"{name}. IN TXT (", *(f'    "{each}"' for each in strings), ")"]
