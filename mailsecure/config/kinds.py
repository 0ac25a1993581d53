"""The kinds of options: how the text of the ini becomes a value, and back (pure).

:data:`KINDS` maps the ``kind`` that :mod:`.model` gives each option to a parser, a
writer and a description for the documentation.  A parser gets the text without
surrounding blanks and the option's type, and returns the value or raises ``ValueError``
with a text that a postmaster understands; defaults go through the same parsers.  A
writer is the inverse: ``parse(write(value)) == value`` for every value that came out of
the parser.

Kinds that need more than a few lines have modules of their own, :mod:`.endpoints`,
:mod:`.places` and :mod:`.routes`; this one is long because the table is.

Lists may be spread over lines; separate items by blanks or commas (endpoints: one a
line).  Nothing is expanded: no ``~``, no variables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, get_args

from ..units import Octets, Seconds, parse_octets, parse_seconds
from .endpoints import check_endpoint
from .model import Interface, Network
from .places import (
    parse_address,
    parse_interface,
    parse_multicast,
    parse_node_address,
    parse_peer,
    parse_place,
    parse_port,
    parse_virtual_address,
    write_place,
)
from .routes import parse_hostname, parse_path
from .scan_kinds import (
    parse_client,
    parse_database,
    parse_dns_lists,
    parse_number,
    parse_score,
    parse_scores,
    parse_settings,
    parse_url,
    parse_words,
    write_dns_lists,
    write_number,
    write_score,
    write_scores,
    write_settings,
)

__all__ = ["KINDS", "Kind"]

_MAX_LINE = 200
_MAX_COUNT = 10**9
_MAX_OCTETS = 1 << 50
_MAX_SECONDS = 10 * 366 * 86400
_MAX_PRIORITY = 255
_MIN_ADVERTISEMENT = 0.01
# RFC 9568 §5.2.7: twelve bits of centiseconds.
_MAX_ADVERTISEMENT = 40.95
_DNS_PORT = 53
_ITEMS = re.compile(r"[^\s,]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_YES = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of option is read, written and described.

    ``lines`` says that the text may be spread over several lines; ``what`` is a phrase
    for the documentation.
    """

    what: str
    parse: Callable[[str, Any], Any]
    write: Callable[[Any], str]
    lines: bool = False


def _name(text: str, _: Any) -> str:
    if text and not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name: up to 64 letters, digits, dots and hyphens")
    return text


def _hostname(text: str, _: Any) -> str:
    return parse_hostname(text) if text else ""


def _account(text: str, _: Any) -> str:
    if text and not _ACCOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a user or group of this system")
    return text


def _directory(text: str, _: Any) -> Path:
    return Path(parse_path(text))


def _file(text: str, _: Any) -> Path | None:
    return Path(parse_path(text)) if text else None


def _output(text: str, _: Any) -> str:
    return parse_path(text)


def _line(text: str, _: Any) -> str:
    if not text.isascii():
        raise ValueError("goes over the wire as it stands: ASCII only")
    if len(text) > _MAX_LINE:
        raise ValueError(f"is longer than {_MAX_LINE} characters")
    return text


def _endpoint(text: str, _: Any) -> str:
    if text:
        check_endpoint(text)
    return text


def _endpoints(text: str, _: Any) -> tuple[str, ...]:
    found = tuple(stripped for line in text.split("\n") if (stripped := line.strip()))
    for each in found:
        check_endpoint(each)
    return found


def _size(text: str, _: Any) -> Octets:
    octets = parse_octets(text) if len(text) < _MAX_LINE else Octets(_MAX_OCTETS + 1)
    if octets > _MAX_OCTETS:
        raise ValueError("is larger than any disk: 1048576G at most")
    return octets


def _limit(text: str, _: Any) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is no whole number")
    number = int(text) if len(text) < _MAX_LINE else _MAX_COUNT + 1
    if number > _MAX_COUNT:
        raise ValueError(f"is too large: {_MAX_COUNT} at most")
    return number


def _count(text: str, _: Any) -> int:
    number = _limit(text, _)
    if number < 1:
        raise ValueError("must be 1 at least")
    return number


def _duration(text: str, _: Any) -> Seconds:
    seconds = parse_seconds(text) if len(text) < _MAX_LINE else Seconds(_MAX_SECONDS + 1)
    if seconds > _MAX_SECONDS:
        raise ValueError("is longer than ten years")
    return seconds


