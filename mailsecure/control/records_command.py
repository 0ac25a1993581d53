"""``mailsecure trace`` and ``mailsecure why``: what became of mail, and for what reason.

Both ask the running daemon, like every command (:mod:`.command`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .asking import (
    asked,
    common,
    given,
    json_text,
    one_node,
    outcome_of,
    print_json,
    tell_away,
)
from .moments import EXAMPLES, parse_moment
from .records_tables import explained, traced
from .tables import moment

__all__ = ["trace", "why"]

#: Seconds; a search takes no more than 20, but others may be before it.
_TIMEOUT = 120.0
_ACTIONS = ("accept", "tag", "quarantine", "tempfail", "reject", "discard", "refused")


class _Moment(click.ParamType):  # type: ignore[type-arg] # generic since click 8.2
    """A time as people say it."""

    name = "time"

    def __init__(self, end: bool) -> None:
        self._end = end

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return Unix seconds."""
        try:
            return parse_moment(value, time.time(), self._end)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("text", default="")
@click.option("--from", "sender", default="", metavar="PART", help="Part of the sender; <> none.")
@click.option("--to", "recipient", default="", metavar="PART", help="Part of a recipient.")
@click.option("--subject", default="", metavar="PART", help="Part of the subject.")
@click.option("--client", default="", metavar="PART", help="Part of the client's IP or name.")
@click.option("--id", default="", metavar="ID", help="Of a message or session, or its beginning.")
@click.option("--since", type=_Moment(False), metavar="TIME", help=f"UTC: {EXAMPLES}.")
@click.option("--until", type=_Moment(True), metavar="TIME", help="Likewise; a day is its end.")
@click.option("--action", type=click.Choice(_ACTIONS), help="What was done; refused: no message.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest."
)
@one_node
@common
def trace(config: Path, as_json: bool, **options: Any) -> None:
    """Show the way of messages: session, checks, verdict, queue, deliveries.

    TEXT is any part of an address, subject or client, or a whole id or Message-ID.  All that
    is given must match, whatever the case.  The newest comes last.
    """
    arguments = given(options)
    for word, value in asked(config, "trace", arguments, _TIMEOUT):
        if word == "item":
            lines = [json_text(value)] if as_json else [*traced(value), ""]
            for line in lines:
                click.echo(line)
            continue
        if value["unfinished"]:
            back = moment(value["unfinished"])
            click.echo(
                f"Searched back to {back} only, then time ran out: narrow it down, or say"
                f" --until {back[:10]}T{back[11:19]}.",
                err=as_json,
            )
        elif not value["found"] and not as_json:
            click.echo("Nothing was found.")
        tell_away(value)


@click.command()
@click.argument("id")
@one_node
@common
def why(config: Path, as_json: bool, **arguments: Any) -> None:
    """Explain a verdict, symbol by symbol.

    ID is that of a message, also of a refused one, or of a session.
    """
    found = outcome_of(config, "why", given(arguments), _TIMEOUT)
    if as_json:
        print_json(found)
        return
    for line in explained(found):
        click.echo(line)
