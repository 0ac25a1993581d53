"""``mailsecure``: the command by which a postmaster sees and commands the daemon.

``check`` reads the ini; everything else asks the running daemon over the control socket
in its state directory, which is looked up in the ini however wrong the rest of that may
be.  With ``--json`` the answer is JSON for programs (listings: one object a line).

Exit codes are those of sysexits.h: 0, 64 usage, 66 no such message or file, 69 the
daemon is not running, 70 a fault of ours, 74 disk, 75 busy, 76 an answer that cannot be
read, 77 no permission, 78 the ini is wrong.

Nothing here imports Twisted, but for ``check``: the command must be quick.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..config.files import read_config
from ..config.model import Config
from ..errors import ConfigProblems
from . import tables
from .asking import (
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
    print_page,
)
from .cluster_command import cluster
from .dkim_command import dkim
from .drain_command import drain, undrain
from .given import Address, Part
from .lines import escape
from .quarantine_command import quarantine
from .records_command import trace, why
from .scan_command import scan
from .wire import Kind, Refusal

__all__ = ["main"]

_STATUS_TIMEOUT = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command with ``arguments``; the process's own if None.  Returns the exit code."""
    try:
        done = cli.main(arguments, "mailsecure", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        return Kind.USAGE.exit_code
    except click.Abort:
        return 130
    except Refusal as refusal:
        click.echo(f"mailsecure: {escape(str(refusal))}", err=True)
        for line in refusal.details:
            click.echo(f"  {escape(line)}", err=True)
        return refusal.kind.exit_code
    except (BrokenPipeError, _Enough):
        # Whoever read us has enough.  What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return done if isinstance(done, int) else 0


def _filtered(command: Decorated) -> Decorated:
    """Add the options that choose recipients in the queue."""
    for name, metavar, text in (
        ("state", "STATE", "queued or held."),
        ("destination", "DOMAIN", "Recipients of this domain."),
        ("recipient", "ADDRESS", "A recipient, or @domain."),
        ("sender", "ADDRESS", "A sender, or @domain."),
    ):
        kind = Address() if metavar == "ADDRESS" else Part()
        command = click.option(f"--{name}", type=kind, metavar=metavar, help=text)(command)
    return command


class _Enough(Exception):
    """Whoever reads us closed the pipe, as head does."""


class _Cli(click.Group):
    """Lets a closed pipe be no error, where click would make it one."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _Enough from None


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="mailsecure %(version)s")
def cli() -> None:
    """See and command a mailsecure daemon."""


@cli.command()
@common
def check(config: Path, as_json: bool) -> int:
    """Check the ini and say where it listens and where mail goes."""
    try:
        read = read_config(config)
        _check_judging(read)
        summary = tables.summary(read, [name for _, name in socket.if_nameindex()])
    except ConfigProblems as problems:
        _tell_problems(problems, as_json)
        return Kind.CONFIG.exit_code
    if as_json:
        print_json(summary)
        return 0
    click.echo(f"{escape(summary['file'])} is fine.")
    for endpoint in summary["listen"]:
        click.echo(f"  listens on     {endpoint}{' (STARTTLS)' * summary['starttls']}")
    for endpoint in summary["listen_tls"]:
        click.echo(f"  listens on     {endpoint} (TLS)")
    for domain, route in summary["domains"].items():
        click.echo(f"  mail for       {domain} → {escape(route)}")
    networks = ", ".join(summary["relay"]) or "nobody"
    click.echo(f"  may relay      {networks}")
    judges = [*summary["checks"], *summary["engines"]]
    click.echo(f"  judges by      {' '.join(judges) or 'nothing: mail is only relayed'}")
    click.echo(f"  keeps mail in  {escape(summary['state'])}")
    click.echo(f"  logs to        {escape(summary['log'])}")
    for name in ("manhole", "metrics"):
        if summary[name]:
            click.echo(f"  {name:14} {summary[name]}")
    for line in tables.cluster_lines(summary):
        click.echo(line)
    return 0


def _check_judging(config: Config) -> None:
    """Raise ConfigProblems where what judges mail could not begin.

    That takes Twisted, for which no other command waits.
    """
    from ..scan.trying import problems_of  # noqa: PLC0415

    problems = problems_of(config)
    if problems:
        raise ConfigProblems(problems)


def _tell_problems(problems: ConfigProblems, as_json: bool) -> None:
    if as_json:
        names = ("file", "line", "section", "option", "what", "hint")
        found = [{name: getattr(each, name) for name in names} for each in problems.problems]
        print_json({"problems": found})
        return
    for each in problems.problems:
        click.echo(escape(str(each)), err=True)


@cli.command()
@common
def status(config: Path, as_json: bool) -> None:
    """Show how the daemon is: sessions, rates, queues, last errors."""
    found = outcome_of(config, "status", {}, timeout=_STATUS_TIMEOUT)
    if as_json:
        print_json(found)
    else:
        print_page(tables.status_page(found))


@cli.command()
@common
def reload(config: Path, as_json: bool) -> None:
    """Have the daemon read its ini again."""
    done = outcome_of(config, "reload", {})
    if as_json:
        print_json(done)
    for line in () if as_json else done["lines"] or ["Nothing changed."]:
        click.echo(escape(line))


cli.add_command(cluster)
cli.add_command(dkim)
cli.add_command(drain)
cli.add_command(undrain)
cli.add_command(scan)
cli.add_command(quarantine)
cli.add_command(trace)
cli.add_command(why)


@cli.group()
def queue() -> None:
    """See and command what waits to be delivered."""


@queue.command("list")
@_filtered
@click.option("--limit", type=click.IntRange(1), help="At most so many messages.")
@common
def queue_list(config: Path, as_json: bool, limit: int | None, **filters: str) -> None:
    """List messages, oldest first."""
    now = time.time()
    answer = asked(config, "queue.list", given(filters) | {"limit": limit or 0})
    done = print_listing(
        answer,
        [] if as_json else [tables.listing_head()],
        lambda item: [json_text(item)] if as_json else tables.listing(item, now),
    )
    if not as_json:
        click.echo(_listed(done))


def _listed(value: dict[str, Any]) -> str:
    if not value["messages"]:
        return "No messages."
    return f"{value['messages']} messages, {value['recipients']} recipients."


@queue.command("show")
@click.argument("id")
@click.option("--full", is_flag=True, help="The whole message, and nothing else.")
@common
def queue_show(config: Path, as_json: bool, id: str, full: bool) -> None:
    """Show one message: envelope, recipients, header; or its content."""
    arguments = {"id": id, "full": full}
    print_message(config, "queue.show", arguments, as_json, tables.shown)


def _action(verb: str, past: str, text: str) -> Decorated:
    """Define the command ``queue VERB``; ``past`` says what happened to recipients."""

    def command(config: Path, as_json: bool, ids: tuple[str, ...], **options: Any) -> None:
        done = done_to(config, f"queue.{verb}", given(options), ids, "recipients")
        recipients = done.sums["recipients"]
        if as_json:
            print_json({"recipients": recipients})
        elif recipients or not ids:
            click.echo(f"{recipients} recipient{'s' * (recipients != 1)} {past}.")
        done.insist(f"nothing in the queue to {verb}")

    command.__doc__ = text
    everything = click.option("--all", "all", is_flag=True, help="The whole queue, if no filter.")
    command = click.argument("ids", nargs=-1, type=Part(), metavar="[ID]...")(
        _filtered(everything(command))
    )
    if verb == "bounce":
        command = click.option("--reason", default="", help="What the senders are told.")(command)
    return queue.command(verb)(common(command))


_action("flush", "will be tried now", "Try to deliver now.")
_action("hold", "held", "Keep in the queue, untried, until released.")
_action("release", "released", "Release what was held.")
_action("delete", "deleted", "Remove for good; nobody is told.")
_action("bounce", "returned", "Give up and notify the senders.")
