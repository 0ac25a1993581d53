"""Changes of a header section (pure): fields put in front, fields taken out.

A header section is octets with CRLF lines (RFC 5322 §2.2); what is no field in it stays as
it is.  The gateway edits what it delivers with :func:`without` and :func:`fields`; what
checks and engines ask for are the :data:`~.values.Edit` values.  A field that could not be
a field (CR or LF in the wrong place, a name that is none) raises
:class:`~mailsecure.errors.RemoteFault`: it may come from an engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ..errors import RemoteFault
from .values import AddField, RemoveField

__all__ = ["fields", "first_values", "prefixed_subject", "split", "without"]

_NAME = re.compile(r"[!-9;-~]{1,70}")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_BROKEN = re.compile(r"\r(?!\n)|(?<!\r)\n|\r\n(?![ \t])|\0")
_WSP = re.compile(r"\s+")
#: The longest line of a field that we write (RFC 5322 §2.1.1).
_LONGEST = 998


def split(header: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield each field as its octets, folded lines included, and its name in lower case.

    The name of what is no field is "".
    """
    at, end = 0, len(header)
    while at < end:
        stop = header.find(b"\r\n", at)
        while 0 <= stop < end - 2 and header[stop + 2] in b" \t":
            stop = header.find(b"\r\n", stop + 2)
        stop = end if stop < 0 else stop + 2
        raw = header[at:stop]
        match = _FIELD.match(raw)
        yield raw, match[1].decode("ascii").lower() if match else ""
        at = stop


def first_values(header: bytes, names: Sequence[str]) -> list[str]:
    """Return the value of the first field of each name (lower case), unfolded; "" for none."""
    found = dict.fromkeys(names, "")
    left = set(names)
    for raw, name in split(header):
        if name in left:
            found[name] = _unfolded(raw)
            left.discard(name)
            if not left:
                break
    return list(found.values())


def _unfolded(raw: bytes) -> str:
    text = raw.partition(b":")[2].decode("utf-8", "replace")
    return _WSP.sub(" ", text).strip()


def without(header: bytes, edits: Iterable[RemoveField]) -> bytes:
    """Return ``header`` without the fields that ``edits`` take out."""
    wanted: dict[str, list[RemoveField]] = {}
    for edit in edits:
        wanted.setdefault(edit.name.lower(), []).append(edit)
    low = header.lower()
    if not any(name.encode() in low for name in wanted):
        return header
    kept = []
    seen: dict[str, int] = {}
    for raw, name in split(header):
        if name in wanted:
            seen[name] = count = seen.get(name, 0) + 1
            if any(_meant(edit, raw, count) for edit in wanted[name]):
                continue
        kept.append(raw)
    return b"".join(kept)


def _meant(edit: RemoveField, raw: bytes, count: int) -> bool:
    if edit.occurrence not in (0, count):
        return False
    return edit.value_matches is None or edit.value_matches(_unfolded(raw))


def fields(added: Sequence[AddField]) -> bytes:
    """Return the octets of ``added``, the first on top."""
    return b"".join(_field(each) for each in added)


def _field(added: AddField) -> bytes:
    if not _NAME.fullmatch(added.name):
        raise RemoteFault(f"{added.name[:80]!r} is no name of a field")
    value = added.value.rstrip()
    if _BROKEN.search(value):
        raise RemoteFault(f"the value of {added.name} holds a line break that is none")
    octets = f"{added.name}: {value}\r\n".encode("utf-8", "replace")
    if any(len(line) > _LONGEST for line in octets.split(b"\r\n")):
        raise RemoteFault(f"a line of {added.name} is too long")
    return octets


def prefixed_subject(header: bytes, prefix: str) -> bytes:
    """Return ``header`` with ``prefix`` in front of its subject, unless it is there."""
    mark = prefix.encode()
    kept = []
    found = False
    for raw, name in split(header):
        if found or name != "subject":
            kept.append(raw)
            continue
        found = True
        head, _, rest = raw.partition(b":")
        subject = rest.lstrip(b" \t")
        kept.append(raw if subject.startswith(mark) else head + b": " + mark + b" " + subject)
    if not found:
        kept.append(b"Subject: " + mark + b"\r\n")
    return b"".join(kept)
