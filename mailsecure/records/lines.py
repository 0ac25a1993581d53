"""The lines of the backlog: an event each, in JSON (pure).

A line is an array: the event's kind, its id, its fields in order.  A later version may add
fields at the end, with defaults; then it still reads what an earlier one left behind.
:mod:`.backlog` keeps them in a file.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from ..errors import RemoteFault
from .rows import Numbered
from .values import (
    AttemptEvent,
    DeedEvent,
    Event,
    FoundSymbol,
    MessageEvent,
    RefusalEvent,
    SessionEvent,
)

__all__ = ["decode_line", "encode_line"]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode
_KINDS: dict[str, type] = {
    "message": MessageEvent,
    "session": SessionEvent,
    "refusal": RefusalEvent,
    "attempt": AttemptEvent,
    "deed": DeedEvent,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}
_FIELDS = {kind: {each.name: str(each.type) for each in fields(kind)} for kind in _WORDS}
_SYMBOL_FIELDS = tuple(each.name for each in fields(FoundSymbol))


def encode_line(id: int, event: Event) -> bytes:
    """Return the line of the backlog for an event, with its LF; ASCII."""
    kind = type(event)
    values = [_plain(getattr(event, name)) for name in _FIELDS[kind]]
    return _encode([_WORDS[kind], id, *values]).encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], FoundSymbol):
        return [[getattr(each, name) for name in _SYMBOL_FIELDS] for each in value]
    return value


def decode_line(line: bytes) -> Numbered:
    """Return the event of a line of the backlog; :class:`RemoteFault` if it is none."""
    try:
        word, id, *values = json.loads(line)
        kind = _KINDS[word]
        given = dict(zip(_FIELDS[kind], values, strict=False))
        if len(values) > len(_FIELDS[kind]) or not isinstance(id, int):
            raise RemoteFault("not a line of the backlog")
        for name, value in given.items():
            given[name] = _typed(name, _FIELDS[kind][name], value)
        event: Event = kind(**given)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RemoteFault("not a line of the backlog") from None
    return id, event


_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}


def _typed(name: str, kind: str, value: Any) -> Any:
    """Return a field of an event as its type wants it; raises TypeError or ValueError."""
    if name == "symbols":
        return tuple(FoundSymbol(*each) for each in value)
    if kind.startswith("tuple"):
        return tuple(tuple(each) if isinstance(each, list) else each for each in value)
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
        raise TypeError(name)
    return value
