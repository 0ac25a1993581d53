"""What SPF, DKIM, ARC and DMARC found, as symbols and results (pure).

:mod:`.checks.authentication` finds it; here is what each outcome is called, what it scores
and what the Authentication-Results field says of it (RFC 8601).  A pass scores nothing:
spammers sign, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..config.scanning import DmarcMode, ScanAction
from .authors import Authors
from .authresults import read_results
from .dmarc import Outcome, Policy
from .values import AuthResult, Finding, Symbol

__all__ = [
    "arc_finding",
    "author_symbols",
    "dkim_finding",
    "dmarc_finding",
    "spf_finding",
    "vouched_for",
]

_SPF_SCORES = {
    "pass": 0.0,
    "fail": 3.0,
    "softfail": 1.5,
    "neutral": 0.5,
    "none": 0.5,
    "temperror": 0.0,
    "permerror": 1.0,
}
_HELO_SCORE = 1.5
_DKIM_SYMBOLS = {
    "pass": ("DKIM_PASS", 0.0),
    # RFC 6376 §6.1: hardly worse than none, as lists and forwarders break them every day.
    "fail": ("DKIM_FAIL", 0.5),
    "policy": ("DKIM_WEAK", 0.5),
    "neutral": ("DKIM_INVALID", 0.5),
    "permerror": ("DKIM_INVALID", 0.5),
    "temperror": ("DKIM_TEMPERROR", 0.0),
}
_ARC_SYMBOLS = {
    "pass": ("ARC_PASS", 0.0),
    # RFC 8617 §5.2: a broken chain counts as none.
    "fail": ("ARC_FAIL", 0.0),
    "temperror": ("ARC_TEMPERROR", 0.0),
}
_AUTHOR_SYMBOLS = {
    "missing": ("FROM_MISSING", 3.0, "no From field"),
    "several": ("FROM_SEVERAL", 4.0, "more than one From field"),
    "unreadable": ("FROM_UNREADABLE", 2.0, "an address in From has no domain"),
    "many": ("FROM_MANY", 10.0, "From names more domains than are looked at"),
}
_DMARC_SCORES = {Policy.REJECT: 8.0, Policy.QUARANTINE: 5.0, Policy.NONE: 1.0}
_UNPRINTABLE = re.compile(r"[^ -~]+")


def _shown(text: str, longest: int = 120) -> str:
    """Return what a stranger wrote as it may be shown: printable ASCII, bounded."""
    return _UNPRINTABLE.sub("?", text)[:longest]


# -- SPF


def spf_finding(note: Mapping[str, Any], client: str, refuse: bool) -> Finding:
    """Return what SPF says of ``client``; ``note`` is that of :func:`.jobs.spf.evaluate`.

    ``refuse``: a fail is refused, whatever DMARC would say.
    """
    found, helo = note["mailfrom"], note["helo"]
    result, domain = found["result"], _shown(found["domain"])
    symbols = [_spf_symbol(found, client, refuse)]
    if note["identity"] == "helo":
        results = [AuthResult("spf", result, (("smtp.helo", domain),), _why(found))]
    else:
        results = [AuthResult("spf", result, (("smtp.mailfrom", domain),), _why(found))]
        if helo["result"] not in ("none", "neutral"):
            named = (("smtp.helo", _shown(helo["domain"])),)
            results.append(AuthResult("spf", helo["result"], named, _why(helo)))
        if helo["result"] == "fail":
            reason = f"{client} may not call itself {_shown(helo['domain'])}"
            symbols.append(Symbol("SPF_HELO_FAIL", _HELO_SCORE, reason))
    return Finding(tuple(symbols), tuple(results))


def _spf_symbol(found: Mapping[str, Any], client: str, refuse: bool) -> Symbol:
    result, domain = found["result"], _shown(found["domain"])
    why = _why(found)
    reason = f"{domain}: {result} for {client}" + (f" ({why})" if why else "")
    name = f"SPF_{result.upper()}"
    if not refuse or result != "fail":
        return Symbol(name, _SPF_SCORES[result], reason)
    reply = f"SPF: {client} is not allowed to send mail of {domain}"
    if found["explanation"]:
        # RFC 7208 §8.4: whose words they are must be seen.
        reply += f"; {domain} explains: {_shown(found['explanation'], 200)}"
    return Symbol(name, _SPF_SCORES[result], reason, ScanAction.REJECT, reply=reply)


def _why(found: Mapping[str, Any]) -> str:
    return _shown(found["problem"] or found["mechanism"])


# -- DKIM


def dkim_finding(signatures: Sequence[Mapping[str, Any]], ignored: int) -> Finding:
    """Return what is said of a message's signatures; one symbol of each kind."""
    symbols: dict[str, Symbol] = {}
    results = []
    for each in signatures:
        result = each["result"]
        if each["testing"] and result == "fail":
            # RFC 6376 §3.6.1: who tests is not to be blamed.
            result = "neutral"
        name, score = ("DKIM_PARTIAL", 1.0) if each["partial"] else _DKIM_SYMBOLS[result]
        reason = _shown(f"{each['domain']}: {each['reason'] or each['key']}")
        symbols.setdefault(name, Symbol(name, 0.0 if each["testing"] else score, reason))
        results.append(AuthResult("dkim", result, tuple(_claims(each)), _comment(each)))
    if ignored:
        symbols["DKIM_MANY"] = Symbol(
            "DKIM_MANY", 1.0, f"{ignored} signatures more than are looked at"
        )
    if not signatures:
        return Finding((), (AuthResult("dkim", "none"),))
    return Finding(tuple(symbols.values()), tuple(results))


