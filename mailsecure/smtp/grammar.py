"""Paths, domains and parameters of SMTP commands (pure).

Octets come in, canonical text goes out (see :mod:`.envelope`); every mistake is a
:class:`RemoteFault` whose text may be shown to the client.  The grammar is RFC 5321
§4.1.2 with RFC 6531 §3.3 where the client asked for SMTPUTF8.  Deviations, each for
mail that is really sent:

* a missing pair of angle brackets and a space after the colon are tolerated
  (RFC 5321 §4.1.1.2 and Appendix B ask servers for tolerance);
* dots may stand anywhere in a local part (mobile carriers assign such addresses);
  the canonical text quotes such a local part, as the RFC would have it;
* labels may hold an underscore (host names of Windows networks).

A source route is checked and dropped (RFC 5321 §4.1.1.3, Appendix C).

Everything is linear in the length of the line, which :mod:`.server` bounds.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import idna

from ..errors import RemoteFault

__all__ = [
    "Path",
    "canonical_domain",
    "canonical_local",
    "parse_domain",
    "parse_parameters",
    "parse_path",
    "valid_xtext",
]

#: (mailbox, local part without quotes, domain); the mailbox of ``<>`` is "".
Path = tuple[str, str, str]

MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_LABEL = 63

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# What nearly every address looks like: one match, no further work.
_PLAIN = re.compile(
    rb"<([A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+)*)"
    rb"@((?:[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?\.)+[A-Za-z0-9\-]*[A-Za-z0-9])>"
)
_DOT_STRING = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*")
_SLOPPY = re.compile(rf"[{_ATEXT}.\u0080-\U0010ffff]+")
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)"')
_ESCAPED = re.compile(r"\\(.)")
_NEEDS_ESCAPE = re.compile(r'(["\\])')
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]*[A-Za-z0-9_])?")
_ROUTE = re.compile(r"@[^@,:<>\"\s]+(?:,@[^@,:<>\"\s]+)*:")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([^\x00-\x20=\x7f]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")


def canonical_local(local: str) -> str:
    """Return a local part (without quotes) as it stands in canonical text."""
    if _DOT_STRING.fullmatch(local):
        return local
    return '"' + _NEEDS_ESCAPE.sub(r"\\\1", local) + '"'


def canonical_domain(text: str) -> str:
    """Return ``text`` as lower-case A-labels or a canonical literal; else RemoteFault."""
    if text.startswith("["):
        return _literal(text)
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True, std3_rules=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise RemoteFault("Bad domain") from None
    if len(text) > MAX_DOMAIN:
        raise RemoteFault("Domain too long")
    for label in text.split("."):
        if len(label) > MAX_LABEL or not _LABEL.fullmatch(label):
            raise RemoteFault("Bad domain")
    return text.lower()


def parse_domain(text: str) -> str:
    """Return what a client may call itself in EHLO: a domain or an address literal."""
    return canonical_domain(text)


def _literal(text: str) -> str:
    inner = text[1:-1]
    if not text.endswith("]"):
        raise RemoteFault("Bad address literal")
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{IPv6Address(inner[5:])}]"
        return f"[{IPv4Address(inner)}]"
    except ValueError:
        raise RemoteFault("Bad address literal") from None


def parse_path(argument: bytes, keyword: bytes, utf8: bool) -> tuple[Path, bytes]:
    """Split ``FROM:<path> parameters`` into the path and the rest of the line.

    ``keyword`` is ``b"FROM:"`` or ``b"TO:"``.  ``utf8`` admits octets above 127,
    which must be UTF-8.  ``<>`` gives the path ``("", "", "")``, a local part alone
    gives the domain "".
    """
    size = len(keyword)
    if argument[:size].upper() != keyword:
        raise RemoteFault(f"Syntax: {keyword.decode()}<address>")
    rest = argument[size:].lstrip(b" ")
    plain = _PLAIN.match(rest)
    if plain is not None and plain.end(1) <= MAX_LOCAL + 1:
        local, domain = plain[1].decode(), plain[2].decode().lower()
        if "-." not in domain and ".-" not in domain and len(domain) <= MAX_LABEL:
            return (f"{local}@{domain}", local, domain), rest[plain.end() :]
    return _parse_any_path(rest, utf8)


def _parse_any_path(rest: bytes, utf8: bool) -> tuple[Path, bytes]:
    try:
        text = rest.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        raise RemoteFault("Bad address: not ASCII") from None
    bracketed = text.startswith("<")
    position = 1 if bracketed else 0
    if bracketed and text.startswith("<>"):
        return ("", "", ""), rest[2:]
    if route := _ROUTE.match(text, position):
        for hop in route[0][:-1].split(","):
            canonical_domain(hop[1:])
        position = route.end()
    local, position = _local_part(text, position)
    domain = ""
    if text.startswith("@", position):
        end = _domain_end(text, position + 1, bracketed)
        domain = canonical_domain(text[position + 1 : end])
        position = end
    if bracketed:
        if not text.startswith(">", position):
            raise RemoteFault("Bad address")
        position += 1
    name = canonical_local(local)
    mailbox = f"{name}@{domain}" if domain else name
    return (mailbox, local, domain), text[position:].encode()


def _local_part(text: str, position: int) -> tuple[str, int]:
    quoted = _QUOTED.match(text, position)
    if quoted is not None:
        local, end = _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
    else:
        sloppy = _SLOPPY.match(text, position)
        if sloppy is None:
            raise RemoteFault("Bad address")
        local, end = sloppy[0], sloppy.end()
    if not local or len(local.encode()) > MAX_LOCAL:
        raise RemoteFault("Bad local part")
    return local, end


def _domain_end(text: str, start: int, bracketed: bool) -> int:
    end = text.find(">" if bracketed else " ", start)
    if end < 0:
        if bracketed:
            raise RemoteFault("Bad address")
        return len(text)
    return end


def parse_parameters(rest: bytes, utf8: bool) -> dict[str, str]:
    """Return the ``KEYWORD=value`` parameters after a path; keywords in upper case.

    A keyword without a value has the value "".  A keyword given twice is a fault
    (no extension allows it, and two readings of one command are an attack).
    """
    if not rest or rest.isspace():
        return {}
    try:
        text = rest.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        raise RemoteFault("Bad parameter: not ASCII") from None
    if not text.startswith(" "):
        raise RemoteFault("Bad address")
    parameters: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise RemoteFault("Bad parameter")
        keyword = match[1].upper()
        if keyword in parameters:
            raise RemoteFault(f"{keyword} given twice")
        parameters[keyword] = match[2] or ""
    return parameters


def valid_xtext(text: str) -> bool:
    """Say whether ``text`` is xtext (RFC 3461 §4)."""
    return _XTEXT.fullmatch(text) is not None
