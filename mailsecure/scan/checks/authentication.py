"""Who really sent it: the check ``authentication``.

SPF (RFC 7208) is evaluated at MAIL, while the client goes on; DKIM (RFC 6376), ARC (RFC
8617) and DMARC (RFC 7489) when the message is there.  The keys and the DMARC records are
looked up side by side before a worker takes the message up; one that bears no signature
needs no worker.  What is found is named in :mod:`..auth_findings`.

``facts.notes["spf"]`` is what :func:`..jobs.spf.evaluate` found, ``identity`` (mailfrom or
helo) besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from publicsuffixlist import PublicSuffixList
from zope.interface import implementer

from ...config.scanning import DmarcMode
from ..api import ICheckMaker, Site, Unscannable
from ..auth_findings import (
    arc_finding,
    author_symbols,
    dkim_finding,
    dmarc_finding,
    spf_finding,
    vouched_for,
)
from ..authors import Authors, authors_of
from ..dmarc import (
    Claim,
    Discovery,
    DmarcBroken,
    Outcome,
    Published,
    by_way_of_list,
    discover,
    evaluate,
    organisation,
)
from ..editing import first_values
from ..header_fields import TooManyFields, split_fields
from ..replay import Lookups, replay
from ..sender_policy import evaluate_spf
from ..tags import key_names
from ..values import NOTHING, Content, Facts, Finding, Stage

__all__ = ["AuthenticationCheck", "AuthenticationMaker", "authentication"]

#: A header section up to this size is read here, to look up ahead what it names; a larger
#: one, or one that the gateway found too long to look at (b""), only by a worker.
_SMALL_HEADER = 32 << 10
_MAX_QUESTIONS = 80
_NO_CHAIN: Mapping[str, Any] = {"result": "none", "reason": "", "sets": []}


@cache
def _suffixes() -> PublicSuffixList:
    """Return the public suffix list that came with the library; read once."""
    return PublicSuffixList()


class AuthenticationCheck:
    """See the module's text."""

    name = "authentication"
    stages = frozenset((Stage.MAIL, Stage.DATA))

    def __init__(self, site: Site) -> None:
        self._site = site
        self._settings = site.config.authentication
        self._suffixes = _suffixes()

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Return what is found; nothing for clients that may relay."""
        if facts.trusted:
            return NOTHING
        if stage is Stage.MAIL:
            return await self._spf(facts)
        spf = NOTHING if "spf" in facts.notes else await self._spf(facts)
        content = facts.content
        return spf if content is None else _joined(spf, await self._message(facts, content))

    async def _spf(self, facts: Facts) -> Finding:
        if not self._settings.spf:
            return NOTHING
        found = await evaluate_spf(self._site, facts)
        note = {**found, "identity": "mailfrom" if facts.reverse_path else "helo"}
        facts.notes["spf"] = note
        return spf_finding(note, facts.client, self._settings.spf_reject)

    # -- the message

    async def _message(self, facts: Facts, content: Content) -> Finding:
        settings = self._settings
        lookups = Lookups(self._site.world.resolver, _MAX_QUESTIONS)
        found = await self._signatures(content, lookups)
        if found["trouble"]:
            raise Unscannable(found["trouble"])
        findings = []
        if settings.dkim:
            findings.append(dkim_finding(found["dkim"], found["ignored"]))
        if settings.arc:
            findings.append(arc_finding(found["arc"]))
        authors = Authors(tuple(found["from"]), found["problem"])
        findings.append(Finding(author_symbols(authors)))
        if settings.dmarc is not DmarcMode.OFF:
            claims = (
                _spf_claim(facts),
                [Claim(each["result"], each["domain"]) for each in found["dkim"]],
            )
            listed = _is_from_list(content.header, claims)
            findings.append(await self._dmarc(authors, claims, found["arc"], lookups, listed))
        return _joined(*findings)

    async def _signatures(self, content: Content, lookups: Lookups) -> dict[str, Any]:
        """Return what :func:`..jobs.signatures.verify` found, or would find."""
        settings = self._settings
        most = settings.max_signatures if settings.dkim else 0
        if 0 < len(content.header) <= _SMALL_HEADER:
            try:
                fields = split_fields(content.header)
            except TooManyFields as trouble:
                raise Unscannable(str(trouble)) from None
            authors = authors_of(fields)
            keys = key_names(fields, most, settings.arc)
            names = [
                *keys,
                *(self._records(authors) if settings.dmarc is not DmarcMode.OFF else ()),
            ]
            await lookups.fetch(("TXT", each) for each in names)
            if not _is_signed(fields, most > 0, settings.arc):
                return {
                    "trouble": "",
                    "from": authors.domains,
                    "problem": authors.problem,
                    "dkim": [],
                    "ignored": 0,
                    "arc": _NO_CHAIN,
                }
        arguments = {"dkim": most, "arc": settings.arc, "now": self._site.world.wall()}
        job = "jobs.signatures:verify"
        found = await replay(self._site.workers, lookups, job, arguments, content.body)
        if found is None:
            raise Unscannable("signatures ask for more keys than are looked up")
        return found

    def _records(self, authors: Authors) -> list[str]:
        """Return the names under which DMARC records are looked for."""
        domains = [name for each in authors.domains for name in (each, self._organisation(each))]
        return [f"_dmarc.{each}" for each in dict.fromkeys(domains)]

    def _organisation(self, domain: str) -> str:
        return organisation(domain, self._suffixes.privatesuffix)

    # -- DMARC

    async def _dmarc(
        self,
        authors: Authors,
        claims: tuple[Claim, Sequence[Claim]],
        chain: Mapping[str, Any],
        lookups: Lookups,
        listed: bool,
    ) -> Finding:
        """Return what DMARC says of each author's domain (RFC 7489 §6.6.1).

        ``listed``: a mailing list has passed the message on.
        """
        await lookups.fetch(("TXT", each) for each in self._records(authors))
        findings = []
        for domain in authors.domains:
            outcome = await self._outcome(domain, claims, lookups)
            if listed:
                outcome = by_way_of_list(outcome)
            sealer = ""
            if outcome.result == "fail":
                sealer = vouched_for(chain, domain, self._settings.trusted_sealers)
            findings.append(dmarc_finding(outcome, self._settings.dmarc, sealer))
        return _joined(*findings)

    async def _outcome(
        self, domain: str, claims: tuple[Claim, Sequence[Claim]], lookups: Lookups
    ) -> Outcome:
        parent = self._organisation(domain)
        own = Published(lookups.answer(("TXT", f"_dmarc.{domain}")))
        try:
            found = discover(own, Published(lookups.answer(("TXT", f"_dmarc.{parent}"))))
        except DmarcBroken as broken:
            return Outcome(domain, "permerror", reason=str(broken))
        exists = await self._exists(domain, found, lookups)
        chance = 100 * self._site.world.rng.random()
        return evaluate(domain, found, claims, self._related, exists, chance)

    def _related(self, one: str, other: str) -> bool:
        return self._organisation(one) == self._organisation(other)

    async def _exists(self, domain: str, found: Discovery, lookups: Lookups) -> bool:
        """Say whether the DNS knows ``domain``; asked only where the policy depends on it.

        A domain that gives no answer counts as there (RFC 9091 §2.7: NXDOMAIN or no data
        of these three types).
        """
        record = found.record
        if record is None or not found.inherited or record.missing is None:
            return True
        questions = [("A", domain), ("AAAA", domain), ("MX", domain)]
        await lookups.fetch(questions)
        return any(lookups.answer(each) != [] for each in questions)


def _is_signed(fields: Sequence[tuple[bytes, bytes]], dkim: bool, arc: bool) -> bool:
    names = {name.lower() for name, _ in fields}
    return (dkim and b"dkim-signature" in names) or (
        arc and any(each.startswith(b"arc-") for each in names)
    )


def _is_from_list(header: bytes, claims: tuple[Claim, Sequence[Claim]]) -> bool:
    """Say whether a mailing list sent it, under a name that is its own.

    The field alone is soon written (RFC 2919); who is not who he says is no list.
    """
    spf, signatures = claims
    if not any(each.result == "pass" for each in (spf, *signatures)):
        return False
    return any(first_values(header, ("list-id", "list-post")))


def _spf_claim(facts: Facts) -> Claim:
    note = facts.notes.get("spf")
    if note is None:
        return Claim("none", "")
    return Claim(note["mailfrom"]["result"], note["mailfrom"]["domain"])


def _joined(*findings: Finding) -> Finding:
    return Finding(
        tuple(symbol for each in findings for symbol in each.symbols),
        tuple(result for each in findings for result in each.results),
    )


@implementer(ICheckMaker)
class AuthenticationMaker:
    """Makes the check."""

    name = "authentication"

    def make(self, site: Site) -> AuthenticationCheck:
        """See :class:`~..api.ICheckMaker`."""
        return AuthenticationCheck(site)


authentication = AuthenticationMaker()
