"""How much of a message is looked at, and what is not wanted in it (pure).

:func:`limits_for` writes the options of ``[scan]`` and ``[attachments]`` as the arguments of
the job, :class:`Limits` are they in the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...config.scanning import Attachments, Scan
from ..faults import Unscannable

__all__ = ["Budget", "Limits", "limits_for"]

#: Below this many octets nothing is a bomb, however well it was packed.
SMALL: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """See the options of the same names."""

    max_parts: int = 2000
    max_depth: int = 50
    archive_depth: int = 5
    archive_files: int = 5000
    archive_size: int = 200 << 20
    archive_ratio: int = 250
    forbidden_names: tuple[str, ...] = ()
    forbidden_types: tuple[str, ...] = ()

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> Limits:
        """Return what :func:`limits_for` has written."""
        known = dict(arguments)
        for name in ("forbidden_names", "forbidden_types"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


def limits_for(scan: Scan, attachments: Attachments) -> dict[str, Any]:
    """Return the arguments of ``jobs.mail:take_apart``."""
    return {
        "max_parts": scan.max_parts,
        "max_depth": scan.max_depth,
        "archive_depth": attachments.archive_depth,
        "archive_files": attachments.archive_files,
        "archive_size": attachments.archive_size,
        "archive_ratio": attachments.archive_ratio,
        "forbidden_names": list(attachments.forbidden_names),
        "forbidden_types": list(attachments.forbidden_types),
    }


class Budget:
    """What is left of the limits, for one message.

    Each method takes something off, and raises Unscannable where there is no more.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts = 0
        self._files = 0
        self._unpacked = 0

    def part(self, depth: int) -> None:
        """One more part, nested ``depth`` deep."""
        self._parts += 1
        if self._parts > self._limits.max_parts:
            raise Unscannable(f"more than {self._limits.max_parts} parts")
        if depth > self._limits.max_depth:
            raise Unscannable(f"parts nested more than {self._limits.max_depth} deep")

    def archive(self, depth: int) -> None:
        """One more archive, the ``depth``-th in one another."""
        if depth > self._limits.archive_depth:
            raise Unscannable(f"archives nested more than {self._limits.archive_depth} deep")

    def file(self) -> None:
        """One more file in an archive."""
        self._files += 1
        if self._files > self._limits.archive_files:
            raise Unscannable(f"more than {self._limits.archive_files} files in archives")

    def unpacked(self, octets: int, of_archive: int, packed: int) -> None:
        """Unpacked ``octets`` more, ``of_archive`` in all from one of ``packed`` octets."""
        self._unpacked += octets
        if self._unpacked > self._limits.archive_size:
            raise Unscannable(f"archives of more than {self._limits.archive_size} octets")
        if of_archive > max(SMALL, packed * self._limits.archive_ratio):
            times = self._limits.archive_ratio
            raise Unscannable(f"an archive that unpacks to more than {times} times its size")
