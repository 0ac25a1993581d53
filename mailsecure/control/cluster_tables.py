"""What ``mailsecure cluster status`` shows to people (no Twisted).

The shape of what is shown is :class:`.api.Cluster`'s.  What a postmaster must not miss
comes first: alarms; then who is Master of what, since when and why; the nodes; who hears
whom, where that is not everybody; and what was ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..units import format_seconds
from .balance_tables import balance_page
from .lines import escape
from .tables import age, cells, group_line, moment, table

__all__ = ["cluster_page", "unwell", "weights"]

#: Clocks further apart than this (seconds) confuse whoever compares logs.
_APART = 2.0
#: Why datagrams were ignored, in the words of the log.
_IGNORED = {
    "malformed": "no hello",
    "other version": "of another version",
    "other cluster": "signed with the key of another cluster",
    "bad signature": "with a wrong signature",
    "same name": "from another node of our own name: [node] name must differ",
    "replayed": "heard before",
    "strange": "from a node that does not prove itself",
    "too many": "from more nodes than we remember",
}


def unwell(found: dict[str, Any]) -> bool:
    """Say whether a group has no Master, or more than one, as far as this node sees."""
    masters = _masters(found)
    for each in found["groups"]:
        if each["two_masters"] or not (each["master"] or masters[each["name"]]):
            return True
    return any(len(names) != 1 for names in _elsewhere(found).values())


def _masters(found: dict[str, Any]) -> dict[str, list[str]]:
    """Return who says to be Master, for each group that any node here or there takes part in."""
    masters: dict[str, list[str]] = {each["name"]: [] for each in found["groups"]}
    for node in found["nodes"]:
        for group, part in node["groups"].items() if node["alive"] else ():
            names = masters.setdefault(group, [])
            if part.startswith("master/"):
                names.append(node["node"])
    return masters


def _elsewhere(found: dict[str, Any]) -> dict[str, list[str]]:
    """Return the Masters of the groups that this node has no part in."""
    own = {each["name"] for each in found["groups"]}
    return {group: names for group, names in _masters(found).items() if group not in own}


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
    masters = _masters(found)
    for each in found["groups"]:
        yield Text("")
        # Who takes no part listens to no Master, but hears who says to be it.
        said = ", ".join(masters[each["name"]])
        yield from _group(each | {"master": each["master"] or said})
    yield Text("")
    for group, names in sorted(_elsewhere(found).items()):
        who = f"Master is {escape(', '.join(names))}" if names else "no Master is known"
        yield Text(f"{escape(group)}: not of this node, {who}", style="" if names else "red")
    yield _nodes(found["nodes"])
    others = [each for each in found["nodes"] if not each["self"]]
    if others:
        yield Text("")
        yield _ways(others)
        yield Text("")
    yield from _hearing(found["nodes"])
    if found.get("balance"):
        yield Text("")
        yield from balance_page(found["balance"], found["node"])
    if found["drops"]:
        yield Text("\nignored datagrams", style="bold")
        for reason, count in sorted(found["drops"].items()):
            yield Text(f"  {count:>9,}  {_IGNORED.get(reason) or escape(reason)}")


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
    elif group["standing_back_because"]:
        yield Text(f"  stands back: {escape(group['standing_back_because'])}", style="yellow")
    if group["claimed_until"]:
        yield Text(f"  told to be Master until {moment(group['claimed_until'])}", style="yellow")


def _nodes(nodes: list[dict[str, Any]]) -> Table:
    """Return what each node says of itself."""
    numbers = ("WEIGHT", "LOAD", "UP")
    made = table("NODE", "ADDRESS", "ROLES", *numbers, "VERSION", "", numbers=numbers)
    for each in nodes:
        words = [escape(word) for word in each["fitness"]]
        if each["role"] != "both":
            words.insert(0, escape(each["role"]))
        made.add_row(
            *cells(
                f"{escape(each['node'])}{' (this)' * each['self']}",
                escape(each["address"]),
                "\n".join(f"{escape(k)}: {escape(v)}" for k, v in each["groups"].items()),
                _weight(each),
                f"{each['load']:.0%}",
                age(each["uptime"]),
                escape(each["version"]),
                ", ".join(words),
            ),
            style=None if each["alive"] else "red",
        )
    return made


def _weight(node: dict[str, Any]) -> str:
    """Return the weight that counts, and the node's own where somebody set another."""
    own = f" (own {node['own_weight']})" if node["overridden"] else ""
    return f"{node['weight']}{own}"


def weights(nodes: list[dict[str, Any]]) -> Table:
    """Return what ``cluster weight`` shows."""
    made = table("NODE", "WEIGHT", "OWN", "", numbers=("WEIGHT", "OWN"))
    for each in nodes:
        set_by_hand = "set by cluster weight" if each["overridden"] else ""
        numbers = str(each["weight"]), str(each["own_weight"])
        made.add_row(*cells(escape(each["node"]), *numbers, set_by_hand))
    return made


def _ways(nodes: list[dict[str, Any]]) -> Table:
    """Return how the others are reached."""
    numbers = ("LAST HELLO", "ROUND TRIP", "CLOCK")
    made = table("NODE", *numbers, "LINK", numbers=numbers)
    for each in nodes:
        made.add_row(
            *cells(
                escape(each["node"]),
                f"{format_seconds(each['last_hello'])} ago",
                format_seconds(each["round_trip"]),
                _offset(each["clock_offset"]),
                _link(each["link"]),
            ),
            style=None if each["alive"] else "red",
        )
    return made


def _offset(seconds: float) -> str:
    if abs(seconds) < _APART:
        return f"{'+' * (seconds >= 0)}{format_seconds(seconds)}"
    return f"{format_seconds(abs(seconds))} {'ahead' if seconds > 0 else 'behind'}"


def _link(link: dict[str, Any] | None) -> str:
    if link is None:
        return "none"
    words = f"{'up' if link['up'] else 'down'} for {age(link['since'])}"
    if link["up"] or not link["last_reason"]:
        return words
    return f"{words}: {escape(link['last_reason'])}"


def _hearing(nodes: list[dict[str, Any]]) -> Iterator[Text]:
    """Say who hears whom; what a node that is gone heard is nobody's business."""
    alive = {each["node"]: set(each["hears"]) for each in nodes if each["alive"]}
    silent = [each["node"] for each in nodes if not each["alive"]]
    me = next(each["node"] for each in nodes if each["self"])
    for node in silent:
        still = sorted(name for name, hears in alive.items() if node in hears)
        text = f"{escape(node)} is not heard any more"
        if still:
            text = f"{escape(me)} does not hear {escape(node)}, heard by {_names(still)}"
        yield Text(text, style="bold red" if still else "red")
    missed = {name: sorted(alive.keys() - hears - {name}) for name, hears in alive.items()}
    if any(missed.values()):
        for name, hears in alive.items():
            yield Text(f"{escape(name)} hears {_names(sorted(hears)) or 'nobody'}")
            for other in missed[name]:
                yield Text(f"{escape(name)} does not hear {escape(other)}", style="bold red")
    elif len(alive) > 1:
        yield Text("every node hears every other" if not silent else "the others hear each other")


def _names(names: Collection[str]) -> str:
    return escape(", ".join(names))
