"""Message ids: one name in the reply, the trace field, the log and the queue (pure).

An id is a 63-bit integer, because that is SQLite's cheapest key: microseconds of
Unix time in the upper 51 bits, chance in the lower 12.  So ids sort by arrival, two
nodes hardly ever draw the same one, and a node never draws one twice, even when its
wall clock is set back: :class:`IdSource` never goes backwards.

People see 13 characters of Crockford's base 32 (no I, L, O, U; either case is read).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NewType

from ..errors import RemoteFault

__all__ = ["IdSource", "MessageId", "drawn_at", "id_name", "parse_id"]

MessageId = NewType("MessageId", int)

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_CHANCE_BITS = 12
_CHANCE = (1 << _CHANCE_BITS) - 1
#: Bits drawn at once: asking the system for chance costs more than the rest of an id.
_POOL_BITS = _CHANCE_BITS * 256


def id_name(message: MessageId) -> str:
    """Return the 13 characters by which people know ``message``."""
    pairs = _PAIRS
    return (
        _ALPHABET[message >> 60]
        + pairs[message >> 50 & 1023]
        + pairs[message >> 40 & 1023]
        + pairs[message >> 30 & 1023]
        + pairs[message >> 20 & 1023]
        + pairs[message >> 10 & 1023]
        + pairs[message & 1023]
    )


def drawn_at(message: MessageId) -> float:
    """Return the Unix time at which ``message`` was drawn, or a little later."""
    return (message >> _CHANCE_BITS) / 1_000_000


def parse_id(name: str) -> MessageId:
    """Return the id that ``name`` stands for; :class:`RemoteFault` if it is none."""
    value = 0
    if len(name) != 13 or not name.isascii():
        raise RemoteFault("a message id has 13 letters and digits")
    for letter in name.upper():
        digit = _VALUES.get(letter)
        if digit is None:
            raise RemoteFault("not a message id: " + repr(name))
        value = value << 5 | digit
    if value >> 63:
        raise RemoteFault("not a message id: " + repr(name))
    return MessageId(value)


class IdSource:
    """Draws ids; one a node, used from the reactor's thread only."""

    def __init__(self, wall: Callable[[], float], rng: random.Random) -> None:
        self._wall = wall
        self._bits = rng.getrandbits
        self._pool = 0
        self._left = 0
        self._last = 0

    def draw(self) -> MessageId:
        """Return an id that this source has not given before."""
        microseconds = int(self._wall() * 1_000_000)
        if not self._left:
            self._pool = self._bits(_POOL_BITS)
            self._left = _POOL_BITS
        self._left -= _CHANCE_BITS
        drawn = microseconds << _CHANCE_BITS | (self._pool >> self._left & _CHANCE)
        if drawn <= self._last:
            drawn = self._last + 1
        self._last = drawn
        return MessageId(drawn)
