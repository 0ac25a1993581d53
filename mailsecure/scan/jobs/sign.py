"""Signing and sealing: a job (RFC 6376 §5, RFC 8463, RFC 8617 §5.1).

Everything is canonicalized ``relaxed/relaxed``, which survives most relays, the whole body
is signed, and the fields that a reader sees are signed once more than they are there, so
that none can be added.  :mod:`..signing` asks for it, and keeps the keys.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from ..header_fields import Field, TooManyFields, split_fields, unfolded, values_of
from ..private_keys import PrivateKey, algorithm_of, load_key
from ..tags import ARC_NAMES, MAX_SEALS, MAX_SIGNATURE, TagsBroken, instance_of, parse_tags
from .arc import chain_of
from .canonical import Message
from .dkim_signature import SignatureFault

__all__ = ["sign"]

#: Signed as often as they are there, and once more.
_OVERSIGNED = (
    b"from",
    b"reply-to",
    b"subject",
    b"date",
    b"to",
    b"cc",
    b"message-id",
    b"mime-version",
    b"content-type",
)
#: Signed as often as they are there.
_SIGNED = (
    b"sender",
    b"in-reply-to",
    b"references",
    b"content-transfer-encoding",
    b"content-id",
    b"content-description",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
    b"resent-from",
    b"resent-sender",
    b"resent-to",
    b"resent-cc",
    b"resent-date",
    b"resent-message-id",
)
#: A field is signed so many times at most; more of one name no mail has.
_MOST_OF_A_NAME = 8
_LINE = 72


def sign(arguments: dict[str, Any], octets: bytes) -> dict[str, Any]:
    """Sign and seal the message whose header section is ``header``.

    ``arguments``: ``header`` (as it goes on, Latin-1), ``cut`` (so many of ``octets`` are
    the header section as it came), ``keys``, a list of ``domain``, ``selector``, ``pem``,
    ``seal`` (the same, with ``cv`` and ``results``, the value of the Authentication-Results
    field; or None), ``now`` (Unix seconds).  Returns ``fields``, to be put in front, and
    ``trouble``, "" or why there are none.
    """
    rest = octets[arguments["cut"] :]
    if rest and not rest.startswith(b"\r\n"):
        return {"fields": "", "trouble": "the header section is too long to be signed"}
    try:
        fields = split_fields(arguments["header"].encode("latin-1"))
    except TooManyFields as trouble:
        return {"fields": "", "trouble": str(trouble)}
    message = Message(fields, rest[2:])
    made = [_dkim(message, key, arguments["now"]) for key in arguments["keys"]]
    if arguments["seal"] is not None:
        made += _seal(message, arguments["seal"], arguments["now"])
    return {"fields": b"".join(made).decode("latin-1"), "trouble": ""}


def _dkim(message: Message, key: Mapping[str, str], now: float) -> bytes:
    private = load_key(key["pem"])
    names = list(_names(message.fields, ()))
    tags = f"v=1; a={algorithm_of(private)}; c=relaxed/relaxed;\r\n\t{_place(key, now)}"
    return _signed(message, "DKIM-Signature", tags, names, private)


def _place(key: Mapping[str, str], now: float) -> str:
    return f"d={key['domain']}; s={key['selector']}; t={int(now)};\r\n\t"


def _names(fields: Sequence[Field], more: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the names for h=, each as often as it is signed."""
    there = [name.lower() for name, _ in fields]
    for name in _OVERSIGNED:
        yield from [name] * (min(there.count(name), _MOST_OF_A_NAME) + 1)
    for name in (*_SIGNED, *more):
        yield from [name] * min(there.count(name), _MOST_OF_A_NAME)


def _signed(
    message: Message, field: str, tags: str, names: Sequence[bytes], key: PrivateKey
) -> bytes:
    """Return a whole field with ``tags`` that signs the fields called ``names`` and the body."""
    listed = _folded([f"{name.decode()}:" for name in names]).removesuffix(":")
    body = base64.b64encode(message.body_hash("relaxed")).decode()
    return _with_signature(message, field, f"{tags}h={listed};\r\n\tbh={body};\r\n\t", names, key)


def _with_signature(
    message: Message, field: str, tags: str, names: Sequence[bytes], key: PrivateKey
) -> bytes:
    value = f" {tags}b=".encode()
    digest = message.header_digest("relaxed", names, (field.encode(), value))
    if isinstance(key, RSAPrivateKey):
        octets = key.sign(digest, PKCS1v15(), Prehashed(SHA256()))
    else:
        octets = key.sign(digest)
    text = base64.b64encode(octets).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return field.encode() + b":" + value + "\r\n\t".join(lines).encode() + b"\r\n"


def _folded(words: Sequence[str]) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > _LINE:
            lines.append("")
        lines[-1] += word
    return "\r\n\t".join(lines)


def _whole_chain(message: Message, status: str) -> tuple[list[Sequence[Field]], int] | None:
    """Return the sets that are sealed again, and how many there are; None: nothing is sealed."""
    try:
        sets = chain_of(message.fields)
    except SignatureFault:
        return None
    if len(sets) >= MAX_SEALS or (status == "pass") != bool(sets):
        return None
    return list(sets), len(sets)


def _broken_chain(message: Message) -> tuple[list[Sequence[Field]], int] | None:
    """Return no sets, and the newest instance (RFC 8617 §5.1.2); None: nothing is sealed.

    That a chain is broken is said once, by whom it reaches first (§5.1).
    """
    seals = {instance_of(value): value for value in values_of(message.fields, ARC_NAMES[-1])}
    newest = max((instance_of(value) for name, value in message.fields if _is_arc(name)), default=0)
    if newest >= MAX_SEALS or _says_fail(seals.get(newest, b"")):
        return None
    return [], newest


def _is_arc(name: bytes) -> bool:
    return name.lower() in ARC_NAMES


def _says_fail(seal: bytes) -> bool:
    try:
        return parse_tags(unfolded(seal[:MAX_SIGNATURE])).get("cv", "").lower() == "fail"
    except TagsBroken:
        return False


def _seal(message: Message, seal: Mapping[str, str], now: float) -> list[bytes]:
    """Return a new set, the seal first; none where the chain is not fit to be continued."""
    chain = _broken_chain(message) if seal["cv"] == "fail" else _whole_chain(message, seal["cv"])
    if chain is None:
        return []
    sets, newest = chain
    key = load_key(seal["pem"])
    instance = f"i={newest + 1};"
    results = f"ARC-Authentication-Results: {instance} {seal['results']}\r\n".encode()
    tags = f"{instance} a=rsa-sha256; c=relaxed/relaxed;\r\n\t{_place(seal, now)}"
    names = list(_names(message.fields, (b"dkim-signature",)))
    signature = _signed(message, "ARC-Message-Signature", tags, names, key)
    sealed = [field for each in sets for field in each] + split_fields(results + signature)
    tags = f"{instance} a=rsa-sha256; cv={seal['cv']};\r\n\t{_place(seal, now)}"
    # Of a broken chain nobody knows what belongs to it: only the new set is sealed.
    covered = (ARC_NAMES * (len(sets) + 1))[:-1]
    top = _with_signature(Message(sealed[::-1], b""), "ARC-Seal", tags, covered, key)
    return [top, signature, results]