def _timeout(text: str, _: Any) -> Seconds:
    seconds = _duration(text, _)
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _timeouts(text: str, _: Any) -> tuple[Seconds, ...]:
    found = tuple(_timeout(each, _) for each in _ITEMS.findall(text))
    if not found:
        raise ValueError("needs one duration at least")
    return found


def _choice(text: str, enum: type[Enum]) -> Enum:
    values = [str(member.value) for member in enum]
    if text.lower() in values:
        return enum(text.lower())
    near = get_close_matches(text.lower(), values, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{text!r} is not one of {', '.join(values)}{hint}")


def _yes_no(text: str, _: Any) -> bool:
    if text.lower() not in _YES:
        raise ValueError(f"{text!r} is neither yes nor no")
    return _YES[text.lower()]


def _networks(text: str, _: Any) -> tuple[Network, ...]:
    return tuple(_network(each) for each in _ITEMS.findall(text))


def _network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
        address = ip_address(text.partition("/")[0])
    except ValueError:
        raise ValueError(f"{text!r} is no network: write 192.0.2.0/24 or 2001:db8::/32") from None
    if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise ValueError(f"{text!r}: write a network without a zone, and IPv4 as IPv4")
    if address != network.network_address:
        raise ValueError(f"{text!r} is an address within a network: did you mean {network}?")
    return network


def _addresses(text: str, _: Any) -> str:
    found = [parse_address(each) for each in _ITEMS.findall(text)]
    if len({each.version for each in found}) < len(found):
        raise ValueError("takes one IPv4 and one IPv6 address at most")
    return _joined(found)


def _servers(text: str, _: Any) -> tuple[str, ...]:
    return tuple(_server(each) for each in _ITEMS.findall(text))


def _server(text: str) -> str:
    address, port = parse_place(text, _DNS_PORT)
    return address if port == _DNS_PORT else write_place(address, port)


def _own_address(text: str, _: Any) -> str:
    return parse_node_address(text) if text else ""


def _multicast(text: str, _: Any) -> str:
    return parse_multicast(text)


def _peers(text: str, _: Any) -> tuple[str, ...]:
    return tuple(parse_peer(each) for each in _ITEMS.findall(text))


def _port(text: str, _: Any) -> str:
    return str(parse_port(text))


def _interface(text: str, _: Any) -> str:
    return parse_interface(text) if text else ""


def _interfaces(text: str, _: Any) -> tuple[Interface, ...]:
    found = tuple(parse_virtual_address(each) for each in _ITEMS.findall(text))
    seen = set()
    for each in found:
        if each.ip in seen:
            raise ValueError(f"{each.ip} is listed twice")
        seen.add(each.ip)
    return found


def _priority(text: str, _: Any) -> int:
    number = _limit(text, _)
    if not 1 <= number <= _MAX_PRIORITY:
        raise ValueError(f"{number} is no priority: a number from 1 to {_MAX_PRIORITY}")
    return number


def _advertisement(text: str, _: Any) -> Seconds:
    seconds = _duration(text, _)
    if not _MIN_ADVERTISEMENT <= seconds <= _MAX_ADVERTISEMENT:
        raise ValueError("must be from 10ms to 40s")
    return seconds


def _command(text: str, _: Any) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be taken apart as a shell would: {error}") from None
    if words:
        parse_path(words[0])
        if "/" in words[0] and not words[0].startswith("/"):
            raise ValueError(f"{words[0]!r} must begin with /, or hold none: write the whole path")
    return text


def _each(parse: Callable[[str], Any]) -> Callable[[str, Any], Any]:
    """Return ``parse`` as a parser that does not care for the option's type."""
    return lambda text, _: parse(text)


def _optional(parse: Callable[[str], Any]) -> Callable[[str, Any], Any]:
    """Return a parser for which nothing is None."""
    return lambda text, _: parse(text) if text else None


def _choice_or_none(text: str, hint: Any) -> Enum | None:
    enum = next((each for each in get_args(hint) if each is not type(None)), hint)
    return _choice(text, enum) if text else None


def _chosen_or_none(value: Enum | None) -> str:
    return "" if value is None else _chosen(value)


def _joined(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def _lines(values: Iterable[str]) -> str:
    return "\n".join(values)


def _path(value: Path | None) -> str:
    text = "" if value is None else str(value)
    # Path takes the "./" off that kept it from being a comment.
    return f"./{text}" if text.startswith("#") else text


def _spelt(values: Iterable[Interface]) -> str:
    """Write addresses, the prefix only where it is not that of one host."""
    return _joined(
        each.ip if each.network.prefixlen == each.max_prefixlen else each for each in values
    )


def _octets(value: Octets) -> str:
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def _seconds(value: Seconds) -> str:
    """Write a duration exactly, in the largest unit that gives a whole number."""
    if not value:
        return "0s"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001)):
        whole = f"{round(value / size)}{unit}"
        if parse_seconds(whole) == value:
            return whole
    # The shortest digits that give this float again, without an exponent.
    return f"{Decimal(repr(value)):f}s"


