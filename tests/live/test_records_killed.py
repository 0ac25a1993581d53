"""A killed process loses the last second of its history at most."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from mailsecure.records.api import Search
from mailsecure.records.sqlite import Sqlite
from tests.records.support import Book

from .harness import ROOT

#: Tells a message each 5 ms, and says which; the subject is when.
TELLER = """
import sys, time
from itertools import pairwise
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from mailsecure.records.service import RecordsService
from tests.records.support import message
from tests.records.test_service import settings
from tests.spool.support import real_world

made = RecordsService(real_world(), settings(), Path(sys.argv[1]), "mx1")
number = int(sys.argv[2])

def tell():
    global number
    made.tell(message(number, subject=f"at {time.monotonic()}"))
    number += 1
    print(number, flush=True)

Deferred.fromCoroutine(made.start())
LoopingCall(tell).start(0.005)
reactor.run()
"""


class KilledTests(unittest.TestCase):
    """``kill -9``, several times over the same history."""

    def test_killed(self) -> None:
        """What was told more than a second before is there, and nothing is broken."""
        with TemporaryDirectory(prefix="mailsecure-records-") as state:
            told = 0
            for _ in range(3):
                told, killed = self.tell_and_kill(state, told)
                self.assert_kept(Path(state), killed)

    def tell_and_kill(self, state: str, first: int) -> tuple[int, float]:
        """Return the last that was told, and the monotonic time of the death."""
        child = subprocess.Popen(
            [sys.executable, "-c", TELLER, state, str(first)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        told = first
        for line in child.stdout:
            told = int(line)
            if told > first + 300:
                break
        killed = monotonic()
        child.kill()
        child.wait(10)
        child.stdout.close()
        return told, killed

    def assert_kept(self, state: Path, killed: float) -> None:
        """Look into the history."""
        book = Book(Sqlite(state / "records.db"))
        self.addCleanup(book.close)
        found = book.reader.trace(Search(limit=10_000))
        last = max(float(item["subject"].removeprefix("at ")) for item in found)
        self.assertLess(killed - last, 1.0)
        # In each life's, that is: what came between the last writing and a death is lost.
        numbers = sorted(item["id"] for item in found)
        gaps = Counter(after - before for before, after in pairwise(numbers))
        self.assertLessEqual(sum(gaps.values()) - max(gaps.values()), 2, gaps)
        book.close()
