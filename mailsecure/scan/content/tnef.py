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
#: Properties of an attachment, and where its long name stands in them (PidTagAttachLongFilename,
#: [MS-OXCFXICS] §2.11.1): in UTF-16, or in octets.
_PROPERTIES: Final = 0x00069005
_LONG_NAMES: Final = ((b"\x1f\0\x07\x37", "utf-16-le"), (b"\x1e\0\x07\x37", "latin-1"))
_COUNT_AND_LENGTH = struct.Struct("<II")
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
        elif attribute == _PROPERTIES:
            title = _long_name(value) or title
    if data:
        yield title, data


def _long_name(properties: bytes) -> bytes:
    """Return the name that Outlook shows, in UTF-8; b"" where there is none."""
    for tag, charset in _LONG_NAMES:
        at = properties.find(tag) + len(tag)
        if at < len(tag) or at + _COUNT_AND_LENGTH.size > len(properties):
            continue
        _, length = _COUNT_AND_LENGTH.unpack_from(properties, at)
        at += _COUNT_AND_LENGTH.size
        name = properties[at : at + length].decode(charset, "replace")
        return name.rstrip("\0").encode("utf-8", "replace")
    return b""


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = _SIGNATURE_AND_KEY
    for _ in range(MAX_ATTRIBUTES):
        if position + _ATTRIBUTE.size > len(content):
            break
        _, attribute, length = _ATTRIBUTE.unpack_from(content, position)
        position += _ATTRIBUTE.size
        yield attribute, content[position : position + length]
        position += length + _CHECKSUM
