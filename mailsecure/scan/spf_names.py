"""Which names an SPF evaluation is going to ask for (pure).

:mod:`.jobs.spf` evaluates; here the plain names of a record are read ahead, so that they
are asked side by side and before the job runs (:mod:`.replay`).  It does not matter if a
name is missed (those with macros are) or asked in vain: the job asks for what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice

from .dns_answers import MAX_TXT, Question

__all__ = ["follow_ups", "may_have_record", "plain_address"]

#: RFC 7208 §4.6.4: so many mechanisms that ask, so many names of an MX or PTR answer.
_MOST = 10
_RECORD = re.compile(r"v=spf1(?: |$)", re.IGNORECASE)
_TERM = re.compile(
    r"[-+?~]?(?:(include|exists|a|mx|ptr|ip4|ip6):|(redirect|exp)=|(a|mx|ptr|all)(?=/|$))"
    r"([^/]*)(/.*)?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)


def may_have_record(domain: str) -> bool:
    """Say whether ``domain`` can publish SPF at all (RFC 7208 §4.3): several good labels."""
    labels = domain.removesuffix(".").split(".")
    return (
        len(domain) <= 253
        and len(labels) > 1
        and not labels[-1].isdigit()
        and all(_LABEL.fullmatch(each) for each in labels)
    )


def plain_address(client: str) -> str:
    """Return an IPv4 address that is written as an IPv6 one (RFC 4291 §2.5.5.2) as IPv4.

    ValueError: it is no address.
    """
    address = ip_address(client)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def follow_ups(client: str, question: Question, records: Sequence[str]) -> list[Question]:
    """Return what ``records``, the answer to ``question``, lead to for ``client``."""
    address = ip_address(client)
    kind, name = question
    family = "A" if address.version == 4 else "AAAA"
    if kind == "MX":
        hosts = [each.partition(" ")[2] for each in records[:_MOST]]
        return [(family, host) for host in hosts if host]
    if kind == "PTR":
        return [(family, host) for host in records[:_MOST]]
    found = [each for each in records if len(each) <= MAX_TXT and _RECORD.match(each)]
    if kind != "TXT" or len(found) != 1:
        return []
    return list(islice(_terms(name, family, address, found[0]), _MOST))


def _terms(
    name: str, family: str, client: IPv4Address | IPv6Address, record: str
) -> Iterator[Question]:
    decided = False
    for term in record.split(" ")[1:]:
        match = _TERM.fullmatch(term)
        if match is None or "%" in term:
            continue
        what = (match[1] or match[2] or match[3]).lower()
        argument = match[4].lower().removesuffix(".")
        if what == "all" or (what in ("ip4", "ip6") and _holds(argument, match[5], client)):
            decided = True
        elif what == "exp":
            # pyspf reads the explanation whatever the result.
            yield "TXT", argument
        elif not decided:
            yield from _asked(what, argument, name, family, str(client))


def _asked(what: str, argument: str, name: str, family: str, client: str) -> Iterator[Question]:
    if what == "ptr":
        yield "PTR", client
    elif what in ("include", "redirect"):
        yield "TXT", argument
    elif what == "exists":
        yield "A", argument
    elif what in ("a", "mx"):
        yield family if what == "a" else "MX", argument or name


def _holds(network: str, prefix: str | None, client: IPv4Address | IPv6Address) -> bool:
    try:
        return client in ip_network(network + (prefix or ""), strict=False)
    except ValueError:
        return False
