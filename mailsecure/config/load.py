"""The text of an ini file becomes a Config, or all its problems at once (pure).

Nothing is required: an empty text gives a Config of defaults.  What is read is checked
three times, and everything found is told in one go: line by line (:mod:`.reader`),
option by option (:mod:`.kinds`), and one option against another
(:mod:`.contradictions`).  A daemon uses :func:`.files.read_config`, which adds what
only the machine can tell; tests mostly use :func:`parse_config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from typing import Any

from ..errors import ConfigProblems
from .cluster import cluster_contradictions, completed
from .contradictions import contradictions
from .engine_contradictions import engine_contradictions
from .kinds import KINDS
from .model import Config, Route
from .reader import Entry, Ini, read_ini
from .routes import parse_domain, parse_route
from .scan_contradictions import scan_contradictions
from .schema import (
    DOMAINS_SECTION,
    SECTION_NAMES,
    SECTIONS,
    Option,
    Section,
    fields_of,
    section_of,
)

__all__ = ["Loaded", "defaults", "load", "parse_config"]


@dataclass(slots=True)
class Loaded:
    """What came of a text: a Config in which each wrong option has its default.

    ``ini`` holds the lines and the problems; ``wrong`` the (title, option) pairs that
    have one, so that whoever checks further leaves them alone.  ``domain_lines`` is the
    line of each domain of the Config.
    """

    config: Config
    ini: Ini
    wrong: set[tuple[str, str]] = field(default_factory=set)
    domain_lines: dict[str, int] = field(default_factory=dict)

    def problem(self, title: str, option: str, what: str, hint: str = "") -> None:
        """Note what is wrong with an option, at its line if it stands in the file.

        What a family's member lacks is told at its header, as there may be many of them.
        """
        entry = self.ini.entries.get((title, option))
        if entry:
            line = entry.line
        elif title == DOMAINS_SECTION:
            line = self.domain_lines.get(option, 0)
        else:
            line = self.ini.sections.get(title, 0) if ":" in title else 0
        self.ini.problem(what, line=line, section=title, option=option, hint=hint)
        self.wrong.add((title, option))

    def settle(self) -> Config:
        """Return the Config, or raise ConfigProblems with every problem by line."""
        if self.ini.problems:
            raise ConfigProblems(sorted(self.ini.problems, key=lambda each: each.line))
        return self.config


def parse_config(text: str, file: str) -> Config:
    """Return the Config that ``text`` describes; ``file`` is its name in problems.

    Raises :class:`~..errors.ConfigProblems` and nothing else.  Paths stay as written.
    """
    return load(text, file).settle()


def defaults() -> Config:
    """Return the Config of an empty file."""
    return parse_config("", "")


def load(text: str, file: str) -> Loaded:
    """Return everything that the text alone can tell."""
    ini = read_ini(text, file)
    titles = _titles(ini)
    _check_options(ini, titles)
    wrong: set[tuple[str, str]] = set()
    values = {
        title: section.make(
            **{each.name: _value(ini, title, each, wrong) for each in section.options.values()}
        )
        for title, section in titles.items()
    }
    domains, lines = _domains(ini)
    config = completed(Config(file=file, domains=domains, **fields_of(values)), ini.entries)
    loaded = Loaded(config, ini, wrong, lines)
    every = (
        contradictions,
        cluster_contradictions,
        scan_contradictions,
        engine_contradictions,
    )
    for found in chain.from_iterable(rule(config) for rule in every):
        if not any(option in wrong for option in found.options):
            title, option = found.options[0]
            loaded.problem(title, option, found.what, found.hint)
    return loaded


def _titles(ini: Ini) -> dict[str, Section]:
    """Return the sections by title; note every title in the file that cannot be."""
    titles = {name: section for name, section in SECTIONS.items() if not section.family}
    for title, line in ini.sections.items():
        if title != DOMAINS_SECTION:
            try:
                titles[title] = section_of(title)
            except KeyError:
                what, hint = "there is no such section", _nearest_title(title)
                ini.problem(what, line=line, section=title, hint=hint)
            except ValueError as error:
                hint = f"it is written [{SECTIONS[title.partition(':')[0]].title}]"
                ini.problem(str(error), line=line, section=title, hint=hint)
    return titles


def _check_options(ini: Ini, titles: Mapping[str, Section]) -> None:
    """Note every option that does not exist, in the sections that do."""
    for (title, option), entry in ini.entries.items():
        if title in titles and option not in titles[title].options:
            ini.problem(
                "there is no such option",
                line=entry.line,
                section=title,
                option=option,
                hint=_nearest_option(titles[title], option),
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name.lower(), known, 1)
    return f"did you mean {near[0]}?" if near else ""


def _nearest_title(title: str) -> str:
    """Name the section meant, by likeness; a family with the name that was given it."""
    name, _, member = title.partition(":")
    known = (
        f"{each}:{member or 'NAME'}" if each in SECTIONS and SECTIONS[each].family else each
        for each in get_close_matches(name.lower(), SECTION_NAMES, 1)
    )
    return "".join(f"did you mean {each}?" for each in known)


def _nearest_option(section: Section, option: str) -> str:
    """Name the option meant: of this section by likeness, or by its name elsewhere."""
    elsewhere = [other.title for other in SECTIONS.values() if option in other.options]
    if elsewhere:
        return f"it belongs to [{'] or ['.join(elsewhere)}]"
    return _nearest(option, section.options)


def _value(ini: Ini, title: str, option: Option, wrong: set[tuple[str, str]]) -> Any:
    """Return an option's value; if it is wrong, note why and return the default."""
    kind = KINDS[option.kind]
    entry = ini.entries.get((title, option.name))
    if entry is not None:
        faults = _faults(entry, option)
        if not faults:
            return kind.parse(entry.text, option.type)
        wrong.add((title, option.name))
        for line, what in faults:
            ini.problem(
                what,
                line=line,
                section=title,
                option=option.name,
                hint=f"the default is {option.default}" if option.default else "",
            )
    return kind.parse(option.default, option.type)


def _faults(entry: Entry, option: Option) -> list[tuple[int, str]]:
    """Return what is wrong with a value, each with the line to blame.

    A list over several lines is blamed line by line where lines are wrong by themselves.
    """
    kind = KINDS[option.kind]
    if len(entry.lines) > 1 and not kind.lines:
        line = entry.lines[1][0]
        return [(line, "takes one line; this indented line continues it")]
    found = []
    for line, text in entry.lines:
        try:
            kind.parse(text, option.type)
        except ValueError as error:
            found.append((line, str(error)))
    if not found:
        try:
            kind.parse(entry.text, option.type)
        except ValueError as error:
            found.append((entry.line, str(error)))
    return found


def _domains(ini: Ini) -> tuple[dict[str, Route], dict[str, int]]:
    """Return the routes, and the line of each; note every line that is wrong."""
    routes: dict[str, Route] = {}
    lines: dict[str, int] = {}
    for (section, option), entry in ini.entries.items():
        if section != DOMAINS_SECTION:
            continue
        try:
            domain = parse_domain(option)
            if domain in routes:
                raise ValueError(f"is the same domain as in line {lines[domain]}")
            if len(entry.lines) > 1:
                raise ValueError("a domain takes one route, in one line")
            routes[domain] = parse_route(entry.text)
            lines[domain] = entry.line
        except ValueError as error:
            ini.problem(str(error), line=entry.line, section=section, option=option)
    return routes, lines
