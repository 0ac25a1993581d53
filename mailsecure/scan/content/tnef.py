"""Attachments in winmail.dat, as Outlook sends it (pure; [MS-OXTNEF] §2.1.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["tnef_files"]

_ATTRIBUTE = struct.Struct("<BII")
#: The beginning of an attachment, its name, and its content.
_BEGIN: Final = 0x00069002
_TITLE: Final = 0x00018010
_DATA: Final = 0x0006800F
_SIGNATURE_AND_KEY: Final = 6
_CHECKSUM: Final = 2
MAX_ATTRIBUTES: Final = 5000


def tnef_files(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, content) of what is attached, as far as the file is whole."""
    title = data = b""
    for attribute, value in _attributes(content):
        if attribute == _BEGIN:
            if data:
                yield title, data
            title = data = b""
        elif attribute == _TITLE:
            title = value.rstrip(b"\0")
        elif attribute == _DATA:
            data = value
    if data:
        yield title, data


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = _SIGNATURE_AND_KEY
    for _ in range(MAX_ATTRIBUTES):
        if position + _ATTRIBUTE.size > len(content):
            break
        _, attribute, length = _ATTRIBUTE.unpack_from(content, position)
        position += _ATTRIBUTE.size
        yield attribute, content[position : position + length]
        position += length + _CHECKSUM
