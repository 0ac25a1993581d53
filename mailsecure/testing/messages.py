"""Messages for tests: ordinary ones, test files, and bombs.

:func:`message` builds one with attachments; :data:`BOMBS` are what hurts parsers, by name,
each made when it is asked for.  The test strings are put together here, so that no scanner
stops at this file.
"""

from __future__ import annotations

import base64
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

__all__ = ["BOMBS", "EICAR", "GTUBE", "message", "multipart", "zipped"]

EICAR: Final = b"$".join(
    (rb"X5O!P%@AP[4\PZX54(P^)7CC)7}", b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!", b"H+H*")
)
GTUBE: Final = "*".join(
    ("XJS", "C4JDBQADN1.NSBN3", "2IDNEN", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL", "C.34X")
)

_HEAD: Final = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.com\r\nSubject: a test\r\n"
    b"Message-ID: <1@example.org>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMIME-Version: 1.0\r\n"
)


def message(
    text: str = "Hello.\r\n",
    attached: Sequence[tuple[str, bytes]] = (),
    kind: str = "application/octet-stream",
    fields: bytes = b"",
) -> bytes:
    """Return a message with ``text`` and files, as (name, content), each declared as ``kind``."""
    head = _HEAD + fields
    body = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + text.encode()
    if not attached:
        return head + body
    parts = [
        f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n"
        f'Content-Disposition: attachment; filename="{name}"\r\n\r\n'.encode()
        + base64.encodebytes(content).replace(b"\n", b"\r\n")
        for name, content in attached
    ]
    return head + multipart([body, *parts])


def multipart(parts: Sequence[bytes], boundary: str = "=_b", kind: str = "mixed") -> bytes:
    """Return an entity of ``parts``, each an entity."""
    delimiter = f"\r\n--{boundary}\r\n".encode()
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n'.encode()
    inner = b"".join(delimiter + part for part in parts)
    return head + inner + f"\r\n--{boundary}--\r\n".encode()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of ``files``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _headers() -> bytes:
    return _HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(200_000)) + b"\r\nHello.\r\n"


def _folded() -> bytes:
    return _HEAD + b"X-Long: a\r\n" + b" aaaaaaaaaaaaaa\r\n" * 620_000 + b"\r\nHello.\r\n"


def _nested(depth: int = 1000) -> bytes:
    opened = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n)
        for n in range(depth)
    )
    return _HEAD + opened + b"Content-Type: text/plain\r\n\r\nHello.\r\n"


def _messages(depth: int = 1000) -> bytes:
    return _HEAD + b"Content-Type: message/rfc822\r\n\r\n" * depth + b"\r\nHello.\r\n"


def _parts() -> bytes:
    return _HEAD + multipart([b"\r\nx"] * 100_000)


def _recipients() -> bytes:
    return b"To: " + b"a@b.example,\r\n " * 20_000 + b"\r\n" + _HEAD + b"\r\nHello.\r\n"


def _commas() -> bytes:
    return b"To: " + b"," * 20_000 + b"\r\n" + _HEAD + b"\r\nHello.\r\n"


def _comments() -> bytes:
    return b"To: " + b"(" * 100_000 + b"\r\n" + _HEAD + b"\r\nHello.\r\n"


def _sender() -> bytes:
    return b"From: " + b"(" * 5_000 + b"\r\n\r\nHello.\r\n"


def _words() -> bytes:
    word = b"=?utf-8?q?"
    return b"Subject: " + word * 20_000 + b"\r\n" + _HEAD + b"\r\nHello.\r\n"


def _parameters() -> bytes:
    value = b"".join(b'; name*%d*="a"' % n for n in range(20_000))
    return _HEAD + b"Content-Type: text/plain" + value + b"\r\n\r\nHello.\r\n"


def _dashes() -> bytes:
    return _HEAD + b'Content-Type: multipart/mixed; boundary="-"\r\n\r\n' + b"---x\r\n" * 2_000_000


def _brackets() -> bytes:
    return _HEAD + b"Content-Type: text/html\r\n\r\n" + b"<a href=" * 1_000_000


def _ratio() -> bytes:
    return message(attached=[("zeros.zip", zipped({"zeros": bytes(300 << 20)}))])


def _fifty_gigabytes(files: int = 12_000) -> bytes:
    """Return a message with a zip of a few KB: in two zips one whose files are 50 GB."""
    size = 4 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(size)) + packer.flush()
    check = zlib.crc32(bytes(size))
    fields = b"\x14\0\0\0\x08\0\0\0\0\0" + struct.pack("<IIIHH", check, len(data), size, 6, 0)
    locals_ = [b"PK\x03\x04" + fields + b"%06d" % n + data for n in range(files)]
    step = len(locals_[0])
    central = b"".join(
        b"PK\x01\x02\x14\0" + fields + bytes(10) + struct.pack("<I", n * step) + b"%06d" % n
        for n in range(files)
    )
    place = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, files, files, len(central), files * step, 0
    )
    inner = b"".join(locals_) + central + place
    return message(attached=[("a.zip", zipped({"b.zip": zipped({"c.zip": inner})}))])


def _matryoshka(depth: int = 200) -> bytes:
    inner = b"Hello.\r\n"
    for _ in range(depth):
        inner = zipped({"a.zip": inner})
    return message(attached=[("a.zip", inner)])


def _many_files() -> bytes:
    return message(attached=[("many.zip", zipped({f"{n}.txt": b"" for n in range(20_000)}))])


def _gzip_of_gzip() -> bytes:
    inner = bytes(1 << 30)
    for _ in range(2):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        inner = packer.compress(inner) + packer.flush()
    return message(attached=[("zeros.gz.gz", inner)])


#: Each is unscannable, or read as it is, soon, and in little memory.
BOMBS: Final[Mapping[str, Callable[[], bytes]]] = {
    "200,000 headers": _headers,
    "a folded header of 10 MB": _folded,
    "MIME nested 1,000 deep": _nested,
    "messages nested 1,000 deep": _messages,
    "100,000 parts": _parts,
    "20,000 recipients in To": _recipients,
    "20,000 commas in To": _commas,
    "comments without end in To": _comments,
    "comments without end in From": _sender,
    "encoded words without end": _words,
    "20,000 parameters": _parameters,
    "lines that are almost delimiters": _dashes,
    "links without end": _brackets,
    "a zip of zeros": _ratio,
    "a zip in a zip that opens to 50 GB": _fifty_gigabytes,
    "zips nested 200 deep": _matryoshka,
    "a zip of 20,000 files": _many_files,
    "a gzip of a gzip of 1 GB": _gzip_of_gzip,
}
