"""``mailsecure scan FILE``: the verdict on a message in a file (no Twisted).

The message is copied into memory of its own, its lines ended as in SMTP (CRLF), and that
goes to the daemon as a descriptor; so the daemon sees what a client would have sent, and a
file that changes meanwhile does not matter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from ..units import format_seconds
from .asking import common, outcome_for_file, print_json
from .lines import bare, escape
from .wire import Kind, Refusal

__all__ = ["scan"]

_TIMEOUT = 300.0
_PIECE = 1 << 20
#: No mail is larger; bounds what a pipe without end does.
_LARGEST = 1 << 30


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--from", "sender", default="", metavar="ADDRESS", help="The reverse-path; <> for none."
)
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", help="A recipient.")
@click.option("--client", default="", metavar="IP", help="Where it comes from.")
@click.option("--helo", default="", metavar="NAME", help="What the client calls itself.")
@common
def scan(
    config: Path,
    as_json: bool,
    file: Path,
    sender: str,
    recipients: tuple[str, ...],
    client: str,
    helo: str,
) -> int:
    """Give the verdict on the message in FILE (- is standard input).  Nothing is sent.

    Without --client it counts as coming from a client of your own, and what is checked of
    strangers only (SPF, lists in the DNS) is not.  Exits with 0 if it would be delivered as
    it is, with 1 if not.
    """
    descriptor = os.memfd_create("message", os.MFD_CLOEXEC)
    try:
        _copy(file, descriptor)
        arguments: dict[str, Any] = {"sender": bare(sender), "client": client, "helo": helo}
        arguments["recipients"] = [bare(each) for each in recipients]
        if arguments["sender"] == "<>":
            arguments["sender"] = ""
        found = outcome_for_file(config, "scan", arguments, descriptor, _TIMEOUT)
    finally:
        os.close(descriptor)
    if as_json:
        print_json(found)
    else:
        for line in _lines(found):
            click.echo(line)
    return int(found["action"] != "accept" or bool(found["refused"]))


def _copy(file: Path, descriptor: int) -> None:
    try:
        if str(file) == "-":
            _copy_stream(sys.stdin.buffer, descriptor)
        else:
            with file.open("rb") as stream:
                _copy_stream(stream, descriptor)
    except OSError as problem:
        raise Refusal(Kind.ABSENT, f"cannot read {file}: {problem.strerror}") from None


def _copy_stream(stream: BinaryIO, descriptor: int) -> None:
    """Copy a message, its lines ended with CRLF; the separator line of an mbox is left out."""
    total, first, held = 0, True, b""
    while piece := stream.read(_PIECE):
        piece = held + piece
        held = b"\r" if piece.endswith(b"\r") else b""
        piece = piece.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if first and piece.startswith(b"From "):
            piece = piece.partition(b"\r\n")[2]
        first = False
        total += len(piece)
        if total > _LARGEST:
            raise Refusal(Kind.USAGE, f"a message of more than {_LARGEST >> 20}M")
        os.write(descriptor, piece)
    os.write(descriptor, held)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for each in found["refused"]:
        names = ", ".join(symbol["name"] for symbol in each["symbols"])
        yield f"RCPT TO:<{escape(each['recipient'])}> refused: {escape(each['reply'])} ({names})"
    levels = ", ".join(f"{name} from {score:g}" for name, score in found["thresholds"].items())
    yield f"{found['action']}, score {found['score']:g} ({levels or 'not scanned'})"
    if found["reply"]:
        yield f"  reply: {escape(found['reply'])}"
    for symbol in sorted(found["symbols"], key=lambda each: -each["score"]):
        action = f"  → {symbol['action']}" if symbol["action"] else ""
        reason = f"  {escape(symbol['reason'])}" if symbol["reason"] else ""
        yield f"  {symbol['score']:>7.4g}  {escape(symbol['name'])}{action}{reason}"
    if len(set(found["outcomes"].values())) > 1:
        for recipient, outcome in found["outcomes"].items():
            yield f"  <{escape(recipient)}>: {outcome}"
    yield f"  took {format_seconds(found['seconds'])}"
