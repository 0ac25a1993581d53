"""Office documents of the old kind, made by hand: with macros, encrypted, broken.

:func:`ole` writes a compound file ([MS-CFB]) of small streams, :func:`vba_project` one with
Visual Basic in it ([MS-OVBA]), :func:`workbook` one with records of Excel's ([MS-XLS]).  They
hold what readers look for, and no more.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["ole", "record", "vba_project", "workbook"]

_SECTOR: Final = 512
_MINI: Final = 64
_FREE, _END, _FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
_STORAGE, _STREAM, _ROOT = 1, 2, 5


def ole(streams: Mapping[str, bytes]) -> bytes:
    """Return a compound file; names are paths with ``/``, no stream has 4096 octets or more."""
    assert all(len(content) < 4096 for content in streams.values())
    entries, mini, mini_fat = _entries(streams)
    directory = b"".join(entries)
    directory += bytes(-len(directory) % _SECTOR)
    mini += bytes(-len(mini) % _SECTOR)
    table = struct.pack(f"<{len(mini_fat)}I", *mini_fat)
    table += b"\xff" * (-len(table) % _SECTOR)
    # The sectors: that of the FAT, the directory, the table of the small ones, these.
    chains = [len(part) // _SECTOR for part in (directory, table, mini)]
    fat, at = [_FAT], 1
    for count in chains:
        fat += [*range(at + 1, at + count), _END] if count else []
        at += count
    assert len(fat) <= _SECTOR // 4
    fat += [_FREE] * (_SECTOR // 4 - len(fat))
    root = bytearray(directory)
    first = 1 + chains[0] + chains[1]
    struct.pack_into("<II", root, 116, first if mini else _END, len(mini))
    header = struct.pack(
        "<8s16sHHHHH6xIIIIIIIIII",
        *(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", bytes(16), 0x3E, 3, 0xFFFE, 9, 6),
        *(0, 1, 1, 0, 4096, 1 + chains[0], chains[1], _END, 0, 0),
    )
    header += b"\xff" * (_SECTOR - len(header))
    return header + struct.pack(f"<{_SECTOR // 4}I", *fat) + bytes(root) + table + mini


def _entries(streams: Mapping[str, bytes]) -> tuple[list[bytes], bytes, list[int]]:
    """Return directory entries, the small sectors, and their table."""
    names: dict[str, int] = {"": 0}
    for path in streams:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            names.setdefault("/".join(parts[:end]), len(names))
    mini, table, entries = b"", list[int](), list[bytes]()
    for path in names:
        inner = [
            each for each in names if each and each.rpartition("/")[0] == path and each != path
        ]
        siblings = [
            each for each in names if each and each.rpartition("/")[0] == path.rpartition("/")[0]
        ]
        after = siblings[siblings.index(path) + 1 :] if path else []
        content = streams.get(path)
        start, kind = _END, _ROOT if not path else _STORAGE
        if content is not None:
            count = -(-len(content) // _MINI)
            start, kind = len(table), _STREAM
            table += [*range(start + 1, start + count), _END] if count else []
            mini += content + bytes(-len(content) % _MINI)
        name = (path.rpartition("/")[2] or "Root Entry").encode("utf-16-le") + b"\0\0"
        entries.append(
            struct.pack(
                "<64sHBBIII16xI16xIII",
                *(name, len(name), kind, 1, _FREE),
                names[after[0]] if after else _FREE,
                names[inner[0]] if inner else _FREE,
                *(0, start, len(content or b""), 0),
            )
        )
    return entries, mini, table


def _compressed(content: bytes) -> bytes:
    """Compress as [MS-OVBA] §2.4.1 has it, without saving anything."""
    out = b"\x01"
    for at in range(0, len(content), 3000):
        piece = content[at : at + 3000]
        tokens = b"".join(b"\0" + piece[n : n + 8] for n in range(0, len(piece), 8))
        out += struct.pack("<H", (len(tokens) + 2 - 3) | 0xB000) + tokens
    return out


def _field(number: int, value: bytes) -> bytes:
    return struct.pack("<HI", number, len(value)) + value


def vba_project(
    code: str, root: str = "Macros/", others: Mapping[str, bytes] | None = None
) -> bytes:
    """Return a document with one module; ``others`` are streams beside the project's."""
    long, empty, wide = bytes(4), b"", "M".encode("utf-16-le")
    directory = b"".join(
        (
            *(
                _field(0x01, b"\1\0\0\0"),
                _field(0x02, b"\x09\x04\0\0"),
                _field(0x14, b"\x09\x04\0\0"),
            ),
            *(
                _field(0x03, b"\xe4\x04"),
                _field(0x04, b"P"),
                _field(0x05, empty),
                _field(0x40, empty),
            ),
            *(_field(0x06, empty), _field(0x3D, empty), _field(0x07, long), _field(0x08, long)),
            struct.pack("<HIIH", 0x09, 4, 1, 1),
            *(
                _field(0x0C, empty),
                _field(0x3C, empty),
                _field(0x0F, b"\1\0"),
                _field(0x13, b"\0\0"),
            ),
            *(_field(0x19, b"M"), _field(0x47, wide), _field(0x1A, b"M"), _field(0x32, wide)),
            *(_field(0x1C, empty), _field(0x48, empty), _field(0x31, long), _field(0x1E, long)),
            *(_field(0x2C, b"\0\0"), _field(0x21, empty), _field(0x2B, empty), _field(0x10, empty)),
        )
    )
    return ole(
        {
            f"{root}VBA/dir": _compressed(directory),
            f"{root}VBA/_VBA_PROJECT": b"\xcc\x61\xff\xff\0\0\0",
            f"{root}VBA/M": _compressed(code.encode("latin-1")),
            f"{root}PROJECT": b"Module=M\r\n",
            **(others or {}),
        }
    )


def record(kind: int, content: bytes) -> bytes:
    """Return a record of Excel's."""
    return struct.pack("<HH", kind, len(content)) + content


def workbook(records: Sequence[bytes]) -> bytes:
    """Return a document of Excel's that has these records."""
    return ole({"Workbook": b"".join(records)})
