"""Who came before: the memory of greylisting (pure).

What is remembered is the *triple*: the network of the client, the reverse-path, the recipient
(:mod:`.triples`).
A stranger's triple is new and has to wait for ``delay``; when it comes again within
``retry_within`` it has passed, and is known for ``remember`` since it last came.  A network
that passed with ``trust_after`` triples is trusted: it has shown that it comes again, and
making it do so once more for each new pair of people teaches us nothing.  ``now`` is Unix
seconds, because a triple has to be known after a reboot, and at another node.

Strangers fill a table of their own, so that a flood of them pushes out other strangers, who
wait a little longer, and never those who passed.  Of each table the longest unused goes first.

All nodes of a cluster know the same (:mod:`..gossip`).  Rows say what *is*, not what changed:
hearing one twice does no harm, and where two nodes know different things the one that is kinder
to the client wins.  Rows are also what :mod:`.greyfile` keeps; :mod:`.greylist` asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any

from ...errors import RemoteFault
from .tables import NETWORK, TRIPLE, Known, Record, Table

__all__ = ["Greylist", "Ruling", "State", "Terms"]

#: Strangers, triples that passed and networks that are remembered; some 300 octets each.
MAX_WAITING = 50_000
MAX_PASSED = 100_000
MAX_NETWORKS = 20_000
#: Notes of what is to be written or told.
MAX_NOTES = MAX_WAITING + MAX_PASSED + MAX_NETWORKS
#: Rows that a node is told that knows nothing.  It has a file of its own, besides.
EVERYTHING = 5_000
#: That something is still used is written down and told again after so much of its time.
RENEWED = 50
#: Bounds of what others may say.
LONGEST_KEY = 64
LATEST = 1 << 40
MOST_TIMES = 1000


class State(Enum):
    """What is known of somebody who comes."""

    NEW = "new"
    #: Came before, and too early again.
    WAITING = "waiting"
    #: Came again as asked, just now.
    PASSED = "passed"
    #: Passed before.
    KNOWN = "known"
    #: A stranger of a network that is trusted.
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is to be done: ``seconds`` is how long there is to wait still, 0 to let through."""

    state: State
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """The figures of the ini, in seconds; ``trust_after`` 0: no network is ever trusted."""

    delay: float
    retry_within: float
    remember: float
    trust_after: int


