"""How an option of the ini is declared (pure): a dataclass field that says all of itself.

:mod:`.model` and :mod:`.scanning` declare every option with :func:`option`; the loader, the
example file and the documentation read it back through :mod:`.schema`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

__all__ = ["option"]


def option(kind: str, default: str, doc: str, example: str = "", *, restart: bool = False) -> Any:
    """Declare an option: a dataclass field that the loader knows how to fill.

    ``kind`` names a parser of :mod:`.kinds`; ``default`` and ``example`` are texts that
    it takes.  ``restart`` says that a running daemon cannot apply a change.
    """
    return field(
        metadata={
            "kind": kind,
            "default": default,
            "doc": doc,
            "example": example,
            "restart": restart,
        }
    )
