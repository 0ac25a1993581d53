"""The fields of a header section: the one place that cuts it (pure).

A section is cut at the ends of its fields (RFC 5322 §2.2), which are line ends with no fold
behind them (§2.2.3).  Nothing is decoded and nothing is lost: the pieces are octets, and
together they are the section.  A line that is no field is a piece without a name, so that no
field behind it hides from us.

Whoever reads what is in a section (:mod:`.content.fields`) asks for :func:`cut`, signatures
want :func:`split_fields`.  Whoever wants a few fields by name (:mod:`.editing`) asks for
:func:`named`, which does not look at the others: a section of a quarter of a megabyte has
room for ninety thousand, and this is asked in the reactor's thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

__all__ = [
    "MAX_FIELDS",
    "Field",
    "TooManyFields",
    "cut",
    "named",
    "split_fields",
    "unfolded",
    "values_of",
]

#: More fields than this no mail has that is meant to be read.
MAX_FIELDS = 2000
#: A longer name is none to a signature.
_LONGEST_NAME = 100

#: (name as written, value behind the colon with its folds and the last CRLF)
Field = tuple[bytes, bytes]
#: A field's octets with its line end, and the match of its name and colon; None: no field.
Piece = tuple[bytes, re.Match[bytes] | None]

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_A_NAME = re.compile(r"[!-9;-~]+")
_END = re.compile(rb"\r\n(?![ \t])")
_LOOSE_END = re.compile(rb"\n(?![ \t])")


class TooManyFields(ValueError):
    """The header section has more than :data:`MAX_FIELDS` fields."""


def cut(section: bytes, loose: bool = False, most: int = 0) -> list[Piece]:
    """Return ``section`` in pieces: each a field with its folds, or a line that is none.

    Only the last may lack its line end.  ``loose`` has a bare LF end a line too.  Where
    ``most`` is given, what is left behind so many is one piece more.
    """
    name, (ends, end) = _NAME.match, (_LOOSE_END, b"\n") if loose else (_END, b"\r\n")
    pieces = ends.split(section, most)
    last = pieces.pop()
    found = [(piece := octets + end, name(piece)) for octets in pieces]
    if last:
        found.append((last, name(last)))
    return found


def named(section: bytes, names: tuple[str, ...]) -> Iterator[tuple[int, int, str]]:
    """Yield where each field of ``names`` (lower case) begins and ends, and its name."""
    pattern = _names(names)
    if pattern is None:
        return
    # A line with a name in front is a field: a fold would begin with a blank.
    for found in pattern.finditer(b"\r\n" + section):
        # The line end in front, of which each match has one, shifts all by two.
        end = _END.search(section, found.end() - 2)
        yield found.start(), end.end() if end else len(section), found[1].decode("ascii").lower()


@lru_cache(maxsize=64)
def _names(names: tuple[str, ...]) -> re.Pattern[bytes] | None:
    known = [re.escape(name) for name in names if _A_NAME.fullmatch(name)]
    if not known:
        return None
    return re.compile(rf"\r\n({'|'.join(known)})[ \t]*:".encode(), re.IGNORECASE)


def split_fields(header: bytes) -> list[Field]:
    """Return the fields of ``header``, up to its first empty line.

    Raises :class:`TooManyFields`.
    """
    section = b"" if header.startswith(b"\r\n") else header.partition(b"\r\n\r\n")[0]
    pieces = cut(section, most=MAX_FIELDS)
    if len(pieces) > MAX_FIELDS:
        raise TooManyFields(f"more than {MAX_FIELDS} header fields")
    if pieces and not section.endswith(b"\r\n"):
        piece, name = pieces[-1]
        pieces[-1] = (piece + b"\r\n", name)
    return [
        (name[1], piece[name.end() :])
        for piece, name in pieces
        if name is not None and name.end(1) <= _LONGEST_NAME
    ]


def values_of(fields: Sequence[Field], name: bytes) -> list[bytes]:
    """Return the values of the fields called ``name`` (lower case), from the top."""
    return [value for found, value in fields if found.lower() == name]


def unfolded(value: bytes) -> str:
    """Return a value as one line of text, octets that are no UTF-8 replaced."""
    return value.replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")
