"""What a file really is, by its first octets (pure).

The types that decide something are recognised here, at no cost; what else there is, the
library puremagic may know (``guess``, which is given in, because it reads files).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

__all__ = [
    "ARCHIVES",
    "EXECUTABLES",
    "MAIL",
    "OLE",
    "OLE_START",
    "PDF",
    "PLAIN",
    "SCRIPT",
    "STREAMS",
    "TNEF",
    "ZIP",
    "hides_zip",
    "is_text",
    "real_type",
    "zip_type",
]

ZIP: Final = "application/zip"
OLE: Final = "application/x-ole-storage"
OLE_START: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PDF: Final = "application/pdf"
TNEF: Final = "application/ms-tnef"
MAIL: Final = "message/rfc822"
PLAIN: Final = "text/plain"
SCRIPT: Final = "text/x-script"
_OOXML: Final = "application/vnd.openxmlformats-officedocument"
_GZIP, _TAR = "application/gzip", "application/x-tar"
_PE, _ELF, _MACH = (
    "application/vnd.microsoft.portable-executable",
    "application/x-executable",
    "application/x-mach-binary",
)
_JAVA = "application/java-vm"

EXECUTABLES: Final = frozenset({_PE, _ELF, _MACH, _JAVA})

#: The types that are opened; libarchive reads them all.
ARCHIVES: Final = frozenset(
    {
        *(ZIP, _GZIP, _TAR),
        "application/x-7z-compressed",
        "application/vnd.rar",
        "application/x-bzip2",
        "application/x-xz",
        "application/zstd",
        "application/x-lzip",
        "application/vnd.ms-cab-compressed",
        "application/x-iso9660-image",
        "application/x-cpio",
        "application/x-archive",
        "application/x-xar",
        "application/x-lzh-compressed",
        "application/x-rpm",
        "application/x-compress",
    }
)

#: Those of them that may hold one file and no list of files.
STREAMS: Final = frozenset(
    {
        *(_GZIP, "application/x-bzip2", "application/x-xz", "application/zstd"),
        *("application/x-lzip", "application/x-compress"),
    }
)

#: What a file in a zip says about the zip: the beginning of its name, the type.
_IN_ZIP: Final = (
    ("word/", f"{_OOXML}.wordprocessingml.document"),
    ("xl/", f"{_OOXML}.spreadsheetml.sheet"),
    ("ppt/", f"{_OOXML}.presentationml.presentation"),
    ("META-INF/MANIFEST.MF", "application/java-archive"),
    ("AndroidManifest.xml", "application/vnd.android.package-archive"),
    ("mimetype", "application/vnd.oasis.opendocument"),
)

#: (offset, octets, type); the first that fits counts.
_MAGIC: Final = (
    (0, b"\x7fELF", _ELF),
    (0, b"\xfe\xed\xfa\xce", _MACH),
    (0, b"\xfe\xed\xfa\xcf", _MACH),
    (0, b"\xce\xfa\xed\xfe", _MACH),
    (0, b"\xcf\xfa\xed\xfe", _MACH),
    (0, b"#!", SCRIPT),
    (0, b"\xef\xbb\xbf#!", SCRIPT),
    (0, OLE_START, OLE),
    (0, b"PK\x03\x04", ZIP),
    (0, b"PK\x05\x06", ZIP),
    (0, b"PK\x07\x08PK", ZIP),
    (0, b"PK00PK", ZIP),
    (0, b"{\\rt", "application/rtf"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"\x1f\x8b\x08", _GZIP),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"\x1f\x9d", "application/x-compress"),
    (0, b"MSCF\x00\x00\x00\x00", "application/vnd.ms-cab-compressed"),
    (0, b"!<arch>\n", "application/x-archive"),
    (0, b"xar!\x00", "application/x-xar"),
    (0, b"\xed\xab\xee\xdb", "application/x-rpm"),
    (257, b"ustar\x00", _TAR),
    (257, b"ustar  \x00", _TAR),
    (0x8001, b"CD001", "application/x-iso9660-image"),
    (0x8801, b"CD001", "application/x-iso9660-image"),
    (0, b"\x78\x9f\x3e\x22", TNEF),
    (0, b"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"),
    (0, b"ITSF\x03\x00", "application/vnd.ms-htmlhelp"),
    (0, b"SZDD\x88\xf0\x27\x33", "application/x-ms-compress-szdd"),
    (0, b"\x60\xea", "application/x-arj"),
    (7, b"**ACE**", "application/x-ace-compressed"),
    (0, b"conectix", "application/x-virtualbox-vhd"),
    (0, b"vhdxfile", "application/x-virtualbox-vhdx"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "application/onenote"),
    (0, b"\x00asm", "application/wasm"),
    (0, b"dex\n", "application/vnd.android.dex"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
)

#: Those whose first octets people write, too: "BZhang wrote", "070707,Huber".  What follows
#: must fit as well.
_HEADS: Final = (
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), "application/x-bzip2"),
    (re.compile(rb"LZIP[\x00\x01]"), "application/x-lzip"),
    (re.compile(rb"07070[12][0-9A-Fa-f]{104}|070707[0-7]{70}"), "application/x-cpio"),
    (re.compile(rb"(?:\xc7\x71|\x71\xc7)[^\x00]{0,23}\x00", re.DOTALL), "application/x-cpio"),
    (re.compile(rb"..-(?:lh[0-9dx]|lz[45s]|pm[0-2s])-", re.DOTALL), "application/x-lzh-compressed"),
)

_LOOK: Final = 4096
#: Seals and signatures may stand in front of all that tells a mail.
_LOOK_FOR_MAIL: Final = 32 << 10
#: The longest end of a zip: a record of 22 octets and a comment (APPNOTE.TXT §4.3.16).
_ZIP_TAIL: Final = 22 + 0xFFFF
_TEXT_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_HTML = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|script|iframe|meta|title|table|div|style|a\s|p>|br|img\s)",
    re.IGNORECASE,
)
_MAIL = re.compile(
    rb"(?:From [^\r\n]*\r?\n)?(?:Received|Return-Path|Delivered-To|From|To|Cc|Subject|Date|Sender|"
    rb"Reply-To|Message-ID|In-Reply-To|References|MIME-Version|DKIM-Signature|Received-SPF|"
    rb"Authentication-Results|(?:X|ARC|Content|List|Resent|Thread)-[A-Za-z-]+)[ \t]*:",
    re.IGNORECASE,
)
_MAIL_SURE = re.compile(
    rb"^(?:Received|From|Message-ID|MIME-Version|Content-Type):", re.IGNORECASE | re.MULTILINE
)

Guess = Callable[[bytes], str]


def real_type(content: bytes, guess: Guess) -> str:
    """Return the media type of ``content``; ``application/octet-stream`` where none is known."""
    for offset, magic, kind in _MAGIC:
        if content.startswith(magic, offset):
            return kind
    for pattern, kind in _HEADS:
        if pattern.match(content):
            return kind
    if content.startswith(b"\xca\xfe\xba\xbe"):
        # A fat binary has few architectures; a Java class has a version of 45 or more there.
        return _MACH if int.from_bytes(content[4:8], "big") < 40 else _JAVA
    head = content[:_LOOK]
    if content.startswith((b"MZ", b"ZM")) and _TEXT_CONTROL.search(head):
        return _PE
    if head.find(b"%PDF-", 0, 1024) >= 0:
        return PDF
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return PLAIN
    if _TEXT_CONTROL.search(head) is None:
        return _text_type(content[:_LOOK_FOR_MAIL], head)
    return guess(content) or "application/octet-stream"


def _text_type(beginning: bytes, head: bytes) -> str:
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _MAIL.match(start) and len(_MAIL_SURE.findall(start)) > 1:
        return MAIL
    if start.startswith(b"<?xml"):
        return "image/svg+xml" if b"<svg" in head else "application/xml"
    if _HTML.search(head):
        return "image/svg+xml" if start.startswith(b"<svg") else "text/html"
    if start[:15].upper() == b"BEGIN:VCALENDAR":
        return "text/calendar"
    return PLAIN


def is_text(kind: str) -> bool:
    """Say whether people, or their programs, read a file of this type as text."""
    return kind.startswith(("text/", "message/")) or kind in ("application/xml", "image/svg+xml")


def zip_type(name: str) -> str:
    """Return what a zip is that has a file called ``name``; "" where that says nothing."""
    for start, kind in _IN_ZIP:
        if name.startswith(start):
            return kind
    return ""


def hides_zip(content: bytes) -> bool:
    """Say whether a zip stands at the end of something else, where programs find it, too."""
    return content.rfind(b"PK\x05\x06", max(0, len(content) - _ZIP_TAIL)) > 0
