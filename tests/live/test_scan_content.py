"""Bombs and corpora through the real pool: all are judged, none hangs or crashes.

The corpora: Python's own test data for mail (if this Python has its tests), the containers
of Debian's clamav-testfiles, and SpamAssassin's t/data, where ``MAILSECURE_SPAMASSASSIN`` is
the folder (``apt-get source spamassassin``, or its repository).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.util import sibpath

from mailsecure.scan.anatomy import Anatomy, Trait
from mailsecure.scan.api import Unscannable
from mailsecure.scan.opening import anatomy_of
from mailsecure.testing.messages import BOMBS, EICAR, message
from mailsecure.testing.workers import OctetsBody

from . import REQUIRED
from .pools import PooledTestCase, Watch

CLAMAV = Path("/usr/share/clamav-testfiles")
#: Bombs that can be read as they are: long, and nothing worse.
READABLE = {"encoded words without end", "lines that are almost delimiters", "links without end"}
#: Where SpamAssassin's t/data is, from its sources; no package of Debian's has it.
SPAMASSASSIN = os.environ.get("MAILSECURE_SPAMASSASSIN", "")
#: Seconds that the reactor's thread may be busy with one thing.
BUSY = 0.05


class ContentTestCase(PooledTestCase):
    """Takes messages apart."""

    async def outcome(self, octets: bytes) -> Anatomy | str:
        """Return the anatomy of a message, or why there is none."""
        try:
            return await anatomy_of(self.pool, self.config, OctetsBody(octets))()
        except Unscannable as fault:
            return str(fault)


class BombTests(ContentTestCase):
    """What hurts parsers does not hurt the gateway."""

    async def test_each(self) -> None:
        """Each within 10 s and 512 MB, unscannable or read; the reactor goes on meanwhile."""
        self.assertEqual(self.config.scan.worker_memory, 512 << 20)
        self.assertEqual(self.config.scan.worker_time, 10)
        bombs = {name: make() for name, make in BOMBS.items()}
        watch = Watch()
        watch.start()
        self.addCleanup(watch.stop)
        for name, octets in bombs.items():
            began = time.monotonic()
            outcome = await self.outcome(octets)
            self.assertLess(time.monotonic() - began, 10, name)
            self.assertEqual(isinstance(outcome, Anatomy), name in READABLE, (name, outcome))
        self.assertLess(watch.busy, BUSY, f"in real time at most {watch.late:.3f} s")
        report = self.pool.report()
        self.assertEqual((report["killed"], report["crashed"]), (0, 0))

    async def test_all_at_once(self) -> None:
        """All together, and an innocent message between them."""
        bombs = [make() for make in BOMBS.values()]
        watch = Watch()
        watch.start()
        self.addCleanup(watch.stop)
        work = [Deferred.fromCoroutine(self.outcome(octets)) for octets in (*bombs, message())]
        outcomes = await gatherResults(work)
        self.assertIsInstance(outcomes[-1], Anatomy)
        self.assertLess(watch.busy, BUSY, f"in real time at most {watch.late:.3f} s")

    async def test_large_result(self) -> None:
        """A message of which there is much to tell does not hold the reactor up."""
        files = [(f"ü{n}" * 60 + ".exe", b"MZ\0\0") for n in range(1500)]
        octets = message(" ".join(f"http://h{n}.example/" for n in range(500)), attached=files)
        await self.outcome(message())
        watch = Watch()
        watch.start()
        self.addCleanup(watch.stop)
        outcome = await self.outcome(octets)
        assert isinstance(outcome, Anatomy)
        self.assertEqual(outcome.parts_in_all, 1501)
        self.assertLess(watch.busy, BUSY, f"in real time at most {watch.late:.3f} s")


class CorpusTests(ContentTestCase):
    """Messages that others have collected to try their parsers."""

    async def judged(self, files: Iterator[tuple[str, bytes]], least: int) -> dict[str, Anatomy]:
        """Have all messages taken apart; return what came of those that can be."""
        found: dict[str, Anatomy] = {}
        count = 0
        for name, octets in files:
            count += 1
            outcome = await self.outcome(octets)
            if isinstance(outcome, Anatomy):
                found[name] = outcome
        self.assertGreaterEqual(count, least)
        report = self.pool.report()
        self.assertEqual((report["killed"], report["crashed"]), (0, 0))
        self.assertEqual(report["done"] + report["unscannable"], count)
        return found

    async def test_python(self) -> None:
        """Python's own."""
        folder = Path(sibpath(os.__file__, "test"), "test_email", "data")
        if not folder.is_dir():
            absent("this Python comes without its tests")
        found = await self.judged(_files(folder), 50)
        self.assertGreaterEqual(len(found), 50)

    if SPAMASSASSIN:

        async def test_spamassassin(self) -> None:
            """SpamAssassin's."""
            found = await self.judged(_files(Path(SPAMASSASSIN)), 200)
            self.assertTrue(any(each.gtube for each in found.values()))

    async def test_clamav(self) -> None:
        """Containers of all kinds, each attached: in most of them the program is found."""
        if not CLAMAV.is_dir():
            absent("clamav-testfiles is not installed")
        files = ((name, message(attached=[(name, octets)])) for name, octets in _files(CLAMAV))
        found = await self.judged(files, 40)
        programs = [each for each in found.values() if each.having(Trait.EXECUTABLE)]
        self.assertGreaterEqual(len(programs), 28)

    async def test_own(self) -> None:
        """Ours: a message cut off after each of its octets, and with each of them spoilt."""
        octets = message("Hello http://a.example/\r\n", [("a.com", EICAR)])
        cut = [octets[:at] for at in range(0, len(octets), 7)]
        spoilt = [
            octets[:at] + bytes([octet]) + octets[at + 1 :]
            for at in range(0, len(octets), 7)
            for octet in (0, 10, 255)
        ]
        await self.judged(((str(n), each) for n, each in enumerate(cut + spoilt)), 300)


def absent(what: str) -> None:
    """Skip the test, or fail where nothing may be skipped."""
    if REQUIRED:
        raise AssertionError(f"required, but {what}")
    raise SkipTest(what)


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size < 5 << 20:
            yield str(path.relative_to(folder)), path.read_bytes()
