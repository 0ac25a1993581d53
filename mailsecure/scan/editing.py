"""Changes of a header section (pure): fields put in front, fields taken out.

A header section is octets with CRLF lines (RFC 5322 §2.2); what is no field in it stays as
it is.  The gateway edits what it delivers with :func:`without` and :func:`fields`; what
checks and engines ask for are the :data:`~.values.Edit` values.  A field that could not be
a field (CR or LF in the wrong place, a name that is none) raises
:class:`~mailsecure.errors.RemoteFault`: it may come from an engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import RemoteFault
from .header_fields import named
from .values import AddField, RemoveField

__all__ = ["fields", "first_values", "prefixed_subject", "without"]

_NAME = re.compile(r"[!-9;-~]{1,70}")
_BROKEN = re.compile(r"\r(?!\n)|(?<!\r)\n|\r\n(?![ \t])|\0")
_WSP = re.compile(r"\s+")
#: The longest line of a field that we write (RFC 5322 §2.1.1).
_LONGEST = 998


def first_values(header: bytes, names: tuple[str, ...]) -> list[str]:
    """Return the value of the first field of each name (lower case), unfolded; "" for none."""
    found = dict.fromkeys(names, "")
    left = set(names)
    for start, end, name in named(header, names):
        if name in left:
            found[name] = _unfolded(header[start:end])
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
    kept = []
    at = 0
    seen: dict[str, int] = {}
    for start, end, name in named(header, tuple(wanted)):
        seen[name] = count = seen.get(name, 0) + 1
        if any(_meant(edit, header[start:end], count) for edit in wanted[name]):
            kept.append(header[at:start])
            at = end
    return b"".join([*kept, header[at:]]) if kept else header


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
    for start, end, _ in named(header, ("subject",)):
        head, _, rest = header[start:end].partition(b":")
        subject = rest.lstrip(b" \t")
        if subject.startswith(mark):
            return header
        return header[:start] + head + b": " + mark + b" " + subject + header[end:]
    return header + b"Subject: " + mark + b"\r\n"
