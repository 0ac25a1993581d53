"""DMARC: does who sent it speak for the domain that the reader sees (pure; RFC 7489)?

A message passes where SPF or DKIM passed for a domain that is *aligned* with that of From:
the same, or, unless the owner asks for strictness, one of the same organisation, which the
public suffix list tells.  Where neither did, the owner's policy says what to do, and a
fault of the DNS that may have been to blame makes it a temperror, never a refusal for good.
``np`` is RFC 9091's, ``t`` is RFC 9989's.  :mod:`.checks.authentication` asks the DNS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from .tags import TagsBroken, parse_tags

__all__ = [
    "Claim",
    "Discovery",
    "DmarcBroken",
    "Outcome",
    "Policy",
    "Published",
    "Record",
    "by_way_of_list",
    "discover",
    "evaluate",
    "find_record",
    "organisation",
]

_LONGEST = 4096
_PERCENT = re.compile(r"[0-9]{1,2}|100")


class Policy(Enum):
    """What the owner of a domain asks for where a message fails (RFC 7489 §6.3)."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


#: What is done with those that pct spares (RFC 7489 §6.6.4).
_MILDER = {
    Policy.REJECT: Policy.QUARANTINE,
    Policy.QUARANTINE: Policy.NONE,
    Policy.NONE: Policy.NONE,
}


class DmarcBroken(ValueError):
    """A record cannot be read: permerror."""


@dataclass(frozen=True, slots=True)
class Record:
    """A policy record; ``percent`` is pct, ``subdomains`` sp, ``missing`` np, ``testing`` t=y."""

    policy: Policy
    subdomains: Policy
    missing: Policy | None = None
    strict_dkim: bool = False
    strict_spf: bool = False
    percent: int = 100
    testing: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What SPF or one DKIM signature says: ``result`` (RFC 8601) for ``domain``."""

    result: str
    domain: str


@dataclass(frozen=True, slots=True)
class Published:
    """The TXT records of a ``_dmarc`` name; None: the DNS gave no answer."""

    texts: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found for a From domain; ``inherited``: from its organisation."""

    record: Record | None
    inherited: bool = False
    fault: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result (none, pass, fail, temperror, permerror) for ``domain``.

    ``policy`` is what the owner asks for, ``disposition`` what follows for this message
    (NONE unless it fails).
    """

    domain: str
    result: str
    policy: Policy = Policy.NONE
    disposition: Policy = Policy.NONE
    reason: str = ""


def organisation(domain: str, private_suffix: Callable[[str], str | None]) -> str:
    """Return the organisational domain (RFC 7489 §3.2) of ``domain``.

    ``private_suffix`` gives the public suffix and one label more, None for a suffix.
    """
    return private_suffix(domain) or domain


def find_record(texts: Sequence[str]) -> Record | None:
    """Return the one DMARC record among ``texts``, None if there is none.

    Raises :class:`DmarcBroken` where there are several (RFC 7489 §6.6.3), or it has no
    policy that can be read.
    """
    found = [text for text in texts if _is_record(text)]
    if not found:
        return None
    if len(found) > 1:
        raise DmarcBroken("several DMARC records")
    return _read(found[0])


def _is_record(text: str) -> bool:
    name, equals, rest = text.partition("=")
    return bool(equals) and name.strip() == "v" and rest.partition(";")[0].strip() == "DMARC1"


def _read(text: str) -> Record:
    try:
        tags = parse_tags(text[:_LONGEST])
    except TagsBroken as broken:
        raise DmarcBroken(str(broken)) from None
    policy, subdomains = _policy(tags, "p"), _policy(tags, "sp")
    if policy is None or (subdomains is None and "sp" in tags):
        # RFC 7489 §6.6.3: who wants reports is taken for one that only looks on.
        if "mailto:" not in tags.get("rua", "").lower():
            raise DmarcBroken("no policy that can be read")
        policy = subdomains = Policy.NONE
    return Record(
        policy,
        subdomains or policy,
        _policy(tags, "np"),
        tags.get("adkim", "").lower() == "s",
        tags.get("aspf", "").lower() == "s",
        _percent(tags.get("pct", "")),
        tags.get("t", "").lower() == "y",
    )


def _percent(text: str) -> int:
    """Return pct; what is no number from 0 to 100 is ignored (RFC 7489 §6.3)."""
    return int(text) if _PERCENT.fullmatch(text) else 100


def _policy(tags: dict[str, str], name: str) -> Policy | None:
    try:
        return Policy(tags.get(name, "").lower())
    except ValueError:
        return None


def discover(own: Published, parent: Published) -> Discovery:
    """Return the record that counts (RFC 7489 §6.6.3): the domain's, or its organisation's.

    Raises :class:`DmarcBroken`.
    """
    for published, inherited in ((own, False), (parent, True)):
        if published.texts is None:
            return Discovery(None, fault=True)
        record = find_record(published.texts)
        if record is not None:
            return Discovery(record, inherited)
    return Discovery(None)


def evaluate(
    domain: str,
    found: Discovery,
    claims: tuple[Claim, Sequence[Claim]],
    same_organisation: Callable[[str, str], bool],
    exists: bool,
    chance: float,
) -> Outcome:
    """Return what DMARC says of ``domain``, one of From.

    ``claims`` are those of SPF and of the DKIM signatures.  ``exists`` says that the DNS
    knows the domain, ``chance`` is a number from 0 to below 100 by which ``pct`` decides.
    """
    spf, signatures = claims
    record = found.record

    def speaks(claim: Claim, strict: bool) -> bool:
        name = claim.domain.lower().removesuffix(".")
        return name == domain or (not strict and same_organisation(name, domain))

    strict_spf = record is not None and record.strict_spf
    strict_dkim = record is not None and record.strict_dkim
    aligned = [spf] if speaks(spf, strict_spf) else []
    aligned += [each for each in signatures if speaks(each, strict_dkim)]
    passed = any(each.result == "pass" for each in aligned)
    if record is None:
        if not found.fault:
            return Outcome(domain, "none")
        return Outcome(domain, "temperror", reason="" if passed else "policy unknown")
    policy = _asked_for(record, found.inherited, exists)
    if passed:
        return Outcome(domain, "pass", policy)
    if any(each.result == "temperror" for each in aligned):
        return Outcome(domain, "temperror", policy, reason="SPF or DKIM had no answer")
    if record.testing:
        # RFC 9989: as pct=0 was meant.
        return Outcome(domain, "fail", policy, _MILDER[policy], "spared by t=y")
    if chance < record.percent:
        return Outcome(domain, "fail", policy, policy)
    return Outcome(domain, "fail", policy, _MILDER[policy], f"spared by pct={record.percent}")


def by_way_of_list(outcome: Outcome) -> Outcome:
    """Return what follows for a message that a mailing list has passed on, and changed.

    RFC 9989 §7.4 forbids refusing it for the policy alone: the list would take the recipient,
    who has done nothing, off its rolls.
    """
    if outcome.disposition is not Policy.REJECT:
        return outcome
    return replace(outcome, disposition=Policy.QUARANTINE, reason="by way of a mailing list")


def _asked_for(record: Record, inherited: bool, exists: bool) -> Policy:
    if not inherited:
        return record.policy
    return record.subdomains if exists or record.missing is None else record.missing
