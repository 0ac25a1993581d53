"""Jobs that do what hostile messages make libraries do."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailsecure.errors import LocalFault
from mailsecure.scan.faults import Unscannable


def echo(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Tell what arrived, and who is at work."""
    digest = hashlib.sha256(octets).hexdigest()
    return {"arguments": arguments, "octets": len(octets), "sha256": digest, "pid": os.getpid()}


def loop(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Never end."""
    while True:
        pass


def sleep(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Take some time."""
    time.sleep(arguments["seconds"])
    return {"pid": os.getpid()}


def hog(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Take all memory."""
    taken = []
    while True:
        taken.append(bytes(10 << 20))


def recurse(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Recurse without end."""
    return recurse(arguments, octets)


def crash(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Write where nothing is."""
    ctypes.memset(8, 0, 8)
    return {}


def leave(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """End the process."""
    os._exit(3)


def blunder(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Have a bug."""
    return {"a": arguments["no such thing"]}


def flood(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Write as much as goes."""
    for _ in range(2000):
        sys.stdout.write("x" * 10000)
        os.write(2, b"y" * 10000)
    return {"flooded": True}


def too_much(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Return more than a result may be."""
    return {"text": "x" * (5 << 20)}


def refuse(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Say that the message is at fault, with its own octets."""
    raise Unscannable("broken\r\n\x1b[31m")


def lack(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Say that this node is at fault."""
    raise LocalFault("no library")


def rights(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Tell what this process may do."""
    victim = Path(arguments["victim"])
    attempts: dict[str, Callable[[], object]] = {
        "read": victim.read_bytes,
        "list": lambda: os.listdir(victim.parent),
        "list the root": lambda: os.listdir("/"),
        "read the passwords": lambda: Path("/etc/passwd").read_bytes(),
        "import": lambda: importlib.import_module("wave"),
        "load a library": lambda: ctypes.CDLL("libbz2.so.1.0"),
        "write": lambda: Path(arguments["path"]).write_bytes(b"x" * 100),
        "truncate": lambda: os.truncate(victim, 0),
        "unlink": victim.unlink,
        "run": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "connect": lambda: socket.create_connection(("127.0.0.1", arguments["port"]), 1).close(),
        "socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "kill": lambda: os.kill(os.getppid(), 0),
    }
    tried = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            tried[name] = True
        except (OSError, ImportError):
            tried[name] = False
    library = ctypes.CDLL(None)
    # capget(2), version 3: three words for each half of the set, the effective ones first.
    held = ctypes.create_string_buffer(24)
    assert library.capget(struct.pack("=Ii", 0x20080522, 0), held) == 0
    return {
        **tried,
        "capabilities": held.raw.strip(b"\0").decode("latin-1"),
        "no_new_privileges": library.prctl(39, 0, 0, 0, 0),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    }
