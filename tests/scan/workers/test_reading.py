"""What a worker may read, as far as that can be tried without giving it up: see tests.live."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import mailsecure
from mailsecure.scan.workers import reading
from mailsecure.scan.workers.reading import code_places, read_only_from

CREATE, ADD, RESTRICT = 444, 445, 446


class Kernel:
    """Landlock of some version, or none (-1); notes what it is told, and ``refuses`` one call."""

    def __init__(self, version: int, refuses: int = 0) -> None:
        self.version = version
        self.refuses = refuses
        self.handled = 0
        self.allowed: list[int] = []
        self.restricted = False

    def syscall(self, number: int, *arguments: Any) -> int:
        """Do one of the three."""
        if number == CREATE and arguments[0] is None:
            return self.version
        if number == self.refuses:
            return -1
        if number == CREATE:
            (self.handled,) = struct.unpack("Q", arguments[0])
            return os.open(os.devnull, os.O_RDONLY)
        if number == ADD:
            self.allowed.append(struct.unpack("=Qi", arguments[2])[0])
        else:
            self.restricted = True
        return 0


class ReadingTests(SynchronousTestCase):
    """read_only_from and code_places."""

    def kernel(self, version: int, refuses: int = 0) -> Kernel:
        kernel = Kernel(version, refuses)
        self.patch(reading, "_library", kernel)
        return kernel

    def test_versions(self) -> None:
        """Each kernel is asked for what it knows, and for no more."""
        for version, handled in ((1, 0x1FFD), (2, 0x3FFD), (4, 0x3FFD), (5, 0xBFFD), (7, 0xBFFD)):
            kernel = self.kernel(version)
            self.assertTrue(read_only_from(["/usr", "/dev/null", "/no/such/place"]))
            self.assertEqual(kernel.handled, handled)
            self.assertEqual(kernel.allowed, [0b1100, 0b100])
            self.assertTrue(kernel.restricted)

    def test_none(self) -> None:
        """A kernel that has none, or does not let it be used."""
        for kernel in (self.kernel(-1), self.kernel(0), self.kernel(3, CREATE)):
            self.patch(reading, "_library", kernel)
            self.assertFalse(read_only_from(["/usr"]))
        for refuses in (ADD, RESTRICT):
            kernel = self.kernel(3, refuses)
            self.assertFalse(read_only_from(["/usr"]))
            self.assertFalse(kernel.restricted)

    def test_places(self) -> None:
        """Where Python and this package are; not where it only might look for modules."""
        self.patch(sys, "path", [*sys.path, "/", "/etc", ""])
        places = code_places()
        self.assertIn(sys.prefix, places)
        self.assertIn("/usr", places)
        (ours,) = mailsecure.__path__
        self.assertIn(str(Path(ours).resolve().parent), places)
        self.assertNotIn("/", places)
        self.assertNotIn("/etc", places)
