"""The chain of ARC, verified (RFC 8617 §5.2).

Each set is of three fields with one instance number; the newest message signature and all
seals must verify.  The time is bounded by fifty sets and by what a set may hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..dns_answers import Known, Unanswered
from ..header_fields import Field, unfolded
from ..tags import ARC_NAMES, MAX_SEALS, MAX_SIGNATURE, instance_of
from .canonical import Message
from .dkim_signature import (
    Signature,
    SignatureFault,
    check_signature,
    find_key,
    read_signature,
)
from .keys import PublicKey

__all__ = ["chain_of", "outcome", "verify_chain"]

_LONGEST_RESULTS = 4000

_Set = tuple[Field, Field, Field]


def verify_chain(message: Message, known: Known, now: float) -> dict[str, Any]:
    """Return ``result`` (none, pass, fail, temperror), ``reason`` and, of a pass, ``sets``.

    A set is ``instance``, ``domain`` (of its seal) and ``results``, what it says was found,
    the newest first.
    """
    try:
        sets = chain_of(message.fields)
        if not sets:
            return outcome("none")
        seals = _seals(sets, now)
        _verify(message, sets, seals, known, now)
    except SignatureFault as fault:
        result = "temperror" if fault.result == "temperror" else "fail"
        return outcome(result, str(fault))
    told = [
        {
            "instance": i,
            "domain": seal.domain,
            "results": unfolded(each[0][1])[:_LONGEST_RESULTS],
        }
        for i, (each, seal) in enumerate(zip(sets, seals, strict=True), 1)
    ]
    return outcome("pass") | {"sets": told[::-1]}


def outcome(result: str, reason: str = "") -> dict[str, Any]:
    """Return what :func:`verify_chain` does where there are no sets to tell of."""
    return {"result": result, "reason": reason, "sets": []}


def _verify(
    message: Message,
    sets: Sequence[_Set],
    seals: Sequence[Signature],
    known: Known,
    now: float,
) -> None:
    newest = read_signature(*sets[-1][1], now)
    if b"arc-seal" in newest.names:
        raise SignatureFault("fail", "message signature over a seal")
    keys = _keys(known, [newest, *reversed(seals)])
    check_signature(message, newest, keys[0], newest.names)
    if newest.length is not None and newest.length < message.body_length(newest.body):
        raise SignatureFault("fail", "message signature over a part of the body")
    for i, key in zip(range(len(seals), 0, -1), keys[1:], strict=True):
        # The sets up to this one from the first; fields are taken from the bottom up.
        covered = [field for each in sets[:i] for field in each][:-1]
        sealed = Message(covered[::-1], b"")
        check_signature(sealed, seals[i - 1], key, (ARC_NAMES * i)[:-1])


def chain_of(fields: Sequence[Field]) -> list[_Set]:
    """Return the sets from the first; each must be whole, and none may be missing.

    Raises :class:`~.dkim_signature.SignatureFault`.
    """
    found: dict[tuple[int, bytes], Field] = {}
    for field in fields:
        name = field[0].lower()
        if name not in ARC_NAMES:
            continue
        instance = instance_of(field[1])
        if not 1 <= instance <= MAX_SEALS or (instance, name) in found:
            raise SignatureFault("fail", "instances are not in order")
        if len(field[1]) > MAX_SIGNATURE:
            raise SignatureFault("fail", f"field of more than {MAX_SIGNATURE} octets")
        found[instance, name] = field
    newest = max((instance for instance, _ in found), default=0)
    try:
        return [
            (found[i, ARC_NAMES[0]], found[i, ARC_NAMES[1]], found[i, ARC_NAMES[2]])
            for i in range(1, newest + 1)
        ]
    except KeyError:
        raise SignatureFault("fail", "a set is not whole") from None


def _seals(sets: Sequence[_Set], now: float) -> list[Signature]:
    seals: list[Signature] = []
    for i, each in enumerate(sets, 1):
        seal = read_signature(*each[2], now, sealed=True)
        status = seal.tags["cv"].lower()
        if status != ("none" if i == 1 else "pass"):
            raise SignatureFault("fail", f"seal {i} has cv={status[:10]}")
        if "h" in seal.tags or seal.tags.get("i") != str(i):
            raise SignatureFault("fail", f"seal {i} cannot be read")
        seals.append(seal)
    return seals


def _keys(known: Known, signatures: Sequence[Signature]) -> list[PublicKey]:
    """Return the key of each; all that are not known are asked for at once."""
    keys: list[PublicKey] = []
    unanswered: Unanswered | None = None
    for each in signatures:
        if each.algorithm != "rsa-sha256":
            raise SignatureFault("fail", "a seal is of another algorithm than rsa-sha256")
        try:
            keys.append(find_key(known, each))
        except Unanswered as question:
            unanswered = question
    if unanswered is not None:
        raise unanswered
    return keys
