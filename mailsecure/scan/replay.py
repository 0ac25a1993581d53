"""Jobs that ask the DNS: run, asked for what they lack, and run again.

The libraries for SPF and DKIM look names up while they work, and wait.  Ours may do
neither, so a job (:mod:`.jobs`) is given the answers that are known.  It returns
``{"needs": [[type, name], …]}`` where it lacks some; they are asked side by side, and the
job runs again, at most :data:`MAX_ROUNDS` times.  The obvious questions are asked
beforehand (:meth:`Lookups.fetch`), so that one round is the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ..spool.values import Body
from ..world import DnsAbsent, DnsFault, Resolver
from .api import Workers
from .dns_answers import Answer, Question, bounded, to_json

__all__ = ["MAX_ROUNDS", "FollowUps", "Lookups", "replay"]

#: SPF: ten mechanisms that ask, one after the other, the explanation, and some to spare.
MAX_ROUNDS = 16

#: What an answer makes probable that will be asked next.
FollowUps = Callable[[Question, Sequence[str]], Iterable[Question]]


def _nothing(question: Question, records: Sequence[str]) -> Iterable[Question]:
    return ()


class Lookups:
    """The answers for one job; at most ``limit`` questions are asked, however it goes.

    What is beyond counts as not answered.  ``follow_ups`` are asked as soon as an answer
    makes them probable, while there are fewer than half of ``limit``.
    """

    def __init__(self, resolver: Resolver, limit: int, follow_ups: FollowUps = _nothing) -> None:
        self._resolver = resolver
        self._limit = limit
        self._follow_ups = follow_ups
        self._answers: dict[Question, Answer] = {}
        self._asked: set[Question] = set()

    def as_json(self) -> dict[str, Any]:
        """Return all that is known, for a job's arguments."""
        return to_json(self._answers)

    @property
    def octets(self) -> int:
        """How long all records are together that were answered."""
        return sum(len(text) for records in self._answers.values() for text in records or ())

    def answer(self, question: Question) -> Answer:
        """Return the answer to a question that was asked; None also if it was not."""
        return self._answers.get(question)

    async def fetch(self, questions: Iterable[Question]) -> None:
        """Ask those of ``questions`` that were not asked yet, side by side."""
        new = [each for each in dict.fromkeys(questions) if each not in self._asked]
        room = max(0, self._limit - len(self._asked))
        for each in new[room:]:
            self._answers[each] = None
        self._asked.update(new)
        await _together([self._ask(each) for each in new[:room]])

    async def _ask(self, question: Question) -> None:
        try:
            records = bounded(await _records(self._resolver, question))
        except DnsAbsent:
            records = []
        except DnsFault:
            self._answers[question] = None
            return
        self._answers[question] = records
        room = self._limit // 2 - len(self._asked)
        more = list(self._follow_ups(question, records))[:room] if room > 0 else ()
        if more:
            await self.fetch(more)


async def _records(resolver: Resolver, question: Question) -> list[str]:
    kind, name = question
    if kind == "TXT":
        return [octets.decode("latin-1") for octets in await resolver.txt(name)]
    if kind == "MX":
        return [f"{each.preference} {each.host}" for each in await resolver.mx(name)]
    if kind == "PTR":
        return list(await resolver.ptr(name))
    return list(await (resolver.ipv6(name) if kind == "AAAA" else resolver.ipv4(name)))


async def _together(questions: Sequence[Coroutine[Deferred[Any], Any, None]]) -> None:
    """Ask side by side.  All have begun before the first is waited for."""
    if len(questions) == 1:
        await questions[0]
        return
    for asked in [Deferred.fromCoroutine(each) for each in questions]:
        await asked


async def replay(
    workers: Workers,
    lookups: Lookups,
    job: str,
    arguments: dict[str, Any],
    body: Body | None = None,
) -> dict[str, Any] | None:
    """Have ``job`` done; None if it still had questions after :data:`MAX_ROUNDS`.

    Raises what :meth:`~.api.Workers.run` raises.
    """
    for _ in range(MAX_ROUNDS):
        told = arguments | {"answers": lookups.as_json()}
        result = await workers.run(job, told, body)
        if "needs" not in result:
            return result
        await lookups.fetch((kind, name) for kind, name in result["needs"])
    return None
