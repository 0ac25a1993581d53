"""The errors that the rooms of mailsecure tell apart.

The question that decides what a client is answered is *whose fault it was*:
:class:`RemoteFault` is raised by every parser that is fed octets from outside
and by nothing else; :class:`LocalFault` says that this node cannot do its work
(disk, descriptors, memory) and always becomes a 4xx reply, so that the sender
keeps the message (RFC 5321 §4.2.1).  :class:`ConfigProblems` carries every
mistake of an ini file at once, because a postmaster wants to correct them in
one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ConfigProblems", "LocalFault", "Problem", "RemoteFault"]


class RemoteFault(Exception):
    """The peer broke the protocol; its text is for the log, never a format."""


class LocalFault(Exception):
    """This node cannot do what it was asked; the peer did nothing wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an ini file, with all that is needed to find it.

    ``line`` counts from 1 and is 0 where the mistake is an absence; ``section``
    and ``option`` are empty where the mistake is not within one; ``hint`` is
    the nearest valid name or an example, or empty.
    """

    file: str
    line: int
    section: str
    option: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        named = " ".join(filter(None, (self.section and f"[{self.section}]", self.option)))
        where = f"{place}: {named}" if named else place
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: {self.what}{hint}"


class ConfigProblems(Exception):
    """Every problem found in one configuration; ``str()`` is one line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)
