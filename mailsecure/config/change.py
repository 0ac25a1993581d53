"""Configurations as text: one written out, and two compared (pure).

At a reload the daemon says what has changed and which of it has to wait for a restart;
:func:`changes` knows, by what :mod:`.model` says of each option.  No option of the ini
is secret (keys are named by file), so values may be logged.
"""

from __future__ import annotations

from dataclasses import dataclass

from .kinds import KINDS
from .model import Config
from .schema import DOMAINS_SECTION, SECTION_NAMES, section_of, titled

__all__ = ["Change", "as_ini", "changes", "texts"]


@dataclass(frozen=True, slots=True)
class Change:
    """One option that differs; what one side has not got is "" there.

    That is so for a domain, and for every option of a family's member; ``section`` is the
    title, as ``virtual:mail``.

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
    for place in {**before, **after}:
        title, option = place
        old_text, new_text = before.get(place, ""), after.get(place, "")
        if old_text != new_text:
            # A member that comes or goes is a change of the family, not of its options.
            restart = (
                title != DOMAINS_SECTION
                and place in before
                and place in after
                and section_of(title).options[option].restart
            )
            found.append(Change(title, option, old_text, new_text, restart))
    return sorted(found, key=lambda each: SECTION_NAMES.index(each.section.partition(":")[0]))


def texts(config: Config) -> dict[tuple[str, str], str]:
    """Return the text of every option and route by (title, option)."""
    found = {
        (title, option.name): KINDS[option.kind].write(getattr(values, option.name))
        for title, section, values in titled(config)
        for option in section.options.values()
    }
    for domain, route in config.domains.items():
        found[DOMAINS_SECTION, domain] = str(route)
    return found


def as_ini(config: Config) -> str:
    """Return an ini that gives ``config`` again, every option written out."""
    lines: list[str] = []
    title = ""
    for (now, option), text in texts(config).items():
        if now != title:
            lines += [""] * bool(lines) + [f"[{now}]"]
            title = now
        value = text.replace("\n", "\n    ")
        lines.append(f"{option} = {value}".rstrip())
    return "\n".join((*lines, ""))
