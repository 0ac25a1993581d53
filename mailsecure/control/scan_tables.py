"""What ``mailsecure status`` shows of scanning and of the history (no Twisted).

Nothing where all is well and nobody would look: one line for the checks, one a scanner, one
for the history.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from ..units import format_octets, format_seconds
from .lines import escape
from .times import age

__all__ = ["history_line", "scan_lines"]

_LACKS = {
    "files": "the daemon's files are open to them (no Landlock)",
    "calls": "system calls are open to them (no seccomp)",
}
_STATES = {"well": "green", "trying": "yellow", "down": "bold red"}


def scan_lines(scanning: dict[str, Any], now: float) -> Iterator[Text]:
    """Yield the lines about checks, processes and scanners."""
    checks = " ".join(map(escape, scanning["checks"])) or "none"
    workers = scanning["workers"]
    yield Text(
        f"checks: {checks}; {workers['busy']} of {workers['processes']} processes busy, "
        f"{workers['waiting']} messages wait for one"
    )
    for lack in workers.get("lacks", ()):
        yield Text(f"processes: {_LACKS.get(lack, escape(lack))}", style="yellow")
    for name, counts in scanning["counts"].items():
        figures = ", ".join(f"{escape(what)} {count:,}" for what, count in counts.items() if count)
        if figures:
            yield Text(f"{escape(name)}: {figures}")
    for each in scanning["engines"]:
        line = Text(f"{escape(each['name'])} ")
        line.append(each["state"], style=_STATES.get(each["state"], ""))
        line.append(f", scanned {each['scanned']}, found {each['found']}, ")
        line.append(f"failed {each['failures']}")
        if each["median"] is not None:
            line.append(f", {format_seconds(each['median'])} a message")
        if each["state"] != "well" and each["last_error"]:
            since = age(now - each["since"])
            line.append(f", for {since}: {escape(each['last_error'])}", style="red")
        yield line


def history_line(history: dict[str, Any], now: float) -> Text:
    """Return the line about the history."""
    line = Text("history ")
    if not history["away_since"]:
        line.append("well", style="green")
    else:
        away = age(now - history["away_since"])
        line.append(f"away for {away}: {escape(history['last_error'])}", style="bold red")
    line.append(f", {history['written']} events written, {history['waiting']} wait")
    if history["backlog"]:
        line.append(f", {format_octets(history['backlog'])} wait on disk", style="yellow")
    if history["lost"]:
        line.append(f", {history['lost']} lost", style="red")
    if history["octets"]:
        line.append(f", {format_octets(history['octets'])}")
    if history["hindrance"]:
        line.append(f", {escape(history['hindrance'])}", style="yellow")
    return line
