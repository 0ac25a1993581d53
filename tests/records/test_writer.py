"""The writer: into the database, onto the disk, or counted as lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records.backlog import Backlog
from mailsecure.records.database import Trouble
from mailsecure.records.rows import Numbered
from mailsecure.records.store import BadEvents, Measures
from mailsecure.records.tally import Keeping
from mailsecure.records.values import Event
from mailsecure.records.writer import Writer

from .support import NOON, attempt, message

DAY = 86400.0


class FakeStore:
    """A store in memory; ``trouble`` is raised while it is set."""

    def __init__(self) -> None:
        self.trouble = ""
        self.unwritable = ""
        self.rows: dict[int, Event] = {}
        self.calls: list[Any] = []
        self.bad: Callable[[Event], bool] = lambda event: False
        self.measures = Measures(1000, 0.0, "")
        self.slices = 0
        self.space = 0

    def _check(self) -> None:
        if self.trouble:
            raise Trouble(self.trouble)

    def open(self) -> None:
        self.calls.append("open")
        self._check()

    def close(self) -> None:
        self.calls.append("close")

    def write(self, batch: Sequence[Numbered], now: float) -> None:
        self._check()
        if self.unwritable:
            raise Trouble(self.unwritable)
        if any(self.bad(event) for _, event in batch):
            raise BadEvents("no such thing")
        self.rows.update(batch)

    def prune(self, before: float) -> bool:
        self._check()
        self.calls.append(("prune", before))
        self.slices -= 1
        return self.slices > 0

    def reclaim(self) -> bool:
        self.calls.append("reclaim")
        self.space -= 1
        return self.space > 0

    def measure(self) -> Measures:
        self._check()
        return self.measures


class WriterTests(SynchronousTestCase):
    """With a store in memory and a real backlog."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[tuple[str, str]] = []
        self.store = FakeStore()
        self.path = Path(self.mktemp())
        self.writer = self.begun()

    def begun(self, limit: int = 1 << 20) -> Writer:
        """Return a writer as after a start."""
        writer = Writer(
            self.store,  # type: ignore[arg-type]
            Backlog(self.path, limit),
            Keeping(90 * DAY, 10_000),
            lambda: NOON + self.clock.seconds(),
            self.clock.seconds,
            random.Random(1),
            lambda level, text, **fields: self.said.append((level, text.format(**fields))),
        )
        writer.begin()
        return writer

    def tended(self) -> int:
        """Let it do all that is to do; return the steps."""
        steps = 0
        while self.writer.tend():
            steps += 1
            self.assertLess(steps, 1000)
        return steps

    def events(self) -> list[Event]:
        """Return what is in the database, in order of ids."""
        return [event for _, event in sorted(self.store.rows.items())]

    def test_well(self) -> None:
        """Batches are written, with ids that are times and rise."""
        told = [attempt(n) for n in range(10)]
        self.writer.take(told[:5])
        self.writer.take(told[5:])
        self.assertEqual(self.events(), told)
        first = min(self.store.rows)
        self.assertEqual(first >> 12, int(NOON * 1_000_000))
        self.assertEqual((self.writer.tally.written, self.writer.tally.taken), (10, 10))
        self.assertFalse(self.writer.restless)
        self.assertEqual(self.writer.current, ())

    def test_away_and_back(self) -> None:
        """What comes meanwhile waits on disk, and follows; pauses grow; it is said once."""
        self.store.trouble = "connection refused"
        for n in range(5):
            self.writer.take([attempt(n)])
        self.assertEqual(self.writer.tally.away_since, NOON)
        self.assertTrue(self.writer.restless)
        self.assertTrue(self.writer.backlog_octets > 0)
        opened = []
        for _ in range(400):
            self.clock.advance(1)
            before = self.store.calls.count("open")
            self.tended()
            if self.store.calls.count("open") > before:
                opened.append(self.clock.seconds())
        pauses = [after - before for before, after in pairwise(opened)]
        self.assertEqual(pauses[:7], [2, 4, 8, 16, 32, 60, 60])
        self.assertEqual([level for level, _ in self.said], ["warn"])
        self.store.trouble = ""
        self.clock.advance(60)
        self.tended()
        self.assertEqual(self.events(), [attempt(n) for n in range(5)])
        self.assertEqual((self.writer.backlog_octets, self.writer.tally.away_since), (0, 0.0))
        self.assertEqual(self.path.stat().st_size, 0)
        self.assertEqual(self.said[-1], ("info", "the history has caught up"))
        self.assertEqual(self.writer.tally.written, 5)
        self.assertEqual(self.writer.tally.last_error, "connection refused")

    def test_there_and_not_writable(self) -> None:
        """A server that lets us in and takes nothing is away: said once, asked ever less."""
        self.store.unwritable = "read-only"
        for second in range(200):
            self.writer.take([attempt(second)])
            self.clock.advance(1)
            self.tended()
        self.assertEqual([level for level, _ in self.said], ["warn"])
        self.assertIn("read-only", self.said[0][1])
        self.assertLess(self.store.calls.count("open"), 12)
        self.assertEqual(self.writer.tally.away_since, NOON)
        self.store.unwritable = ""
        self.clock.advance(60)
        self.tended()
        self.assertEqual(len(self.events()), 200)
        self.assertEqual([level for level, _ in self.said], ["warn", "warn", "info"])

    def test_new_beside_old(self) -> None:
        """When it is back, what comes new is not kept waiting by what waits."""
        self.store.trouble = "away"
        self.writer.take([attempt(0)])
        self.store.trouble = ""
        self.clock.advance(1)
        self.assertTrue(self.writer.tend())
        self.writer.take([attempt(1)])
        self.assertEqual(self.events(), [attempt(1)])
        self.tended()
        self.assertEqual(self.events(), [attempt(0), attempt(1)])

    def test_away_again_while_catching_up(self) -> None:
        """What was read and not written is read again."""
        self.store.trouble = "away"
        self.writer.take([attempt(n) for n in range(3)])
        self.store.trouble = ""
        self.clock.advance(1)
        self.assertTrue(self.writer.tend())
        self.store.trouble = "away again"
        self.assertFalse(self.writer.tend())
        self.store.trouble = ""
        self.clock.advance(100)
        self.tended()
        self.assertEqual(len(self.store.rows), 3)

    def test_away_at_start(self) -> None:
        """A start without the database is one; an earlier run's backlog follows later."""
        self.store.trouble = "away"
        self.writer.take([attempt(0)])
        self.writer.finish()
        self.clock.advance(1)
        self.writer = self.begun()
        self.assertTrue(self.writer.restless)
        self.writer.take([attempt(1)])
        self.store.trouble = ""
        self.clock.advance(2)
        self.tended()
        self.assertEqual(self.events(), [attempt(0), attempt(1)])

    def test_a_crash_before_the_file_is_emptied(self) -> None:
        """Everything is written again, under the same ids."""
        self.store.trouble = "away"
        self.writer.take([attempt(n) for n in range(3)])
        kept = self.path.read_bytes()
        self.store.trouble = ""
        self.clock.advance(1)
        self.tended()
        self.path.write_bytes(kept)
        self.writer = self.begun()
        self.tended()
        self.assertEqual(len(self.store.rows), 3)

    def test_lost(self) -> None:
        """What does not fit on disk either is counted, and said once a minute."""
        self.writer = self.begun(limit=200)
        self.store.trouble = "away"
        self.said.clear()
        for n in range(10):
            self.writer.take([attempt(n)])
            self.clock.advance(1)
            self.writer.tend()
        self.assertEqual(self.writer.tally.lost, 9)
        self.assertEqual([text for level, text in self.said if level == "error"],
                         ["1 events of the history are lost: away"])  # fmt: skip
        self.assertTrue(self.writer.restless)
        self.clock.advance(60)
        self.writer.tend()
        self.assertEqual(self.said[-1][1], "8 events of the history are lost: away")

    def test_no_disk(self) -> None:
        """A backlog that cannot be written loses, and says why; one that cannot be read waits."""
        self.path.mkdir()
        self.writer = self.begun()
        self.assertIn("backlog", self.said[-1][1])
        self.store.trouble = "away"
        self.writer.take([attempt(0)])
        self.assertEqual(self.writer.tally.lost, 1)
        self.assertIn("Is a directory", self.writer.tally.last_error)

    def test_the_backlog_vanishes(self) -> None:
        """A file that somebody took away while we catch up is trouble, not the end."""
        self.store.trouble = "away"
        self.writer.take([attempt(0)])
        self.path.unlink()
        self.store.trouble = ""
        self.clock.advance(1)
        self.tended()
        self.assertEqual(self.writer.backlog_octets, 0)
        self.assertFalse(self.writer.restless)

    def test_the_backlog_cannot_be_read(self) -> None:
        """That is trouble, tried again as any other."""
        self.store.trouble = "away"
        self.writer.take([attempt(0)])
        self.path.rename(f"{self.path}.away")
        self.path.mkdir()
        self.store.trouble = ""
        self.clock.advance(1)
        self.tended()
        self.assertIn("Is a directory", self.writer.tally.last_error)
        self.path.rmdir()
        Path(f"{self.path}.away").rename(self.path)
        self.clock.advance(60)
        self.tended()
        self.assertEqual(self.events(), [attempt(0)])

    def test_senseless_lines(self) -> None:
        """They are lost, and said."""
        self.writer.finish()
        self.path.write_bytes(b"garbage\n")
        self.writer = self.begun()
        self.tended()
        self.assertEqual(self.writer.tally.lost, 1)
        self.assertIn("make no sense", self.said[-2][1])

    def test_bad_events(self) -> None:
        """One that the database does not take is lost alone; the others are written."""
        self.store.bad = lambda event: event in (attempt(13), attempt(77))
        self.writer.take([attempt(n) for n in range(100)])
        self.assertEqual(len(self.store.rows), 98)
        self.assertEqual((self.writer.tally.lost, self.writer.tally.written), (2, 98))
        self.assertEqual(self.writer.tally.away_since, 0.0)

    def test_away_amidst_bad_events(self) -> None:
        """Then all of the batch waits; nothing is there twice in the end."""

        def bad(event: Event) -> bool:
            self.store.trouble = "away" if len(self.store.rows) >= 50 else self.store.trouble
            return event == attempt(77)

        self.store.bad = bad
        self.writer.take([attempt(n) for n in range(100)])
        self.assertEqual(len(self.store.rows), 50)
        self.store.bad = lambda event: event == attempt(77)
        self.store.trouble = ""
        self.clock.advance(1)
        self.tended()
        self.assertEqual(len(self.store.rows), 99)

    def test_no_event_at_all(self) -> None:
        """What is not even an event is lost and no more."""
        self.store.trouble = "away"
        self.writer.take([attempt(0), message(octets=object())])
        self.assertEqual(self.writer.tally.lost, 2)
        self.assertEqual(self.writer.tally.taken, 2)

    def test_rescue(self) -> None:
        """At a stop that cannot wait all goes to disk, with what is under way."""
        self.writer.current = [(5, attempt(5))]
        self.writer.rescue([attempt(6)])
        self.writer = self.begun()
        self.tended()
        self.assertEqual(self.events(), [attempt(5), attempt(6)])

    # -- retention

    def test_by_age(self) -> None:
        """What is older goes in slices, then space is given back, then all is quiet."""
        self.writer.retain()
        self.tended()
        self.assertNotIn("prune", str(self.store.calls))
        self.store.measures = Measures(1000, NOON - 100 * DAY, "")
        self.store.slices, self.store.space = 3, 2
        self.writer.retain()
        self.assertEqual(self.tended(), 4)
        pruned = [call for call in self.store.calls if call[0] == "prune"]
        self.assertEqual(pruned, [("prune", NOON - 90 * DAY)] * 3)
        self.assertEqual(self.store.calls[-2:], ["reclaim", "reclaim"])

    def test_by_size(self) -> None:
        """A fiftieth of the time goes at once, however young it is."""
        self.store.measures = Measures(10_001, NOON - 50 * DAY, "")
        self.writer.retain()
        self.tended()
        self.assertIn(("prune", NOON - 49 * DAY), self.store.calls)
        self.assertEqual(self.writer.tally.measures.octets, 10_001)

    def test_retention_waits(self) -> None:
        """While the database is away nothing is removed."""
        self.store.measures = Measures(1, NOON - 100 * DAY, "")
        self.writer.retain()
        self.store.trouble = "away"
        self.assertFalse(self.writer.tend())
        self.writer.retain()
        self.assertFalse(self.writer.tend())
        self.store.trouble = ""
        self.clock.advance(1)
        self.tended()
        self.assertIn("prune", str(self.store.calls))

    def test_trouble_while_measuring(self) -> None:
        """It is trouble as any other."""
        self.store.trouble = "away"
        self.writer.retain()
        self.assertTrue(self.writer.tally.away_since)
