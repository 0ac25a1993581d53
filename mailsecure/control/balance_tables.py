"""What ``mailsecure cluster status`` shows of the sharing out of sessions (no Twisted).

The shape is :mod:`mailsecure.balancer.report`'s.  For each node: the share that it is to
get and the one that it had in the last minute, its sessions, and what went wrong with it;
below, a line on each that gets none now, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from .lines import escape
from .tables import cells, moment, table

__all__ = ["balance_page"]

_NUMBERS = ("WANTED", "HAD", "NOW", "IN ALL", "FAILED", "TIMES OUT")


def balance_page(found: dict[str, Any], node: str) -> Iterator[RenderableType]:
    """Yield what is shown; ``node`` is this node's name."""
    waiting = f", {found['waiting']} not yet decided" if found["waiting"] else ""
    yield Text(
        f"sessions at virtual addresses, {escape(found['balance'])}: "
        f"{found['spliced']} with others through this node{waiting}"
    )
    if found["draining"]:
        yield Text("this node gives itself none: it is draining", style="yellow")
    made = table("SHARES", *_NUMBERS, "", numbers=_NUMBERS)
    for name, each in found["nodes"].items():
        failed = sum(each["failures"].values())
        row = cells(
            f"{escape(name)}{' (this)' * (name == node)}",
            f"{each['share_wanted']:.1%}",
            f"{each['share_had']:.1%}",
            f"{each['sessions']:,}",
            f"{each['sessions_total']:,}",
            f"{failed:,}",
            f"{each['ejections']:,}",
            _state(each),
        )
        made.add_row(*row, style=None if each["state"] == "in" else "red")
    yield made
    for name, each in found["nodes"].items():
        if each["failures"]:
            kinds = ", ".join(f"{escape(why)}: {n:,}" for why, n in each["failures"].items())
            yield Text(f"{escape(name)} failed: {kinds}")
        if each["until"] is not None:
            yield Text(f"{escape(name)} is not asked again before {moment(each['until'])}")


def _state(each: dict[str, Any]) -> str:
    """Return how a node stands, in a few words."""
    if each["state"] == "in":
        return "" if each["factor"] >= 1 else f"{each['factor']:.0%} of its weight, for its load"
    return f"{escape(each['state'])}: {escape(each['why'])}"
