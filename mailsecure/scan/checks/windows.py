"""How much somebody sent within the last hour: sliding windows (pure).

Of each key two counts are kept, of the window that runs and of the one before; what was within
the last ``window`` seconds is the first, and of the second the part that is not over yet.  That
is as exact as it needs to be and takes the same few octets however much is sent.  ``now`` is
monotonic seconds: counts do not survive a restart.

The records are bounded; the longest unused goes first.

All nodes of a cluster count together (:mod:`..gossip`).  A row ``["+", key, messages,
recipients]`` says what happened at a node since it last spoke, and is added.  A node that was
not told for a while gets ``["=", …]`` instead, what was counted there in all: less than that it
cannot be, so a node that knows less takes it, and nothing is ever counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ...errors import RemoteFault

__all__ = ["Amount", "Windows"]

#: Keys that are counted; some 300 octets each.
MAX_KEYS = 50_000
#: Rows that a node is told that knows nothing.
EVERYTHING = 2_000
#: Bounds of what others may say.
LONGEST_KEY = 64
MOST = 1_000_000_000
MORE, ALL = "+", "="
_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Amount:
    """How much mail."""

    messages: float = 0
    recipients: float = 0


class _Record:
    __slots__ = ("before_messages", "before_recipients", "began", "messages", "recipients")

    def __init__(self, now: float) -> None:
        self.began = now
        self.messages = self.recipients = 0
        self.before_messages = self.before_recipients = 0

    def roll(self, window: float, now: float) -> None:
        """Begin a new window if this one is over."""
        windows = int((now - self.began) / window)
        if windows:
            once = windows == 1
            self.before_messages = self.messages if once else 0
            self.before_recipients = self.recipients if once else 0
            self.messages = self.recipients = 0
            self.began += windows * window

    def amount(self, window: float, now: float) -> Amount:
        """Return what is within the window that ends now."""
        left = max(0.0, 1.0 - (now - self.began) / window)
        return Amount(
            self.messages + left * self.before_messages,
            self.recipients + left * self.before_recipients,
        )


class Windows:
    """All keys (:class:`mailsecure.scan.gossip.Shared`).

    ``window`` is in seconds; ``telling``: what happens is gathered for other nodes.
    """

    def __init__(self, window: float, telling: bool = False) -> None:
        self.window = window
        self._records: dict[str, _Record] = {}
        self._news: dict[str, list[int]] | None = {} if telling else None

    def __len__(self) -> int:
        return len(self._records)

    def amount(self, key: str, now: float) -> Amount:
        """Return what was sent within the window."""
        record = self._records.get(key)
        if record is None:
            return Amount()
        record.roll(self.window, now)
        return record.amount(self.window, now)

    def add(self, key: str, messages: int, recipients: int, now: float) -> None:
        """Count what was sent here."""
        self._count(key, messages, recipients, now)
        if self._news is not None:
            news = self._news.setdefault(key, [0, 0])
            news[0] += messages
            news[1] += recipients
            if len(self._news) > MAX_KEYS:
                # Nobody listens.
                del self._news[next(iter(self._news))]

    def _count(self, key: str, messages: int, recipients: int, now: float) -> None:
        record = self._records.pop(key, None)
        if record is None:
            record = _Record(now)
            if len(self._records) >= MAX_KEYS:
                del self._records[next(iter(self._records))]
        self._records[key] = record
        record.roll(self.window, now)
        record.messages = min(record.messages + messages, MOST)
        record.recipients = min(record.recipients + recipients, MOST)

    # -- the other nodes

    def news(self, most: int) -> list[list[Any]]:
        """See :class:`..gossip.Shared`."""
        news = self._news or {}
        return [[MORE, key, *news.pop(key)] for key in list(islice(news, most))]

    def everything(self, now: float) -> list[list[Any]]:
        """See :class:`..gossip.Shared`: who sent last."""
        rows: list[list[Any]] = []
        for key in reversed(self._records):
            if len(rows) >= EVERYTHING:
                break
            amount = self.amount(key, now)
            if amount.messages >= 1 or amount.recipients >= 1:
                rows.append([ALL, key, int(amount.messages), int(amount.recipients)])
        return rows

    def heard(self, node: str, rows: Sequence[list[Any]], whole: bool, now: float) -> None:
        """See :class:`..gossip.Shared`."""
        for what, key, messages, recipients in [_read(each) for each in rows]:
            if what == MORE:
                self._count(key, messages, recipients, now)
                continue
            here = self.amount(key, now)
            lacking = (messages - int(here.messages), recipients - int(here.recipients))
            if max(lacking) > 0:
                self._count(key, max(0, lacking[0]), max(0, lacking[1]), now)

    def gone(self, node: str) -> None:
        """See :class:`..gossip.Shared`: what was sent there was sent."""


def _read(row: object) -> tuple[str, str, int, int]:
    if not isinstance(row, list) or len(row) != _COLUMNS:
        raise RemoteFault("no row")
    what, key, messages, recipients = row
    if what not in (MORE, ALL) or not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        raise RemoteFault("no key")
    for number in (messages, recipients):
        if type(number) is not int or not 0 <= number <= MOST:
            raise RemoteFault("no number")
    return what, key, messages, recipients
