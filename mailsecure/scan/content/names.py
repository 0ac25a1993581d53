"""File names, as the recipient's computer will understand them (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Final

from .text import printable

__all__ = ["clean_name", "has_double_extension", "matches"]

#: Of a longer name the beginning is left out.
MAX_NAME: Final = 120

#: What people take for a document, and what is started when it is opened.
_HARMLESS: Final = (
    "pdf docx? xlsx? pptx? odt ods odp rtf txt csv jpe?g png gif bmp tiff? zip rar 7z mp3 mp4"
    " wav avi mov html? xml eml msg"
)
_STARTED: Final = (
    "exe scr com bat cmd pif cpl dll js jse vbs vbe wsf wsh hta lnk jar msi ps1 reg url chm"
    " iso img vhdx?"
)
_DOUBLE = re.compile(
    rf"\.(?:{_HARMLESS.replace(' ', '|')})[\s._]*\.(?:{_STARTED.replace(' ', '|')})"
)


def clean_name(name: str) -> str:
    """Return a file name as Windows would have it: no folders, no dots or spaces at its end.

    Quotes there are left out as well: some programs take them for the end of the name.
    """
    # What is cut is the beginning: the end says what it is.
    last = re.split(r"[/\\]", name[-4 * MAX_NAME :])[-1]
    return printable(last, 4 * MAX_NAME).strip("\"' ").rstrip(". \"'")[-MAX_NAME:]


def has_double_extension(name: str) -> bool:
    """Say whether ``name``, which is clean, only looks like a document."""
    dot = name.rfind(".")
    if dot < 1:
        return False
    return re.search(_DOUBLE.pattern + r"\Z", name.lower()) is not None


def matches(value: str, patterns: Iterable[str]) -> bool:
    """Say whether ``value`` matches one of ``patterns`` (``*``, ``?``), whatever the case."""
    return _compiled(tuple(patterns)).match(value.lower()) is not None


@lru_cache(maxsize=16)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    # Without any, what matches nothing.
    return re.compile("|".join(translate(each.lower()) for each in patterns) or r"(?!)")
