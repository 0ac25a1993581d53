"""Jobs on whole messages."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from publicsuffixlist import PublicSuffixList

from ..anatomy import to_json
from ..content import archives, documents, inspecting, opening
from ..content.limits import Limits

__all__ = ["prepare", "take_apart"]


def prepare() -> None:
    """Load what some message will need.  An ImportError says which part is missing."""
    _suffixes()
    documents.load()
    inspecting.guess_type(bytes(16))
    archives.load()


def take_apart(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Return the anatomy of a message (:func:`~mailsecure.scan.anatomy.to_json`).

    ``arguments`` are those of :func:`~mailsecure.scan.content.limits.limits_for`.
    """
    return to_json(opening.take_apart(octets, Limits.read(arguments), _domain))


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    # The list that comes with the library: nothing is fetched.
    return PublicSuffixList()


def _domain(host: str) -> str:
    if host[-1:].isdigit() or ":" in host:
        return ""
    return _suffixes().privatesuffix(host) or ""
