"""``mailsecure quarantine``: see, release, delete and forward what is held.

The daemon does it (:mod:`.quarantine_requests`).  Several ids are done one after the other,
all of them; where one is not there the exit code is 66, and that id is named.
"""

from __future__ import annotations

import time
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
    outcome_of,
    print_json,
    print_listing,
    print_message,
)
from .given import Address, Age, Part
from .lines import escape
from .wire import Kind, Refusal

__all__ = ["quarantine"]


@click.group()
def quarantine() -> None:
    """See and command what is held."""


def _filtered(command: Decorated) -> Decorated:
    """Add the options that choose what is held."""
    for names, kind, metavar, text in (
        (("--older",), Age(), "AGE", "What came longer ago than this: 7d."),
        (("--since",), Age(), "AGE", "What came within this time: 2h, or since yesterday."),
        (("--subject",), Part(), "TEXT", "Any part of the subject."),
        (("--held-for",), Part(), "TEXT", "Any part of why it is held, or a symbol."),
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
@_filtered
@click.option("--limit", type=click.IntRange(1), help="At most so many messages.")
@click.option("--oldest-first", is_flag=True, help="The oldest first, not the newest.")
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


@quarantine.command("show")
@click.argument("id")
@click.option("--full", is_flag=True, help="The whole message, and nothing else.")
@common
def quarantine_show(config: Path, as_json: bool, id: str, full: bool) -> None:
    """Show one message: why it is held, envelope, header; or its content."""
    arguments = {"id": id, "full": full}
    print_message(config, "quarantine.show", arguments, as_json, tables.held_page)


def _action(verb: str, past: str, text: str) -> Decorated:
    """Define the command ``quarantine VERB``; ``past`` says what happened."""

    def command(config: Path, as_json: bool, ids: tuple[str, ...], **options: Any) -> None:
        done, absent = done_to(config, f"quarantine.{verb}", given(options), ids, "messages")
        messages, recipients = done.get("messages", 0), done.get("recipients", 0)
        if as_json:
            print_json({"messages": messages, "recipients": recipients})
        elif messages or not ids:
            click.echo(
                f"{messages} message{'s' * (messages != 1)} {past}, "
                f"for {recipients} recipient{'s' * (recipients != 1)}."
            )
        if absent:
            raise Refusal(Kind.ABSENT, f"nothing in the quarantine to {verb} for {absent}")

    command.__doc__ = text
    everything = click.option("--all", "all", is_flag=True, help="All of it, if no filter.")
    command = click.argument("ids", nargs=-1, type=Part(), metavar="[ID]...")(
        _filtered(_reason(everything(command)))
    )
    return quarantine.command(verb)(common(command))


_action("release", "released", "Deliver what is held, now.")
_action("delete", "deleted", "Remove for good; nobody is told.")


@quarantine.command("forward")
@click.argument("id")
@click.argument("address", type=Address())
@_reason
@click.option("--delete", is_flag=True, help="Remove it from the quarantine then.")
@common
def quarantine_forward(
    config: Path, as_json: bool, id: str, address: str, reason: str, delete: bool
) -> None:
    """Send a copy, attached to a new message, to somebody who shall look at it."""
    arguments = {"id": id, "address": address, "reason": reason, "delete": delete}
    done = outcome_of(config, "quarantine.forward", arguments, timeout=ACTION_TIMEOUT)
    if as_json:
        print_json(done)
        return
    then = " and the original deleted" if delete else ""
    click.echo(f"A copy is on its way as {escape(done['copy'])}{then}.")
