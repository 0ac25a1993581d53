"""Durations, sizes and networks as people write them in the ini (pure).

``5m`` is a duration (units ms, s, m, h, d; bare numbers are refused, because nobody
agrees on what they mean), ``50M`` a size (K, M, G, powers of 1024; a bare number is
octets).  Each parser raises ``ValueError`` with a text that a postmaster understands.
"""

from __future__ import annotations

import re
from typing import NewType

__all__ = ["Octets", "Seconds", "format_octets", "format_seconds", "parse_octets", "parse_seconds"]

Seconds = NewType("Seconds", float)
Octets = NewType("Octets", int)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OCTETS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_seconds(text: str) -> Seconds:
    """Return the seconds that ``text`` (``1s``, ``100ms``, ``1h30m``) stands for."""
    total = 0.0
    position = 0
    compact = text.strip().replace(" ", "")
    while match := _DURATION.match(compact, position):
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not position or position != len(compact):
        raise ValueError("a duration is a number with a unit: 100ms, 30s, 5m, 4h, 5d")
    return Seconds(total)


def parse_octets(text: str) -> Octets:
    """Return the octets that ``text`` (``10K``, ``50M``) stands for."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a size is a whole number, with K, M or G if you like: 10K, 50M")
    return Octets(int(match[1]) * _OCTETS[match[2].upper()])


def format_seconds(seconds: float) -> str:
    """Return a duration in the two largest units that matter: ``3d4h``, ``1.5s``."""
    if seconds < 0:
        return "-" + format_seconds(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    whole = int(seconds)
    for unit, below, size, part in (
        ("m", "s", 60, 1),
        ("h", "m", 3600, 60),
        ("d", "h", 86400, 3600),
    ):
        if whole < {"m": 3600, "h": 86400, "d": 1 << 62}[unit]:
            rest = whole % size // part
            return f"{whole // size}{unit}" + (f"{rest}{below}" if rest else "")
    raise AssertionError("unreachable: every duration is below 2**62 seconds")


def format_octets(octets: int) -> str:
    """Return a size in the largest fitting unit: ``812``, ``1.5K``, ``50M``."""
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if octets >= size:
            return f"{octets / size:.3g}{unit}"
    return str(octets)
