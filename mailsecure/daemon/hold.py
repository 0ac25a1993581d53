"""Holding back new connections for a moment, without refusing them.

A filter of four instructions (classic BPF, socket(7)) on a listening socket drops the SYN of
a new connection.  TCP sends that again after a second (RFC 6298 §2.1): by then the address
is at another node, which accepts it, and the client has waited a little and noticed
nothing.  Connections that were accepted before go on, and so does one whose SYN was answered
but whose client has not spoken yet: with that answer it is open for the client, whose next
segment nobody else could take.

Used while an address is handed over (:mod:`mailsecure.draining`).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

from twisted.logger import Logger

__all__ = ["hold_back", "let_in"]

_log = Logger(namespace="main")

# Linux's numbers, which Python's socket module does not name.
_ATTACH_FILTER, _DETACH_FILTER = 26, 27
#: Each a struct sock_filter: code, how many to skip where a test holds and where not, operand.
#: A filter of TCP sees the segment from its header on, whose octet 13 has the flags.
_INSTRUCTIONS = (
    (0x30, 0, 0, 13),  # BPF_LD | BPF_B | BPF_ABS
    (0x45, 0, 1, 0x02),  # BPF_JMP | BPF_JSET | BPF_K: SYN
    (0x06, 0, 0, 0),  # BPF_RET | BPF_K: nothing of it passes
    (0x06, 0, 0, 0xFFFFFFFF),  # all of it
)
_FILTER = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in _INSTRUCTIONS))
#: struct sock_fprog: how many instructions, and where.
_PROGRAM = struct.pack("HP", len(_INSTRUCTIONS), ctypes.addressof(_FILTER))


def hold_back(sockets: Iterable[socket.socket]) -> None:
    """Let nobody new in at ``sockets``, which listen, until :func:`let_in`."""
    for wire in sockets:
        try:
            wire.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, _PROGRAM)
        except OSError as error:
            _log.warn("new connections cannot be held back: {reason}", reason=error.strerror)
            return


def let_in(sockets: Iterable[socket.socket]) -> None:
    """Let new connections in again; nothing happens where none were held back."""
    for wire in sockets:
        try:
            wire.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
        except OSError:
            # There was no filter, or the socket is closed.
            continue
