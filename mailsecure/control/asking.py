"""What the commands share: options, the way to the daemon, JSON and pages (no Twisted).

:mod:`.command` and :mod:`.cluster_command` are made of these.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import click
from rich.console import Console, RenderableType

from ..config.model import Node
from ..config.reader import read_ini
from ..errors import RemoteFault
from ..spool.ids import parse_id
from .client import ask
from .lines import escape
from .wire import SOCKET_NAME, Kind, Refusal

__all__ = [
    "ACTION_TIMEOUT",
    "Decorated",
    "asked",
    "common",
    "done_to",
    "given",
    "json_text",
    "one_node",
    "outcome_for_file",
    "outcome_of",
    "print_json",
    "print_listing",
    "print_message",
    "print_page",
    "tell_away",
    "write_content",
]

CONFIG = Path("/etc/mailsecure.ini")
_PIPE_WIDTH = 200
#: Seconds that a deed may take.
ACTION_TIMEOUT = 600.0
#: How often a listing is shown while it arrives, in seconds.
_FLUSH = 0.2

#: A function that click makes a command of, or has made one of.
Decorated: TypeAlias = Callable[..., Any]


def common(command: Decorated) -> Decorated:
    """Add the options that every command takes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Answer in JSON."),
        click.option(
            "-c",
            "--config",
            type=click.Path(path_type=Path),
            default=CONFIG,
            show_default=True,
            metavar="FILE",
            help="The ini file.",
        ),
    ):
        command = option(command)
    return command


#: For what is asked of all nodes of a cluster (:mod:`.everywhere`).
one_node = click.option(
    "--node", default="", metavar="NAME", help="In a cluster: this node only, not all."
)


def tell_away(done: dict[str, Any]) -> None:
    """Say on stderr which nodes did not answer, and why."""
    for node, why in sorted(done.get("away", {}).items()):
        click.echo(f"Not asked: {escape(node)}, which {escape(why)}.", err=True)


