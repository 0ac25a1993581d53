"""What ``mailsecure cluster status`` shows to people (no Twisted).

The shape of what is shown is :class:`.api.Cluster`'s.  What a postmaster must not miss
comes first: alarms; then who is Master of what, since when and why; the nodes; who hears
whom, where that is not everybody; and what was ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..units import format_seconds
from .lines import escape
from .tables import age, cells, group_line, moment, table

__all__ = ["cluster_page"]

#: Clocks further apart than this (seconds) confuse whoever compares logs.
_APART = 2.0


def cluster_page(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what ``cluster status`` shows."""
    yield Text(
        f"node {escape(found['node'])} at {escape(found['address'])}, "
        f"a hello each {format_seconds(found['interval'])}: "
        f"{found['hellos_sent']} said, {found['hellos_received']} heard"
    )
    for alarm in found["alarms"]:
        yield Text(escape(alarm), style="bold red")
    if found["send_failures"]:
        yield Text(f"{found['send_failures']} hellos could not be sent", style="red")
    for each in found["groups"]:
        yield Text("")
        yield from _group(each)
    yield Text("")
    yield _nodes(found["nodes"])
    yield from _hearing(found["nodes"])
    if found["drops"]:
        yield Text("\nignored datagrams", style="bold")
        for reason, count in sorted(found["drops"].items()):
            yield Text(f"  {count:>9,}  {escape(reason)}")


def _group(group: dict[str, Any]) -> Iterator[Text]:
    yield group_line(group)
    addresses = " ".join(escape(each["address"]) for each in group["addresses"])
    held = "held here" if any(each["held"] for each in group["addresses"]) else "not held here"
    yield Text(f"  {addresses} on {escape(group['interface'])}, {held}")
    effective, own = group["effective_priority"], group["priority"]
    now = f" (now {effective})" if effective != own else ""
    changes = f"{group['changes']} change{'s' * (group['changes'] != 1)} of role"
    yield Text(f"  priority {own}{now}, interval {format_seconds(group['interval'])}, {changes}")
    if group["two_masters"]:
        yield Text("  MORE THAN ONE MASTER", style="bold red")
    if group["fault"]:
        yield Text(f"  takes no part: {escape(group['fault'])}", style="red")
    if group["standing_back_until"]:
        yield Text(f"  stands back until {moment(group['standing_back_until'])}", style="yellow")
    if group["claimed_until"]:
        yield Text(f"  told to be Master until {moment(group['claimed_until'])}", style="yellow")


def _nodes(nodes: list[dict[str, Any]]) -> Table:
    numbers = ("WEIGHT", "LOAD", "UP", "HEARD", "ROUND TRIP", "CLOCK")
    columns = ("NODE", "ADDRESS", "ROLES", "WEIGHT", "LOAD", "UP", "HEARD", "ROUND TRIP")
    made = table(*columns, "CLOCK", "LINK", "VERSION", "", numbers=numbers)
    for each in nodes:
        words = [escape(word) for word in each["fitness"]]
        if each["role"] != "both":
            words.insert(0, escape(each["role"]))
        roles = " ".join(f"{escape(k)}:{escape(v)}" for k, v in each["groups"].items())
        me = each["self"]
        made.add_row(
            *cells(
                f"{escape(each['node'])}{' (this)' * me}",
                escape(each["address"]),
                roles,
                str(each["weight"]),
                f"{each['load']:.0%}",
                age(each["uptime"]),
                "" if me else f"{format_seconds(each['last_hello'])} ago",
                "" if me else format_seconds(each["round_trip"]),
                "" if me else _offset(each["clock_offset"]),
                _link(each["link"]),
                escape(each["version"]),
                ", ".join(words),
            ),
            style=None if each["alive"] else "red",
        )
    return made


def _offset(seconds: float) -> str:
    if abs(seconds) < _APART:
        return "right"
    return f"{format_seconds(abs(seconds))} {'ahead' if seconds > 0 else 'behind'}"


def _link(link: dict[str, Any] | None) -> str:
    if link is None:
        return ""
    if link["up"]:
        return f"up {age(link['since'])}"
    return f"down: {escape(link['last_reason'])}" if link["last_reason"] else "down"


def _hearing(nodes: list[dict[str, Any]]) -> Iterator[Text]:
    """Say who does not hear whom; only between nodes that are alive."""
    alive = [each for each in nodes if each["alive"]]
    silent = [each["node"] for each in nodes if not each["alive"]]
    for node in silent:
        yield Text(f"{escape(node)} is not heard any more", style="red")
    names = {each["node"] for each in alive}
    deaf = False
    for each in alive:
        for other in sorted(names - set(each["hears"]) - {each["node"]}):
            deaf = True
            yield Text(f"{escape(each['node'])} does not hear {escape(other)}", style="bold red")
    if len(alive) > 1 and not deaf:
        yield Text("every node hears every other" if not silent else "the others hear each other")
