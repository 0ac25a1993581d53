"""The ini for people: the example file and the pages of the documentation (pure).

Both are made from :mod:`.model`, so neither can say what the loader does not do.
The example is kept as etc/mailsecure.ini; a test compares the two and says how to write
the file anew.  docs/conf.py writes the pages of :func:`pages` when the documentation is
built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum, EnumMeta
from textwrap import fill, indent
from typing import get_args

from .kinds import KINDS
from .schema import DOMAINS_SECTION, SECTION_NAMES, SECTIONS, Option, introduction

__all__ = ["example", "pages"]

_WIDTH = 78
_HEAD = """\
The ini file of mailsecure, with every option at its default.

Take the # away to set an option. An indented line continues the option above it; a
comment begins with # or ; at the start of a line, or with # after a blank. Durations
are written 100ms, 30s, 5m, 4h, 5d; sizes 200 (octets), 10K, 50M, 2G. Nothing is
expanded: no variables, no ~. Check the file with: mailsecure check -c FILE"""
_DOMAINS_EXAMPLE = """\
example.com = smtp://10.0.0.5:25
.example.com = lmtp+unix:/run/dovecot/lmtp
example.net = maildir:/var/mail/example.net
* = mx"""
_BULLET = re.compile(r"^- ", re.MULTILINE)


def example() -> str:
    """Return the complete example file, every option commented out."""
    parts = [_commented(_HEAD)]
    for name in SECTION_NAMES:
        parts.append(f"\n{_header(name)}\n{_commented(_plain(introduction(name)))}")
        if name == DOMAINS_SECTION:
            parts.append("\n" + indent(_DOMAINS_EXAMPLE, "#"))
        else:
            parts.extend(_explained(option) for option in SECTIONS[name].options.values())
    return "\n".join(parts) + "\n"


def _title(name: str) -> str:
    return name if name == DOMAINS_SECTION else SECTIONS[name].title


def _header(name: str) -> str:
    """Return a header; a family's is commented out like an option, as it may be absent."""
    family = name != DOMAINS_SECTION and SECTIONS[name].family
    return f"{'#' * family}[{_title(name)}]"


def _explained(option: Option) -> str:
    doc = option.doc
    if option.example:
        doc += f" Example: {', '.join(option.example.splitlines())}"
    if option.restart:
        doc += " (A change needs a restart.)"
    default = option.default
    if KINDS[option.kind].lines and len(default) > _WIDTH - len(option.name):
        default = fill(
            default,
            _WIDTH,
            initial_indent=" " * (len(option.name) + 4),
            subsequent_indent=" " * 5,
            break_on_hyphens=False,
        ).strip()
        default = default.replace("\n", "\n#")
    return f"\n{_commented(doc)}\n#{option.name} = {default}".rstrip()


def _plain(text: str) -> str:
    """Take the marks of reStructuredText out of a text."""
    return text.replace("``", "").replace("\\\\", "\\")


def _commented(text: str) -> str:
    """Return ``text`` wrapped, each line behind ``# ``, so unlike a commented option."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        bullets = ["- " + each for each in _BULLET.split(paragraph)[1:]]
        paragraphs += [
            fill(
                " ".join(each.split()),
                _WIDTH,
                subsequent_indent="  " if bullets else "",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for each in bullets or [paragraph]
        ]
        paragraphs[-1] += "\n"
    text = "\n".join(paragraphs).rstrip("\n")
    return "\n".join(f"# {line}".rstrip() for line in text.split("\n"))


def pages() -> dict[str, str]:
    """Return one page a section in reStructuredText, by the name of the section."""
    return {name: "\n".join(_page(name)) + "\n" for name in SECTION_NAMES}


def _page(name: str) -> Iterator[str]:
    title = f"[{_title(name)}]"
    yield from (f".. _ini-{name}:", "", title, "=" * len(title), "", introduction(name))
    if name == DOMAINS_SECTION:
        yield from ("", _literal(f"[{name}]\n{_DOMAINS_EXAMPLE}"))
        return
    for option in SECTIONS[name].options.values():
        yield from ("", f".. _ini-{name}-{option.name}:", "", option.name, "-" * len(option.name))
        yield from ("", option.doc, "")
        yield f":Value: {_values(option)}"
        yield f":Default: {_code(option.default) or 'empty'}"
        yield f":A change: {_applied(option)}"
        if option.example:
            value = option.example.replace("\n", "\n    ")
            yield from ("", _literal(f"{option.name} = {value}"))


def _values(option: Option) -> str:
    for enum in (option.type, *get_args(option.type)):
        if isinstance(enum, EnumMeta):
            members: Iterable[Enum] = enum
            words = [_code(str(each.value)) for each in members]
            return ", ".join(words + ["or empty"] * (enum is not option.type))
    return KINDS[option.kind].what


def _applied(option: Option) -> str:
    return "needs a restart" if option.restart else "is applied by a reload"


def _code(text: str) -> str:
    return f"``{text}``" if text else ""


def _literal(text: str) -> str:
    return ".. code-block:: ini\n\n" + indent(text, "   ")
