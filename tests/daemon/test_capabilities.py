"""Proves what is asked of the kernel about capabilities, and how it is read."""

import ctypes
import errno
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.capabilities import LinuxCapabilities, Sets

STATUS = """\
Name:\tpython3
CapInh:\t0000000000000001
CapPrm:\t0000000000003000
CapEff:\t0000000000002000
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000008
"""


class Library:
    """The C library, which answers ``answer`` and notes what it was asked."""

    def __init__(self, answer=0):
        self.answer = answer
        self.calls = []

    def __getattr__(self, name):
        def call(*given):
            self.calls.append((name, *given))
            return self.answer

        return call


class CapabilitiesTests(SynchronousTestCase):
    """:class:`LinuxCapabilities` over a C library that does nothing."""

    def library(self, answer=0):
        library = Library(answer)
        self.patch(ctypes, "CDLL", lambda *_, **__: library)
        return library

    def test_sets(self):
        """All four are read, whatever their order is."""
        self.patch(Path, "read_text", lambda _: STATUS)
        self.assertEqual(LinuxCapabilities().sets(), Sets(0x2000, 0x3000, 1, 8))

    def test_sets_of_this_process(self):
        """They are there; what is effective is permitted."""
        sets = LinuxCapabilities().sets()
        self.assertEqual(sets.effective & ~sets.permitted, 0)

    def test_survive(self):
        """PR_SET_KEEPCAPS, with all unused arguments 0."""
        library = self.library()
        LinuxCapabilities().survive()
        self.assertEqual(library.calls, [("prctl", 8, 1, 0, 0, 0)])

    def test_restrict(self):
        """The third version of capset(2): two words each of three sets, the low ones first."""
        library = self.library()
        LinuxCapabilities().restrict(1 << 12 | 1 << 40)
        self.assertEqual(
            library.calls,
            [
                (
                    "capset",
                    struct.pack("=Ii", 0x20080522, 0),
                    struct.pack("=6I", 1 << 12, 1 << 12, 0, 1 << 8, 1 << 8, 0),
                )
            ],
        )

    def test_refused(self):
        """An errno is an OSError."""
        self.library(-1)
        self.patch(ctypes, "get_errno", lambda: errno.EPERM)
        self.assertRaises(PermissionError, LinuxCapabilities().restrict, 0)
