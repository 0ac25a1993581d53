"""The check ``identity``: is the client who it says it is, and could its sender be answered?

* At CONNECT the address is looked up, and each of its names forward again: a name that leads
  back is *confirmed*, becomes ``Facts.name`` and the result ``iprev`` (RFC 8601 §2.7.3).
  Symbols RDNS_NONE (no name), RDNS_FORGED (none leads back), RDNS_FAULT.
* At HELO the name is looked at (:mod:`.naming`) and looked up: HELO_FORGED,
  HELO_LITERAL_FALSE, HELO_NOT_FQDN, HELO_UNRESOLVED.
* At MAIL the domain of the reverse-path is looked up, as somebody who answers would: MX, else
  an address (RFC 5321 §5.1); the null MX (RFC 7505) says that nobody can.  SENDER_NO_MX,
  SENDER_DNS_FAULT.

What the ini says must be so is refused at RCPT; the rest adds to the message's score.  The
DNS's trouble is nobody's fault: it counts only where an answer is required, and then the
client comes again.  Clients in ``[relay] networks`` are not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from enum import Enum
from typing import Any, TypeVar

import netifaces
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.plugin import IPlugin
from zope.interface import implementer

from ...config.model import Config
from ...config.scanning import ScanAction
from ...errors import RemoteFault
from ...smtp.grammar import canonical_domain
from ...world import DnsAbsent, DnsFault
from ..api import ICheckMaker, Site
from ..values import NOTHING, AuthResult, Facts, Finding, Stage, Symbol
from .matching import Address, read_address
from .naming import FORGED, LITERAL_FALSE, NOT_FQDN, Ours, judge_helo, own_names

__all__ = ["IdentityCheck", "IdentityMaker"]

_T = TypeVar("_T")
Question = Coroutine[Deferred[Any], Any, _T]

#: How much of [scan] check_timeout one question may take: at most two come one after the
#: other, and a DNS that is late must not make a check that is late, which would be a failure.
_SHARE = 0.4
#: Names of one client that are looked up (as RFC 7208 §4.6.4 has it for "ptr").
MAX_NAMES = 10
SCORES = {
    "RDNS_NONE": 1.5,
    "RDNS_FORGED": 1.0,
    FORGED: 5.0,
    LITERAL_FALSE: 2.5,
    NOT_FQDN: 1.5,
    "HELO_UNRESOLVED": 1.0,
    "SENDER_NO_MX": 3.0,
}


class Found(Enum):
    """What the DNS has of something."""

    YES = "yes"
    NO = "no"
    #: It did not say.
    FAULT = "fault"


class IdentityCheck:
    """See the module's text.  ``ours`` are our own names and addresses."""

    name = "identity"
    stages = frozenset({Stage.CONNECT, Stage.HELO, Stage.MAIL})

    def __init__(self, site: Site, ours: Ours) -> None:
        self._settings = site.config.identity
        self._domains = site.config.domains
        self._resolver = site.world.resolver
        self._clock = site.world.clock
        self._limit = _SHARE * site.config.scan.check_timeout
        self._ours = ours

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Return what is wrong with the client's names."""
        if facts.trusted:
            return NOTHING
        if stage is Stage.CONNECT:
            return await self._check_reverse(facts)
        if stage is Stage.HELO:
            return await self._check_helo(facts.helo, facts.client)
        return await self._check_sender(facts.sender_domain)

    # -- CONNECT

    async def _check_reverse(self, facts: Facts) -> Finding:
        address = read_address(facts.client)
        if address is None:
            return NOTHING
        try:
            names = _hosts(await self._answer(self._resolver.ptr(str(address))))
        except DnsAbsent:
            names = []
        except DnsFault as fault:
            return self._reverse_fault(address, str(fault))
        found = await self._side_by_side(self._leads_back(name, address) for name in names)
        confirmed = [name for name, each in zip(names, found, strict=True) if each is Found.YES]
        if confirmed:
            facts.name = confirmed[0]
            return Finding(results=(_iprev("pass", address, confirmed[0]),))
        if Found.FAULT in found:
            return self._reverse_fault(address, f"{names[0]} cannot be looked up")
        if not names:
            symbol = self._reverse_symbol("RDNS_NONE", address, f"{address} has no name")
            return Finding((symbol,), (_iprev("permerror", address, "no name"),))
        what = f"{names[0]} does not lead back to {address}"
        symbol = self._reverse_symbol("RDNS_FORGED", address, what)
        return Finding((symbol,), (_iprev("fail", address, names[0]),))

    def _reverse_symbol(self, name: str, address: Address, reason: str) -> Symbol:
        required = self._settings.require_reverse_dns
        return Symbol(
            name,
            SCORES[name],
            reason,
            ScanAction.REJECT if required else None,
            # RFC 7372 §3: "reverse DNS validation failed".
            reply=f"5.7.25 Your address {address} has no name that leads back to it",
        )

    def _reverse_fault(self, address: Address, reason: str) -> Finding:
        results = (_iprev("temperror", address, ""),)
        if not self._settings.require_reverse_dns:
            return Finding(results=results)
        symbol = Symbol(
            "RDNS_FAULT",
            0.0,
            reason,
            ScanAction.TEMPFAIL,
            reply=f"4.7.25 The name of your address {address} cannot be looked up now",
        )
        return Finding((symbol,), results)

    async def _leads_back(self, name: str, address: Address) -> Found:
        ask = self._resolver.ipv4 if address.version == 4 else self._resolver.ipv6
        try:
            found = await self._answer(ask(name))
        except DnsAbsent:
            return Found.NO
        except DnsFault:
            return Found.FAULT
        return Found.YES if any(read_address(each) == address for each in found) else Found.NO

    # -- HELO

    async def _check_helo(self, helo: str, client: str) -> Finding:
        greeting = judge_helo(helo, client, self._ours)
        if not greeting.symbol:
            if not greeting.domain or await self._exists(greeting.domain) is not Found.NO:
                return NOTHING
            reason = f"{greeting.domain} is unknown to the DNS"
            return Finding((Symbol("HELO_UNRESOLVED", SCORES["HELO_UNRESOLVED"], reason),))
        forged = greeting.symbol == FORGED
        address = read_address(client)
        found = Found.NO
        if forged and greeting.domain and address is not None:
            found = await self._leads_back(greeting.domain, address)
        if found is Found.YES:
            return NOTHING
        reject = forged and found is Found.NO and self._settings.reject_forged_helo
        symbol = Symbol(
            greeting.symbol,
            SCORES[greeting.symbol],
            greeting.reason,
            ScanAction.REJECT if reject else None,
            reply="5.7.1 You are not who you say in EHLO: that is us" if reject else "",
        )
        return Finding((symbol,))

    async def _exists(self, name: str) -> Found:
        found = await self._side_by_side(
            self._has_any(ask(name))
            for ask in (self._resolver.ipv4, self._resolver.ipv6, self._resolver.mx)
        )
        return _best(found)

    # -- MAIL

    async def _check_sender(self, domain: str) -> Finding:
        # Mail for our own domains can be answered whatever the DNS says, by way of us.
        if not domain or domain.startswith("[") or domain in self._domains:
            return NOTHING
        try:
            exchangers = await self._answer(self._resolver.mx(domain))
            if any(each.host for each in exchangers):
                return NOTHING
            return self._no_mx(f"{domain} takes no mail (null MX)", "5.7.27")
        except DnsAbsent:
            found = await self._has_address(domain)
        except DnsFault as fault:
            return self._sender_fault(domain, str(fault))
        if found is Found.YES:
            return NOTHING
        if found is Found.FAULT:
            return self._sender_fault(domain, f"no answer about the addresses of {domain}")
        return self._no_mx(f"{domain} has neither MX nor address", "5.1.8")

    async def _has_address(self, name: str) -> Found:
        asked = (self._resolver.ipv4, self._resolver.ipv6)
        return _best(await self._side_by_side(self._has_any(ask(name)) for ask in asked))

    def _no_mx(self, reason: str, status: str) -> Finding:
        # RFC 7505 §4.2 and RFC 3463 §3.2 give the codes.
        required = self._settings.require_sender_domain
        action = ScanAction.REJECT if required else None
        reply = f"{status} Sender address: {reason}"
        return Finding(
            (Symbol("SENDER_NO_MX", SCORES["SENDER_NO_MX"], reason, action, reply=reply),)
        )

    def _sender_fault(self, domain: str, reason: str) -> Finding:
        if not self._settings.require_sender_domain:
            return NOTHING
        reply = f"4.1.8 Sender address: {domain} cannot be looked up now"
        return Finding((Symbol("SENDER_DNS_FAULT", 0.0, reason, ScanAction.TEMPFAIL, reply=reply),))

    # -- questions

    async def _answer(self, question: Question[_T]) -> _T:
        """Return the answer; DnsAbsent, or DnsFault where it does not come in time."""
        try:
            return await Deferred.fromCoroutine(question).addTimeout(self._limit, self._clock)
        except DeferredTimeout:
            raise DnsFault("no answer in time") from None

    async def _has_any(self, question: Question[object]) -> Found:
        try:
            await self._answer(question)
        except DnsAbsent:
            return Found.NO
        except DnsFault:
            return Found.FAULT
        return Found.YES

    async def _side_by_side(self, questions: Iterable[Question[Found]]) -> list[Found]:
        asked = [Deferred.fromCoroutine(each) for each in questions]
        found: list[Found] = await gatherResults(asked, consumeErrors=True)
        return found


