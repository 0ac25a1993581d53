"""Which names of a message's links lists are asked about, and what they come to (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..anatomy import Anatomy
from ..values import Symbol
from .dnslists import symbol_of
from .matching import Address, is_listed_name, is_public, read_address

__all__ = ["Asked", "judge_links", "what_to_ask"]

_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """Domains and addresses that lists are asked about."""

    domains: tuple[str, ...]
    addresses: tuple[Address, ...]


def what_to_ask(anatomy: Anatomy, ignore: Sequence[str], most: int) -> Asked:
    """Return the registered domains of links, and addresses that stand in the place of a name.

    At most ``most`` of both together, in the order of the message.  ``ignore`` are domains
    that are not asked about, with all below them.
    """
    patterns = [pattern for each in ignore for pattern in (each, f".{each.lstrip('.')}")]
    domains: dict[str, None] = {}
    addresses: dict[Address, None] = {}
    for url in anatomy.urls:
        if len(domains) + len(addresses) >= most:
            break
        address = read_address(url.host)
        if address is not None:
            if is_public(address):
                addresses[address] = None
        elif url.domain and not is_listed_name(url.host, patterns):
            domains[url.domain] = None
    return Asked(tuple(domains), tuple(addresses))


def judge_links(listings: Iterable[tuple[str, str, float]]) -> tuple[Symbol, ...]:
    """Return a symbol for each list, from (zone, name that it knows, score).

    A list counts once, with the worst of the names.
    """
    by_zone: dict[str, list[tuple[str, float]]] = {}
    for zone, about, score in listings:
        by_zone.setdefault(zone, []).append((about, score))
    return tuple(_symbol(zone, found) for zone, found in by_zone.items())


def _symbol(zone: str, found: list[tuple[str, float]]) -> Symbol:
    name = f"URIBL_{symbol_of(zone, 1.0).removeprefix('DNSBL_')}"
    names = ", ".join(about for about, _ in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return Symbol(name, max(score for _, score in found), f"links lead to {names}{more}")
