"""``mailsecure drain`` and ``mailsecure undrain``: a node out of work, and back.

The daemon does it (:mod:`mailsecure.draining`); ``drain`` shows how far it is until it is
done.  To leave it with the interrupt key stops the watching, not the draining.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from ..units import format_seconds
from .asking import common, outcome_of, print_json
from .given import Duration
from .lines import escape

__all__ = ["drain", "undrain"]

_TIMEOUT = 10.0
_LOOK = 0.2
#: What the daemon may take beyond the time for sessions: transactions, the handing over.
_MORE = 120.0
_WORKING, _DRAINED = "working", "drained"


@click.command()
@click.option(
    "--timeout",
    "seconds",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How long sessions may take to end by themselves; then they are told 421.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is done.")
@common
def drain(config: Path, as_json: bool, seconds: float, no_wait: bool) -> int:
    """Take this node out of work: no new sessions, no virtual address.

    The other nodes take over; running sessions end first.  It holds until undrain or a
    restart.
    """
    found = outcome_of(config, "drain", {"seconds": seconds}, timeout=_TIMEOUT)
    ends = time.monotonic() + seconds + _MORE
    said = ""
    while True:
        if not as_json and _line(found) != said:
            said = _line(found)
            click.echo(said)
        if no_wait or found["state"] in (_DRAINED, _WORKING) or time.monotonic() > ends:
            break
        time.sleep(_LOOK)
        found = outcome_of(config, "draining", {}, timeout=_TIMEOUT)
    if as_json:
        print_json(found)
    # Somebody may have called it off meanwhile.
    return 0 if no_wait or found["state"] == _DRAINED else os.EX_TEMPFAIL


@click.command()
@common
def undrain(config: Path, as_json: bool) -> None:
    """Put this node to work again."""
    found = outcome_of(config, "undrain", {}, timeout=_TIMEOUT)
    if as_json:
        print_json(found)
    else:
        click.echo("at work again" if found["drained"] else "was not drained")


def _line(found: dict[str, Any]) -> str:
    if found["state"] == _DRAINED:
        return "drained, but Master: nobody else is" if found["master"] else "drained"
    if found["state"] == _WORKING:
        return escape(str(found["why"])) or "at work again: somebody undrained it"
    parts = [f"{found['state']}: {found['sessions']} sessions here"]
    if found["directed"]:
        parts.append(f"{found['directed']} directed to others")
    return f"{', '.join(parts)}, {format_seconds(float(round(found['left'])))} left"
