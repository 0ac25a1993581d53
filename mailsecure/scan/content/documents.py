"""Office documents of the old kind (OLE, [MS-CFB]) and what is hidden in documents.

Whether they are encrypted, and whether they hold macros: Visual Basic, read by oletools, or
the macro sheets of Excel 4, which are records of the workbook ([MS-XLS] §2.4.28).  A document
of the new kind is an archive; its macros are an OLE file inside.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..anatomy import Trait
from ..faults import Unscannable
from .pdf_password import is_closed

__all__ = ["Found", "load", "look_into_ole", "look_into_pdf", "look_into_text"]

#: What a library may raise over a file that is not what it seems.
LIBRARY_ERRORS: Final = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(TypeError, ValueError, struct.error),
)
#: Macros are looked at so far, in characters; what does not fit counts as suspicious.
MAX_CODE: Final = 4 << 20
MAX_WORDS: Final = 20

_MACRO_STORAGES: Final = frozenset({"VBA", "MACROS", "_VBA_PROJECT_CUR", "_VBA_PROJECT"})
_WORKBOOKS: Final = ("Workbook", "Book")
_BOUNDSHEET, _FILEPASS, _LABEL = 0x0085, 0x002F, 0x0018
_MACRO_SHEET, _AUTO_OPEN = 1, 1
_MSI: Final = "000C1084-0000-0000-C000-000000000046"
#: The macros of a document that is saved as a web page or as XML: compressed, a file of their
#: own, or in base64 in the text.
_ACTIVE_MIME: Final = b"ActiveMime\0\0"
_ACTIVE_MIME_IN_TEXT: Final = b"QWN0aXZlTWltZ"


@dataclass(frozen=True, slots=True)
class Found:
    """What a document is and holds; ``words`` are those that are suspicious in macros."""

    kind: str
    traits: frozenset[Trait] = frozenset()
    words: tuple[str, ...] = ()


def load() -> None:
    """Import the libraries, before they are needed."""
    import olefile  # noqa: F401, PLC0415
    from oletools import olevba  # noqa: F401, PLC0415

    for name in ("olevba", "oletools", "msodde", "mraptor"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def look_into_pdf(content: bytes) -> frozenset[Trait]:
    """Return ENCRYPTED for a PDF that wants a password of its reader."""
    return frozenset({Trait.ENCRYPTED} if is_closed(content) else ())


def look_into_text(content: bytes) -> frozenset[Trait]:
    """Return MACROS for a text that is an Office document with macros, or their own file."""
    found = content.startswith(_ACTIVE_MIME) or _ACTIVE_MIME_IN_TEXT in content
    return frozenset({Trait.MACROS} if found else ())


def look_into_ole(content: bytes) -> Found:
    """Return what an OLE file is; raises Unscannable where it cannot be read."""
    import olefile  # noqa: PLC0415  (of use for few messages, and slow to import)

    try:
        with olefile.OleFileIO(io.BytesIO(content)) as ole:
            return _look(ole, content)
    except LIBRARY_ERRORS as fault:
        raise Unscannable(f"a broken document ({type(fault).__name__})") from None


def _look(ole: Any, content: bytes) -> Found:
    streams = ole.listdir(streams=True, storages=True)
    names = {"/".join(path) for path in streams}
    traits = set(_encryption(ole, names))
    kind = _kind(ole, names)
    words: tuple[str, ...] = ()
    if any(part.upper() in _MACRO_STORAGES for path in streams for part in path):
        traits.add(Trait.MACROS)
        words = _suspicious_words(content)
    for name in filter(ole.exists, _WORKBOOKS):
        records = list(_workbook(ole.openstream(name).read()))
        if _FILEPASS in records:
            traits.add(Trait.ENCRYPTED)
        if _BOUNDSHEET in records:
            traits.add(Trait.MACROS)
            words += ("Auto_Open", "Excel 4 macro sheet") if _LABEL in records else ()
    if words:
        traits.add(Trait.SUSPICIOUS)
    return Found(kind, frozenset(traits), words[:MAX_WORDS])


def _kind(ole: Any, names: set[str]) -> str:
    for name, kind in (
        ("WordDocument", "application/msword"),
        ("Workbook", "application/vnd.ms-excel"),
        ("Book", "application/vnd.ms-excel"),
        ("PowerPoint Document", "application/vnd.ms-powerpoint"),
        ("__properties_version1.0", "application/vnd.ms-outlook"),
        ("EncryptedPackage", "application/vnd.openxmlformats-officedocument"),
    ):
        if name in names:
            return kind
    return "application/x-msi" if ole.root.clsid == _MSI else "application/x-ole-storage"


def _encryption(ole: Any, names: set[str]) -> Iterator[Trait]:
    """Yield ENCRYPTED for a document that is: [MS-OFFCRYPTO], [MS-DOC] §2.5.2, [MS-PPT] §2.3.2."""
    if "EncryptionInfo" in names or "EncryptedPackage" in names:
        yield Trait.ENCRYPTED
    if "WordDocument" in names:
        start = ole.openstream("WordDocument").read(12)
        if len(start) == 12 and start[11] & 0x01:
            yield Trait.ENCRYPTED
    if "Current User" in names and "PowerPoint Document" in names:
        start = ole.openstream("Current User").read(16)
        if start[12:16] == b"\xdf\xc4\xd1\xf3":
            yield Trait.ENCRYPTED


def _workbook(stream: bytes) -> Iterator[int]:
    """Yield the types of the records that decide something ([MS-XLS] §2.1.4)."""
    position = 0
    while position + 4 <= len(stream):
        kind, length = struct.unpack_from("<HH", stream, position)
        start = position + 4
        position = start + length
        sheet = kind == _BOUNDSHEET and length > 6
        if kind == _FILEPASS or (sheet and stream[start + 5] == _MACRO_SHEET):
            yield kind
        elif kind == _LABEL and length > 15 and stream[start] & 0x20:
            # A built-in name: its only character is its number, after an octet of options.
            name = stream[start + 14 : start + 16]
            if _AUTO_OPEN in name[: 1 + (name[:1] == b"\0")]:
                yield kind


def _suspicious_words(content: bytes) -> tuple[str, ...]:
    """Return what runs by itself and what reaches for the system, if there is both."""
    from oletools import olevba  # noqa: PLC0415  (as above)

    code: list[str] = []
    try:
        parser = olevba.VBA_Parser("document", data=content, relaxed=True)
        for _, _, _, text in parser.extract_macros():
            code.append(text if isinstance(text, str) else text.decode("latin-1"))
            if sum(map(len, code)) > MAX_CODE:
                return ("more than can be read",)
    except (olevba.OlevbaBaseException, *LIBRARY_ERRORS):
        return ("macros that cannot be read",)
    text = olevba.vba_collapse_long_lines("\n".join(code))
    starts = [word for word, _ in olevba.detect_autoexec(text)]
    reaches = [word for word, _ in olevba.detect_suspicious(text)]
    return tuple(dict.fromkeys([*starts, *reaches])) if starts and reaches else ()
