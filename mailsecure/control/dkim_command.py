"""``mailsecure dkim``: keys for signing and sealing (RFC 6376, RFC 8617).

``keygen`` makes a file and needs no daemon.
"""

from __future__ import annotations

from pathlib import Path

import click

from ..config.reader import read_ini
from ..config.routes import parse_hostname
from .asking import common, print_json
from .lines import escape

__all__ = ["dkim"]

_SELECTOR = 63


@click.group()
def dkim() -> None:
    """Make keys for signing mail."""


@dkim.command()
@click.option("--domain", required=True, metavar="DOMAIN", help="The domain that signs (d=).")
@click.option("--selector", default="mail", metavar="NAME", help="The name of the key: mail.")
@click.option(
    "--bits", type=click.IntRange(2048, 4096), default=2048, help="The size of an RSA key: 2048."
)
@click.option("--ed25519", is_flag=True, help="An Ed25519 key (RFC 8463), beside an RSA one.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@common
def keygen(
    config: Path,
    as_json: bool,
    file: Path,
    domain: str,
    selector: str,
    bits: int,
    ed25519: bool,
) -> None:
    """Make a key in FILE and print what belongs into the DNS."""
    name = f"{_label(selector)}._domainkey.{_domain(domain)}"
    # Cryptography takes long to import, and no other command needs it.
    from .dkim_keys import make_key, zone_lines  # noqa: PLC0415

    record = make_key(file, 0 if ed25519 else bits, _user(config))
    if as_json:
        print_json({"file": str(file), "name": name, "record": record})
        return
    click.echo(f"{escape(str(file))} written; only its owner may read it.  Into the DNS:")
    click.echo()
    for line in zone_lines(name, record):
        click.echo(line)
    click.echo()
    click.echo("When it is there, name the key in [signing:NAME] (or [arc]):")
    click.echo(f"  selector = {selector}")
    click.echo(f"  key = {escape(str(file.absolute()))}")


def _domain(text: str) -> str:
    try:
        return parse_hostname(text)
    except ValueError as fault:
        raise click.BadParameter(str(fault), param_hint="--domain") from None


def _label(text: str) -> str:
    labels = text.lower().split(".")
    if not all(0 < len(each) <= _SELECTOR and _is_label(each) for each in labels):
        raise click.BadParameter(f"{text!r} is no name", param_hint="--selector")
    return ".".join(labels)


def _is_label(text: str) -> bool:
    plain = text.replace("-", "").replace("_", "")
    return text[0] != "-" and plain.isascii() and plain.isalnum()


def _user(config: Path) -> str:
    """Return the daemon's user, as the ini names it, or ""."""
    try:
        entries = read_ini(config.read_text("utf-8", "replace"), str(config)).entries
    except OSError:
        return ""
    user = entries.get(("node", "user"))
    return user.text if user else ""
