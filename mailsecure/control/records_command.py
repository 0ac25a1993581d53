"""``mailsecure trace`` and ``mailsecure why``: what became of mail, and for what reason.

Both ask the running daemon, like every command (:mod:`.command`).
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import click

from .asking import (
    Decorated,
    asked,
    common,
    given,
    json_text,
    one_node,
    outcome_of,
    print_json,
    tell_away,
)
from .given import Moment, Part
from .moments import EXAMPLES
from .records_tables import counted, explained, traced
from .tables import moment

__all__ = ["trace", "why"]

#: Seconds; a search takes no more than 20, but others may be before it.
_TIMEOUT = 120.0
_ACTIONS = ("accept", "tag", "quarantine", "tempfail", "reject", "discard", "refused")
_STAGES = ("connect", "command", "mail", "rcpt", "data")
_FOREVER = float("inf")


def _options(command: Decorated) -> Decorated:
    """Add what a search may be given."""
    for names, kind, metavar, text in (
        (("--stage",), click.Choice(_STAGES), None, "Where what was no message was refused."),
        (("--action",), click.Choice(_ACTIONS), None, "What was done; refused: no message."),
        (("--until",), Moment(True), "TIME", "Likewise; a day is its end."),
        (("--since",), Moment(False), "TIME", f"UTC: {EXAMPLES}."),
        (("--id",), Part(), "ID", "Of a message or session, or its beginning."),
        (("--reply",), Part(), "PART", "Part of a reply, ours or the next hop's."),
        (("--symbol",), Part(), "NAME", "A symbol of the verdict, or how it begins."),
        (("--helo",), Part(), "PART", "Part of what the client called itself."),
        (("--client",), Part(), "PART", "Part of the client's IP or name, or a network."),
        (("--subject",), Part(), "PART", "Part of the subject."),
        (("--to", "recipient"), Part(), "PART", "Part of a recipient."),
        (("--from", "sender"), Part(), "PART", "Part of the sender; <> none."),
    ):
        command = click.option(*names, type=kind, metavar=metavar, help=text)(command)
    return command


@click.command()
@click.argument("text", type=Part(), required=False)
@_options
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest."
)
@click.option("--count", is_flag=True, help="Only say how many, by what was done.")
@one_node
@common
def trace(config: Path, as_json: bool, count: bool, **options: Any) -> None:
    """Show the way of messages: session, checks, verdict, queue, deliveries.

    TEXT is any part of an address, subject or client, or a whole id or Message-ID.  All that
    is given must match, whatever the case.  The newest comes last.
    """
    arguments = given(options)
    if arguments.get("since", 0) > arguments.get("until", _FOREVER):
        raise click.UsageError("--until is before --since: there is nothing between them")
    if count:
        del arguments["limit"]
        _count(config, as_json, arguments)
        return
    for word, value in asked(config, "trace", arguments, _TIMEOUT):
        if word == "item":
            lines = [json_text(value)] if as_json else [*traced(value), ""]
            for line in lines:
                click.echo(line)
            continue
        if value["unfinished"]:
            _say_unfinished("Searched", value["unfinished"], as_json)
        elif not value["found"] and not as_json:
            click.echo("Nothing was found.")
        tell_away(value)


def _count(config: Path, as_json: bool, arguments: dict[str, Any]) -> None:
    found = outcome_of(config, "count", arguments, _TIMEOUT)
    tell_away(found)
    if as_json:
        print_json(found)
        return
    for line in counted(found):
        click.echo(line)
    if found["unfinished"]:
        _say_unfinished("Counted", found["unfinished"], False)


def _say_unfinished(done: str, since: float, as_json: bool) -> None:
    # The second in which it ended is looked at again rather than left out.
    back = moment(ceil(since))
    click.echo(
        f"{done} back to {back} only: narrow it down, or say --until {back[:10]}T{back[11:19]}.",
        err=as_json,
    )


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