def asked(
    config: Path, request: str, arguments: dict[str, Any], timeout: float = 60.0
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the items and the result of a request to the daemon; raises Refusal."""
    return ask(socket_of(config), request, arguments, timeout=timeout)


def outcome_of(
    config: Path, request: str, arguments: dict[str, Any], timeout: float = 60.0
) -> dict[str, Any]:
    """Return the result of a request that has no items."""
    return _outcome(asked(config, request, arguments, timeout))


@dataclass
class Done:
    """What was done: the sums of what was counted, and what was not done."""

    sums: dict[str, int] = field(default_factory=dict)
    #: Ids to which there was nothing to do.
    absent: list[str] = field(default_factory=list)
    #: Nodes that did not answer, and why.
    away: dict[str, str] = field(default_factory=dict)

    def insist(self, nothing: str) -> None:
        """Raise Refusal if that was not all; ``nothing`` says what there was nothing of."""
        missing = sorted(f"{node} {why}" for node, why in self.away.items())
        if self.absent:
            text = f"{nothing} for {', '.join(self.absent)}"
            raise Refusal(Kind.ABSENT, text, tuple(f"{each}: it may have it." for each in missing))
        if missing:
            hints = tuple(f"{each}: do it again there." for each in missing)
            raise Refusal(Kind.BUSY, "not all nodes have done it", hints)


def done_to(
    config: Path, request: str, arguments: dict[str, Any], ids: Sequence[str], counted: str
) -> Done:
    """Have something done to each of ``ids``, or once to what ``arguments`` choose.

    To an id there was nothing to do where ``counted`` is 0.  One that is none is refused before
    anything is done.
    """
    for name in ids:
        _check_id(name)
    whole = Done()
    for each in [{"id": name} for name in dict.fromkeys(ids)] or [{}]:
        done = outcome_of(config, request, arguments | each, timeout=ACTION_TIMEOUT)
        whole.away |= done.pop("away", {})
        if each and not done[counted]:
            whole.absent.append(each["id"])
        for name, number in done.items():
            whole.sums[name] = whole.sums.get(name, 0) + number
    return whole


def _check_id(name: str) -> None:
    try:
        parse_id(name)
    except RemoteFault:
        text = f"{name!r} is no message id: it has 13 letters and digits"
        raise Refusal(Kind.USAGE, text) from None


def outcome_for_file(
    config: Path, request: str, arguments: dict[str, Any], descriptor: int, timeout: float
) -> dict[str, Any]:
    """Return the result of a request about the file behind ``descriptor``."""
    path = socket_of(config)
    return _outcome(ask(path, request, arguments, timeout=timeout, descriptor=descriptor))


def _outcome(answer: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return next(value for word, value in answer if word == "done")


def socket_of(config: Path) -> Path:
    """Return the control socket of the daemon that ``config`` configures."""
    try:
        text = config.read_text("utf-8", "replace")
    except OSError as problem:
        raise Refusal(
            Kind.FORBIDDEN if isinstance(problem, PermissionError) else Kind.ABSENT,
            f"cannot read {config}: {problem.strerror}",
            ("It says where the control socket is; name another ini with -c FILE.",),
        ) from None
    entry = read_ini(text, str(config)).entries.get(("node", "state"))
    default = next(each.metadata["default"] for each in fields(Node) if each.name == "state")
    return config.absolute().parent / (entry.text if entry else default) / SOCKET_NAME


def print_json(value: dict[str, Any]) -> None:
    """Print a result for programs."""
    click.echo(json_text(value, indent=2))


def json_text(value: dict[str, Any], indent: int | None = None) -> str:
    """Return JSON that a terminal may see: ASCII, and DEL escaped too."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


class _Console(Console):
    """Leaves a closed pipe to :func:`~.command.main`, where rich would end with 1."""

    def on_broken_pipe(self) -> None:
        """Called while the exception is handled; have it go on."""
        raise  # noqa: PLE0704 - in rich's except clause


def print_page(page: Iterable[RenderableType]) -> None:
    """Print with rich; wide and plain where it is not a terminal."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = _Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)
    for each in page:
        console.print(each)


def print_listing(
    answer: Iterable[tuple[str, dict[str, Any]]],
    head: Iterable[str],
    lines: Callable[[dict[str, Any]], Iterable[str]],
) -> dict[str, Any]:
    """Print a listing while it arrives, ``head`` above the first item; return the result."""
    flushed = 0.0
    for word, value in answer:
        if word == "done":
            return value
        shown = [*([] if flushed else head), *lines(value)]
        sys.stdout.writelines(f"{line}\n" for line in shown)
        if time.time() > flushed + _FLUSH:
            sys.stdout.flush()
            flushed = time.time()
    raise AssertionError("an answer without its end is a Refusal")


def write_content(octets: bytes) -> None:
    """Write content as it is, but to a terminal only what can be seen."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(octets)
        return
    text = octets.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    sys.stdout.write("\n".join(map(escape, text.split("\n"))))


def print_message(
    config: Path,
    request: str,
    arguments: dict[str, Any],
    as_json: bool,
    page: Callable[[dict[str, Any], str, float], Iterable[RenderableType]],
) -> None:
    """Print what a ``show`` request says of one message, or its content where it is ``full``.

    ``page`` makes the page for people, of the result, the content, and Unix time now.
    """
    bare = bool(arguments.get("full")) and not as_json
    content = b""
    for word, value in asked(config, request, arguments):
        if word == "item":
            octets = base64.b64decode(value["content"])
            if bare:
                write_content(octets)
            else:
                content += octets
            continue
        text = content.decode("utf-8", "surrogateescape")
        if as_json:
            print_json(value | {"content": text})
        elif not bare:
            print_page(page(value, text, time.time()))


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of a command's options."""
    return {name: value for name, value in arguments.items() if value}
