"""Bodies while they arrive: the account of memory is exact, the disk's faults have names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.spool import body as module
from mailsecure.spool.api import SpoolBroken, SpoolFull
from mailsecure.spool.body import BodyStore, FileBody, MemoryBody, disk_fault


class BodyStoreTests(SynchronousTestCase):
    """BodyStore, BodyBuilder and what they make."""

    def store(self, memory: int = 10_000, spill_at: int = 1000) -> BodyStore:
        directory = Path(self.mktemp())
        directory.mkdir()
        return BodyStore(directory, memory, spill_at)

    def test_in_memory(self) -> None:
        """A small message stays in memory until it is released."""
        store = self.store()
        builder = store.begin()
        builder.write(b"hello ")
        builder.write(b"world")
        self.assertEqual((builder.octets, store.used), (11, 11))
        body = builder.finish(b"head ")
        self.assertTrue(body.in_memory)
        self.assertEqual(
            (b"".join(body.pieces()), body.octets, store.used), (b"head hello world", 16, 16)
        )
        body.release()
        body.release()
        self.assertEqual(store.used, 0)
        self.assertEqual(b"".join(body.pieces()), b"head hello world")

    def test_spilled(self) -> None:
        """A large one goes to a file without a name, which costs no memory."""
        store = self.store()
        builder = store.begin()
        for _ in range(300):
            builder.write(b"0123456789")
        body = builder.finish(b"head ")
        self.assertFalse(body.in_memory)
        self.assertEqual((store.used, body.octets), (0, 3005))
        self.assertEqual(b"".join(body.pieces(100)), b"head " + b"0123456789" * 300)
        self.assertEqual(list(store._directory.iterdir()), [])
        body.release()

    def test_memory_is_bounded(self) -> None:
        """When all messages together have too much, the next octets go to files."""
        store = self.store(memory=50)
        builders = [store.begin() for _ in range(20)]
        for builder in builders:
            builder.write(b"0123456789")
            self.assertLessEqual(store.used, 60)
        for builder in builders:
            builder.discard()
        self.assertEqual(store.used, 0)

    def test_discard(self) -> None:
        """A discarded message leaves neither memory nor a descriptor."""
        before = len(os.listdir("/proc/self/fd"))
        store = self.store()
        for size in (10, 5000):
            builder = store.begin()
            builder.write(b"x" * size)
            builder.discard()
            builder.discard()
        self.assertEqual((store.used, len(os.listdir("/proc/self/fd"))), (0, before))

    def test_faults_while_spilling(self) -> None:
        """No room is SpoolFull, a broken disk SpoolBroken; discarding gives all back."""
        for number, fault in (
            (errno.ENOSPC, SpoolFull),
            (errno.EMFILE, SpoolFull),
            (errno.EIO, SpoolBroken),
        ):
            store = self.store()
            builder = store.begin()

            def fail(*_: object, number: int = number) -> int:
                raise OSError(number, os.strerror(number))

            self.patch(module.os, "write", fail)
            self.assertRaises(fault, builder.write, b"x" * 2000)
            builder.discard()
            self.assertEqual(store.used, 0)

    def test_without_tmpfile(self) -> None:
        """A file system without O_TMPFILE does as well."""
        store = self.store()
        real = os.open

        def refuse(path: object, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "no")
            return real(path, flags, mode)  # type: ignore[arg-type]

        self.patch(module.os, "open", refuse)
        builder = store.begin()
        builder.write(b"x" * 2000)
        self.assertEqual(b"".join(builder.finish(b"").pieces()), b"x" * 2000)
        self.assertEqual(list(store._directory.iterdir()), [])

    def test_no_descriptor(self) -> None:
        """Without descriptors there is no room."""
        store = self.store()

        def refuse(*_: object) -> int:
            raise OSError(errno.EMFILE, "too many")

        self.patch(module.os, "open", refuse)
        self.assertRaises(SpoolFull, store.begin().write, b"x" * 2000)

    def test_file_too_short(self) -> None:
        """A file that lost its end is a fault of the disk, not an endless loop."""
        path = Path(self.mktemp())
        path.write_bytes(b"short")
        body = FileBody(b"", 100, path=path)
        self.assertRaises(SpoolBroken, list, body.pieces())
        self.assertRaises(SpoolBroken, list, FileBody(b"", 1, path=path.with_name("gone")).pieces())

    def test_fault_names_the_reason(self) -> None:
        """What is told says what was tried, and why it failed."""
        self.assertEqual(
            str(disk_fault(OSError(errno.EIO, "I/O error"), "cannot sync")),
            "cannot sync: I/O error",
        )

    @given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 400))
    def test_any_writes(self, pieces: list[bytes], spill_at: int) -> None:
        """What was written is what is read, in memory or not."""
        store = self.store(spill_at=spill_at)
        builder = store.begin()
        for piece in pieces:
            builder.write(piece)
        body = builder.finish(b"H")
        self.assertEqual(b"".join(body.pieces(7)), b"H" + b"".join(pieces))
        self.assertEqual(body.octets, 1 + sum(map(len, pieces)))
        body.release()
        self.assertEqual(store.used, 0)

    def test_plain_memory(self) -> None:
        """A body made without a store has nothing to give back."""
        MemoryBody([b"x"]).release()
