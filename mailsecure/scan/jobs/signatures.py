"""DKIM signatures and the ARC chain of a message, verified: a job, over dkimpy (RFC 6376,
RFC 8617), and whom the message says it is from.

What is read is bounded before it is read: the header section, its fields, the signatures,
each signature, each key.  :mod:`..checks.authentication` asks for it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..authors import authors_of
from ..dns_answers import Known, Unanswered
from ..header_fields import TooManyFields, split_fields, unfolded
from ..tags import MAX_SIGNATURE, TagsBroken, chosen_signatures, parse_tags
from .arc import outcome, verify_chain
from .canonical import Message, body_of
from .dkim_signature import (
    Signature,
    SignatureFault,
    check_signature,
    find_key,
    read_signature,
)

__all__ = ["MAX_HEADER", "verify"]

#: The longest header section that is looked at, in octets.
MAX_HEADER = 256 << 10


def verify(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Verify what is signed in ``octets``, a message.

    ``arguments``: ``dkim`` (how many signatures are looked at; 0: none), ``arc`` (yes or
    no), ``now`` (Unix seconds), ``answers``.  Returns ``trouble`` ("" or why the header
    cannot be read), ``from`` and ``problem`` (:class:`~..authors.Authors`), ``dkim``, a
    list of signatures, ``ignored``, how many more there are, and ``arc``
    (:func:`.arc.verify_chain`).
    """
    known = Known(arguments["answers"])
    now = arguments["now"]
    try:
        fields = split_fields(_header(octets))
    except TooManyFields as trouble:
        return _NOTHING | {"trouble": str(trouble)}
    message = Message(fields, body_of(octets))
    chosen = chosen_signatures(fields, arguments["dkim"])
    found = [_verify(message, value, known, now) for value in chosen.values]
    chain = outcome("none")
    if arguments["arc"]:
        with suppress(Unanswered):
            chain = verify_chain(message, known, now)
    needs = known.needs()
    if needs:
        return {"needs": needs}
    authors = authors_of(fields)
    return {
        "trouble": "",
        "from": list(authors.domains),
        "problem": authors.problem,
        "dkim": found,
        "ignored": chosen.ignored if arguments["dkim"] else 0,
        "arc": chain,
    }


_NOTHING: dict[str, Any] = {
    "from": [],
    "problem": "unreadable",
    "dkim": [],
    "ignored": 0,
    "arc": outcome("none"),
}


def _header(octets: bytes) -> bytes:
    if octets.startswith(b"\r\n"):
        return b""
    end = octets.find(b"\r\n\r\n", 0, MAX_HEADER)
    if end < 0 and len(octets) > MAX_HEADER:
        raise TooManyFields(f"header section of more than {MAX_HEADER} octets")
    return octets if end < 0 else octets[:end]


def _verify(message: Message, value: bytes, known: Known, now: float) -> dict[str, Any]:
    """Return one signature's ``result`` and ``reason``, and what it says of itself."""
    told: dict[str, Any] = {"result": "pass", "reason": "", "testing": False, "partial": False}
    told |= _claims(value)
    try:
        signature = read_signature(b"DKIM-Signature", value, now)
        identity = _identity(signature)
        key = find_key(known, signature)
        if key.strict and identity != signature.domain:
            raise SignatureFault("permerror", "i= is not of exactly the domain")
        told |= {"testing": key.testing, "key": f"{key.bits}-bit {key.kind} key"}
        # Another From field than the signed one must not go unseen.
        check_signature(message, signature, key, (*signature.names, b"from"))
        length = signature.length
        if length is not None and length < message.body_length(signature.body):
            raise Partial("policy", "only a part of the body is signed")
    except Unanswered:
        pass
    except SignatureFault as fault:
        told |= {"result": fault.result, "reason": str(fault)}
        told["partial"] = isinstance(fault, Partial)
    return told


class Partial(SignatureFault):
    """Right, but anybody may have added to the body (l=, RFC 6376 §8.2)."""


def _identity(signature: Signature) -> str:
    """Return the domain of i=, which is d= or below it (RFC 6376 §3.5)."""
    identity = signature.tags.get("i", signature.domain).rpartition("@")[2].lower()
    if identity != signature.domain and not identity.endswith("." + signature.domain):
        raise SignatureFault("neutral", "i= is not of d=")
    return identity


def _claims(value: bytes) -> dict[str, str]:
    """Return what is told of a signature even if it is no good."""
    try:
        tags = parse_tags(unfolded(value[:MAX_SIGNATURE]))
    except TagsBroken:
        tags = {}
    told = {name: tags.get(tag, "")[:255] for name, tag in _TOLD.items()}
    return told | {"domain": told["domain"].lower(), "b": tags.get("b", "")[:8], "key": ""}


_TOLD = {"domain": "d", "selector": "s", "identity": "i", "algorithm": "a"}
