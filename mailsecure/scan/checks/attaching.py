"""What attachments come to (pure): symbols from an anatomy and ``[attachments]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ...config.scanning import Attachments, ScanAction
from ..anatomy import Anatomy, Part, Trait
from ..values import Special, Symbol

__all__ = ["judge_attachments"]

#: Parts that a reason names, and the characters of each.
_NAMED: Final = 3
_LONGEST: Final = 80


def judge_attachments(anatomy: Anatomy, settings: Attachments) -> tuple[Symbol, ...]:
    """Return a symbol for each thing that is wrong with what is attached."""
    return tuple(_symbols(anatomy, settings))


def _symbols(anatomy: Anatomy, settings: Attachments) -> Iterator[Symbol]:
    having = anatomy.having
    forbidden, doubled = settings.forbidden, settings.double_extensions
    for name, score, trait, action, public in (
        ("FORBIDDEN_NAME", 8, Trait.FORBIDDEN_NAME, forbidden, "Files of this name"),
        ("FORBIDDEN_TYPE", 8, Trait.FORBIDDEN_TYPE, forbidden, "Files of this type"),
        ("EXECUTABLE", 8, Trait.EXECUTABLE, settings.executables, "Programs"),
        ("SCRIPT", 4, Trait.SCRIPT, settings.scripts, "Scripts"),
        ("DOUBLE_EXTENSION", 8, Trait.DOUBLE_EXTENSION, doubled, "Files of this name"),
    ):
        if parts := having(trait):
            reply = f"{public} are not accepted here: {_shown(parts[0].name or parts[0].real)}"
            yield _symbol(name, score, _paths(parts), action, reply)
    suspicious = having(Trait.SUSPICIOUS)
    if suspicious:
        words = dict.fromkeys(word for part in suspicious for word in part.words)
        reason = f"{_paths(suspicious)}: {_shown(' '.join(words))}"
        reply = "Documents with such macros are not accepted here"
        yield _symbol("MACROS_SUSPICIOUS", 7, reason, settings.suspicious_macros, reply)
    if macros := having(Trait.MACROS):
        reply = "Documents with macros are not accepted here"
        yield _symbol("MACROS", 1, _paths(macros), settings.macros, reply)
    if encrypted := having(Trait.ENCRYPTED):
        yield Symbol("ENCRYPTED", 0.0, _paths(encrypted), special=Special.ENCRYPTED)


def _symbol(name: str, score: float, reason: str, action: ScanAction, reply: str) -> Symbol:
    """Return the symbol; one that the postmaster accepts is only told of."""
    if action is ScanAction.ACCEPT:
        return Symbol(name, 0.0, reason)
    return Symbol(name, score, reason, action=action, reply=reply)


def _paths(parts: Sequence[Part]) -> str:
    shown = [_shown(part.path.removeprefix("message/")) for part in parts[:_NAMED]]
    more = len(parts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _shown(text: str) -> str:
    """Return text of the message's as printable ASCII; of a long one the beginning is cut."""
    return ascii(text if len(text) <= _LONGEST else f"...{text[-_LONGEST:]}")
