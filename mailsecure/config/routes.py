"""Domains and routes, the two sides of a line in [domains] (pure).

Domains are compared as the SMTP grammar writes them: lower-case A-labels (UTS 46, then
RFC 5891); a label may hold an underscore, because the names of real hosts do.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address

import idna

from .model import Route, RouteKind

__all__ = ["parse_domain", "parse_hostname", "parse_path", "parse_route"]

_MAX_NAME = 253
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_HOST_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::(.*))?")
_DEFAULT_PORTS = {RouteKind.SMTP: 25, RouteKind.LMTP: 24}
_SCHEMES = {kind.value: kind for kind in RouteKind}
_EXAMPLES = {
    RouteKind.SMTP: "smtp://10.0.0.5:25",
    RouteKind.LMTP: "lmtp://10.0.0.5:24",
    RouteKind.LMTP_UNIX: "lmtp+unix:/run/dovecot/lmtp",
    RouteKind.MAILDIR: "maildir:/var/mail/example.com",
}


def parse_hostname(text: str) -> str:
    """Return a host's name as lower-case A-labels; ValueError says what is wrong."""
    if not text:
        raise ValueError("a name is missing")
    if len(text) > _MAX_NAME:
        raise ValueError(f"a domain has {_MAX_NAME} characters at most")
    name = text.lower()
    if not name.isascii():
        try:
            name = idna.encode(text, uts46=True, std3_rules=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise ValueError(f"{text!r} is no valid international domain") from None
    if text.endswith("."):
        raise ValueError(f"{text!r} ends in a dot: leave it out")
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is no domain: letters, digits and hyphens between dots")
    if labels[-1].isdecimal():
        raise ValueError(f"{text!r} looks like an address; a domain is a name")
    return name


def parse_domain(text: str) -> str:
    """Return the left side of a line of [domains]: a domain, ``.domain`` or ``*``."""
    if text == "*":
        return text
    if text.startswith("*."):
        raise ValueError(f"for every domain below {text[2:]} write .{text[2:]}")
    if "@" in text:
        raise ValueError("a route is for a whole domain: leave out the @ and what is before it")
    if text.startswith("["):
        raise ValueError("mail to an address in brackets cannot be routed; write a domain")
    if text.startswith("."):
        return "." + parse_hostname(text[1:])
    return parse_hostname(text)


def parse_path(text: str) -> str:
    """Return a path as written; ``~`` is refused because nobody's home is meant."""
    if not text:
        raise ValueError("a path is missing")
    if text.startswith("~"):
        raise ValueError("~ is not expanded: write the whole path")
    return text


def parse_route(text: str) -> Route:
    """Return the right side of a line of [domains]; ValueError says what is wrong."""
    if text == RouteKind.MX.value:
        return Route(RouteKind.MX)
    scheme, _, rest = text.partition(":")
    kind = _SCHEMES.get(scheme)
    if kind is None or kind is RouteKind.MX:
        raise ValueError(_unknown(scheme, text))
    if kind in _DEFAULT_PORTS:
        if not rest.startswith("//"):
            raise ValueError(f"write {scheme}://host:port, as {_EXAMPLES[kind]}")
        host, port = parse_host_port(rest[2:], _DEFAULT_PORTS[kind])
        return Route(kind, host=host, port=port)
    # Two slashes, as in a URL, would be taken for the path's own.
    path = parse_path("/" + rest.lstrip("/") if rest.startswith("//") else rest)
    if kind is RouteKind.LMTP_UNIX and not path.startswith("/"):
        raise ValueError(f"the path must be absolute, as {_EXAMPLES[kind]}")
    return Route(kind, path=path)


def _unknown(scheme: str, text: str) -> str:
    if scheme == RouteKind.MX.value:
        return "mx stands alone; for one server write smtp://host"
    near = get_close_matches(scheme, _SCHEMES, 1)
    if near and scheme != text:
        return f"{scheme!r} is no kind of route; did you mean {near[0]}?"
    schemes = ", ".join((*_EXAMPLES.values(), "mx"))
    return f"{text!r} is no route; a route is one of {schemes}"


def parse_host_port(text: str, default: int) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(text)
    if match is None or (match[3] and ":" in match[3]):
        raise ValueError("an IPv6 address stands in brackets, as smtp://[2001:db8::5]:25")
    bracketed, bare, port = match.groups()
    if port is not None and not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError(f"{port!r} is no port: a number from 1 to 65535")
    number = default if port is None else int(port)
    if not 1 <= number <= 65535:
        raise ValueError(f"{number} is no port: a number from 1 to 65535")
    return (_host(bare) if bracketed is None else _ipv6(bracketed)), number


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise ValueError(f"[{text}] is no IPv6 address") from None


def _host(text: str) -> str:
    if text.replace(".", "").isdecimal():
        try:
            return str(ip_address(text))
        except ValueError:
            raise ValueError(f"{text!r} is no IPv4 address") from None
    return parse_hostname(text)
