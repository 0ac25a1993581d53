"""The model as a table: which sections and options there are (pure).

:mod:`.model` declares options as dataclass fields; this module reads them back once,
with their types resolved, for everything that walks over the ini as a whole: the loader,
the comparison of two configurations, the example file and the documentation.

[domains] is not in the table, because its options are not names but domains; who walks
over the ini treats it apart, under the name :data:`DOMAINS_SECTION`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from .model import DOMAINS, Config

__all__ = [
    "DOMAINS_SECTION",
    "SECTIONS",
    "SECTION_NAMES",
    "Option",
    "Section",
    "introduction",
]

DOMAINS_SECTION = "domains"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: what :func:`.model.option` was told, with its place and its type."""

    section: str
    name: str
    type: Any
    kind: str
    default: str
    doc: str
    example: str
    restart: bool


@dataclass(frozen=True, slots=True)
class Section:
    """One section with fixed options; ``make`` is its dataclass."""

    name: str
    make: Any
    options: Mapping[str, Option]


def _section(name: str, make: Any) -> Section:
    types = get_type_hints(make)
    return Section(
        name,
        make,
        {
            each.name: Option(section=name, name=each.name, type=types[each.name], **each.metadata)
            for each in fields(make)
        },
    )


#: Every name that may stand in brackets, in the order of the example file.
SECTION_NAMES = tuple(each.name for each in fields(Config) if each.name != "file")

SECTIONS: Mapping[str, Section] = {
    name: _section(name, get_type_hints(Config)[name])
    for name in SECTION_NAMES
    if name != DOMAINS_SECTION
}


def introduction(name: str) -> str:
    """Return what a section is for, as reStructuredText without a final newline."""
    text = DOMAINS if name == DOMAINS_SECTION else SECTIONS[name].make.__doc__
    return inspect.cleandoc(text)
