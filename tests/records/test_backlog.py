"""The backlog keeps what it took, in order, through crashes and full disks."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records import backlog
from mailsecure.records.backlog import Backlog
from mailsecure.records.rows import Numbered

from .support import attempt, message


def batch(first: int, count: int) -> list[Numbered]:
    """Return numbered events."""
    return [(first + n, attempt(n)) for n in range(count)]


class BacklogTests(SynchronousTestCase):
    """On a real file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.backlog = self.opened()

    def opened(self, limit: int = 1 << 20) -> Backlog:
        """Return it as after a start."""
        found = Backlog(self.path, limit)
        found.open()
        return found

    def drained(self, found: Backlog) -> list[int]:
        """Return the ids of all that is in it, and empty it."""
        ids = []
        while found.left:
            ids += [id for id, _ in found.read()]
            found.done()
        return ids

    def test_in_order(self) -> None:
        """What was kept is read, also after a restart, and then the file is empty."""
        self.patch(backlog, "_CHUNK", 1000)
        self.assertEqual(self.backlog.append(batch(0, 10)), 10)
        self.backlog.append(batch(10, 10))
        again = self.opened()
        self.assertEqual(self.drained(again), list(range(20)))
        self.assertEqual(self.path.stat().st_size, 0)
        again.append([(99, message())])
        self.assertEqual(again.read(), [(99, message())])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_not_done(self) -> None:
        """What is read comes again until it is done; nothing is lost in between."""
        self.patch(backlog, "_CHUNK", 1000)
        self.backlog.append(batch(0, 20))
        first = self.backlog.read()
        self.assertEqual(self.backlog.read(), first)
        self.backlog.done()
        self.assertNotEqual(self.backlog.read(), first)
        self.assertEqual(self.drained(self.opened()), list(range(20)))

    def test_appended_while_read(self) -> None:
        """What comes during the reading is read too."""
        self.backlog.append(batch(0, 3))
        self.backlog.read()
        self.backlog.append(batch(3, 3))
        self.backlog.done()
        self.assertEqual(self.drained(self.backlog), [3, 4, 5])

    def test_torn(self) -> None:
        """The last line of a crash is cut off, and counted."""
        self.patch(backlog, "_CHUNK", 64)
        self.backlog.append(batch(0, 3))
        whole = self.path.read_bytes()
        for torn in (b"x", b'["attempt",17,' + b"9" * 200):
            self.path.write_bytes(whole + torn)
            again = self.opened()
            self.assertEqual((again.broken, again.octets), (1, len(whole)))
            again.append(batch(3, 1))
            self.assertEqual(self.drained(again), [0, 1, 2, 3])
        self.path.write_bytes(b"no line at all")
        self.assertEqual(self.opened().left, 0)

    def test_senseless_lines(self) -> None:
        """They are passed over and counted once."""
        self.backlog.append(batch(0, 1))
        with self.path.open("ab") as stream:
            stream.write(b"garbage\n[]\n")
        again = self.opened()
        again.append(batch(1, 1))
        again.read()
        self.assertEqual(self.drained(again), [0, 1])
        self.assertEqual(again.broken, 2)

    def test_bound(self) -> None:
        """Beyond the limit the newest is not taken."""
        line = len(backlog.encode_line(0, attempt()))
        small = self.opened(limit=line * 3 + 5)
        self.assertEqual(small.append(batch(0, 2)), 2)
        self.assertEqual(small.append(batch(2, 5)), 1)
        self.assertEqual(small.append(batch(7, 1)), 0)
        self.assertEqual(self.drained(small), [0, 1, 2])

    def test_emptied_by_somebody(self) -> None:
        """What is gone is gone; what comes is kept without a hole before it."""
        self.backlog.append(batch(0, 3))
        self.path.unlink()
        self.backlog.append(batch(3, 1))
        self.assertEqual(self.drained(self.backlog), [3])
        self.backlog.append(batch(4, 1))
        self.path.unlink()
        self.assertEqual(self.drained(self.backlog), [])

    def test_disk_full(self) -> None:
        """A batch that could not be written is not there in part."""
        self.backlog.append(batch(0, 2))
        size, written = self.path.stat().st_size, []

        def pwrite(descriptor: int, octets: bytes, offset: int) -> int:
            if written:
                raise OSError(28, "No space left on device")
            written.append(offset)
            return real(descriptor, octets[:10], offset)

        real = os.pwrite
        self.patch(os, "pwrite", pwrite)
        self.assertRaises(OSError, self.backlog.append, batch(2, 2))
        self.patch(os, "pwrite", real)
        self.assertEqual(self.path.stat().st_size, size)
        self.backlog.append(batch(4, 1))
        self.assertEqual(self.drained(self.backlog), [0, 1, 4])

    def test_unreadable(self) -> None:
        """A directory in its place is an OSError."""
        self.path.mkdir()
        self.assertRaises(OSError, self.backlog.open)
        self.assertRaises(OSError, self.backlog.append, batch(0, 1))
