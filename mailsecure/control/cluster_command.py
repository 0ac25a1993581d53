"""``mailsecure cluster``: keys, status, and the words by which a role is moved.

``keygen`` works on the key file and needs no daemon; the others ask the running one, like
every command (:mod:`.command`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config.reader import read_ini
from .asking import common, outcome_of, print_json, print_page
from .cluster_tables import cluster_page, unwell, weights
from .given import Duration
from .lines import escape

__all__ = ["cluster"]

_KEY_FILE = Path("/etc/mailsecure/cluster.key")
_TIMEOUT = 10.0
#: What ``status --check`` exits with when a group has no Master, or two.
_UNWELL = 2


@click.group()
def cluster() -> None:
    """See and command the cluster of this node."""


@cluster.command()
@click.option("--check", is_flag=True, help="Exit with 2 if a group has no Master, or two.")
@common
def status(config: Path, as_json: bool, check: bool) -> int:
    """Show the nodes, who is Master of what, and who hears whom."""
    found = outcome_of(config, "cluster.status", {}, timeout=_TIMEOUT)
    if as_json:
        print_json(found)
    else:
        print_page(cluster_page(found))
    return _UNWELL if check and unwell(found) else 0


def _moving(verb: str, text: str) -> None:
    """Define ``cluster resign`` or ``cluster takeover``."""

    def command(config: Path, as_json: bool, group: str, seconds: float) -> None:
        arguments = {"group": group, "seconds": seconds}
        found = outcome_of(config, f"cluster.{verb}", arguments, timeout=_TIMEOUT)
        if as_json:
            print_json(found)
        for line in () if as_json else found["lines"]:
            click.echo(escape(line))

    command.__doc__ = text
    time = click.option(
        "--for", "seconds", type=Duration(), default="10m", show_default=True, help="For how long."
    )
    cluster.command(verb)(click.argument("group", default="")(time(common(command))))


_moving("resign", "Let another node be Master of GROUP (all groups if none is named).")
_moving("takeover", "Be Master of GROUP (all groups if none is named), whoever else wants to.")


class _Weight(click.ParamType):  # type: ignore[type-arg] # generic since click 8.2
    """A number from 0, or the word that takes one back."""

    name = "weight"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the number, or "default"."""
        if value != "default" and not (value.isascii() and value.isdecimal() and len(value) < 10):
            self.fail(f"{value!r} is neither a whole number nor default", param, ctx)
        return value


@cluster.command()
@click.argument("node", required=False)
@click.argument("weight", type=_Weight(), required=False)
@common
def weight(config: Path, as_json: bool, node: str | None, weight: str | None) -> None:
    """Set NODE's share of the sessions beside the others', on all nodes, until all restart.

    0 gives it none; "default" lets the weight of its ini count again.  Without WEIGHT, or
    without NODE too, the weights are shown.
    """
    if node is not None and weight is not None:
        arguments = {"node": node, "weight": None if weight == "default" else int(weight)}
        found = outcome_of(config, "cluster.weight", arguments, timeout=_TIMEOUT)
        if as_json:
            print_json(found)
        for line in () if as_json else found["lines"]:
            click.echo(escape(line))
        return
    nodes = outcome_of(config, "cluster.status", {}, timeout=_TIMEOUT)["nodes"]
    chosen = [each for each in nodes if node in (None, each["node"])]
    if not chosen:
        names = ", ".join(escape(each["node"]) for each in nodes)
        raise click.UsageError(f"there is no node {escape(node or '')}; there are: {names}")
    if as_json:
        keys = ("weight", "own_weight", "overridden")
        print_json({each["node"]: {key: each[key] for key in keys} for each in chosen})
    else:
        print_page([weights(chosen)])


# -- keys


@cluster.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--add", is_flag=True, help="Add a key that is believed, not used.")
@click.option("--use-new", is_flag=True, help="Sign with the added key.")
@click.option("--drop-old", is_flag=True, help="Remove the key no longer used.")
@common
def keygen(config: Path, as_json: bool, file: Path | None, **steps: bool) -> None:
    """Make the cluster's key file, or change its key without a gap.

    FILE is that of [cluster] key_file if it is not named.
    """
    chosen = [name.partition("_")[0] for name, given in steps.items() if given]
    if len(chosen) > 1:
        raise click.UsageError("one step at a time: each is done on every node before the next")
    # Cryptography takes long to import, and no other command needs it.
    from .keygen import keep_keys  # noqa: PLC0415

    key_file, user = _configured(config)
    path = file or key_file
    ids, lines = keep_keys(path, chosen[0] if chosen else "new", user)
    if as_json:
        print_json({"file": str(path), "keys": ids})
        return
    for line in lines:
        click.echo(line.replace("FILE", escape(str(path))))


def _configured(config: Path) -> tuple[Path, str]:
    """Return the key file that the ini names, or the usual one, and the daemon's user."""
    try:
        entries = read_ini(config.read_text("utf-8", "replace"), str(config)).entries
    except OSError:
        return _KEY_FILE, ""
    named, user = entries.get(("cluster", "key_file")), entries.get(("node", "user"))
    path = config.absolute().parent / named.text if named and named.text else _KEY_FILE
    return path, user.text if user else ""
