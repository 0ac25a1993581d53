"""Whose mail is taken for whom: the relay rules (pure).

Mail for the domains of the ini is taken from anyone, mail elsewhere only from the
relay networks, mail for ``postmaster`` always (RFC 5321 §4.5.1).  A recipient whose
local part asks the next hop to route further (``user%elsewhere``, ``elsewhere!user``,
``"user@elsewhere"``) is refused to strangers: the next hop trusts us, and would obey.
So is one that a careless program behind us could take for an option, a pipe or a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..smtp.envelope import Recipient
from ..smtp.grammar import canonical_domain
from ..smtp.replies import Reply

__all__ = ["DomainTable", "RelayRules"]

RELAY_DENIED = Reply(550, "5.7.1", "Relaying denied")
ROUTING_DENIED = Reply(550, "5.7.1", "Routing by the local part denied")
STRANGE_LOCAL_PART = Reply(550, "5.1.3", "Local part not acceptable here")

_ROUTING = frozenset("@%!")


class DomainTable(Protocol):
    """What is known of domains (``delivery.routes``)."""

    def is_ours(self, domain: str) -> bool:
        """Say whether the ini names ``domain`` (``*`` does not count)."""


class RelayRules:
    """The rules for one configuration."""

    def __init__(self, table: DomainTable, postmaster_domain: str) -> None:
        self._table = table
        self._postmaster_domain = postmaster_domain

    def decide(
        self, recipient: Recipient, local: str, trusted: bool, own_address: Callable[[], str]
    ) -> Recipient | Reply:
        """Return the recipient as it enters the envelope, or the refusal.

        ``local`` is the local part without quotes, ``own_address`` returns the address
        literal at which the client reached us: postmaster there is our postmaster.
        """
        domain = recipient.domain
        postmaster = local.lower() == "postmaster"
        if postmaster and (not domain or domain == own_address()):
            mailbox = f"postmaster@{self._postmaster_domain}"
            return Recipient(mailbox, self._postmaster_domain, recipient.notify, recipient.orcpt)
        ours = self._table.is_ours(domain)
        if not (ours or trusted):
            return RELAY_DENIED
        if not trusted and _ROUTING.intersection(local):
            return ROUTING_DENIED
        if local[0] in "-|/" or "/../" in f"/{local}":
            return STRANGE_LOCAL_PART
        return recipient


def literal_of(address: str) -> str:
    """Return the address literal for an IP address as the kernel writes it."""
    plain = address.partition("%")[0]
    return canonical_domain(f"[IPv6:{plain}]" if ":" in plain else f"[{plain}]")


def postmaster_domain(
    domains: Mapping[str, object], hostname: str, ours: Callable[[str], bool]
) -> str:
    """Choose the domain of ``<postmaster>``: our own name if we take mail for it.

    Else the first domain that the ini names, else our own name all the same.
    """
    if ours(hostname):
        return hostname
    for domain in domains:
        if domain != "*" and not domain.startswith("."):
            return domain
    return hostname
