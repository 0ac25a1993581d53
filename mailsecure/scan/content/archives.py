"""Files in archives, through libarchive; in a worker's process only.

libarchive is C and reads what strangers made: that is what the worker's limits are for.
Nothing is written anywhere; a file is held in memory, at most :data:`KEPT` octets of it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ...errors import LocalFault
from ..faults import Unscannable
from .limits import Budget

__all__ = ["BrokenArchive", "Member", "load", "members"]

#: How much of one file is held and looked into.
KEPT: Final = 32 << 20
_ENCRYPTED = re.compile(r"encrypt|passphrase|password", re.IGNORECASE)
#: What libarchive says where one packed file is expected, and it is empty.
_NOTHING: Final = "Unrecognized archive format"
_BLOCK = 65536
#: Those of libarchive's that run no other programs.
_FILTERS: Final = ("bzip2", "compress", "gzip", "lzip", "rpm", "xz", "zstd")

_ffi: Any = None


class BrokenArchive(Unscannable):
    """It is no archive, or one that breaks off, or is packed in an unknown way."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file: ``name`` with its folders; ``content`` is all of it, or the first KEPT octets.

    ``encrypted``: it cannot be read, and ``content`` is empty.
    """

    name: str
    content: bytes
    octets: int
    sha256: str
    encrypted: bool = False


def load() -> None:
    """Load the library; raises LocalFault where it is not installed."""
    global _ffi  # noqa: PLW0603  (loading takes long, and not every message has an archive)
    if _ffi is not None:
        return
    try:
        from libarchive import ffi  # noqa: PLC0415
    except (ImportError, OSError, AttributeError, TypeError) as fault:
        raise LocalFault(f"archives cannot be opened, libarchive is missing: {fault}") from fault
    logging.getLogger("libarchive").setLevel(logging.CRITICAL)
    for name in (
        *("archive_entry_is_encrypted", "archive_read_has_encrypted_entries", "archive_format"),
        *(f"archive_read_support_filter_{each}" for each in _FILTERS),
    ):
        function = getattr(ffi.libarchive, name)
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_int
    _ffi = ffi


def members(content: bytes, budget: Budget, stream: bool) -> Iterator[Member]:
    """Yield the files of an archive.

    ``stream``: it may be one file that was packed without an archive, such as ``a.txt.gz``.
    Raises Unscannable above a limit, BrokenArchive for one that cannot be read to its end.
    An archive whose list of files is encrypted is one encrypted file without a name.
    """
    load()
    found = False
    for member in _opened(content, budget, raw=stream):
        found = True
        yield member
    if stream and not found:
        # Zeros count as the end of an archive with nothing in it; or nothing was packed.
        yield from _opened(content, budget, raw=True, only_raw=True)


def _opened(content: bytes, budget: Budget, raw: bool, only_raw: bool = False) -> Iterator[Member]:
    archive = _ffi.read_new()
    try:
        for name in _FILTERS:
            # What is not compiled in would be run as a program, or says that it is missing.
            getattr(_ffi.libarchive, f"archive_read_support_filter_{name}")(archive)
        if not only_raw:
            _ffi.read_support_format_all(archive)
        if raw:
            # It is the last to be asked: what is packed, and nothing else.
            _ffi.read_support_format_raw(archive)
        yield from _files(archive, content, budget)
    except _ffi.ArchiveError as fault:
        reason = fault.msg or "it breaks off"
        if only_raw and reason == _NOTHING:
            return
        if _ENCRYPTED.search(reason) is None and not _has_encrypted(archive):
            raise BrokenArchive(f"a broken archive ({reason[:100]})") from None
        yield Member("", b"", 0, "", encrypted=True)
    finally:
        _ffi.read_free(archive)


def _has_encrypted(archive: Any) -> bool:
    # libarchive asks its format without looking whether it has found any, and dies.
    if not _ffi.libarchive.archive_format(archive):
        return False
    return bool(_ffi.libarchive.archive_read_has_encrypted_entries(archive) == 1)


def _files(archive: Any, content: bytes, budget: Budget) -> Iterator[Member]:
    _ffi.read_open_memory(archive, content, len(content))
    entry = _ffi.entry_new()
    try:
        unpacked = 0
        while _ffi.read_next_header2(archive, entry) != _ffi.ARCHIVE_EOF:
            budget.file()
            name = _name(entry)
            if name.endswith("/"):
                continue
            if _ffi.libarchive.archive_entry_is_encrypted(entry):
                yield Member(name, b"", 0, "", encrypted=True)
                continue
            member = _read(archive, name, unpacked, len(content), budget)
            unpacked += member.octets
            yield member
    finally:
        _ffi.entry_free(entry)


def _read(archive: Any, name: str, unpacked: int, packed: int, budget: Budget) -> Member:
    buffer = ctypes.create_string_buffer(_BLOCK)
    digest = hashlib.sha256()
    kept: list[bytes] = []
    octets = 0
    # A warning is a negative number, and there is no more to be had.
    while (count := _ffi.read_data(archive, buffer, _BLOCK)) > 0:
        block = buffer.raw[:count] if count < _BLOCK else buffer.raw
        octets += count
        budget.unpacked(count, unpacked + octets, packed)
        digest.update(block)
        if octets <= KEPT:
            kept.append(block)
    return Member(name, b"".join(kept), octets, digest.hexdigest())


def _name(entry: Any) -> str:
    wide = _ffi.entry_pathname_w(entry)
    if wide:
        return str(wide)
    raw = _ffi.entry_pathname(entry)
    return raw.decode("utf-8", "replace") if raw else ""
