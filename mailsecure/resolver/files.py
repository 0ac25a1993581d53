"""The two files of /etc that every resolver heeds: hosts and resolv.conf.

The parsers take text; :class:`WatchedFile` reads a file again when it has changed, and
looks at most once a second.  A file that is missing is an empty one.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["WatchedFile", "parse_hosts", "parse_resolv_conf"]

T = TypeVar("T")
LOOK_EVERY = 1.0


def parse_resolv_conf(text: str) -> list[tuple[str, int]]:
    """Return the name servers as (address, port), in order."""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ip_address(words[1])
            except ValueError:
                continue
            servers.append((words[1], 53))
    return servers


def parse_hosts(text: str) -> dict[str, list[str]]:
    """Return name (lower case) → addresses."""
    hosts: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            ip_address(address)
        except ValueError:
            continue
        for name in names:
            known = hosts.setdefault(name.lower(), [])
            if address not in known:
                known.append(address)
    return hosts


class WatchedFile(Generic[T]):
    """What a parser makes of a file, as the file is now."""

    def __init__(self, path: str, parse: Callable[[str], T]) -> None:
        self._path = Path(path)
        self._parse = parse
        self._value = parse("")
        self._stamp: tuple[int, int, int] | None = None
        self._look_at = float("-inf")

    def value(self, now: float) -> T:
        """Return the value; ``now`` is monotonic, in seconds."""
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if stamp != self._stamp:
                    self._value = self._parse(self._path.read_text("utf-8", "replace"))
                    self._stamp = stamp
            except OSError:
                self._value = self._parse("")
                self._stamp = None
        return self._value