def _durations(values: Iterable[Seconds]) -> str:
    return _joined(_seconds(each) for each in values)


def _chosen(value: Enum) -> str:
    return str(value.value)


def _said(value: bool) -> str:
    return "yes" if value else "no"


KINDS: Mapping[str, Kind] = {
    "name": Kind("a name", _name, str),
    "hostname": Kind("a host's name", _hostname, str),
    "directory": Kind("a directory", _directory, _path),
    "user": Kind("a user's name", _account, str),
    "group": Kind("a group's name", _account, str),
    "endpoints": Kind("endpoints, one a line", _endpoints, _lines, lines=True),
    "endpoint?": Kind("an endpoint, or empty", _endpoint, str),
    "line": Kind("text", _line, str),
    "file?": Kind("a file, or empty", _file, _path),
    "output": Kind("a file, or -", _output, str),
    "size": Kind("a size (10K, 50M)", _size, _octets),
    "count": Kind("a number from 1", _count, str),
    "limit": Kind("a number from 0", _limit, str),
    "duration": Kind("a duration (100ms, 30s, 5m, 4h, 5d)", _duration, _seconds),
    "timeout": Kind("a duration (100ms, 30s, 5m, 4h, 5d), not 0", _timeout, _seconds),
    "durations": Kind("durations, between blanks", _timeouts, _durations, lines=True),
    "choice": Kind("one of these words", _choice, _chosen),
    "networks": Kind("networks, between blanks", _networks, _joined, lines=True),
    "yes-no": Kind("yes or no", _yes_no, _said),
    "addresses": Kind("IP addresses", _addresses, str, lines=True),
    "servers": Kind("addresses, between blanks", _servers, _joined, lines=True),
    "secret?": Kind("a file that only its owner may read, or empty", _file, _path),
    "interface": Kind("a network interface, or empty", _interface, str),
    "address?": Kind("an IP address, or empty", _own_address, str),
    "multicast": Kind("a multicast address and a UDP port", _multicast, str),
    "peers": Kind("addresses, between blanks, each with or without a port", _peers, _joined, True),
    "port": Kind("a port", _port, str),
    "interfaces": Kind(
        "addresses, between blanks, each with or without a prefix", _interfaces, _spelt, True
    ),
    "priority": Kind("a number from 1 to 255", _priority, str),
    "advertisement": Kind("a duration from 10ms to 40s", _advertisement, _seconds),
    "words": Kind("words, between blanks", _each(parse_words), _joined, True),
    "folder?": Kind("a directory that is there, or empty", _file, _path),
    "number": Kind("a number", _each(parse_number), write_number),
    "score": Kind("a number, or never", _each(parse_score), write_score),
    "score?": Kind("a number, never, or empty", _optional(parse_score), write_score),
    "scores": Kind("symbols and numbers, a pair a line", _each(parse_scores), write_scores, True),
    "settings": Kind(
        "names and values, a pair a line", _each(parse_settings), write_settings, True
    ),
    "dns-lists": Kind("lists, one a line", _each(parse_dns_lists), write_dns_lists, True),
    "choice?": Kind("one of these words, or empty", _choice_or_none, _chosen_or_none),
    "client": Kind("unix:PATH or tcp:HOST:PORT", _each(parse_client), str),
    "url": Kind("a URL", _each(parse_url), str),
    "database": Kind("a URL of PostgreSQL, a file, or empty", _each(parse_database), str),
    "command": Kind("a command with its arguments, or empty", _command, str),
}