def _claims(signature: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, tag in (
        ("domain", "d"),
        ("identity", "i"),
        ("selector", "s"),
        ("algorithm", "a"),
        ("b", "b"),
    ):
        if signature[name]:
            yield f"header.{tag}", signature[name]


def _comment(signature: Mapping[str, Any]) -> str:
    told = (signature["reason"], signature["key"], "test mode" if signature["testing"] else "")
    return ", ".join(filter(None, told))


# -- ARC


def arc_finding(chain: Mapping[str, Any]) -> Finding:
    """Return what is said of the chain of :func:`.jobs.arc.verify_chain`."""
    result, sets = chain["result"], chain["sets"]
    properties = (("header.oldest-pass", "0"),) if result == "pass" else ()
    comment = f"i={len(sets)}, {_shown(sets[0]['domain'])}" if sets else chain["reason"]
    told = AuthResult("arc", result, properties, comment)
    if result == "none":
        return Finding((), (told,))
    name, score = _ARC_SYMBOLS[result]
    return Finding((Symbol(name, score, _shown(comment)),), (told,))


def vouched_for(chain: Mapping[str, Any], domain: str, sealers: Sequence[str]) -> str:
    """Return the trusted sealer that says mail of ``domain`` passed DMARC, or "".

    Only as far back as every sealer is trusted: one that is not could have changed both
    the message and what is said of it (RFC 8617 §7.2).
    """
    trusted = [each.lower().removeprefix(".") for each in sealers]
    for each in chain["sets"]:
        sealer = each["domain"]
        if not any(sealer == name or sealer.endswith(f".{name}") for name in trusted):
            return ""
        for result in read_results(each["results"]):
            named = result.properties.get("header.from", "").lower()
            if (result.method, result.result, named) == ("dmarc", "pass", domain):
                return str(sealer)
    return ""


# -- DMARC


def author_symbols(authors: Authors) -> tuple[Symbol, ...]:
    """Return what is wrong with From, if anything is."""
    if not authors.problem:
        return ()
    name, score, reason = _AUTHOR_SYMBOLS[authors.problem]
    return (Symbol(name, score, reason),)


def dmarc_finding(outcome: Outcome, mode: DmarcMode, sealer: str) -> Finding:
    """Return what follows from ``outcome``; ``sealer`` vouches for a message that failed."""
    domain = _shown(outcome.domain)
    told = f"p={outcome.policy.value}"
    if outcome.result == "fail":
        told += f" dis={'none' if sealer else outcome.disposition.value}"
    if sealer:
        told += f", ARC of {_shown(sealer)} believed"
    if outcome.reason:
        told += f", {outcome.reason}"
    comment = "" if outcome.result == "none" else told
    result = AuthResult("dmarc", outcome.result, (("header.from", domain),), comment)
    symbol = _dmarc_symbol(outcome, mode, domain, sealer)
    return Finding((symbol,) if symbol else (), (result,))


def _dmarc_symbol(outcome: Outcome, mode: DmarcMode, domain: str, sealer: str) -> Symbol | None:
    enforced = mode is DmarcMode.ENFORCE
    reason = f"{domain}: {outcome.reason}" if outcome.reason else domain
    if outcome.result == "fail" and sealer:
        return Symbol("DMARC_ARC", 0.0, f"{domain}: fails, but {_shown(sealer)} vouches for it")
    if outcome.result == "fail":
        return _failed(outcome, enforced, domain, reason)
    if outcome.result == "temperror" and outcome.reason:
        # A fault of the DNS must not cost a good message: its sender comes again.
        action = ScanAction.TEMPFAIL if enforced else None
        reply = f"DMARC of {domain} cannot be evaluated now, please try again"
        return Symbol("DMARC_TEMPERROR", 0.0, reason, action, reply=reply)
    names = {"pass": ("DMARC_PASS", 0.0), "permerror": ("DMARC_PERMERROR", 0.5)}
    if outcome.result not in names:
        return None
    name, score = names[outcome.result]
    return Symbol(name, score, reason)


def _failed(outcome: Outcome, enforced: bool, domain: str, reason: str) -> Symbol:
    disposition = outcome.disposition
    score = _DMARC_SCORES[disposition]
    reply = f"Refused by the DMARC policy of {domain}"
    if disposition is Policy.NONE:
        return Symbol("DMARC_FAIL", score, reason)
    name = f"DMARC_{disposition.name}"
    if not enforced:
        return Symbol(name, score, reason)
    action = ScanAction.REJECT if disposition is Policy.REJECT else ScanAction.QUARANTINE
    return Symbol(name, score, reason, action, reply=reply)
