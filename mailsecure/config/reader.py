"""Lines of an ini file, with their numbers (pure).

Written because the standard library's configparser forgets where a value stood.  The
grammar, which the documentation repeats for postmasters:

* ``[section]`` begins a section; ``option = value`` sets an option of it;
* an indented line continues the value of the option above it; blank lines and comments
  between are nothing;
* ``#`` or ``;`` begins a comment at the start of a line (indented or not), and ``#``
  after a blank begins one behind a value or a header; ``#`` within a word does not;
* a section and an option stand once; nothing is expanded, nothing is quoted;
* lines end in LF or CRLF; a byte order mark at the start is skipped.

Any text can be read: what cannot be understood becomes a :class:`~..errors.Problem`,
and reading goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import Problem

__all__ = ["Entry", "Ini", "read_ini"]

_LONGEST = 300
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*")
_HEADER = re.compile(r"\[([^\[\]]*)\]")


@dataclass(slots=True)
class Entry:
    """One option: the lines of its value, each with its number; none is blank."""

    section: str
    option: str
    line: int
    lines: list[tuple[int, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The value, its lines joined by LF."""
        return "\n".join(text for _, text in self.lines)


@dataclass(slots=True)
class Ini:
    """What stands in one file: sections by the line of their header, and entries."""

    file: str
    sections: dict[str, int] = field(default_factory=dict)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(
        self, what: str, *, line: int = 0, section: str = "", option: str = "", hint: str = ""
    ) -> None:
        """Note one mistake; a text that quotes the file is kept to a readable length."""
        section, option, what = (
            text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
            for text in (section, option, what)
        )
        self.problems.append(Problem(self.file, line, section, option, what, hint))


def read_ini(text: str, file: str) -> Ini:
    """Read ``text``; ``file`` is what problems call it.  Nothing is raised."""
    ini = Ini(file)
    _Reader(ini).read(text.removeprefix("\ufeff"))
    return ini


class _Reader:
    """Where reading stands: the section, and the entry that may be continued."""

    def __init__(self, ini: Ini) -> None:
        self._ini = ini
        self._section: str | None = None
        self._header_broken = False
        self._entry: Entry | None = None

    def read(self, text: str) -> None:
        if "\0" in text:
            before = text[: text.index("\0")]
            self._ini.problem("holds a NUL: this is no text file", line=before.count("\n") + 1)
            return
        for number, line in _lines(text):
            self._line(number, line)

    def _line(self, number: int, line: str) -> None:
        stripped = line.strip(" \t")
        odd = next((c for c in stripped if not c.isprintable() and c != "\t"), "")
        if odd:
            self._ini.problem(
                f"holds the character U+{ord(odd):04X}, which cannot be seen",
                line=number,
                section=self._section or "",
                hint="type the line again",
            )
        elif line[0] in " \t":
            self._continue(number, stripped)
        elif stripped[0] == "[":
            self._header(number, stripped)
        else:
            self._option(number, stripped)

    def _continue(self, number: int, stripped: str) -> None:
        if self._entry is None:
            self._ini.problem(
                "an indented line continues the option above it, and there is none",
                line=number,
                section=self._section or "",
                hint="options begin at the start of a line",
            )
        else:
            self._entry.lines.append((number, stripped))

    def _header(self, number: int, stripped: str) -> None:
        self._entry = None
        match = _HEADER.fullmatch(stripped)
        self._header_broken = match is None
        if match is None:
            self._ini.problem("a section is written [name]", line=number)
            self._section = None
            return
        self._section = name = match[1].strip()
        first = self._ini.sections.setdefault(name, number)
        if first != number:
            self._ini.problem(
                f"this section began in line {first} already; put its options there",
                line=number,
                section=name,
            )

    def _option(self, number: int, stripped: str) -> None:
        name, equals, value = (part.strip(" \t") for part in stripped.partition("="))
        section = self._section or ""
        # Even an entry that is not kept takes the indented lines below it.
        self._entry = entry = Entry(section, name, number)
        if value:
            entry.lines.append((number, value))
        if not equals or not name:
            self._ini.problem("an option is written: name = value", line=number, section=section)
        elif self._section is not None:
            first = self._ini.entries.setdefault((section, name), entry)
            if first is not entry:
                what = f"is set in line {first.line} already"
                self._ini.problem(what, line=number, section=section, option=name)
        elif not self._header_broken:
            self._ini.problem("stands before the first [section]", line=number, option=name)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, numbered from 1, without comments."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r")
        if line.lstrip(" \t").startswith(";"):
            continue
        line = _COMMENT.sub("", line, count=1)
        if line.strip(" \t"):
            yield number, line
