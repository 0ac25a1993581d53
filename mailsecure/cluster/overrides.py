"""The weights that a postmaster set while the cluster runs (pure).

A weight that was told to one node (``mailsecure cluster weight``) goes round in the hellos
of all, so that any node which becomes Master knows it.  Nobody is asked and no order of
arrival is promised; still all nodes come to the same.  So each word has a rank: a *stamp*,
one more than the highest that its node knew of (a Lamport clock), then the incarnation of
that node, then the weight.  Of two words about one node the higher rank counts.  To take
an override back is a word too, without a weight: it must outrank the one it ends.

A hello has little room (:func:`.hello.room_for_overrides`).  They take turns, the ones
that are new here first.  At most :data:`MOST` nodes have a word said about them; of more,
those of the lowest rank go, which is the same everywhere.

A word outlives every node's restart, but not that of all of them at once.
"""

from __future__ import annotations

from .values import Override

__all__ = ["HIGHEST_STAMP", "MOST", "Overrides"]

MOST = 32
HIGHEST_STAMP = 0xFFFFFFFF


class Overrides:
    """All words that count here."""

    def __init__(self) -> None:
        #: By node; those whose turn comes next are first.
        self._words: dict[str, Override] = {}
        self._stamp = 0

    def weight(self, node: str) -> int | None:
        """Return what was set for ``node``; None where its own weight counts."""
        word = self._words.get(node)
        return None if word is None else word.weight

    def set(self, node: str, weight: int | None, origin: int) -> None:
        """Take a postmaster's word, said to the incarnation ``origin``; None takes it back."""
        stamp = min(self._stamp + 1, HIGHEST_STAMP)
        self.merge(Override(node, weight, stamp, origin))

    def merge(self, word: Override) -> bool:
        """Take what another node says; return whether a weight changed."""
        self._stamp = max(self._stamp, word.stamp)
        known = self._words.get(word.node)
        if known is not None and _rank(known) >= _rank(word):
            return False
        before = {node: each.weight for node, each in self._words.items()}
        self._words = {word.node: word} | self._words | {word.node: word}
        if len(self._words) > MOST:
            del self._words[min(self._words.values(), key=_rank).node]
        return {node: each.weight for node, each in self._words.items()} != before

    def next(self, count: int) -> tuple[Override, ...]:
        """Return up to ``count`` for the next hello; the others come before them again."""
        chosen = list(self._words.values())[:count]
        for word in chosen:
            self._words[word.node] = self._words.pop(word.node)
        return tuple(chosen)


def _rank(word: Override) -> tuple[int, int, int, str]:
    return word.stamp, word.origin, -1 if word.weight is None else word.weight, word.node
