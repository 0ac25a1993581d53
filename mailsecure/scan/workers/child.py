"""A worker: takes jobs from its socket, one at a time, until the daemon closes it.

It runs in a process forked by :mod:`.forking`, blocks as it likes, and keeps nothing from
one job to the next.  What a job may come to:

``{"result": {…}}``       its result
``{"unscannable": why}``  the message is at fault, or takes too much memory: then with
                          ``"last": true``, and this process ends
``{"local": why}``        this node is at fault

Any other exception ends the process, with its traceback on standard error, as a crash of a
C library would: the daemon tells the two from the exit status, and both are the message's
fault.  Whatever jobs write to standard output goes nowhere.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, BinaryIO, NoReturn

from ...errors import LocalFault
from ..faults import Unscannable
from .confining import die_with_parent, limit_processor, limit_resources, nice
from .frames import PREFIX_OCTETS, encode_frame, read_object, read_prefix
from .syscalls import forbid_calls

__all__ = ["Job", "find_job", "live"]

Job = Callable[[dict[str, Any], bytes], Mapping[str, Any]]

_JOB = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*:[a-z][a-z0-9_]*")
_OUT_OF_MEMORY = {"unscannable": "takes too much memory", "last": True}


def find_job(package: str, name: str) -> Job:
    """Return the function that ``module:name``, below ``package``, names.

    Raises LocalFault where there is none.
    """
    if _JOB.fullmatch(name) is None:
        raise LocalFault(f"{name!r} is no name of a job")
    module, _, attribute = name.partition(":")
    try:
        job: Job = getattr(import_module(f"{package}.{module}"), attribute)
    except (ImportError, AttributeError) as error:
        raise LocalFault(f"there is no job {name}: {error}") from error
    return job


def live(wire: socket.socket, package: str, parent: int, memory: int) -> NoReturn:
    """Be a worker until ``wire`` is closed, or ``parent`` has ended; never returns.

    Jobs are those below ``package``; ``memory`` is the address space, in octets.
    """
    status = 1
    try:
        if die_with_parent(parent):
            _settle(memory)
            with wire.makefile("rb") as stream:
                while _work(stream, wire, package):
                    pass
        status = 0
    finally:
        # The frames below are the forking process's: they must not be gone on with.
        failure = sys.exc_info()[1]
        if failure is not None:
            traceback.print_exception(failure, limit=-8)
            sys.stderr.flush()
        os._exit(status)


def _settle(memory: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nice(0, 1000)
    limit_resources(memory)
    forbid_calls()


def _work(stream: BinaryIO, wire: socket.socket, package: str) -> bool:
    """Do one job; False where there is none, or where this process should not do another."""
    prefix = stream.read(PREFIX_OCTETS)
    if len(prefix) < PREFIX_OCTETS:
        return False
    length, size = read_prefix(prefix)
    try:
        order = read_object(stream.read(length))
        octets = stream.read(size)
        if len(octets) < size:
            return False
        limit_processor(time.process_time(), order["seconds"])
        outcome = _done(package, order, octets)
    except MemoryError:
        # The daemon may still be sending; with this it stops.
        wire.sendall(encode_frame(_OUT_OF_MEMORY))
        return False
    wire.sendall(outcome)
    return True


def _done(package: str, order: dict[str, Any], octets: bytes) -> bytes:
    try:
        job = find_job(package, order["job"])
        return encode_frame({"result": job(order["arguments"], octets)})
    except Unscannable as fault:
        return encode_frame({"unscannable": _short(fault)})
    except LocalFault as fault:
        return encode_frame({"local": _short(fault)})
    except RecursionError:
        return encode_frame({"unscannable": "is nested too deep"})


def _short(fault: Exception) -> str:
    """Return what it says, in one printable line."""
    return json.dumps(str(fault)[:400])[1:-1]
