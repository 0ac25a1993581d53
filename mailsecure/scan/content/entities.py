"""The parts of a message, one after the other (pure; RFC 2045, 2046).

:func:`entities` walks through a message without recursion and yields its leaves, decoded.
Where the message can be understood in two ways (two Content-Type fields that differ, two
transfer encodings, two boundaries), it yields what both come to: the recipient's program
takes one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..faults import Unscannable
from .decoding import decode_transfer
from .fields import Fields, MediaType, decode_words, media_type, parameters, read_fields
from .limits import Budget
from .loose import loose_encodings, loose_values
from .names import clean_name

__all__ = ["Entity", "entities", "inner_path"]

MAX_BOUNDARY: Final = 1000
MAX_BOUNDARIES: Final = 4
MAX_PATH: Final = 200
#: A line that may be a delimiter, with a header section behind it.
_DELIMITER = re.compile(
    rb"^(-{2,100}[^\s-][^\r\n]{0,200})\r?\n(?:content-[a-z-]{1,40}[ \t]{0,9}:|\r?\n)",
    re.IGNORECASE | re.MULTILINE,
)
_MESSAGES: Final = frozenset({"message/rfc822", "message/global", "message/news"})


@dataclass(frozen=True, slots=True)
class Entity:
    """A leaf: ``path`` as in :class:`~mailsecure.scan.anatomy.Part`, ``depth`` how deep it is.

    ``names`` are those that its fields give, different ones; ``declared`` is its media type,
    ``charset`` that parameter, "" without.
    """

    path: str
    depth: int
    declared: str
    names: tuple[str, ...]
    charset: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Pending:
    """Octets that are to be taken for an entity; ``path`` leads to what it is in.

    ``number`` is the part's in a multipart, 0 for a whole message.
    """

    source: bytes
    start: int
    end: int
    path: str
    number: int
    depth: int


def entities(source: bytes, path: str, depth: int, budget: Budget) -> Iterator[Entity]:
    """Yield the leaves of the message ``source``, which is itself nested ``depth`` deep.

    Raises Unscannable above a limit, and for fragments of messages (RFC 2046 §5.2.2), which
    nobody can look into.
    """
    budget.part(depth)
    pending = [_Pending(source, 0, len(source), path, 0, depth)]
    while pending:
        inner: list[_Pending] = []
        for found in _understood(pending.pop()):
            if isinstance(found, Entity):
                yield found
            else:
                budget.part(found.depth)
                inner.append(found)
        pending.extend(reversed(inner))


def inner_path(path: str, name: str) -> str:
    """Return the path of ``name`` in ``path``; of a long one the middle is left out."""
    whole = f"{path}/{name}"
    half = MAX_PATH // 2
    return whole if len(whole) <= MAX_PATH else f"{whole[: half - 1]}…{whole[-half:]}"


def _understood(one: _Pending) -> Iterator[Entity | _Pending]:
    """Yield what ``one`` comes to, in every way that it can be understood."""
    fields, body = read_fields(one.source, one.start, one.end)
    types = [media_type(value) for value in fields.different("content-type")] or [("", [])]
    encodings = loose_encodings(fields.different("content-transfer-encoding"))
    names = _names(fields, types)
    path = one.path
    if one.number:
        path = inner_path(path, names[0] if names else str(one.number))
    for encoding in encodings:
        content = decode_transfer(one.source[body : one.end], encoding)
        for kind, parameters_ in types:
            if kind == "message/partial":
                raise Unscannable("a fragment of a message (message/partial)")
            if kind in _MESSAGES:
                yield _Pending(content, 0, len(content), path, 0, one.depth + 1)
                continue
            inner = _split(content, kind, parameters_, path, one.depth + 1)
            first = next(inner, None)
            if first is not None:
                yield first
                yield from inner
                continue
            charset = dict(parameters_).get("charset", "")
            yield Entity(path, one.depth, kind, names, charset, content)


def _names(fields: Fields, types: list[MediaType]) -> tuple[str, ...]:
    dispositions = fields.different("content-disposition")
    found = [
        text for value in dispositions for name, text in parameters(value) if name == "filename"
    ]
    found += [text for _, known in types for name, text in known if name == "name"]
    for value in (*dispositions, *fields.different("content-type")):
        found += map(decode_words, loose_values(value, "name"))
    return tuple(filter(None, dict.fromkeys(map(clean_name, found))))


def _split(
    content: bytes, kind: str, known: list[tuple[str, str]], path: str, depth: int
) -> Iterator[_Pending]:
    """Yield the parts of a multipart, of each boundary that it names; nothing if it is none.

    Where none of them leads anywhere, the first line that looks like one is taken.
    """
    if not kind.startswith("multipart/"):
        return
    boundaries = dict.fromkeys(text for name, text in known if name == "boundary")
    number = 0
    for boundary in (*list(boundaries)[:MAX_BOUNDARIES], None):
        if boundary is not None:
            delimiter = b"--" + boundary.encode("utf-8", "surrogateescape")[:MAX_BOUNDARY].rstrip()
        elif not number and (guess := _DELIMITER.search(content)):
            delimiter = guess[1].rstrip()
        else:
            return
        for start, end in _between(content, delimiter):
            number += 1
            yield _Pending(content, start, end, path, number, depth)


def _between(content: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the parts between delimiter lines begin and end (RFC 2046 §5.1.1)."""
    line = re.compile(re.escape(delimiter) + rb"(--[^\r\n]*)?[ \t]*(?:\r?\n|\r|\Z)")
    start = -1
    for found in line.finditer(content):
        at = found.start()
        if at and content[at - 1] not in b"\r\n":
            continue
        if start >= 0:
            yield start, max(start, _without_newline(content, at))
        start = -1 if found[1] is not None else found.end()
    if start >= 0:
        yield start, len(content)


def _without_newline(content: bytes, at: int) -> int:
    """Return where the line break in front of ``at`` begins, which is the delimiter's."""
    return at - 2 if content.endswith(b"\r\n", 0, at) else at - 1