class Greylist:
    """See the module's text (:class:`mailsecure.scan.gossip.Shared`).

    ``telling``: what is new is gathered for other nodes.
    """

    def __init__(self, terms: Terms, telling: bool = False) -> None:
        self._waiting = Table(TRIPLE, MAX_WAITING, terms.retry_within)
        self._passed = Table(TRIPLE, MAX_PASSED, terms.remember)
        self._networks = Table(NETWORK, MAX_NETWORKS, terms.remember)
        self._unsaved: dict[tuple[str, str], None] = {}
        #: What is to be written besides, because the file is lost: keys by table.
        self._lost: list[tuple[Table, list[str]]] = []
        self._untold: dict[tuple[str, str], None] | None = {} if telling else None
        self.reconfigure(terms)

    def reconfigure(self, terms: Terms) -> None:
        """Go on with other figures."""
        self.terms = terms
        self._waiting.lifetime = terms.retry_within
        self._passed.lifetime = self._networks.lifetime = terms.remember

    @property
    def counts(self) -> dict[str, int]:
        """How much is remembered."""
        return {
            "waiting": len(self._waiting.records),
            "passed": len(self._passed.records),
            "networks": len(self._networks.records),
        }

    # -- who comes

    def ask(self, network: str, triple: str, now: float) -> Ruling:
        """Say what is to be done with ``triple`` of ``network``, and remember that it came."""
        second = int(now)
        self._waiting.trim(second)
        self._passed.trim(second)
        self._networks.trim(second)
        known = self._passed.find(triple, second)
        if known is not None:
            self._use(self._passed, triple, known, second)
            return Ruling(State.KNOWN)
        trust = self._networks.find(network, second)
        if trust is not None and 0 < self.terms.trust_after <= trust.times:
            self._use(self._networks, network, trust, second)
            return Ruling(State.TRUSTED)
        waits = self._waiting.find(triple, second)
        if waits is None or waits.first > second:
            # The latter where the clock was set back: it begins anew.
            self._waiting.put(triple, Record(second, second, 0))
            self._note(TRIPLE, triple)
            return Ruling(State.NEW, max(1, math.ceil(self.terms.delay)))
        left = math.ceil(waits.first + self.terms.delay - now)
        if left > 0:
            return Ruling(State.WAITING, left)
        del self._waiting.records[triple]
        self._passed.put(triple, Record(waits.first, second, 1))
        self._note(TRIPLE, triple)
        self._count_pass(network, trust, second)
        return Ruling(State.PASSED)

    def _count_pass(self, network: str, trust: Record | None, second: int) -> None:
        if trust is None:
            trust = Record(second, second, 0)
        trust.times = min(trust.times + 1, MOST_TIMES)
        trust.last = max(trust.last, second)
        self._networks.put(network, trust)
        self._note(NETWORK, network)

    def _use(self, table: Table, key: str, record: Record, second: int) -> None:
        """It came again: it goes last, and that is written down now and then."""
        record.last = max(record.last, second)
        table.put(key, record)
        if record.last - record.written > table.lifetime / RENEWED:
            record.written = record.last
            self._note(table.kind, key)

    def _note(self, kind: str, key: str) -> None:
        """It is to be written down and told."""
        self._to_write(kind, key)
        if self._untold is not None:
            _put_note(self._untold, kind, key)

    def _to_write(self, kind: str, key: str) -> None:
        _put_note(self._unsaved, kind, key)

    # -- for the file

    def changes(self, most: int) -> list[Known]:
        """Return at most ``most`` rows that are not in the file, and take them as written."""
        rows = self._take(self._unsaved, most)
        while self._lost and len(rows) < most:
            table, keys = self._lost[-1]
            while keys and len(rows) < most:
                record = table.records.get(key := keys.pop())
                if record is not None:
                    rows.append(table.row(key, record))
            if not keys:
                self._lost.pop()
        return rows

    def not_written(self, rows: Iterable[Known]) -> None:
        """The rows could not be written: they are to be written later."""
        for row in rows:
            self._to_write(row.kind, row.key)

    def all_changed(self) -> None:
        """The file is lost: everything is to be written."""
        tables = (self._waiting, self._passed, self._networks)
        self._lost = [(table, list(table.records)) for table in tables]

    def load(self, rows: Iterable[Known]) -> None:
        """Remember what the file holds; the longest unused come first."""
        for row in rows:
            self._table(row).put(row.key, Record(row.first, row.last, row.times))

    def _take(self, notes: dict[tuple[str, str], None], most: int) -> list[Known]:
        rows = []
        for kind, key in list(islice(notes, most)):
            del notes[kind, key]
            tables = (self._networks,) if kind == NETWORK else (self._passed, self._waiting)
            for table in tables:
                record = table.records.get(key)
                if record is not None:
                    rows.append(table.row(key, record))
                    break
        return rows

    def _table(self, row: Known) -> Table:
        if row.kind == NETWORK:
            return self._networks
        return self._passed if row.times else self._waiting

    # -- for the other nodes

    def news(self, most: int) -> list[list[Any]]:
        """See :class:`..gossip.Shared`."""
        return [list(row) for row in self._take(self._untold, most)] if self._untold else []

    def everything(self, now: float) -> list[list[Any]]:
        """See :class:`..gossip.Shared`: those who wait first, as they may come any moment."""
        second = int(now)
        rows: list[Known] = []
        for table, share in ((self._networks, 4), (self._waiting, 2), (self._passed, 1)):
            rows += table.newest(second, (EVERYTHING - len(rows)) // share)
        return [list(row) for row in rows]

    def heard(self, node: str, rows: Sequence[list[Any]], whole: bool, now: float) -> None:
        """See :class:`..gossip.Shared`."""
        second = int(now)
        for row in [_read(each) for each in rows]:
            # The clock over there may be fast.
            self._merge(
                row._replace(first=min(row.first, second), last=min(row.last, second)), second
            )

    def gone(self, node: str) -> None:
        """See :class:`..gossip.Shared`: what is known stays known."""

    def _merge(self, row: Known, second: int) -> None:
        table = self._table(row)
        if second - row.last > table.lifetime:
            return
        mine = table.find(row.key, second)
        if table is self._waiting:
            passed = self._passed.find(row.key, second) is not None
            if passed or (mine is not None and mine.first <= row.first):
                return
            table.put(row.key, Record(row.first, row.first, 0))
        else:
            self._waiting.records.pop(row.key, None)
            if mine is None:
                mine = Record(row.first, row.last, row.times)
            elif mine.last >= row.last and mine.times >= row.times:
                return
            mine.last, mine.times = max(mine.last, row.last), max(mine.times, row.times)
            table.put(row.key, mine)
        self._to_write(row.kind, row.key)


def _put_note(notes: dict[tuple[str, str], None], kind: str, key: str) -> None:
    notes[kind, key] = None
    if len(notes) > MAX_NOTES:
        # Nobody takes them; what is forgotten here may be known elsewhere.
        del notes[next(iter(notes))]


def _read(row: object) -> Known:
    if not isinstance(row, list) or len(row) != len(Known._fields):
        raise RemoteFault("no row")
    kind, key, *numbers = row
    if kind not in (TRIPLE, NETWORK) or not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        raise RemoteFault("no triple, no network")
    for number, most in zip(numbers, (LATEST, LATEST, MOST_TIMES), strict=True):
        if type(number) is not int or not 0 <= number <= most:
            raise RemoteFault("no number")
    return Known(kind, key, *numbers)
