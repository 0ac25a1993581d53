"""Lists in the DNS: what they are asked, and what their answers mean (pure).

RFC 5782.  A list is a zone; it is asked for the A records of an address turned round
(IPv4 by octets, §2.1; IPv6 by nibbles, §2.4) or of a domain (§2.2), in front of the zone.
No such name: not listed.  Answers are in 127.0.0.0/8, and ``[dnsbl] lists`` may name those
that count.  Some answers say that the list does *not* answer:

* 127.255.255.x: Spamhaus to a public resolver, to one that asks too much, to a typing error;
* 127.0.0.1 (URIBL, SURBL) and 127.0.0.255 (DNSWL), unless the ini names them;
* anything outside of 127.0.0.0/8: the zone has a new owner, or a resolver invents answers.

Taken for listings, these would refuse all mail of the world.

:class:`.asking.ListAsker` asks; :class:`Patience` says when a list is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Network, ip_address

from ...config.scan_kinds import answer_counts
from ...config.scanning import DnsList
from .matching import Address

__all__ = ["Patience", "Says", "address_question", "public_zone", "read_answers", "symbol_of"]

_LOOPBACK = IPv4Network("127.0.0.0/8")
_ERRORS = IPv4Network("127.255.255.0/24")
_REFUSALS = ("127.0.0.1", "127.0.0.255")
_LONGEST_SYMBOL = 64
_LONGEST_NAME = 253
#: A label that is a customer's key, not a part of a list's name.
_KEY = re.compile(r"(?=[a-z-]*[0-9])[a-z0-9-]{20,}")

#: Failures in a row after which a list is left alone, and for how long, in seconds.
FAILURES = 5
FIRST_REST, LONGEST_REST = 60.0, 960.0


class Says(Enum):
    """What answers come to."""

    LISTED = "listed"
    NOT_LISTED = "not listed"
    #: It does not answer us.
    REFUSES = "refuses"


def address_question(address: Address, zone: str) -> str:
    """Return the name to ask ``zone`` for."""
    turned = address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    return f"{turned}.{zone}"


def name_question(name: str, zone: str) -> str:
    """Return the name to ask ``zone`` about a domain or host for; "" if it would be too long."""
    question = f"{name}.{zone}"
    return question if len(question) <= _LONGEST_NAME else ""


def read_answers(entries: Sequence[DnsList], answers: Sequence[str]) -> tuple[Says, float]:
    """Return what the A records of a zone mean to its ``entries``, and the sum of scores.

    A zone may stand in the ini several times, with other answers and scores; each entry
    counts once, however many of its answers there are.
    """
    addresses = [ip_address(each) for each in answers]
    if any(each in _ERRORS for each in addresses):
        return Says.REFUSES, 0.0
    hits = [each for each in entries if any(_counts(each, answer) for answer in answers)]
    if hits:
        return Says.LISTED, round(sum(each.score for each in hits), 6)
    strange = not any(each in _LOOPBACK for each in addresses)
    if answers and (strange or any(each in _REFUSALS for each in answers)):
        return Says.REFUSES, 0.0
    return Says.NOT_LISTED, 0.0


def _counts(entry: DnsList, answer: str) -> bool:
    if not entry.answers and answer in _REFUSALS:
        return False
    return answer_counts(entry, answer)


def public_zone(zone: str) -> str:
    """Return the name of a list as strangers may know it: without a customer's key."""
    labels = zone.split(".")
    while len(labels) > 2 and _KEY.fullmatch(labels[0]):
        del labels[0]
    return ".".join(labels)


def symbol_of(zone: str, score: float) -> str:
    """Return the symbol for being listed: DNSBL_ and the zone, DNSWL_ for one of the good."""
    name = re.sub(r"[^A-Z0-9]", "_", public_zone(zone).upper())
    return f"{'DNSBL' if score >= 0 else 'DNSWL'}_{name}"[:_LONGEST_SYMBOL]


class Patience:
    """How much a list has tried ours; ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        #: Failures in all, and in a row.
        self.failures = 0
        self.in_a_row = 0
        self._rest = FIRST_REST
        self._until = 0.0

    def may_ask(self, now: float) -> bool:
        """Say whether the list is to be asked."""
        return now >= self._until

    def answered(self) -> bool:
        """Note an answer; return whether the list had been left alone before it."""
        back = self.in_a_row >= FAILURES
        self.in_a_row, self._rest = 0, FIRST_REST
        return back

    def failed(self, now: float) -> float:
        """Note a failure; return for how long the list is left alone now, 0 for not.

        Questions that were under way when that began change nothing.
        """
        self.failures += 1
        if not self.may_ask(now):
            return 0.0
        self.in_a_row += 1
        if self.in_a_row < FAILURES:
            return 0.0
        rest, self._rest = self._rest, min(2 * self._rest, LONGEST_REST)
        self._until = now + rest
        return rest
