"""Networks of a test's own: Linux's network namespaces, and cables between them.

:class:`Namespace` is a network of its own, with a loopback interface.  Commands run in it
(:meth:`Namespace.run`), a daemon does with :attr:`Namespace.prefix`, and within
:meth:`Namespace.entered` so does what the test itself opens: sockets stay in the network
in which they were made.  :class:`Switch` is one more namespace, with a bridge, to which any
number of others are plugged.

All of this needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Namespace", "Switch", "cable"]

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """One network; :meth:`close` ends it, and the interfaces in it."""

    def __init__(self) -> None:
        self.name = f"mailsecure-{os.getpid()}-{next(_numbers)}"
        _run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words in front of a command that is to run here."""
        return "ip", "netns", "exec", self.name

    def run(self, *command: str) -> str:
        """Run ``command`` here; return what it printed, fail where it fails."""
        return _run(*self.prefix, *command)

    def ip(self, *words: str) -> None:
        """``ip`` here, quicker than by :meth:`run`."""
        _run("ip", "-n", self.name, *words)

    def asked(self, *words: str) -> list[dict[str, Any]]:
        """Return what ``ip -j`` says to ``words``."""
        found: list[dict[str, Any]] = json.loads(_run("ip", "-n", self.name, "-j", *words) or "[]")
        return found

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be here, with this thread, within the block."""
        with Path("/proc/thread-self/ns/net").open() as before:
            with Path("/run/netns", self.name).open() as here:
                _enter(here.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def addresses(self, interface: str) -> dict[str, dict[str, Any]]:
        """Return address → what ``ip`` says of it."""
        found = self.asked("addr", "show", "dev", interface)
        return {each["local"]: each for link in found for each in link.get("addr_info", ())}

    def neighbours(self) -> dict[str, str]:
        """Return address → MAC of all that are known here."""
        return {each["dst"]: each["lladdr"] for each in self.asked("neigh") if "lladdr" in each}

    def mac(self, interface: str) -> str:
        """Return the MAC of an interface."""
        return str(self.asked("link", "show", "dev", interface)[0]["address"])

    def close(self) -> None:
        """The end of it, whatever runs in it."""
        _run("ip", "netns", "del", self.name)


class Switch(Namespace):
    """A bridge, and cables to it."""

    def __init__(self) -> None:
        super().__init__()
        self.ip("link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self.ip("link", "set", "bridge", "up")
        self._ports = itertools.count()

    def plug(self, other: Namespace, interface: str, *addresses: str) -> str:
        """Make ``interface`` in ``other`` with ``addresses``; return the port's name here."""
        port = f"port{next(self._ports)}"
        cable(other, interface, self, port)
        self.ip("link", "set", port, "master", "bridge")
        self.ip("link", "set", port, "up")
        other.ip("link", "set", interface, "up")
        for each in addresses:
            other.ip("addr", "add", each, "dev", interface, *["nodad"] * (":" in each))
        return port


def cable(one: Namespace, interface: str, other: Namespace, far: str) -> None:
    """Make a pair of interfaces, one in each network, both still down.

    Their indexes differ by far: where they happen to be equal, Linux takes them for real
    devices, of whose carriers it tells once a second.
    """
    index = str(1000 + next(_numbers))
    pair = (interface, "index", index, "type", "veth", "peer", "name", far)
    one.ip("link", "add", *pair, "netns", other.name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
