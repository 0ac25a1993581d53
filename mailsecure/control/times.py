"""Times as people read them on a terminal (pure)."""

from __future__ import annotations

from datetime import UTC, datetime

from ..units import format_seconds

__all__ = ["age", "moment"]


def age(seconds: float) -> str:
    """Return a duration as people say it, whole seconds at least: ``0s``, ``3h12m``."""
    return format_seconds(int(seconds)) if seconds >= 1 else "0s"


def moment(when: float) -> str:
    """Return a Unix time as people read it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
