"""One file: what it really is, and what is notable about it."""

from __future__ import annotations

from typing import Final

from ..anatomy import Trait
from .documents import Found, look_into_ole, look_into_pdf, look_into_text
from .kinds import EXECUTABLES, MAIL, OLE, PDF, SCRIPT, is_text, real_type
from .limits import Limits
from .markers import has_eicar, is_eicar
from .names import has_double_extension, matches

__all__ = ["inspect", "name_traits", "type_traits"]

#: What puremagic is given; it knows types by their first octets, and a few by their last.
_BEGINNING: Final = 4096
#: Files that mail programs and browsers open as a mail.
_MAIL_NAMES: Final = ("*.eml", "*.mht", "*.mhtml", "*.nws")
#: What it calls files that it knows nothing of, or all sorts of.
_VAGUE: Final = frozenset({"", "application/octet-stream", "text/plain"})


def inspect(names: tuple[str, ...], declared: str, content: bytes, limits: Limits) -> Found:
    """Return what a file is that the message calls ``names`` and ``declared``.

    Raises Unscannable for a document that cannot be read.
    """
    kind = real_type(content, guess_type)
    if is_text(kind) and any(matches(name, _MAIL_NAMES) for name in names):
        # Whatever field it begins with: a mail program opens it.
        kind = MAIL
    traits: frozenset[Trait] = frozenset()
    words: tuple[str, ...] = ()
    if kind == OLE:
        found = look_into_ole(content)
        kind, traits, words = found.kind, found.traits, found.words
    elif kind == PDF:
        traits = look_into_pdf(content)
    else:
        traits = look_into_text(content)
    if kind in EXECUTABLES:
        traits |= {Trait.EXECUTABLE}
    if kind == SCRIPT and (names or not declared.startswith("text/")):
        # What is shown as the text of a mail is no file.
        traits |= {Trait.SCRIPT}
    in_text = kind == MAIL or (is_text(kind) and declared.startswith("text/"))
    if is_eicar(content) or (in_text and has_eicar(content)):
        traits |= {Trait.EICAR}
    traits |= name_traits(names, limits) | type_traits(kind, limits)
    return Found(kind, traits, words)


def name_traits(names: tuple[str, ...], limits: Limits) -> frozenset[Trait]:
    """Return what is notable about names, any of which may be the one that counts."""
    traits = set()
    for name in names:
        if matches(name, limits.forbidden_names):
            traits.add(Trait.FORBIDDEN_NAME)
        if has_double_extension(name):
            traits.add(Trait.DOUBLE_EXTENSION)
    return frozenset(traits)


def type_traits(kind: str, limits: Limits) -> frozenset[Trait]:
    """Return FORBIDDEN_TYPE for a type that is."""
    return frozenset({Trait.FORBIDDEN_TYPE} if matches(kind, limits.forbidden_types) else ())


def guess_type(content: bytes) -> str:
    """Return what puremagic makes of a file, "" where it knows nothing for sure."""
    import puremagic  # noqa: PLC0415  (few messages hold what only it knows)

    try:
        found = puremagic.magic_string(content[:_BEGINNING])
    except (puremagic.PureError, ValueError, LookupError):
        return ""
    # The likeliest first; some have no type.
    return next((each.mime_type.lower() for each in found if each.mime_type not in _VAGUE), "")
