"""What ``mailsecure quarantine`` shows to people (no Twisted).

As in :mod:`.tables`, every text that came from outside is escaped before it is shown, and
a long listing is lines of fixed columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..units import format_octets
from .lines import escape
from .tables import age, cells, header_lines, message_facts, table

__all__ = ["held", "held_head", "held_page"]

_INDENT = " " * 15


def held_head() -> str:
    """Return the head of a listing."""
    return f"{'ID':13}  {'AGE':>7}  {'SIZE':>6}  {'SCORE':>6}  SENDER → RECIPIENTS"


def held(item: dict[str, Any], now: float) -> Iterator[str]:
    """Yield the lines of one message: its own, its subject, and why it is held."""
    recipients = item["recipients"]
    more = f" (+{len(recipients) - 1})" if len(recipients) > 1 else ""
    whom = f"<{escape(recipients[0])}>{more}" if recipients else "-"
    yield (
        f"{escape(item['id']):13}  {age(now - item['arrived']):>7}  "
        f"{format_octets(item['octets']):>6}  {item['score']:>6.1f}  "
        f"<{escape(item['sender'])}> → {whom}"
    )
    if item["subject"]:
        yield f"{_INDENT}{escape(_line(item['subject']))}"
    symbols = " ".join(escape(name) for name, _, _ in item["symbols"])
    why = escape(_line(item["reason"]))
    where = f", on {escape(item['node'])}" if item.get("node") else ""
    yield _INDENT + (f"{why} ({symbols})" if symbols else why) + where


def held_page(item: dict[str, Any], header: str, now: float) -> Iterator[RenderableType]:
    """Yield what ``quarantine show`` says of one message; ``header`` is its header section."""
    stored = f", {item['stored']} on disk"
    yield Text(
        message_facts(item, now, stored) + f"from      {escape(_line(item['from'])) or '-'}\n"
        f"subject   {escape(_line(item['subject'])) or '-'}\n"
        f"held      {escape(_line(item['reason']))}, score {item['score']:.1f}\n"
        + (f"on        {escape(item['node'])}\n" if item.get("node") else "")
        + "".join(f"for       <{escape(each)}>\n" for each in item["recipients"])
    )
    if item["symbols"]:
        made = table("SYMBOL", "SCORE", "REASON", numbers=("SCORE",))
        for name, score, reason in item["symbols"]:
            made.add_row(*cells(escape(name), f"{score:.1f}", escape(_line(reason))))
        yield made
    yield from header_lines(header)


def _line(text: str) -> str:
    return " ".join(text.split())
