"""``mailsecure quarantine``: see, release, delete and forward what is held.

The daemon does it (:mod:`.quarantine_requests`).  Several ids are done one after the other,
all of them; where one is not there the exit code is 66, and that id is named.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from . import quarantine_tables as tables
from .asking import (
    ACTION_TIMEOUT,
    Decorated,
    asked,
    common,
    done_to,
    given,
    json_text,
    one_node,
    outcome_of,
    print_json,
    print_listing,
    print_message,
    tell_away,
)
from .given import Address, Age, Part
from .lines import escape

__all__ = ["quarantine"]


@click.group()
def quarantine() -> None:
    """See and command what is held."""


def _filtered(command: Decorated, held_for: Sequence[str] = ("--held-for",)) -> Decorated:
    """Add the options that choose what is held; ``held_for`` are the names of one of them."""
    why = "Any part of why it is held, or a symbol."
    for names, kind, metavar, text in (
        (("--older",), Age(), "AGE", "What came longer ago than this: 7d."),
        (("--since",), Age(), "AGE", "What came within this time: 2h, or since yesterday."),
        (("--subject",), Part(), "TEXT", "Any part of the subject."),
        ((*held_for, "held_for"), Part(), "TEXT", why),
        (("--sender",), Address(), "ADDRESS", "A sender, @domain, or any part; <> for none."),
    ):
        command = click.option(*names, type=kind, metavar=metavar, help=text)(command)
    return click.option(
        "--recipient",
        "recipients",
        type=Address(),
        multiple=True,
        metavar="ADDRESS",
        help="A recipient, @domain, or any part; may be given several times.",
    )(command)


_reason = click.option("--reason", default="", metavar="TEXT", help="Why; for the history.")


@quarantine.command("list")
@partial(_filtered, held_for=("--reason", "--held-for"))
@click.option("--limit", type=click.IntRange(1), help="At most so many messages.")
@click.option("--oldest-first", is_flag=True, help="The oldest first, not the newest.")
@one_node
@common
def quarantine_list(config: Path, as_json: bool, **filters: Any) -> None:
    """List what is held, the newest first."""
    now = time.time()
    answer = asked(config, "quarantine.list", given(filters))
    done = print_listing(
        answer,
        [] if as_json else [tables.held_head()],
        lambda item: [json_text(item)] if as_json else tables.held(item, now),
    )
    if not as_json:
        count, recipients = done["messages"], done["recipients"]
        click.echo(f"{count} messages, {recipients} recipients." if count else "No messages.")
    tell_away(done)


@quarantine.command("show")
@click.argument("id")
@click.option("--full", is_flag=True, help="The whole message, and nothing else.")
@one_node
@common
def quarantine_show(config: Path, as_json: bool, **options: Any) -> None:
    """Show one message: why it is held, envelope, header; or its content."""
    arguments = given(options)
    print_message(config, "quarantine.show", arguments, as_json, tables.held_page)


def _action(verb: str, past: str, text: str) -> Decorated:
    """Define the command ``quarantine VERB``; ``past`` says what happened."""

    def command(config: Path, as_json: bool, ids: tuple[str, ...], **options: Any) -> None:
        done = done_to(config, f"quarantine.{verb}", given(options), ids, "messages")
        messages, recipients = done.sums.get("messages", 0), done.sums.get("recipients", 0)
        if as_json:
            print_json({"messages": messages, "recipients": recipients})
        elif messages or not ids:
            click.echo(
                f"{messages} message{'s' * (messages != 1)} {past}, "
                f"for {recipients} recipient{'s' * (recipients != 1)}."
            )
        done.insist(f"nothing in the quarantine to {verb}")

    command.__doc__ = text
    everything = click.option("--all", "all", is_flag=True, help="All of it, if no filter.")
    command = click.argument("ids", nargs=-1, type=Part(), metavar="[ID]...")(
        _filtered(_reason(everything(one_node(command))))
    )
    return quarantine.command(verb)(common(command))


_action("release", "released", "Deliver what is held, now.")
_action("delete", "deleted", "Remove for good; nobody is told.")


@quarantine.command("forward")
@click.argument("id")
@click.argument("address", type=Address())
@_reason
@click.option("--delete", is_flag=True, help="Remove it from the quarantine then.")
@one_node
@common
def quarantine_forward(config: Path, as_json: bool, **options: Any) -> None:
    """Send a copy, attached to a new message, to somebody who shall look at it."""
    arguments = given(options)
    done = outcome_of(config, "quarantine.forward", arguments, timeout=ACTION_TIMEOUT)
    if as_json:
        print_json(done)
        return
    then = " and the original deleted" if options["delete"] else ""
    click.echo(f"A copy is on its way as {escape(done['copy'])}{then}.")
