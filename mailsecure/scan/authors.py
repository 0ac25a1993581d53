"""Whose mail it says it is: the domains of the From field (pure; RFC 5322 §3.6.2).

DMARC stands and falls with this: a gateway that reads another domain here than the
reader's mail program shows lets a forger through.  So *all* From fields and all addresses
in them count, quoted strings, comments, groups and routes are understood, and what cannot
be understood is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import RemoteFault
from ..smtp.grammar import canonical_domain
from .header_fields import Field, unfolded, values_of

__all__ = ["MAX_AUTHORS", "Authors", "authors_of", "domains_in"]

MAX_AUTHORS = 8
_LONGEST_FIELD = 8192

_QUOTING = re.compile(r'\\.|["()]', re.S)
_LEFT_OPEN = re.compile(r'["()\\]')
_TOKEN = re.compile(r"[<>,;:]|[^<>,;:]+")


@dataclass(frozen=True, slots=True)
class Authors:
    """The domains of the authors, lower case as A-labels, each once.

    ``problem`` is ``""``, or what is wrong: ``missing`` (no From field), ``several`` (more
    fields than one), ``unreadable`` (an address without a domain, or none at all), ``many``
    (more than :data:`MAX_AUTHORS` domains, or longer than is read).
    """

    domains: tuple[str, ...]
    problem: str = ""


def authors_of(fields: Sequence[Field]) -> Authors:
    """Return who ``fields`` say wrote the message."""
    values = values_of(fields, b"from")
    if not values:
        return Authors((), "missing")
    found: dict[str, None] = {}
    problem = "several" if len(values) > 1 else ""
    for value in values[:MAX_AUTHORS]:
        if len(value) > _LONGEST_FIELD:
            problem = "many"
            continue
        domains = domains_in(unfolded(value))
        if not domains or "" in domains:
            problem = problem or "unreadable"
        found |= dict.fromkeys(domain for domain in domains if domain)
    if len(found) > MAX_AUTHORS or len(values) > MAX_AUTHORS:
        problem = "many"
    return Authors(tuple(found)[:MAX_AUTHORS], problem)


def domains_in(text: str) -> list[str]:
    """Return the domain of each address in ``text``, a list of mailboxes and groups.

    "" stands for an address whose domain is none (a literal, one that is spelt wrong).
    """
    domains: list[str] = []
    for bare, angle in _mailboxes(_plain(text)):
        written = angle if "@" in angle else bare
        # Two addresses in one pair of brackets: nobody knows which a reader is shown.
        for address in [written] if _is_route(written) else written.split(","):
            if "@" in address:
                domains.append(_domain(address.rpartition("@")[2]))
            elif angle or bare:
                domains.append("")
    return domains


def _is_route(written: str) -> bool:
    """Say whether an address has an old source route (RFC 5322 §4.4), ``@a,@b:c@d``."""
    return written.startswith("@") and ":" in written


def _domain(text: str) -> str:
    try:
        domain = canonical_domain("".join(text.split()).removesuffix("."))
    except RemoteFault:
        return ""
    return "" if domain.startswith("[") else domain


def _mailboxes(text: str) -> Iterator[tuple[str, str]]:
    """Yield (what stands outside of angle brackets, what stands inside), a mailbox each."""
    bare = angle = ""
    inside = False
    for piece in _TOKEN.findall(text):
        if piece == "<":
            if angle:
                yield "", angle
            inside, angle = True, ""
        elif piece == ">":
            inside = False
        elif inside:
            angle += piece
        elif piece in ",;":
            yield bare.strip(), angle.strip()
            bare = angle = ""
        elif piece == ":":
            # The name of a group (RFC 5322 §3.4).
            bare = ""
        else:
            bare += piece
    yield bare.strip(), angle.strip()


def _plain(text: str) -> str:
    """Return ``text`` with a blank for each comment, and ``x`` for each quoted string.

    Marks that are never closed are taken for blanks, what is behind them for text.
    """
    kept: list[str] = []
    at = depth = 0
    quote = -1
    for match in _QUOTING.finditer(text):
        mark = match[0]
        if mark == '"' and not depth:
            if quote >= 0:
                kept += text[at:quote], "x"
                at, quote = match.end(), -1
            else:
                quote = match.start()
        elif quote < 0 and mark == "(":
            if not depth:
                kept.append(text[at : match.start()])
                at = match.start()
            depth += 1
        elif quote < 0 and mark == ")" and depth:
            depth -= 1
            if not depth:
                kept.append(" ")
                at = match.end()
    return "".join(kept) + _LEFT_OPEN.sub(" ", text[at:])
