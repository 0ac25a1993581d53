"""Files in OLE files: attachments of Outlook's messages, and packages in documents.

``x.msg`` is a message that Outlook has saved ([MS-OXMSG] §2.2.2), and its attachments are
streams of it.  A *package* ([MS-OLEDS] §2.3.6) is any file that was dragged into a document;
who double-clicks its icon there opens it.  Either carries a program past who looks only at
the outside.  :mod:`.opening` asks, in a worker's process.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, Final

from ..faults import Unscannable
from .documents import LIBRARY_ERRORS

__all__ = ["ole_files"]

_ATTACHMENT: Final = "__substg1.0_37010102"
#: The long name and the short one, in UTF-16 and in octets.
_NAMES: Final = tuple(
    (f"__substg1.0_{tag}{kind}", charset)
    for tag in ("3707", "3704")
    for kind, charset in (("001F", "utf-16-le"), ("001E", "latin-1"))
)
_NATIVE: Final = "\x01ole10native"
_PACKAGE: Final = "package"
#: The size of it all, and what stands between the names and the path where it was.
_SIZE, _KIND, _FLAGS = 4, 2, 4
_IS_PACKAGE: Final = 2


def ole_files(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name in UTF-8, content) of the files in an OLE file.

    One that has two names comes twice.  Raises Unscannable where they cannot be read.
    """
    import olefile  # noqa: PLC0415  (of use for few messages, and slow to import)

    try:
        with olefile.OleFileIO(io.BytesIO(content)) as ole:
            for path in ole.listdir():
                yield from _files(ole, path)
    except LIBRARY_ERRORS as fault:
        raise Unscannable(f"a broken document ({type(fault).__name__})") from None


def _files(ole: Any, path: list[str]) -> Iterator[tuple[bytes, bytes]]:
    kind = path[-1].lower()
    if kind == _ATTACHMENT:
        yield _name(ole, path[:-1]), ole.openstream(path).read()
    elif kind == _PACKAGE:
        yield b"", ole.openstream(path).read()
    elif kind == _NATIVE:
        yield from _package(ole.openstream(path).read())


def _name(ole: Any, storage: list[str]) -> bytes:
    for stream, charset in _NAMES:
        place = [*storage, stream]
        if ole.exists(place):
            name: str = ole.openstream(place).read().decode(charset, "replace")
            return name.rstrip("\0").encode("utf-8", "replace")
    return b""


def _package(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the file of a package, under its label and under its name; or what else it is."""
    try:
        if int.from_bytes(stream[_SIZE : _SIZE + _KIND], "little") != _IS_PACKAGE:
            raise ValueError("no package")
        label_end = stream.index(b"\0", _SIZE + _KIND)
        name_end = stream.index(b"\0", label_end + 1)
        at = name_end + 1 + _FLAGS
        (path_octets,) = struct.unpack_from("<I", stream, at)
        at += 4 + path_octets
        (octets,) = struct.unpack_from("<I", stream, at)
    except (ValueError, struct.error):
        yield b"", stream[_SIZE:]
        return
    content = stream[at + 4 : at + 4 + octets]
    label, name = stream[_SIZE + _KIND : label_end], stream[label_end + 1 : name_end]
    for each in dict.fromkeys((label, name)):
        yield each, content
