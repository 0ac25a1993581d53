"""The model as a table: which sections and options there are (pure).

:mod:`.model` declares options as dataclass fields; this module reads them back once,
with their types resolved, for everything that walks over the ini as a whole: the loader,
the comparison of two configurations, the example file and the documentation.

[domains] is not in the table, because its options are not names but domains; who walks
over the ini treats it apart, under the name :data:`DOMAINS_SECTION`.

A section may be a *family*: it stands as often as wanted, or not at all, each time with a
name of its own behind a colon, ``[virtual:mail]``.  What stands in the brackets is called
the *title*: for most sections the section's name, for a member of a family both.  In
:class:`~.model.Config` a family is a dict from the names to the values.  So that nobody
else need know which sections are families, :func:`section_of` finds the section of a title,
:func:`titled` takes a Config apart into the values of its titles, and :func:`fields_of`
puts those together again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from .model import DOMAINS, Config

__all__ = [
    "DOMAINS_SECTION",
    "SECTIONS",
    "SECTION_NAMES",
    "Option",
    "Section",
    "fields_of",
    "introduction",
    "section_of",
    "titled",
]

DOMAINS_SECTION = "domains"
_MEMBER = re.compile("[A-Za-z0-9_-]{1,31}")


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
    """One section with fixed options; ``make`` is its dataclass, ``family`` as told above."""

    name: str
    make: Any
    family: bool
    options: Mapping[str, Option]

    @property
    def title(self) -> str:
        """What stands in the brackets, NAME standing for the name of a member."""
        return f"{self.name}:NAME" if self.family else self.name


def _section(name: str, hint: Any) -> Section:
    family = get_origin(hint) is dict
    make = get_args(hint)[1] if family else hint
    types = get_type_hints(make)
    return Section(
        name,
        make,
        family,
        {
            each.name: Option(section=name, name=each.name, type=types[each.name], **each.metadata)
            for each in fields(make)
        },
    )


#: Every name that may stand in brackets, alone or before a colon, in the order of the
#: example file.
SECTION_NAMES = tuple(each.name for each in fields(Config) if each.name != "file")

SECTIONS: Mapping[str, Section] = {
    name: _section(name, get_type_hints(Config)[name])
    for name in SECTION_NAMES
    if name != DOMAINS_SECTION
}


def section_of(title: str) -> Section:
    """Return the section that ``title`` is, or is a member of, [domains] aside.

    Raises ``KeyError`` if there is none, and ``ValueError`` with what is wrong if the title
    of a family's member has no name, or one that cannot be.
    """
    name, colon, member = title.partition(":")
    section = SECTIONS[name]
    if not section.family:
        return SECTIONS[title]
    if not colon:
        raise ValueError("needs a name behind a colon")
    if not _MEMBER.fullmatch(member):
        raise ValueError(
            f"{member!r} is no name: up to 31 letters, digits, hyphens and underscores"
        )
    return section


def titled(config: Config) -> Iterator[tuple[str, Section, Any]]:
    """Yield (title, section, values) for all of ``config`` but [domains], in its order."""
    for name, section in SECTIONS.items():
        values = getattr(config, name)
        if section.family:
            for member, its_values in values.items():
                yield f"{name}:{member}", section, its_values
        else:
            yield name, section, values


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Config, given the values of each title: titled's inverse."""
    found: dict[str, Any] = {name: {} for name, each in SECTIONS.items() if each.family}
    for title, its_values in values.items():
        name, colon, member = title.partition(":")
        if colon:
            found[name][member] = its_values
        else:
            found[name] = its_values
    return found


def introduction(name: str) -> str:
    """Return what a section is for, as reStructuredText without a final newline."""
    text = DOMAINS if name == DOMAINS_SECTION else SECTIONS[name].make.__doc__
    return inspect.cleandoc(text)
