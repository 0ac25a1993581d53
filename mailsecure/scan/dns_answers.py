"""What the DNS has said, as a job is told it (pure).

Jobs run in processes without a network.  What they ask of the DNS is a :data:`Question`,
and what is known is passed to them as JSON (:func:`to_json`); a job looks things up in
:class:`Known` and returns either its result or the questions that are still open
(:mod:`.replay` asks them and runs the job again).  Every answer is bounded here, whatever
the DNS says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "MAX_TXT",
    "Answer",
    "DnsTrouble",
    "Known",
    "Question",
    "Unanswered",
    "bounded",
    "to_json",
]

#: A type (A, AAAA, MX, PTR, TXT) and a name in lower case; for PTR an address.
Question = tuple[str, str]
#: The records as text, none where there are none; None: the DNS gave no answer.
#: An MX record is ``10 mx.example.com``; octets of TXT are characters of Latin-1.
Answer = Sequence[str] | None

MAX_RECORDS = 100
#: Longer TXT records are cut to one octet more, by which they are known.
MAX_TXT = 4096


class Unanswered(Exception):
    """A job asked what is not known yet; its question is noted in :class:`Known`."""


class DnsTrouble(Exception):
    """The DNS gave no answer: the job's result is a temperror."""


def bounded(records: Iterable[str]) -> list[str]:
    """Return the first of ``records``, none longer than :data:`MAX_TXT` and one."""
    return [each[: MAX_TXT + 1] for each, _ in zip(records, range(MAX_RECORDS), strict=False)]


def to_json(answers: Mapping[Question, Answer]) -> dict[str, Any]:
    """Return ``answers`` as JSON has them."""
    return {f"{kind} {name}": records for (kind, name), records in answers.items()}


class Known:
    """The answers that a job was given, and the questions that it still has."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers
        self._open: dict[Question, None] = {}

    def records(self, kind: str, name: str) -> list[str]:
        """Return the records of ``name``, perhaps none.

        Raises :class:`Unanswered` (the question is noted) or :class:`DnsTrouble`.
        """
        key = f"{kind} {name}"
        if key not in self._answers:
            self._open[kind, name] = None
            raise Unanswered(key)
        records = self._answers[key]
        if records is None:
            raise DnsTrouble(key)
        return list(records)

    def needs(self) -> list[list[str]]:
        """Return what was asked and is not known, as JSON."""
        return [[kind, name] for kind, name in self._open]
