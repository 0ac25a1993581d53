"""Where the mail of a domain goes: from a name to addresses, in the order to try them.

RFC 5321 §5.1: the MX records in the order of their preference, those of one preference
in random order; without any, the domain's own addresses.  RFC 7505: the host ``.`` means
that the domain takes no mail at all.  If one of the records is ourselves, it and all of
equal or worse preference are dropped, because mail would circle; if nothing is left, it is
a loop.

Within one host the addresses are shuffled, and IPv6 and IPv4 take turns, so that a host
whose one family is broken costs one attempt.  No more than :data:`MAX_TARGETS` addresses
are tried for one message.

What cannot change by waiting (no such domain, null MX, loop) is :class:`Undeliverable`;
what may is :class:`~mailsecure.delivery.api.NextHopDown`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from ..errors import RemoteFault
from ..smtp.replies import Reply
from ..world import DnsAbsent, DnsFault, MxHost, Resolver
from .api import NextHopDown

__all__ = ["MAX_TARGETS", "Target", "Undeliverable", "find_addresses", "find_mx_targets"]

MAX_TARGETS = 5
#: Hosts that are looked up for one domain, however many it names.
MAX_HOSTS = 10

NULL_MX = Reply(556, "5.1.10", "The domain takes no mail (null MX)")
NO_DOMAIN = Reply(550, "5.1.2", "No such domain")
LOOP = Reply(554, "5.4.6", "Mail for this domain would come back to this host")
NO_ADDRESS = Reply(550, "5.4.4", "No host of this domain has an address")


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to; ``name`` is the host's, for TLS and the log."""

    name: str
    address: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{self.name}:{self.path}"
        return f"{self.name}[{self.address}]:{self.port}"


class Undeliverable(RemoteFault):
    """Mail for this domain can never be delivered as things stand."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


async def find_mx_targets(
    resolver: Resolver,
    rng: random.Random,
    domain: str,
    port: int,
    is_self: Callable[[str], bool],
) -> list[Target]:
    """Return the targets for ``domain`` (canonical text), best first, at least one.

    ``is_self`` says whether a host name or an IP address is ours.
    """
    if domain.startswith("["):
        return _literal(domain, port, is_self)
    try:
        records = await resolver.mx(domain)
    except DnsAbsent:
        records = [MxHost(0, domain)]
        implicit = True
    except DnsFault as fault:
        raise _dns_trouble(domain, fault) from None
    else:
        implicit = False
    if any(not record.host for record in records):
        raise Undeliverable(NULL_MX)
    targets, trouble = await _targets(resolver, rng, records, port, is_self)
    if targets:
        return targets
    if trouble is not None:
        raise _dns_trouble(domain, trouble)
    raise Undeliverable(NO_DOMAIN if implicit else NO_ADDRESS)


async def _targets(
    resolver: Resolver,
    rng: random.Random,
    records: Sequence[MxHost],
    port: int,
    is_self: Callable[[str], bool],
) -> tuple[list[Target], DnsFault | None]:
    ordered = sorted(records, key=lambda record: (record.preference, rng.random()))
    targets: list[Target] = []
    trouble: DnsFault | None = None
    level = -1
    start = 0
    for record in ordered[:MAX_HOSTS]:
        if record.preference != level:
            # All of one preference are looked at before the count may end the search:
            # one of them may be ourselves.
            if len(targets) >= MAX_TARGETS:
                break
            level, start = record.preference, len(targets)
        try:
            addresses = await find_addresses(resolver, rng, record.host)
        except DnsAbsent:
            continue
        except DnsFault as fault:
            trouble = fault
            continue
        if is_self(record.host) or any(is_self(address) for address in addresses):
            del targets[start:]
            if not targets and trouble is None:
                raise Undeliverable(LOOP)
            break
        targets += [Target(record.host, address, port) for address in addresses]
    return targets[:MAX_TARGETS], trouble


async def find_addresses(resolver: Resolver, rng: random.Random, host: str) -> list[str]:
    """Return the usable addresses of ``host``, shuffled, the families taking turns.

    Raises DnsAbsent and DnsFault.
    """
    addresses = [text for text in await resolver.addresses(host) if _usable(text)]
    if not addresses:
        raise DnsAbsent(host)
    if len(addresses) == 1:
        return addresses
    rng.shuffle(addresses)
    six = [text for text in addresses if ":" in text]
    four = [text for text in addresses if ":" not in text]
    turns = [text for pair in zip(six, four, strict=False) for text in pair]
    common = min(len(six), len(four))
    return turns + six[common:] + four[common:]


def _usable(text: str) -> bool:
    """Say whether mail can be sent to an address at all."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast)


def _literal(domain: str, port: int, is_self: Callable[[str], bool]) -> list[Target]:
    """Read ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 §4.1.3)."""
    address = domain[1:-1].removeprefix("IPv6:")
    if not _usable(address):
        raise Undeliverable(NO_ADDRESS)
    if is_self(address):
        raise Undeliverable(LOOP)
    return [Target(address, address, port)]


def _dns_trouble(domain: str, fault: DnsFault) -> NextHopDown:
    return NextHopDown(Reply(451, "4.4.3", f"Cannot look up {domain}: {fault}"))
