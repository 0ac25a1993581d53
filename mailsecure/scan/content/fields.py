"""Header sections: fields, their words and parameters, within limits (pure; RFC 5322, 2045).

The standard library's parser recurses, and holds a message several times; a message that is
made to hurt it does.  So sections are cut into fields by :mod:`..header_fields`, in one pass, and
the library only gets single values, of bounded length, to decode (RFC 2047, RFC 2231).

Real mail is not what the standards say.  Lines that are no field are passed over, as
everybody does; a field that is there twice is there twice, since nobody knows which one the
recipient's program goes by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import header, message
from email.errors import HeaderParseError
from typing import Final

from ..faults import Unscannable
from ..header_fields import cut
from .loose import is_loosely_multipart, loose_values, without_comments
from .text import decode, printable

__all__ = [
    "Fields",
    "MediaType",
    "count_mailboxes",
    "decode_words",
    "mailboxes",
    "media_type",
    "parameters",
    "read_fields",
]

MAX_SECTION: Final = 256 << 10
MAX_FIELDS: Final = 1000
#: Fields that are decoded or have parameters are not longer in mail that means well.
MAX_VALUE: Final = 8 << 10
MAX_COMMENTS: Final = 20
MAX_MAILBOXES: Final = 5000

_END = re.compile(rb"\r?\n\r?\n")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MIME_FIELD = re.compile(
    rb"^[ \t]*content-(?:type|disposition|transfer-encoding)[ \t]*:", re.IGNORECASE | re.MULTILINE
)
#: How far behind the first line they are looked for, in octets.
_LATE: Final = 2048
_MAILBOX = re.compile(rb"[^\s,;<>()\"@]+@[^\s,;<>()\"@]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ANGLE = re.compile(r"<([^<>]*)>")
_TYPE = re.compile(r"\s*([!#-'*+.0-9A-Z^-~-]+)\s*/\s*([!#-'*+.0-9A-Z^-~-]+)", re.IGNORECASE)


class Fields:
    """The fields of one section, in order."""

    def __init__(self, fields: list[tuple[str, bytes]]) -> None:
        """``fields`` are (name in lower case, value as it was, folded)."""
        self._fields = fields

    def __len__(self) -> int:
        return len(self._fields)

    def all(self, name: str) -> list[bytes]:
        """Return the values of all fields of ``name``, which is in lower case."""
        return [value for known, value in self._fields if known == name]

    def text(self, name: str, most: int = MAX_VALUE) -> str:
        """Return the first value, decoded, at most ``most`` characters of it; "" without."""
        for value in self.all(name):
            return printable(decode_words(unfold(value)), most)
        return ""

    def different(self, name: str) -> list[str]:
        """Return the first two different values, unfolded; raises Unscannable for a long one."""
        found: list[str] = []
        for value in self.all(name):
            if len(value) > MAX_VALUE:
                raise Unscannable(f"a {name} field of {len(value)} octets")
            text = unfold(value)
            if text not in found:
                found.append(text)
        return found[:2]


def read_fields(source: bytes, start: int, end: int) -> tuple[Fields, int]:
    """Read the header section of ``source[start:end]``; return it and where the body starts.

    Raises Unscannable for a section that is too long or has too many fields.
    """
    if source.startswith(b"From ", start, end):
        # The line that mbox puts in front.
        line = source.find(b"\n", start, end)
        start = end if line < 0 else line + 1
    if source.startswith((b"\n", b"\r\n"), start, end):
        return Fields([]), source.index(b"\n", start) + 1
    if _FIELD.match(source, start, end) is None and not _begins_late(source, start, end):
        # Text where a header section should be: the whole of it is body.
        return Fields([]), start
    found = _END.search(source, start, min(end, start + MAX_SECTION))
    if found is None and end - start > MAX_SECTION:
        raise Unscannable(f"a header section of more than {MAX_SECTION} octets")
    stop, body = (end, end) if found is None else found.span()
    return Fields(list(_fields(source[start:stop]))), body


def _begins_late(source: bytes, start: int, end: int) -> bool:
    """Say whether fields of MIME stand behind a line that is none: some pass it over."""
    head = source[start : min(end, start + _LATE)]
    stop = _END.search(head)
    return _MIME_FIELD.search(head, 0, len(head) if stop is None else stop.start()) is not None


def _fields(section: bytes) -> Iterator[tuple[str, bytes]]:
    count = 0
    for piece, name in cut(section.lstrip(b" \t"), loose=True):
        if name is None:
            continue
        count += 1
        if count > MAX_FIELDS:
            raise Unscannable(f"more than {MAX_FIELDS} header fields")
        yield name[1].decode("ascii").lower(), piece[name.end() :].removesuffix(b"\n")


def unfold(value: bytes) -> str:
    """Return a value on one line (RFC 5322 §2.2.3), as text."""
    return decode(value.replace(b"\r", b"").replace(b"\n", b""), "utf-8").strip()


def decode_words(value: str) -> str:
    """Return ``value`` with its encoded words (RFC 2047) decoded, as far as they can be."""
    if "=?" not in value:
        return value
    try:
        pieces = header.decode_header(value[:MAX_VALUE])
    except (HeaderParseError, ValueError, LookupError):
        return value
    return "".join(
        piece if isinstance(piece, str) else decode(piece, charset or "utf-8")
        for piece, charset in pieces
    )


def parameters(value: str) -> list[tuple[str, str]]:
    """Return the parameters of a Content-Type or Content-Disposition value (RFC 2231).

    Names in lower case; a name may be there several times.  Encoded words in values, which
    RFC 2047 §5 forbids and half of the world writes, are decoded.
    """
    holder = message.Message()
    # As a type: the library reads a value's first word as the name of a parameter.
    holder["content-type"] = value
    try:
        found = holder.get_params(failobj=[])
    except (ValueError, LookupError, TypeError):
        return []
    return [(name.lower(), decode_words(_plain(text))) for name, text in found[1:]]


def _plain(text: str | tuple[str | None, str | None, str]) -> str:
    if isinstance(text, str):
        return text
    charset, _, content = text
    return decode(content.encode("latin-1", "replace"), charset or "utf-8")


MediaType = tuple[str, list[tuple[str, str]]]


def media_type(value: str) -> MediaType:
    """Return type/subtype, lower case, "" where there is none, and the parameters.

    Behind them comes each boundary that only a loose reader finds.
    """
    match = _TYPE.match(without_comments(value))
    kind = f"{match[1]}/{match[2]}".lower() if match else ""
    if not match and is_loosely_multipart(value):
        kind = "multipart/mixed"
    boundaries = [("boundary", each) for each in loose_values(value, "boundary")]
    return printable(kind, 127), parameters(value) + boundaries


def count_mailboxes(values: list[bytes]) -> int:
    """Return how many mailboxes To or Cc fields name.

    Raises Unscannable for so many, or comments so deep (RFC 5322 §3.2.2), that programs
    which read them break.
    """
    count = 0
    for value in values:
        _comment_depth(value)
        count += sum(1 for _ in _MAILBOX.finditer(value))
        if max(count, value.count(b",")) > MAX_MAILBOXES:
            raise Unscannable(f"more than {MAX_MAILBOXES} addresses in one header section")
    return count


def mailboxes(values: list[bytes]) -> list[str]:
    """Return the mailboxes of From or Sender fields; at most ten.

    Raises Unscannable for comments nested too deep.
    """
    found: list[str] = []
    for value in values:
        _comment_depth(value)
        text = without_comments(_QUOTED.sub(" ", unfold(value[:MAX_VALUE])))
        for each in text.split(","):
            angle = _ANGLE.search(each)
            mailbox = (angle[1] if angle else each.rpartition(":")[2]).strip(" ;")
            if "@" in mailbox and len(found) < 10:
                found.append(printable(mailbox, 320))
    return found


def _comment_depth(value: bytes) -> None:
    depth = 0
    for octet in re.findall(rb"[()]", value):
        depth += 1 if octet == b"(" else -1
        if depth > MAX_COMMENTS:
            raise Unscannable(f"comments nested more than {MAX_COMMENTS} deep")
        depth = max(depth, 0)
