"""The filter for system calls, run by an interpreter of classic BPF."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.workers.syscalls import program

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7


def verdict(machine: str, arch: int, number: int, *arguments: int) -> int:
    """Return what the filter says of a call."""
    data = {0: number, 4: arch} | {16 + 8 * n: value for n, value in enumerate(arguments)}
    code, at, loaded = program(machine), 0, 0
    while True:
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x06:
            return value
        if kind == 0x20:
            loaded = data.get(value, 0)
            continue
        true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[kind]
        at += yes if true else no


class ProgramTests(SynchronousTestCase):
    """program."""

    def test_calls(self) -> None:
        """Reading and memory are allowed; sockets, programs, signals and changes are not."""
        # read, write, mmap, exit_group; socket, connect, execve, kill, unlinkat
        for machine, arch, allowed, refused in (
            ("x86_64", X86, (0, 1, 9, 44, 231), (41, 42, 59, 62, 263, 437)),
            ("aarch64", ARM, (63, 64, 222, 206, 94), (198, 203, 221, 129, 35, 437)),
        ):
            for number in allowed:
                self.assertEqual(verdict(machine, arch, number), ALLOW, number)
            for number in refused:
                self.assertEqual(verdict(machine, arch, number), REFUSE, number)

    def test_open(self) -> None:
        """Files are opened to be read only."""
        for flags, expected in (
            (os.O_RDONLY | os.O_CLOEXEC, ALLOW),
            (os.O_WRONLY, REFUSE),
            (os.O_RDWR, REFUSE),
            (os.O_CREAT, REFUSE),
            (os.O_TRUNC, REFUSE),
        ):
            self.assertEqual(verdict("x86_64", X86, 2, 0, flags), expected)
            self.assertEqual(verdict("x86_64", X86, 257, 0, 0, flags), expected)
            self.assertEqual(verdict("aarch64", ARM, 56, 0, 0, flags), expected)

    def test_other_ways_to_call(self) -> None:
        """Calls of another architecture end the process; x32 is refused."""
        self.assertEqual(verdict("x86_64", 0x40000003, 1), KILL)
        self.assertEqual(verdict("x86_64", X86, 0x40000000 + 41), REFUSE)

    def test_unknown_machine(self) -> None:
        """There is no filter for others."""
        self.assertEqual(program("s390x"), [])

    @given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    def test_ends(self, number: int, flags: int) -> None:
        """Every call has a verdict, and no jump leaves the program."""
        self.assertIn(verdict("x86_64", X86, number, 0, flags, flags), (ALLOW, REFUSE))
        for machine in ("x86_64", "aarch64"):
            code = program(machine)
            for at, (_, yes, no, _) in enumerate(code):
                self.assertLess(at + max(yes, no), len(code))
                self.assertLess(max(yes, no), 256)
