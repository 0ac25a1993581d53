"""Nothing is lost or doubled between queue and quarantine, whatever kills the process.

At the level of the spool: a process accepts messages, half of them quarantined, settles,
releases and deletes, and is killed in the middle of it, again and again.  After each time
the spool must hold what it said it had done, of what it was at either nothing or all, and
every octet of every message; and its sums must be right.  ``MAILSECURE_CRASH_ROUNDS`` sets
the number of crashes, a tenth of it here.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.spool.ids import MessageId
from mailsecure.spool.reading import Reader
from tests.spool.support import sums_that_are_wrong

from .held import opened
from .load import is_intact
from .sinks import unique_of

ROUNDS = max(1, int(os.environ.get("MAILSECURE_CRASH_ROUNDS", "200")) // 10)
ROOT = Path(__file__).parent.parent.parent

#: Indexes of the recipients that are (queued, held).
Place = tuple[frozenset[int], frozenset[int]]
GONE: Place = (frozenset(), frozenset())


@dataclass(slots=True)
class Known:
    """What is known of a message: where its recipients ``must`` be, or also ``may``."""

    unique: str
    must: Place
    may: Place | None = None


class Book:
    """Reads what a child says, and knows what must be true."""

    def __init__(self) -> None:
        self.known: dict[MessageId, Known] = {}
        self.acts = 0

    def read(self, lines: list[str]) -> None:
        """Take what a child said; the last line may be half a line."""
        for line in lines:
            when, what, id, *more = line.split()
            (self._try if when == "try" else self._did)(what, MessageId(int(id)), more)

    def _try(self, what: str, id: MessageId, more: list[str]) -> None:
        if what == "accept":
            queued, held, unique = more
            place = _indexes(queued), _indexes(held)
            self.known[id] = Known(unique, GONE, place)
            return
        known = self.known[id]
        queued_, held_ = known.must
        known.may = {
            "settle": (frozenset(), held_),
            "release": (queued_ | held_, frozenset()),
            "delete": (queued_, frozenset()),
        }[what]

    def _did(self, what: str, id: MessageId, more: list[str]) -> None:
        known = self.known[id]
        if known.may is None:
            raise AssertionError("done, and never tried")
        known.must, known.may = known.may, None
        self.acts += 1

    def settle(self, found: dict[MessageId, Place]) -> list[str]:
        """Return what is not as it must be; what was uncertain is certain then."""
        wrong = [f"{id}: nobody accepted it" for id in found.keys() - self.known.keys()]
        for id, known in list(self.known.items()):
            place = found.get(id, GONE)
            if place not in (known.must, known.may):
                wrong.append(f"{id}: {place} instead of {known.must} or {known.may}")
            known.must, known.may = place, None
            if place == GONE:
                del self.known[id]
        return wrong


def _indexes(text: str) -> frozenset[int]:
    return frozenset(int(each) for each in text if each != "-")


class KilledSpool(SynchronousTestCase):
    """kill -9 at random."""

    def setUp(self) -> None:
        """A place, and what is known."""
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.state = Path(self.temporary.name) / "state"
        self.book = Book()

    def test_half_of_it_quarantined(self) -> None:
        """Where a message is, is what was said of it, over many crashes."""
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        rounds = 0
        # On a slow machine it takes more of them until enough was done.
        while rounds < ROUNDS or (self.book.acts <= 50 * ROUNDS and rounds < 5 * ROUNDS):
            rounds += 1
            self.book.read(self.run_for(chance.uniform(0.05, 0.5)))
            with opened(self.state) as reader:
                found = self.places(reader)
                self.assertEqual(self.book.settle(found), [], f"seed {seed}")
                self.assertEqual(self.broken(reader, found), [], f"seed {seed}")
            self.assertEqual(sums_that_are_wrong(self.state), [], f"seed {seed}")
        self.assertGreater(self.book.acts, 50 * ROUNDS, f"in {rounds} rounds")
        self.assertTrue(any(known.must[1] for known in self.book.known.values()))

    def run_for(self, seconds: float) -> list[str]:
        """Let a child work for so long, then kill it; return the lines that it wrote whole."""
        with tempfile.TemporaryFile() as said:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.live.spool_child", str(self.state)],
                stdout=said,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            try:
                end = time.monotonic() + 30
                while not os.fstat(said.fileno()).st_size and time.monotonic() < end:
                    time.sleep(0.01)
                    self.assertIsNone(child.poll(), "the child cannot open the spool")
                time.sleep(seconds)
            finally:
                child.kill()
                child.wait()
            said.seek(0)
            return said.read().decode().splitlines()

    def places(self, reader: Reader) -> dict[MessageId, Place]:
        """Return where the recipients of every message are."""
        queued, held = {}, {}
        for id, idx in reader._query("SELECT message, idx FROM recipient"):
            queued.setdefault(id, set()).add(idx)
        for id, idx in reader._query("SELECT message, idx FROM quarantined"):
            held.setdefault(id, set()).add(idx)
        return {
            MessageId(id): (frozenset(queued.get(id, ())), frozenset(held.get(id, ())))
            for id in queued.keys() | held.keys()
        }

    def broken(self, reader: Reader, found: dict[MessageId, Place]) -> list[MessageId]:
        """Return the messages whose octets are not those that were accepted."""
        return [
            id
            for id, place in found.items()
            for one in (
                [reader.content(id)] * bool(place[0])
                + [held.message for held in [reader.quarantine_content(id)] if held]
            )
            if one is None or not self.is_whole(b"".join(one.body.pieces()), id)
        ]

    def is_whole(self, content: bytes, id: MessageId) -> bool:
        """Say whether ``content`` is the message that it should be, to the octet."""
        return is_intact(content) and unique_of(content) == self.book.known[id].unique
