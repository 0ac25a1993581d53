"""One signature of DKIM, or one of ARC's, read and verified (RFC 6376 §6.1, RFC 8617 §4.1).

What is wrong raises :class:`SignatureFault` with the result that RFC 8601 §2.7.1 has for it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from ..dns_answers import DnsTrouble, Known
from ..header_fields import Field, unfolded
from ..tags import MAX_SIGNATURE, TagsBroken, key_name, parse_tags
from .canonical import BadCanonicalization, Message, split_policy
from .keys import NoKey, PublicKey, read_key

__all__ = ["Signature", "SignatureFault", "check_signature", "find_key", "read_signature"]

#: RFC 8301: shorter keys are none.
MIN_BITS = 1024
#: How far the clocks of signers may be off, in seconds.
_SLACK = 3600
_MAX_NAMES = 256
_NUMBER = re.compile(r"[0-9]{1,12}")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,100}")
_ALGORITHMS = ("rsa-sha256", "ed25519-sha256")


class SignatureFault(Exception):
    """The signature does not count: ``result`` (RFC 8601 §2.7.1) and why."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that can be read; ``identity`` is i= (DKIM), ``length`` l=."""

    field: Field
    tags: dict[str, str]
    domain: str
    selector: str
    algorithm: str
    octets: bytes
    names: tuple[bytes, ...]
    header: str
    body: str
    body_hash: bytes
    length: int | None


def read_signature(name: bytes, value: bytes, now: float, sealed: bool = False) -> Signature:
    """Read the field ``name`` with ``value``; ``sealed``: an ARC-Seal, which has no body."""
    if len(value) > MAX_SIGNATURE:
        raise SignatureFault("policy", f"signature of more than {MAX_SIGNATURE} octets")
    try:
        tags = parse_tags(unfolded(value))
    except TagsBroken as broken:
        raise SignatureFault("neutral", str(broken)) from None
    needed = ("a", "b", "d", "s", "cv") if sealed else ("a", "b", "bh", "d", "h", "s")
    for each in needed:
        if not tags.get(each):
            raise SignatureFault("neutral", f"no {each}=")
    for each, only in (("v", "1"), ("q", "dns/txt")):
        # RFC 6376 §3.5: other versions and other places of keys are other signatures.
        if not sealed and tags.get(each, only) != only:
            raise SignatureFault("neutral", f"{each}= is not {only}")
    if not key_name(tags):
        raise SignatureFault("neutral", "d= or s= is no name")
    _check_times(tags, now)
    algorithm = tags["a"].lower()
    if algorithm == "rsa-sha1":
        raise SignatureFault("policy", "rsa-sha1 is not believed (RFC 8301)")
    if algorithm not in _ALGORITHMS:
        raise SignatureFault("neutral", "unknown algorithm")
    try:
        # A seal has no c= (RFC 8617 §4.1.3).
        header, body = split_policy("relaxed" if sealed else tags.get("c", "simple"))
    except BadCanonicalization as bad:
        raise SignatureFault("neutral", str(bad)) from None
    return Signature(
        (name, value),
        tags,
        tags["d"].lower(),
        tags["s"].lower(),
        algorithm,
        _base64(tags["b"]),
        () if sealed else _names(tags["h"]),
        header,
        body,
        b"" if sealed else _base64(tags["bh"]),
        None if sealed else _length(tags),
    )


def _check_times(tags: dict[str, str], now: float) -> None:
    times: dict[str, int] = {}
    for name in "tx":
        if name in tags:
            if not _NUMBER.fullmatch(tags[name]):
                raise SignatureFault("neutral", f"{name}= is no time")
            times[name] = int(tags[name])
    if times.get("x", now) < now - _SLACK:
        raise SignatureFault("policy", "signature expired")
    if times.get("t", now) > now + _SLACK:
        raise SignatureFault("policy", "signed in the future")
    if "x" in times and times["x"] < times.get("t", 0):
        raise SignatureFault("neutral", "expires before it was made")


def _length(tags: dict[str, str]) -> int | None:
    if "l" not in tags:
        return None
    if not _NUMBER.fullmatch(tags["l"]):
        raise SignatureFault("neutral", "l= is no number")
    return int(tags["l"])


def _names(text: str) -> tuple[bytes, ...]:
    names = [each.strip().lower() for each in text.split(":")]
    if len(names) > _MAX_NAMES or not all(_FIELD_NAME.fullmatch(each) for each in names):
        raise SignatureFault("neutral", "h= cannot be read")
    if "from" not in names:
        raise SignatureFault("neutral", "From is not signed")
    return tuple(each.encode("ascii") for each in names)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SignatureFault("neutral", "not Base64") from None


def find_key(known: Known, signature: Signature) -> PublicKey:
    """Return the key of ``signature``; Unanswered if it is not known yet."""
    try:
        key = read_key(known.records("TXT", key_name(signature.tags)))
    except DnsTrouble:
        raise SignatureFault("temperror", "the DNS gave no answer for the key") from None
    except NoKey as fault:
        raise SignatureFault("permerror", str(fault)) from None
    if key.kind != signature.algorithm.partition("-")[0]:
        raise SignatureFault("permerror", "key of another kind")
    return key


def check_signature(
    message: Message, signature: Signature, key: PublicKey, names: tuple[bytes, ...]
) -> None:
    """Verify ``signature`` over the fields called ``names``, and over the body if it has bh=."""
    if signature.body_hash:
        length = signature.length
        if length is not None and length > message.body_length(signature.body):
            raise SignatureFault("permerror", "l= is longer than the body")
        if message.body_hash(signature.body, length) != signature.body_hash:
            raise SignatureFault("fail", "body has changed")
    digest = message.header_digest(signature.header, names, signature.field)
    if not key.verifies(signature.octets, digest):
        raise SignatureFault("fail", "signature does not match")
    if key.bits < MIN_BITS and key.kind == "rsa":
        raise SignatureFault("policy", f"key of {key.bits} bits")
