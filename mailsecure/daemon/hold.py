"""Holding back new connections for a moment, without refusing them.

A filter of one instruction (classic BPF, socket(7)) on a listening socket drops what comes
to it, first of all the SYN of a new connection.  TCP sends that again after a second (RFC
6298 §2.1): by then the address is at another node, which accepts it, and the client has
waited a little and noticed nothing.  Connections that were accepted before go on.

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
#: struct sock_filter: BPF_RET | BPF_K with 0, "nothing of this packet passes".
_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
#: struct sock_fprog: how many instructions, and where.
_PROGRAM = struct.pack("HP", 1, ctypes.addressof(_NOTHING))


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
