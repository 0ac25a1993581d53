"""Bounded tables of what was seen, when, and how often (pure).

The memory of :mod:`.greylisting` is three of them.  A table is in the order of use: the longest
unused goes first, when there are too many, or when its time is over.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NETWORK", "TRIPLE", "Known", "Record", "Table"]

TRIPLE, NETWORK = "t", "n"


class Known(NamedTuple):
    """One row: ``kind`` is :data:`TRIPLE` or :data:`NETWORK`, times are Unix seconds.

    ``times`` is how often a network passed, and for a triple 1 if it passed, 0 if it waits.
    """

    kind: str
    key: str
    first: int
    last: int
    times: int


class Record:
    """What is known of one key; see :class:`Known`."""

    __slots__ = ("first", "last", "times", "written")

    def __init__(self, first: int, last: int, times: int) -> None:
        self.first = first
        self.last = last
        self.times = times
        #: The ``last`` that was written down.
        self.written = last


class Table:
    """Records by key, ``capacity`` at most; ``lifetime`` is in seconds since a record's last."""

    def __init__(self, kind: str, capacity: int, lifetime: float) -> None:
        self.kind = kind
        self.lifetime = lifetime
        self.records: dict[str, Record] = {}
        self._capacity = capacity

    def find(self, key: str, now: int) -> Record | None:
        """Return what is remembered still."""
        record = self.records.get(key)
        if record is not None and now - record.last > self.lifetime:
            del self.records[key]
            return None
        return record

    def put(self, key: str, record: Record) -> None:
        """Remember, as the last to go."""
        self.records.pop(key, None)
        if len(self.records) >= self._capacity:
            del self.records[next(iter(self.records))]
        self.records[key] = record

    def trim(self, now: int) -> None:
        """Forget the one at the front if its time is over."""
        for key in self.records:
            self.find(key, now)
            return

    def newest(self, now: int, most: int) -> list[Known]:
        """Return at most ``most`` rows, the last to go first."""
        rows: list[Known] = []
        for key, record in reversed(self.records.items()):
            if len(rows) >= most:
                break
            if now - record.last <= self.lifetime:
                rows.append(self.row(key, record))
        return rows

    def row(self, key: str, record: Record) -> Known:
        """Return ``record`` as it is written and told."""
        return Known(self.kind, key, record.first, record.last, record.times)
