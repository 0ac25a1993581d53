"""The check ``dnsbl``: what lists in the DNS say of the client, and of the names it uses.

At CONNECT all of ``[dnsbl] lists`` are asked about the client's address, side by side, while
it waits for its greeting; at MAIL all of ``sender_lists`` about the domain of the reverse-path
and the HELO name.  As in Postfix's postscreen the *sum* decides: what a list of the good
takes off may outweigh what others put on, and no single list has the last word unless its
score says so.

Each list that knows one gives a symbol, DNSBL_ or DNSWL_ and its zone.  Where the sum reaches
``[dnsbl] reject`` there is DNSBL_REFUSED, and the client is refused at RCPT with the names of
the lists, so that the postmaster over there knows whom to ask.  A late list says nothing
(:mod:`.asking`).

Neither private addresses nor clients in ``[relay] networks`` are asked about.  The sum of a
client is left in ``Facts.client_notes["dnsbl"]``, where :mod:`.greylist` finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from ...config.scanning import ScanAction
from ...errors import RemoteFault
from ...smtp.grammar import canonical_domain
from ..api import ICheckMaker, Site
from ..values import NOTHING, Facts, Finding, Stage, Symbol
from .asking import ListAsker, Listing
from .dnslists import public_zone, symbol_of
from .matching import is_public, read_address

__all__ = ["NOTE", "DnsblCheck", "DnsblMaker"]

#: Under which ``Facts.client_notes`` holds the sum, a float.
NOTE = "dnsbl"
_STANDING = "dnsbl.standing"
#: Seconds for the words of a list about a client that is refused, at most.
_REASON_WITHIN = 2.0
#: How much of [scan] check_timeout lists may take at most.
_SHARE = 0.8
#: Lists named to a client that is refused.
_NAMED = 3


class _Standing:
    """What the lists say of a client, for MAIL, which may come before their answers."""

    def __init__(self) -> None:
        self.listings: Sequence[Listing] = ()
        self._settled = False
        self._waiting: list[Deferred[None]] = []

    def settle(self) -> None:
        """No more will come."""
        self._settled = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def known(self) -> Sequence[Listing]:
        """Return the listings once they are there."""
        if not self._settled:
            wait: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(wait)
            await wait
        return self.listings


class DnsblCheck:
    """See the module's text."""

    name = "dnsbl"

    def __init__(self, site: Site) -> None:
        settings = site.config.dnsbl
        self._reject = settings.reject
        # A list that is late must not make a check that is late: that would be a failure.
        timeout = self._timeout = min(settings.timeout, _SHARE * site.config.scan.check_timeout)
        self._clients = ListAsker(site.world, settings.lists, timeout)
        self._senders = ListAsker(site.world, settings.sender_lists, timeout)
        stages = {Stage.CONNECT: self._clients, Stage.MAIL: self._senders}
        self.stages = frozenset(stage for stage, lists in stages.items() if lists)
        self._clock = site.world.clock

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Return a symbol for each list that knows the client (CONNECT) or the sender (MAIL)."""
        if facts.trusted:
            return NOTHING
        if stage is Stage.CONNECT:
            return await self._check_client(facts)
        return await self._check_sender(facts)

    def counts(self) -> dict[str, int]:
        """Return how often each list did not answer, by zone."""
        return self._clients.failures | self._senders.failures

    async def _check_client(self, facts: Facts) -> Finding:
        address = read_address(facts.client)
        if address is None or not is_public(address):
            return NOTHING
        standing = facts.client_notes[_STANDING] = _Standing()
        began = self._clock.seconds()
        try:
            standing.listings = listings = await self._clients.about_address(address)
        finally:
            standing.settle()
        facts.client_notes[NOTE] = _sum(listings)
        symbols = [_symbol([each]) for each in listings]
        if _sum(listings) >= self._reject:
            left = self._timeout - (self._clock.seconds() - began)
            symbols.append(await self._refusal(self._clients, listings, left))
        return Finding(tuple(symbols))

    async def _check_sender(self, facts: Facts) -> Finding:
        names = [name for name in (facts.sender_domain, facts.helo) if name]
        standing = facts.client_notes.get(_STANDING)
        began = self._clock.seconds()
        listings = await self._senders.about_names(_domains(names))
        if not listings:
            return NOTHING
        # Whatever a list says of both names, it counts once.
        by_zone: dict[str, list[Listing]] = {}
        for each in listings:
            by_zone.setdefault(each.zone, []).append(each)
        symbols = [_symbol(each) for each in by_zone.values()]
        worst = [max(each, key=lambda listing: listing.score) for each in by_zone.values()]
        of_client = [] if standing is None else list(await standing.known())
        if _sum(of_client) < self._reject <= _sum([*worst, *of_client]):
            left = self._timeout - (self._clock.seconds() - began)
            symbols.append(await self._refusal(self._senders, worst, left))
        return Finding(tuple(symbols))

    async def _refusal(self, lists: ListAsker, listings: Sequence[Listing], left: float) -> Symbol:
        """Return the symbol that refuses; the worst list may say why within ``left`` seconds."""
        black = sorted((each for each in listings if each.score > 0), key=lambda each: -each.score)
        zones = ", ".join(public_zone(each.zone) for each in black[:_NAMED])
        about = " and ".join(dict.fromkeys(each.about for each in black))
        within = min(left, _REASON_WITHIN)
        said = await lists.reason(black[0], within) if within > 0 else ""
        return Symbol(
            "DNSBL_REFUSED",
            reason=f"{about}: {zones}",
            action=ScanAction.REJECT,
            reply=f"5.7.1 {about} is listed by {zones}{': ' * bool(said)}{said}",
        )


def _sum(listings: Iterable[Listing]) -> float:
    return round(sum(each.score for each in listings), 6)


def _symbol(listings: Sequence[Listing]) -> Symbol:
    """Return the symbol for what one list knows."""
    first = max(listings, key=lambda listing: listing.score)
    what = ", ".join(f"{each.about} ({' '.join(each.answers[:5])})" for each in listings)
    return Symbol(symbol_of(first.zone, first.score), first.score, what)


def _domains(names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that a list of domains can be asked about, each once."""
    found = []
    for name in names:
        try:
            domain = canonical_domain(name.removesuffix("."))
        except RemoteFault:
            continue
        # Neither literals, nor addresses, nor names of a local network.
        if "." in domain and domain[0] != "[" and not domain.rpartition(".")[2].isdecimal():
            found.append(domain)
    return list(dict.fromkeys(found))


@implementer(IPlugin, ICheckMaker)
class DnsblMaker:
    """Makes the check ``dnsbl``."""

    name = "dnsbl"

    def make(self, site: Site) -> DnsblCheck:
        """Return the check; ValueError for a limit that everybody reaches."""
        if site.config.dnsbl.reject <= 0:
            raise ValueError("reject must be more than 0: everybody would be refused")
        return DnsblCheck(site)