def _best(found: Collection[Found]) -> Found:
    """Return YES if there is one, else FAULT if there is one."""
    for each in (Found.YES, Found.FAULT):
        if each in found:
            return each
    return Found.NO


def _hosts(names: Sequence[str]) -> list[str]:
    """Return those of ``names`` that are names of hosts: a PTR record may hold anything."""
    hosts = []
    for name in names[:MAX_NAMES]:
        try:
            host = canonical_domain(name.removesuffix("."))
        except RemoteFault:
            continue
        if not host.startswith("["):
            hosts.append(host)
    return hosts


def _iprev(result: str, address: Address, comment: str) -> AuthResult:
    return AuthResult("iprev", result, (("policy.iprev", str(address)),), comment)


def own_addresses(config: Config) -> frozenset[str]:
    """Return the addresses of this machine's interfaces, and those that it may hold."""
    found = {str(each.ip) for group in config.virtual.values() for each in group.addresses}
    for interface in netifaces.interfaces():
        for family in (netifaces.AF_INET, netifaces.AF_INET6):
            for entry in netifaces.ifaddresses(interface).get(family, ()):
                address = read_address(entry["addr"])
                if address is not None:
                    found.add(str(address))
    return frozenset(found)


@implementer(IPlugin, ICheckMaker)
class IdentityMaker:
    """Makes the check ``identity``.  ``addresses`` returns our own."""

    name = "identity"

    def __init__(self, addresses: Callable[[Config], Collection[str]] = own_addresses) -> None:
        self._addresses = addresses

    def make(self, site: Site) -> IdentityCheck:
        """Return the check."""
        config = site.config
        return IdentityCheck(site, Ours(own_names(config), self._addresses(config)))
