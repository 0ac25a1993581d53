"""Reading the texts of a message: where their links lead, and GTUBE (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from ..anatomy import FoundUrl
from .links import host_of, links_in_html, links_in_text
from .markers import has_gtube
from .text import decode, printable

__all__ = ["DomainOf", "Reader"]

#: Hosts that are kept, links that are looked at, and characters that are read, of all parts.
MAX_HOSTS: Final = 200
MAX_LINKS: Final = 20_000
MAX_TEXT: Final = 20 << 20

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s{0,9}=\s{0,9}[\"']?([\w.:-]{1,40})", re.I)

#: Returns the registered domain of a host's name, "" where it has none.
DomainOf = Callable[[str], str]


class Reader:
    """Reads the texts of one message."""

    def __init__(self, domain_of: DomainOf) -> None:
        self._domain_of = domain_of
        self._urls: dict[str, FoundUrl] = {}
        self._links = MAX_LINKS
        self._left = MAX_TEXT
        #: Whether the test string for spam was there.
        self.gtube = False

    @property
    def urls(self) -> tuple[FoundUrl, ...]:
        """One link for each host, in the order in which they were found."""
        return tuple(self._urls.values())

    def read(self, content: bytes, page: bool, charset: str) -> None:
        """Read a text in ``charset`` ("" unknown); ``page``: it is HTML, or the like."""
        piece = content[: self._left]
        self._left -= len(piece)
        if page and not charset:
            found = _META_CHARSET.search(piece, 0, 4096)
            charset = found[1].decode("ascii", "replace") if found else ""
        if piece.startswith((b"\xff\xfe", b"\xfe\xff")):
            charset = "utf-16"
        text = decode(piece, charset or "utf-8")
        self.gtube = self.gtube or has_gtube(text)
        self._note(links_in_html(text) if page else links_in_text(text))

    def _note(self, links: Iterable[str]) -> None:
        for link in islice(links, self._links):
            self._links -= 1
            host = host_of(link)
            if host and host not in self._urls and len(self._urls) < MAX_HOSTS:
                domain = self._domain_of(host)
                self._urls[host] = FoundUrl(printable(link, 300), host, domain)
