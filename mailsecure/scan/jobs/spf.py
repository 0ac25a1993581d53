"""SPF, evaluated (RFC 7208): a job, over pyspf.

pyspf keeps the RFC's limits (ten look-ups, two void ones); the names that it asks for come
from the answers that the job is given (:mod:`..dns_answers`), and a record longer than
:data:`~..dns_answers.MAX_TXT` is a permerror, so that the time is bounded too.
:mod:`..checks.authentication` asks for it.
"""

from __future__ import annotations

from typing import Any

import spf

from ..dns_answers import MAX_TXT, DnsTrouble, Known, Unanswered
from ..spf_names import may_have_record

__all__ = ["evaluate"]

#: What pyspf lets slip where a record is bad enough: all of it is the record's fault.
_SLIPS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
_LONGEST_EXPLANATION = 200
_LONGEST_TERM = 512


def evaluate(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Evaluate both identities of a client.

    ``arguments``: ``client`` (an IP address), ``helo``, ``sender`` (the reverse-path, ""
    for the null one), ``receiver`` (our name), ``now`` (Unix seconds), ``answers``.
    Returns ``mailfrom`` (that of postmaster@HELO for the null reverse-path) and ``helo``,
    each with ``result``, ``domain``, ``mechanism``, ``problem`` and ``explanation``.
    """
    known = Known(arguments["answers"])
    helo = _identity(arguments, known, "")
    sender = arguments["sender"]
    mailfrom = _identity(arguments, known, sender) if sender else helo
    needs = known.needs()
    return {"needs": needs} if needs else {"mailfrom": mailfrom, "helo": helo}


def _identity(arguments: dict[str, Any], known: Known, sender: str) -> dict[str, Any]:
    domain = sender.rpartition("@")[2] if sender else arguments["helo"]
    outcome = {
        "result": "none",
        "domain": domain,
        "mechanism": "",
        "problem": "",
        "explanation": "",
    }
    if not may_have_record(domain):
        return outcome
    try:
        query = _Query(arguments, known, sender)
        result, _, explanation = query.check()
    except Unanswered:
        return outcome
    except _SLIPS as slip:
        return outcome | {"result": "permerror", "problem": type(slip).__name__}
    outcome["result"] = result
    outcome["mechanism"] = str(query.mechanism or "")
    if result == "fail":
        outcome["explanation"] = explanation[:_LONGEST_EXPLANATION]
    elif result.endswith("error"):
        outcome["problem"] = explanation[:_LONGEST_EXPLANATION]
    return outcome


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's evaluation, with our answers in the place of its look-ups."""

    def __init__(self, arguments: dict[str, Any], known: Known, sender: str) -> None:
        super().__init__(
            i=arguments["client"],
            s=sender,
            h=arguments["helo"],
            receiver=arguments["receiver"],
            strict=True,
        )
        self.t = str(int(arguments["now"]))
        self.set_default_explanation("")
        self._known = known
        self._client = arguments["client"]

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> list[Any]:
        """Answer as pyspf wants it, and count answers that hold nothing (RFC 7208 §4.6.4)."""
        name = str(name).removesuffix(".").lower()
        if not all(0 < len(label) < 64 for label in name.split(".")):
            return []
        try:
            texts = self._known.records(qtype, self._client if qtype == "PTR" else name)
        except DnsTrouble:
            if qtype == "PTR":
                # RFC 7208 §5.5: the mechanism does not match.
                return []
            raise spf.TempError(f"DNS: no answer for {name}") from None
        if not texts and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("Too many look-ups without an answer")
        return [_record(qtype, text) for text in texts]

    def expand_domain(self, arg: str) -> str:
        """Expand the macros of a domain, if it is not too long to be one."""
        return str(super().expand_domain(_bounded(arg)))

    def expand(self, s: str, stripdot: bool = True) -> str:
        """Expand macros (RFC 7208 §7)."""
        return str(super().expand(_bounded(s), stripdot))


def _bounded(text: str) -> str:
    """Refuse what takes pyspf's expressions quadratic time."""
    if len(text) > _LONGEST_TERM:
        raise spf.PermError(f"term of more than {_LONGEST_TERM} characters")
    return text


def _record(kind: str, text: str) -> Any:
    if kind == "MX":
        preference, _, host = text.partition(" ")
        return int(preference), host
    if kind != "TXT":
        return text
    if len(text) > MAX_TXT and text[:6].lower() == "v=spf1":
        raise spf.PermError(f"SPF record of more than {MAX_TXT} octets")
    return (text[:MAX_TXT].encode("latin-1"),)
