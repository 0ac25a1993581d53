"""Lists of tags, ``v=DKIM1; k=rsa; p=…`` (pure; RFC 6376 §3.2), as DKIM, ARC and DMARC have.

Also which keys the signatures of a message ask for, so that they can be resolved before a
worker takes the message up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .header_fields import Field, values_of

__all__ = [
    "ARC_NAMES",
    "MAX_SEALS",
    "MAX_SIGNATURE",
    "TagsBroken",
    "chosen_signatures",
    "instance_of",
    "key_name",
    "key_names",
    "parse_tags",
]

#: The longest signature field that is looked at, in octets.
MAX_SIGNATURE = 8192
#: RFC 8617 §4.2.1.
MAX_SEALS = 50
#: The fields of a set of ARC, in the order in which they are sealed (RFC 8617 §5.1.1).
ARC_NAMES = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")

_WSP = re.compile(r"[ \t\r\n]+")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_][a-z0-9_-]{0,62})*")


class TagsBroken(ValueError):
    """It is no list of tags: one without a name or value, or one that is there twice."""


def parse_tags(text: str) -> dict[str, str]:
    """Return the tags of ``text`` in order, white space around them taken off."""
    tags: dict[str, str] = {}
    pieces = text.split(";")
    if not pieces[-1].strip():
        pieces.pop()
    for piece in pieces:
        name, equals, value = piece.partition("=")
        name = name.strip()
        if not equals or not _TAG.fullmatch(name):
            raise TagsBroken("not a list of tags")
        if name in tags:
            raise TagsBroken(f"{name}= is there twice")
        tags[name] = value.strip()
    return tags


def key_name(tags: dict[str, str]) -> str:
    """Return where the key of a signature stands in the DNS, "" if that is no name."""
    selector, domain = (tags.get(each, "").lower() for each in "sd")
    name = f"{selector}._domainkey.{domain}"
    if not selector or "." not in domain or len(name) > 253 or not _NAME.fullmatch(name):
        return ""
    return name


@dataclass(frozen=True, slots=True)
class Chosen:
    """The DKIM signatures that are looked at, and how many more there are."""

    values: tuple[bytes, ...]
    ignored: int


def chosen_signatures(fields: Sequence[Field], most: int) -> Chosen:
    """Return the topmost ``most`` DKIM-Signature values, each once."""
    values = tuple(dict.fromkeys(values_of(fields, b"dkim-signature")))
    return Chosen(values[:most], max(0, len(values) - most))


def instance_of(value: bytes) -> int:
    """Return the instance (i=) of an ARC field (RFC 8617 §4.2.1); 0 if it has none."""
    head = _WSP.sub("", value[:MAX_SIGNATURE].decode("latin-1"))
    match = re.search(r"(?:^|;)i=(\d{1,4})(?:;|$)", head)
    return int(match[1]) if match else 0


def key_names(fields: Sequence[Field], most: int, arc: bool) -> list[str]:
    """Return the names of the keys of DKIM signatures and, if ``arc``, of the ARC chain."""
    values = list(chosen_signatures(fields, most).values)
    if arc:
        seals = values_of(fields, b"arc-seal")
        messages = values_of(fields, b"arc-message-signature")
        # Only the newest message signature is verified (RFC 8617 §5.2).
        values += [*sorted(messages, key=instance_of)[-1:], *seals[:MAX_SEALS]]
    names: dict[str, None] = {}
    for value in values:
        try:
            name = key_name(parse_tags(value[:MAX_SIGNATURE].decode("latin-1")))
        except TagsBroken:
            continue
        names |= {name: None} if name else {}
    return list(names)
