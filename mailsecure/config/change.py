"""Configurations as text: one written out, and two compared (pure).

At a reload the daemon says what has changed and which of it has to wait for a restart;
:func:`changes` knows, by what :mod:`.model` says of each option.  No option of the ini
is secret (keys are named by file), so values may be logged.
"""

from __future__ import annotations

from dataclasses import dataclass

from .kinds import KINDS
from .model import Config
from .schema import DOMAINS_SECTION, SECTION_NAMES, SECTIONS

__all__ = ["Change", "as_ini", "changes", "texts"]


@dataclass(frozen=True, slots=True)
class Change:
    """One option that differs; a domain that one side has not got is "" there.

    The texts are as one would write them in the ini, the lines of a list joined by LF.
    """

    section: str
    option: str
    old_text: str
    new_text: str
    needs_restart: bool

    def __str__(self) -> str:
        old, new = (text.replace("\n", " ") or "(empty)" for text in (self.old_text, self.new_text))
        restart = " (needs a restart)" if self.needs_restart else ""
        return f"[{self.section}] {self.option}: {old} → {new}{restart}"


def changes(old: Config, new: Config) -> list[Change]:
    """Return what differs, in the order of the ini; the files' names do not count."""
    before, after = texts(old), texts(new)
    found = []
    for section, option in {**before, **after}:
        old_text = before.get((section, option), "")
        new_text = after.get((section, option), "")
        if old_text != new_text:
            restart = section != DOMAINS_SECTION and SECTIONS[section].options[option].restart
            found.append(Change(section, option, old_text, new_text, restart))
    return sorted(found, key=lambda each: SECTION_NAMES.index(each.section))


def texts(config: Config) -> dict[tuple[str, str], str]:
    """Return the text of every option and route by (section, option), in order."""
    found = {}
    for name in SECTION_NAMES:
        if name == DOMAINS_SECTION:
            for domain, route in config.domains.items():
                found[name, domain] = str(route)
            continue
        values = getattr(config, name)
        for option in SECTIONS[name].options.values():
            write = KINDS[option.kind].write
            found[name, option.name] = write(getattr(values, option.name))
    return found


def as_ini(config: Config) -> str:
    """Return an ini that gives ``config`` again, every option written out."""
    lines: list[str] = []
    values = texts(config)
    for name in SECTION_NAMES:
        lines.append(f"[{name}]")
        for (section, option), text in values.items():
            if section == name:
                value = text.replace("\n", "\n    ")
                lines.append(f"{option} = {value}".rstrip())
        lines.append("")
    return "\n".join(lines)
