"""What a client's names are worth, as far as they can be judged without asking (pure).

RFC 5321 §4.1.1.1 and §4.1.3: EHLO names the client by its domain name, or by an address
literal where it has none.  §4.1.4 forbids refusing mail because the name and the address do
not match; nothing here does.  But nobody except us is called as we are: a client that says
so lies, and real mail servers do not (:data:`FORGED`), unless the DNS says that a domain of
ours is there: a web shop somewhere else, which bears its bare name.

:mod:`.identity` asks the DNS for the rest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ...config.model import Config
from ...errors import RemoteFault
from ...smtp.grammar import canonical_domain
from .matching import read_address

__all__ = ["FORGED", "LITERAL_FALSE", "NOT_FQDN", "Greeting", "Ours", "judge_helo", "own_names"]

FORGED = "HELO_FORGED"
LITERAL_FALSE = "HELO_LITERAL_FALSE"
NOT_FQDN = "HELO_NOT_FQDN"

_LOCALHOST = ("localhost", "localhost.localdomain")


@dataclass(frozen=True, slots=True)
class Ours:
    """What we are called: names as lower-case A-labels, addresses in their shortest form."""

    names: Collection[str]
    addresses: Collection[str]

    def is_us(self, address: str) -> bool:
        """Say whether ``address`` (shortest form) is this machine."""
        return address in self.addresses or address == "::1" or address.startswith("127.")


def own_names(config: Config) -> frozenset[str]:
    """Return our host name and the domains that [domains] names.

    Not what is below ``.example.com``: a host there may well be somebody else's, and send.
    """
    domains = {each for each in config.domains if each[0] not in ".*"}
    return frozenset(domains | {config.node.hostname})


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is wrong with a HELO name: the symbol and why, or "", and the ``domain`` to ask for."""

    symbol: str = ""
    reason: str = ""
    domain: str = ""


def judge_helo(helo: str, client: str, ours: Ours) -> Greeting:
    """Return what is wrong with ``helo`` at first sight, from a client at ``client``."""
    address = read_address(client)
    here = "" if address is None else str(address)
    literal = _literal(helo)
    if literal is not None:
        return _judge_literal(literal, here, ours, in_brackets=helo.startswith("["))
    try:
        name = canonical_domain(helo.removesuffix("."))
    except RemoteFault:
        return Greeting(NOT_FQDN, f"{helo!a} is no domain")
    if (name in ours.names or name in _LOCALHOST) and not ours.is_us(here):
        return Greeting(FORGED, f"it calls itself {name}", "" if name in _LOCALHOST else name)
    if "." not in name or name.startswith("["):
        return Greeting(NOT_FQDN, f"{name} is no name of the DNS")
    return Greeting(domain=name)


def _judge_literal(literal: str, here: str, ours: Ours, in_brackets: bool) -> Greeting:
    if literal != here and ours.is_us(literal) and not ours.is_us(here):
        return Greeting(FORGED, f"it calls itself [{literal}]")
    if not in_brackets:
        return Greeting(NOT_FQDN, f"{literal} is neither a name nor an address literal")
    if literal != here:
        return Greeting(LITERAL_FALSE, f"it calls itself [{literal}] and is {here}")
    return Greeting()


def _literal(helo: str) -> str | None:
    """Return the address that ``helo`` is, in brackets or without; None: it is none."""
    inner = helo
    if helo.startswith("[") and helo.endswith("]"):
        inner = helo[1:-1]
        if inner[:5].lower() == "ipv6:":
            inner = inner[5:]
    address = read_address(inner)
    return None if address is None else str(address)
