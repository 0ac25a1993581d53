"""The central directory of a zip, which says once more what is in it (pure; APPNOTE.TXT §4.3.12).

Each file has its name in front of it and in the directory at the end.  Where the two differ,
libarchive (:mod:`.archives`) believes the one and Windows the other.  And where two zips stand
one behind the other, one program opens the first and another the second.
"""

from __future__ import annotations

import io
import struct
import zipfile

__all__ = ["directory_of"]

_END = b"PK\x05\x06"
_FAULTS = (
    *(zipfile.BadZipFile, ArithmeticError, EOFError, LookupError, NotImplementedError),
    *(OSError, ValueError, struct.error),
)


def directory_of(content: bytes) -> tuple[tuple[str, ...], bytes]:
    """Return the names in the directory of a zip, and another zip that stands in front of it.

    b"": there is none.  Where no directory can be read there are no names.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = archive.infolist()
    except _FAULTS:
        return (), b""
    names = tuple(each.filename for each in files)
    front = content[: min((each.header_offset for each in files), default=0)]
    return names, front if _END in front else b""
