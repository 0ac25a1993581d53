"""Virtual addresses that were ours and are no more (pure).

When an address moves, the connections to it are dead: what the client says next comes to
another node, which resets it.  Our end would wait for its timeouts, and count as a session
all that time.  So whoever has sessions at an address is told once it has been gone for
:data:`LOOKS` looks; an address that comes back before has not moved.

:mod:`.service` looks once a second.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

__all__ = ["LOOKS", "Moved"]

LOOKS = 3


class Moved:
    """Which addresses were held at the last look, and for how many they have been gone."""

    def __init__(self) -> None:
        self._held: AbstractSet[str] = frozenset()
        self._gone: dict[str, int] = {}

    def took(self, addresses: AbstractSet[str]) -> None:
        """Addresses have become ours; they may be gone by the next look."""
        self._held |= addresses

    def look_last(self) -> frozenset[str]:
        """Return all that were ours and whose move was not told: we hold none any more."""
        moved = frozenset(self._held | self._gone.keys())
        self._held, self._gone = frozenset(), {}
        return moved

    def look(self, held: AbstractSet[str]) -> frozenset[str]:
        """Take the addresses that are held now; return those that have moved away."""
        missed = (self._held | self._gone.keys()) - held
        self._held = held
        self._gone = {each: self._gone.get(each, 0) + 1 for each in missed}
        moved = frozenset(each for each, looks in self._gone.items() if looks >= LOOKS)
        for each in moved:
            del self._gone[each]
        return moved
