"""Links in texts and web pages (pure; RFC 3986, and what browsers make of it).

A browser takes ``https:evil.example``, ``http://3232235777/`` and ``http://a@evil.example/``
and goes there.  So hosts are read here as the WHATWG's URL standard (url.spec.whatwg.org,
§3.5 and §4.4) reads them, not as RFC 3986 would have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import unquote

import idna

__all__ = ["host_of", "links_in_html", "links_in_text"]

MAX_URL: Final = 2048

_ATTRIBUTE = re.compile(
    r"(?P<name>href|action|formaction|src|background|data|poster)\s{0,20}=\s{0,20}"
    rf"(?:\"(?P<a>[^\"]{{1,{MAX_URL}}})|'(?P<b>[^']{{1,{MAX_URL}}})|(?P<c>[^\s\"'<>]{{1,{MAX_URL}}}))",
    re.IGNORECASE,
)
_CLICKED: Final = frozenset({"href", "action", "formaction"})
_BARE = re.compile(
    rf"\b(?:(?:https?|ftp):[/\\]{{2}}|www\d?\.)[^\s<>\"\x00-\x1f]{{1,{MAX_URL}}}", re.IGNORECASE
)
_REFRESH = re.compile(
    rf"content\s{{0,20}}=\s{{0,20}}[\"']?\s{{0,20}}[\d.]{{0,9}}\s{{0,20}};\s{{0,20}}url\s{{0,20}}="
    rf"\s{{0,20}}([^\s\"'<>]{{1,{MAX_URL}}})",
    re.IGNORECASE,
)
_AFTER: Final = ".,;:!?)]}'*_"
_SCHEME = re.compile(r"(https?|ftp):[/\\]*|[/\\]{2,}", re.IGNORECASE)
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}")
_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")


def links_in_text(text: str) -> Iterator[str]:
    """Yield what stands in a text and would be made a link."""
    for found in _BARE.finditer(text):
        link = found[0].rstrip(_AFTER)
        yield link if ":" in link[:6] else f"http://{link}"


def links_in_html(page: str) -> Iterator[str]:
    """Yield the links of a page: those to click on, then those that load, then bare ones."""
    loaded = []
    for found in _ATTRIBUTE.finditer(page):
        link = unescape(found["a"] or found["b"] or found["c"]).strip()
        if found["name"].lower() in _CLICKED:
            yield link
        else:
            loaded.append(link)
    for found in _REFRESH.finditer(page):
        yield unescape(found[1])
    yield from loaded
    yield from links_in_text(unescape(page))


def host_of(link: str) -> str:
    """Return the host that a link leads to, "" if it leads to none.

    A name is in A-labels and lower case, without a final dot; an address is canonical.
    """
    text = re.sub(r"[\t\r\n]", "", link.strip())
    scheme = _SCHEME.match(text)
    if scheme is None:
        return ""
    authority = re.split(r"[/\\?#]", text[scheme.end() :], maxsplit=1)[0].rpartition("@")[2]
    if authority.startswith("["):
        return _ipv6(authority[1:].partition("]")[0])
    name = _a_labels(unquote(authority.partition(":")[0])).strip(".")
    if _NUMBERS.fullmatch(name):
        return _ipv4(name)
    return name if _NAME.fullmatch(name) else ""


def _a_labels(name: str) -> str:
    if name.isascii():
        return name.lower()
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return ""


def _ipv4(name: str) -> str:
    """Return the address that numbers stand for (WHATWG URL §3.5), "" if for none."""
    try:
        numbers = [_number(each) for each in name.split(".")]
    except ValueError:
        return ""
    *first, last = numbers
    if any(each > 255 for each in first) or last >= 256 ** (4 - len(first)):
        return ""
    for place, each in enumerate(first):
        last += each << 8 * (3 - place)
    return str(IPv4Address(last))


def _number(text: str) -> int:
    if len(text) > 20:
        raise ValueError("too long")
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") and len(text) > 1 else int(text)


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        return ""
