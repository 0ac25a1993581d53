"""Endpoint descriptions, checked as far as text alone can tell (pure).

An endpoint is written as Twisted writes them: fields joined by colons, each a value or
``name=value``, a backslash before a colon, an equals sign or a backslash that is meant as
itself.  This module refuses what could never be bound; making the endpoint is the
service's work.  Only the kinds that serve a mail gateway are taken: ``tcp``, ``tcp6``,
``unix`` and ``systemd``.  ``ssl`` is refused because ``listen_tls`` does the same with a
certificate that a reload reads again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = ["Place", "check_endpoint", "leaves_ipv4", "place_of"]

_TOKEN = re.compile(r"\\(.)|([:=])|([^\\:=]+)|(\\)", re.DOTALL)


def check_endpoint(text: str) -> None:
    """Raise ValueError, with a text for a postmaster, if ``text`` is no endpoint."""
    (_, kind), *fields = _fields(text)
    if kind not in _KINDS:
        if kind == "ssl":
            raise ValueError("for implicit TLS write tcp:… under listen_tls")
        near = get_close_matches(kind, _KINDS, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{kind!r} is no kind of endpoint; there are {', '.join(_KINDS)}{hint}")
    positional, known = _KINDS[kind]
    given: dict[str, str] = {}
    for name, value in fields:
        if name is None:
            if positional in given:
                raise ValueError(f"what is {value!r} after {kind}:{given[positional]}?{_COLONS}")
            name = positional  # noqa: PLW2901 (an unnamed field is the first one)
        if name not in known:
            raise ValueError(f"{kind} knows no {name!r}, only {', '.join(known)}")
        if name in given:
            raise ValueError(f"{name} is given twice")
        known[name](value)
        given[name] = value
    if positional not in given:
        raise ValueError(f"{kind} needs a {positional}: {_EXAMPLES[kind]}")
    if kind == "systemd" and ("name" in given) == ("index" in given):
        raise ValueError(f"systemd needs either name or index: {_EXAMPLES[kind]}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a TCP endpoint listens; ``backlog`` is None where the text does not say.

    ``interface`` is ``0.0.0.0`` or ``::`` for every address of a family.
    """

    interface: IPv4Address | IPv6Address
    port: int
    backlog: int | None


def place_of(text: str) -> Place | None:
    """Return where an endpoint that was checked listens, None if it is not one of TCP."""
    (_, kind), *fields = _fields(text)
    if kind not in _EVERYWHERE:
        return None
    given = {name or "port": value for name, value in fields}
    backlog = int(given["backlog"]) if "backlog" in given else None
    interface = ip_address(given.get("interface", _EVERYWHERE[kind]))
    return Place(interface, int(given["port"]), backlog)


def leaves_ipv4(place: Place, listed: Iterable[str]) -> bool:
    """Say whether ``place`` is to take IPv6 alone, because ``listed`` has IPv4 besides.

    So it is at every IPv6 address, where an IPv4 address is listed with the same port;
    ``listed`` are endpoints that were checked.  A socket at every IPv6 address takes IPv4 too
    unless it is told not to.
    """
    if place.interface != _EVERY_IPV6:
        return False
    places = filter(None, map(place_of, listed))
    return any((each.interface.version, each.port) == (4, place.port) for each in places)


def _fields(text: str) -> list[tuple[str | None, str]]:
    """Split a description into (name, value) pairs; an unnamed field's name is None."""
    found: list[tuple[str | None, str]] = []
    name: str | None = None
    value = ""
    for escaped, separator, plain, lone in _TOKEN.findall(text):
        if lone:
            raise ValueError("ends in a backslash")
        if separator == ":":
            found.append((name, value))
            name, value = None, ""
        elif separator and name is None:
            name, value = value, ""
        else:
            value += escaped or separator or plain
    found.append((name, value))
    return found


_EVERY_IPV4, _EVERY_IPV6 = IPv4Address(0), IPv6Address(0)
#: TCP's kinds → where they listen if nothing else is said.
_EVERYWHERE: dict[str, IPv4Address | IPv6Address] = {"tcp": _EVERY_IPV4, "tcp6": _EVERY_IPV6}

_COLONS = r" (colons of an IPv6 address are escaped: interface=\:\:1)"


def _port(value: str) -> None:
    if not (value.isascii() and value.isdecimal() and len(value) < 6 and int(value) < 65536):
        raise ValueError(f"{value!r} is no port: a number from 0 to 65535")


def _interface(value: str) -> None:
    try:
        ip_address(value)
    except ValueError:
        message = f"interface {value!r} is no IP address of this machine{_COLONS}"
        raise ValueError(message) from None


def _interface6(value: str) -> None:
    _interface(value)
    if ":" not in value:
        raise ValueError(f"interface {value!r} is an IPv4 address: write tcp, not tcp6")


def _number(value: str) -> None:
    if not (value.isascii() and value.isdecimal() and len(value) < 6):
        raise ValueError(f"{value!r} is no number, or too large")


def _path(value: str) -> None:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is no absolute path")


def _mode(value: str) -> None:
    if not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError(f"mode {value!r} is no file mode: three octal digits, as 660")


def _flag(value: str) -> None:
    if value not in ("0", "1"):
        raise ValueError(f"lockfile is 0 or 1, not {value!r}")


def _family(value: str) -> None:
    if value not in ("INET", "INET6", "UNIX"):
        raise ValueError(f"{value!r} is no socket family: INET, INET6 or UNIX")


def _word(value: str) -> None:
    if not value:
        raise ValueError("the name of the socket is empty")


_Checks = dict[str, Callable[[str], None]]
#: Kind → the field that needs no name, and the check of each field.
_KINDS: dict[str, tuple[str, _Checks]] = {
    "tcp": ("port", {"port": _port, "interface": _interface, "backlog": _number}),
    "tcp6": ("port", {"port": _port, "interface": _interface6, "backlog": _number}),
    "unix": (
        "address",
        {"address": _path, "mode": _mode, "backlog": _number, "lockfile": _flag},
    ),
    "systemd": ("domain", {"domain": _family, "index": _number, "name": _word}),
}
_EXAMPLES = {
    "tcp": "tcp:25",
    "tcp6": "tcp6:25",
    "unix": "unix:/run/mailsecure/smtp",
    "systemd": "systemd:INET:name=smtp",
}
