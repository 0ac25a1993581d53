"""The fields of a header section, as signatures want them (pure).

Nothing is decoded: a signature is over octets.  A line that is no field is passed over as
if it were not there, so that no field behind it hides from us (RFC 5322 §2.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["MAX_FIELDS", "Field", "TooManyFields", "split_fields", "unfolded", "values_of"]

#: More fields than this no mail has that is meant to be read.
MAX_FIELDS = 2000

#: (name as written, value behind the colon with its folds and the last CRLF)
Field = tuple[bytes, bytes]

_NAME = re.compile(rb"([!-9;-~]{1,100})[ \t]*:")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")


class TooManyFields(ValueError):
    """The header section has more than :data:`MAX_FIELDS` fields."""


def split_fields(header: bytes) -> list[Field]:
    """Return the fields of ``header``, up to its first empty line.

    Raises :class:`TooManyFields`.
    """
    section = b"" if header.startswith(b"\r\n") else header.partition(b"\r\n\r\n")[0]
    pieces = _FIELD_END.split(section, MAX_FIELDS + 1)
    if len(pieces) > MAX_FIELDS + 1:
        raise TooManyFields(f"more than {MAX_FIELDS} header fields")
    fields: list[Field] = []
    for piece in pieces:
        match = _NAME.match(piece)
        if match is not None:
            fields.append((match[1], piece[match.end() :] + b"\r\n"))
    return fields


def values_of(fields: Sequence[Field], name: bytes) -> list[bytes]:
    """Return the values of the fields called ``name`` (lower case), from the top."""
    return [value for found, value in fields if found.lower() == name]


def unfolded(value: bytes) -> str:
    """Return a value as one line of text, octets that are no UTF-8 replaced."""
    return value.replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")
