"""What a worker may not ask of the kernel: a filter for system calls (seccomp(2)).

Limits and capabilities leave a process all that its user may do.  A worker that a hostile
file has taken over would be the daemon's user, who may read and write the spool and speak
to the network.  The filter takes that away, from any user: no new sockets, no programs, no
other processes, no changes of files.  Such a call fails with EPERM; reading, memory and the
socket that is open already are all that jobs need.  What may be read is for :mod:`.reading`.

A program of classic BPF looks at the number of each call.  The numbers are those of x86-64
and of the others' common table (asm-generic/unistd.h); on other machines there is no filter.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final

__all__ = ["can_forbid", "forbid_calls", "program"]

_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2

#: AUDIT_ARCH, what is forbidden, and the calls that open files with the place of their flags.
_MACHINES: Final[dict[str, tuple[int, Sequence[int], Sequence[tuple[int, int]]]]] = {
    "x86_64": (
        0xC000003E,
        (
            *(41, 42, 43, 49, 50, 53, 288),  # socket connect accept bind listen socketpair accept4
            *(59, 322, 101, 310, 311),  # execve execveat ptrace process_vm_readv -writev
            *(62, 129, 200, 424, 438),  # kill rt_sigqueueinfo tkill pidfd_send_signal pidfd_getfd
            *(165, 272, 308, 321, 298, 425, 437),  # mount unshare setns bpf perf io_uring openat2
            *(76, 77, 82, 83, 84, 85, 86, 87, 88),  # truncate … rename mkdir rmdir creat … symlink
            *(90, 91, 92, 93, 94, 133),  # chmod … lchown mknod
            *(258, 259, 260, 263, 264, 265, 266, 268, 316, 452),  # the same by descriptors
            *(248, 249, 250, 323),  # add_key request_key keyctl userfaultfd
        ),
        ((2, 1), (257, 2)),  # open openat
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(198, 199, 200, 201, 202, 203, 242),  # socket socketpair bind listen accept connect …
            *(221, 281, 117, 270, 271),  # execve execveat ptrace process_vm_readv -writev
            *(129, 138, 130, 424, 438),  # kill rt_sigqueueinfo tkill pidfd_send_signal pidfd_getfd
            *(40, 97, 268, 280, 241, 425, 437),  # mount unshare setns bpf perf io_uring openat2
            *(33, 34, 35, 36, 37, 38, 45, 46, 276),  # mknodat … linkat renameat truncate …
            *(52, 53, 54, 55, 452),  # fchmod fchmodat fchownat fchown fchmodat2
            *(217, 218, 219, 282),  # add_key request_key keyctl userfaultfd
        ),
        ((56, 2),),  # openat
    ),
}

# Classic BPF: load a word of struct seccomp_data, jump if equal, if above, if any bit; return.
_LOAD, _EQUAL, _ABOVE, _ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
#: From here on x86-64 counts the calls of another way to call (x32).
_X32: Final = 0x40000000
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_Instruction = tuple[int, int, int, int]


def program(machine: str) -> list[_Instruction]:
    """Return the filter for a machine, each instruction as (code, jump if, jump if not, value).

    Empty for a machine that is not known.
    """
    if machine not in _MACHINES:
        return []
    arch, forbidden, opening = _MACHINES[machine]
    body: list[_Instruction] = []
    for number, place in opening:
        body += [
            (_EQUAL, 0, 3, number),
            (_LOAD, 0, 0, _ARGUMENTS + 8 * place),
            (_ANY, 1, 0, _WRITING),
            (_RETURN, 0, 0, _ALLOW),
            # Not reached unless it writes: the number is loaded again for what follows.
            (_LOAD, 0, 0, _NUMBER),
        ]
    calls = [number for number, _ in opening]
    checks = [*forbidden, *calls]
    count = len(checks)
    body += [(_EQUAL, count - place, 0, number) for place, number in enumerate(checks)]
    return [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_ABOVE, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
        *body,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def can_forbid() -> bool:
    """Say whether kernel and machine know such filters."""
    library = ctypes.CDLL(None, use_errno=True)
    return bool(program(os.uname().machine)) and library.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def forbid_calls() -> bool:
    """Put the filter in place, for good; False where kernel or machine know none.

    The process must have no_new_privs set (:func:`.confining.give_up_rights`).
    """
    instructions = program(os.uname().machine)
    if not instructions:
        return False
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
    whole = struct.pack("HP", len(instructions), ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.prctl(_PR_SET_SECCOMP, _MODE_FILTER, whole, 0, 0) == 0)
