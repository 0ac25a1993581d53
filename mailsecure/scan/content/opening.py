"""Taking a message apart: its parts, what is in them, and what is in that.

:func:`take_apart` is what the job of that name does.  It goes through the message once.
What is found in a part (a message, an archive, attachments of Outlook's, uuencoded files) is
taken apart in turn; :class:`~.limits.Budget` says when it is too much.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..anatomy import Anatomy, Part, Trait
from ..faults import Unscannable
from .archives import BrokenArchive, Member, members
from .decoding import uuencoded_files
from .documents import Found
from .embedded import ole_files
from .entities import Entity, entities, inner_path
from .fields import count_mailboxes, mailboxes, read_fields
from .inspecting import inspect, name_traits, type_traits
from .kinds import (
    ARCHIVES,
    EXECUTABLES,
    MAIL,
    OLE_START,
    PLAIN,
    STREAMS,
    TNEF,
    ZIP,
    hides_zip,
    is_text,
    zip_type,
)
from .limits import Budget, Limits
from .names import clean_name
from .reading import DomainOf, Reader
from .tnef import tnef_files
from .zips import directory_of

__all__ = ["take_apart"]

#: Parts that are listed in any case, and notable ones beyond: the list is read by the
#: reactor's thread.
MAX_LISTED: Final = 300
MAX_NOTABLE: Final = 200
#: Octets that are read of what is called a text and has none in front.
MAX_DOUBTFUL: Final = 4 << 20
#: Macro sheets of Excel 4 in a document of the new kind.
_MACRO_SHEETS: Final = "xl/macrosheets/"
_SIGNED_MAIL: Final = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
#: Where the mail in them begins, and within how many octets.
_MIME_START = re.compile(
    rb"(?:content-type|content-transfer-encoding|mime-version)[ \t]{0,9}:", re.IGNORECASE
)
_ENVELOPE: Final = 4096
_ORDINARY: Final = frozenset({Trait.ARCHIVE})


@dataclass(frozen=True, slots=True)
class _File:
    """A file, ``depth`` deep in messages and ``archives`` deep in archives there.

    ``octets`` and ``sha256`` are of all of it, ``content`` may be only its beginning.
    """

    path: str
    names: tuple[str, ...]
    declared: str
    content: bytes
    octets: int
    sha256: str
    depth: int
    archives: int


def take_apart(octets: bytes, limits: Limits, domain_of: DomainOf) -> Anatomy:
    """Return what the message ``octets`` is made of.

    ``domain_of`` returns the registered domain of a host name, or "".  Raises Unscannable.
    """
    fields, _ = read_fields(octets, 0, len(octets))
    # First, for it is quick and may say that enough is enough.
    to, cc = count_mailboxes(fields.all("to")), count_mailboxes(fields.all("cc"))
    header_from = tuple(mailboxes(fields.all("from")))
    opening = _Opening(limits, domain_of)
    opening.message(octets, "message", 0)
    return Anatomy(
        subject=fields.text("subject", 500),
        message_id=fields.text("message-id", 500),
        header_from=header_from,
        to=to,
        cc=cc,
        parts=tuple(opening.parts),
        parts_in_all=opening.parts_in_all,
        urls=opening.reader.urls,
        gtube=opening.reader.gtube,
    )


class _Opening:
    """The work on one message."""

    def __init__(self, limits: Limits, domain_of: DomainOf) -> None:
        self._limits = limits
        self._budget = Budget(limits)
        self.reader = Reader(domain_of)
        self.parts: list[Part] = []
        self.parts_in_all = 0
        self._notable = 0

    def message(self, octets: bytes, path: str, depth: int) -> None:
        """Take a message apart that is ``depth`` deep in others."""
        for entity in entities(octets, path, depth, self._budget):
            self._entity(entity)

    def _entity(self, entity: Entity) -> None:
        content, depth = entity.content, entity.depth
        file = _whole(entity.path, entity.names, entity.declared, content, depth, 0)
        kind = self._file(file)
        text = is_text(kind)
        if text or entity.declared.startswith("text/") or not entity.declared:
            # What is called a text is shown as one, whatever its first octets are.
            page = (text and kind != PLAIN) or entity.declared == "text/html"
            self.reader.read(content if text else content[:MAX_DOUBTFUL], page, entity.charset)
        if text:
            self._inner(file, uuencoded_files(content))

    def _file(self, file: _File) -> str:
        """List a file, and what is in it; return its real type."""
        found = inspect(file.names, file.declared, file.content, self._limits)
        ole = file.content.startswith(OLE_START)
        if file.octets > len(file.content) and (ole or found.kind in (*ARCHIVES, TNEF)):
            raise Unscannable(f"a packed file of {file.octets} octets to be opened")
        place = len(self.parts)
        if found.kind in ARCHIVES or (found.kind not in EXECUTABLES and hides_zip(file.content)):
            found = self._archive(file, found)
        if found.kind == TNEF:
            self._inner(file, tnef_files(file.content))
        elif ole:
            self._inner(file, ole_files(file.content))
        elif found.kind == MAIL and _opens(file) and file.depth < self._limits.max_depth:
            self.message(file.content.lstrip(b"\xef\xbb\xbf \t\r\n"), file.path, file.depth + 1)
        elif _is_enveloped(file) and (start := _MIME_START.search(file.content, 0, _ENVELOPE)):
            self.message(file.content[start.start() :], file.path, file.depth + 1)
        self._list(file, found, place)
        return found.kind

    def _archive(self, file: _File, found: Found) -> Found:
        """List what is in an archive; return what that says about the archive."""
        self._budget.archive(file.archives + 1)
        traits, kind = set(found.traits), found.kind
        for member in self._members(file, kind):
            traits.add(Trait.ARCHIVE)
            name = clean_name(member.name)
            if kind == ZIP:
                kind = zip_type(member.name) or kind
            if member.name.startswith(_MACRO_SHEETS):
                traits.add(Trait.MACROS)
            path = inner_path(file.path, member.name.strip("/")) if name else file.path
            inner = _File(
                *(path, (name,) if name else (), "", member.content, member.octets),
                *(member.sha256, file.depth, file.archives + 1),
            )
            if member.encrypted:
                traits.add(Trait.ENCRYPTED)
                if name:
                    known = Found("", name_traits(inner.names, self._limits))
                    self._list(inner, known, len(self.parts))
            else:
                self._file(inner)
        if found.kind == ZIP:
            self._directory(file)
        if kind in ARCHIVES:
            traits.add(Trait.ARCHIVE)
        return Found(kind, frozenset(traits) | type_traits(kind, self._limits), found.words)

    def _directory(self, file: _File) -> None:
        """List what only the directory of a zip says, and what stands in front of the zip."""
        names, front = directory_of(file.content)
        known = {part.path for part in self.parts}
        for name in names:
            path = inner_path(file.path, name.strip("/"))
            traits = name_traits((clean_name(name),), self._limits)
            if traits and path not in known:
                other = _File(path, (clean_name(name),), "", b"", 0, "", file.depth, file.archives)
                self._list(other, Found("", traits), len(self.parts))
        if front:
            self._file(_whole(file.path, (), "", front, file.depth, file.archives + 1))

    def _members(self, file: _File, kind: str) -> Iterator[Member]:
        """Yield what is in an archive.

        What only looks as if a zip stood in it may not be one: a document in pieces, in another
        document, has the same octets.
        """
        try:
            yield from members(file.content, self._budget, kind in STREAMS)
        except BrokenArchive:
            if kind in ARCHIVES:
                raise

    def _inner(self, file: _File, files: Iterable[tuple[bytes, bytes]]) -> None:
        """List files that were found in another, which is no archive."""
        total = 0
        for raw, content in files:
            self._budget.file()
            total += len(content)
            self._budget.unpacked(len(content), total, len(file.content))
            name = clean_name(raw.decode("utf-8", "replace"))
            path = inner_path(file.path, name) if name else file.path
            names = (name,) if name else ()
            self._file(_whole(path, names, "", content, file.depth, file.archives))

    def _list(self, file: _File, found: Found, place: int) -> None:
        self.parts_in_all += 1
        notable = bool(found.traits - _ORDINARY)
        if len(self.parts) - self._notable >= MAX_LISTED and not notable:
            return
        if notable and self._notable >= MAX_NOTABLE:
            return
        self._notable += notable
        # Of several names the one that is notable.
        bad = [name for name in file.names if name_traits((name,), self._limits)]
        name = next(iter([*bad, *file.names]), "")
        part = Part(
            *(file.path, name, file.declared, found.kind, file.octets, file.sha256),
            *(found.traits, found.words),
        )
        self.parts.insert(min(place, len(self.parts)), part)


def _is_enveloped(file: _File) -> bool:
    """Say whether ``file`` may be a mail that is signed, and not readable as it is.

    What is signed so (RFC 8551 §3.5.2) stands in it in the clear, perhaps cut into pieces of
    a few hundred octets, whose lengths a decoder of base64 leaves out.
    """
    return file.declared in _SIGNED_MAIL or any(
        name.lower().endswith(".p7m") for name in file.names
    )


def _opens(file: _File) -> bool:
    """Say whether somebody could open ``file`` as a message: not a text that quotes one."""
    return bool(file.names) or not file.declared.startswith("text/")


def _whole(
    path: str, names: tuple[str, ...], declared: str, content: bytes, depth: int, archives: int
) -> _File:
    digest = hashlib.sha256(content).hexdigest()
    return _File(path, names, declared, content, len(content), digest, depth, archives)
