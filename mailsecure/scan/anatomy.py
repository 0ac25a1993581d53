"""What a message is made of: the values that taking it apart gives (pure).

The job ``jobs.mail:take_apart`` makes an :class:`Anatomy` in a worker's process and sends it
as JSON (:func:`to_json`, :func:`from_json`); checks get it from ``Content.anatomy``.  All text
in it is from the message, decoded, cut, and without control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Anatomy", "FoundUrl", "Part", "Trait", "from_json", "to_json"]


class Trait(Enum):
    """What is notable of a part."""

    #: A program.
    EXECUTABLE = "executable"
    #: A file that begins with ``#!``: Unix would run it, if it were told to.
    SCRIPT = "script"
    ARCHIVE = "archive"
    #: An archive or document that cannot be read without a password.
    ENCRYPTED = "encrypted"
    MACROS = "macros"
    #: They run by themselves and reach for the system.
    SUSPICIOUS = "suspicious"
    EICAR = "eicar"
    #: See [attachments] forbidden_names and forbidden_types.
    FORBIDDEN_NAME = "forbidden-name"
    FORBIDDEN_TYPE = "forbidden-type"
    #: Such as ``invoice.pdf.exe``.
    DOUBLE_EXTENSION = "double-extension"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the message, or one file in an archive.

    ``path`` leads to it: ``message/invoice.zip/a/b.exe``; a part without a name has its
    number there.  ``name`` is its file name, "" without.  ``declared`` is the media type that
    the message says, "" in archives; ``real`` that of the content.  ``octets`` is the size of
    the content, decoded, ``sha256`` its digest in hexadecimal.  ``words`` are what is
    suspicious in macros.
    """

    path: str
    name: str
    declared: str
    real: str
    octets: int
    sha256: str
    traits: frozenset[Trait] = frozenset()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundUrl:
    """One link: its text, its host, and the host's registered domain (RFC 9499 §2).

    The host is in A-labels, lower case, or an IP address in its canonical form; ``domain`` is
    "" for an address, and for a name that is a public suffix itself.
    """

    url: str
    host: str
    domain: str


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A message, taken apart.

    ``subject``, ``message_id`` are decoded; ``header_from`` are the mailboxes of the From
    fields, as they are written; ``to`` and ``cc`` count mailboxes.  ``parts`` are in the order
    of the message; where there are many, only the notable ones of the later ones:
    ``parts_in_all`` is how many there are.  ``urls`` has one link for each host, those that
    are to be clicked on first.  ``gtube`` says that the text holds the test string for spam.
    """

    subject: str = ""
    message_id: str = ""
    header_from: tuple[str, ...] = ()
    to: int = 0
    cc: int = 0
    parts: tuple[Part, ...] = ()
    parts_in_all: int = 0
    urls: tuple[FoundUrl, ...] = ()
    gtube: bool = False

    def having(self, trait: Trait) -> list[Part]:
        """Return the parts that have ``trait``."""
        return [part for part in self.parts if trait in part.traits]


def to_json(anatomy: Anatomy) -> dict[str, Any]:
    """Return what :func:`from_json` makes an equal anatomy of; short, for it is sent."""
    return {
        "subject": anatomy.subject,
        "message_id": anatomy.message_id,
        "from": list(anatomy.header_from),
        "to": anatomy.to,
        "cc": anatomy.cc,
        "parts": [_part_to_json(part) for part in anatomy.parts],
        "parts_in_all": anatomy.parts_in_all,
        "urls": [[url.url, url.host, url.domain] for url in anatomy.urls],
        "gtube": anatomy.gtube,
    }


def _part_to_json(part: Part) -> list[Any]:
    names = sorted(trait.value for trait in part.traits)
    return [
        *(part.path, part.name, part.declared, part.real, part.octets, part.sha256),
        *(names, list(part.words)),
    ]


def from_json(content: Mapping[str, Any]) -> Anatomy:
    """Return the anatomy that :func:`to_json` was given."""
    return Anatomy(
        subject=content["subject"],
        message_id=content["message_id"],
        header_from=tuple(content["from"]),
        to=content["to"],
        cc=content["cc"],
        parts=tuple(_part_from_json(part) for part in content["parts"]),
        parts_in_all=content["parts_in_all"],
        urls=tuple(FoundUrl(*url) for url in content["urls"]),
        gtube=content["gtube"],
    )


def _part_from_json(content: Iterable[Any]) -> Part:
    path, name, declared, real, octets, sha256, traits, words = content
    known = frozenset(map(Trait, traits))
    return Part(path, name, declared, real, octets, sha256, known, tuple(words))
