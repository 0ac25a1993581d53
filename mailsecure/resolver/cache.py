"""A bounded memory with times to live (pure)."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["TtlCache"]

K = TypeVar("K")
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Keeps at most ``limit`` values; the one stored first goes first.

    ``now`` is any clock in seconds, the same for every call.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, now: float) -> V | None:
        """Return what is known, or None."""
        entry = self._values.get(key)
        if entry is None:
            return None
        if now < entry[0]:
            return entry[1]
        del self._values[key]
        return None

    def put(self, key: K, value: V, seconds: float, now: float) -> None:
        """Remember ``value`` for ``seconds``."""
        if seconds <= 0:
            return
        self._values.pop(key, None)
        if len(self._values) >= self._limit:
            del self._values[next(iter(self._values))]
        self._values[key] = (now + seconds, value)
