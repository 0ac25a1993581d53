"""One request to several nodes, and one answer made of theirs.

:class:`Asked` is made by :mod:`.everywhere`, whose text says what becomes of which request.  What
a node cannot answer goes into ``away``; a question that is wrong is refused, as soon as one says
so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from .answers import PeerAway, Question
from .showing import Send
from .wire import Kind, Refusal

__all__ = ["Asked", "Produce"]

#: What trace gives where no limit was named.
_LIMIT = 50

#: Produces our own answer: its items go to what it is given.
Produce = Callable[[Send], Coroutine[Deferred[Any], Any, dict[str, Any]]]
#: What an item of trace is: kind, node, id, time.
_Key = tuple[str, str, str, float]


class _Answer(Protocol):
    """Something that gives an answer line by line, as :class:`.answers.Question`."""

    async def next(self) -> tuple[str, dict[str, Any]]:
        """Return ``item`` or ``done`` with its value."""


class Asked:
    """One request, and who is asked: we ourselves by ``here``, if it is not None, and ``peers``.

    ``node`` is our name, ``ask`` asks a peer, ``away`` says why others of those wanted are not.
    """

    def __init__(
        self,
        arguments: dict[str, Any],
        node: str,
        here: Produce | None,
        ask: Callable[[str], Question],
        peers: list[str],
        away: dict[str, str],
    ) -> None:
        self._arguments = arguments
        self._node = node
        self._here = here
        self._ask = ask
        self._peers = peers
        self._away = away

    @contextmanager
    def _answers(self) -> Iterator[dict[str, _Answer]]:
        """Give the answers of all, which begin side by side, ours first; drop them at the end."""
        here: dict[str, _Answer] = {} if self._here is None else {self._node: _Ours(self._here)}
        with self._asked() as questions:
            yield {**here, **questions}

    @contextmanager
    def _asked(self) -> Iterator[dict[str, Question]]:
        """Ask the peers, and want nothing more of them at the end, however it comes."""
        questions = {node: self._ask(node) for node in self._peers}
        try:
            yield questions
        finally:
            for question in questions.values():
                question.drop()

    def _nobody(self) -> Refusal:
        """Return the refusal where none of those asked can answer."""
        node, why = next(iter(self._away.items()))
        return Refusal(Kind.UNAVAILABLE, f"{node} {why}")

    # -- trace

    async def trace(self, send: Send) -> dict[str, Any]:
        """Send the newest of what all know."""
        limit = self._arguments.get("limit", _LIMIT)
        items: dict[_Key, dict[str, Any]] = {}
        unfinished: list[float] = []
        with self._answers() as answers:
            for node, answer in answers.items():
                try:
                    back = await _gathered(answer, items)
                except (PeerAway, Refusal) as trouble:
                    self._miss(node, trouble)
                    continue
                unfinished += [back] if back else []
                # No more of them all is kept than of the last and as many again.
                items = _newest(items, limit)
        if set(answers) <= set(self._away):
            raise self._nobody()
        for item in items.values():
            await send(item)
        return {
            "found": len(items),
            "unfinished": max(unfinished, default=None),
            "away": self._away,
        }

    async def count(self) -> dict[str, Any]:
        """Return how much all know of; what several know counts once for each."""
        sums: dict[str, Counter[str]] = {"messages": Counter(), "refusals": Counter()}
        sessions, unfinished = 0, []
        with self._answers() as answers:
            for node, answer in answers.items():
                try:
                    _, found = await answer.next()
                except (PeerAway, Refusal) as trouble:
                    self._miss(node, trouble)
                    continue
                for name, counts in sums.items():
                    counts.update(found[name])
                sessions += found["sessions"]
                unfinished += [found["unfinished"]] if found["unfinished"] else []
        if set(answers) <= set(self._away):
            raise self._nobody()
        return {
            **{name: dict(counts) for name, counts in sums.items()},
            "sessions": sessions,
            "unfinished": max(unfinished, default=None),
            "away": self._away,
        }

    def _miss(self, node: str, trouble: PeerAway | Refusal) -> None:
        """Go on without a node, unless it is the question that is wrong."""
        if isinstance(trouble, Refusal) and trouble.kind is Kind.USAGE:
            raise trouble
        says = "says: " if isinstance(trouble, Refusal) else ""
        self._away[node] = f"{says}{trouble}"

    # -- the quarantine

    async def list(self, send: Send) -> dict[str, Any]:
        """Send what all hold, in one order."""
        messages = recipients = 0
        limit = self._arguments.get("limit") or 1 << 62
        oldest_first = self._arguments.get("oldest_first") is True
        heads: dict[str, dict[str, Any]] = {}
        with self._answers() as answers:
            for node, answer in answers.items():
                await self._advance(node, answer, heads)
            if set(answers) <= set(self._away):
                raise self._nobody()
            while heads and messages < limit:
                node = (min if oldest_first else max)(heads, key=lambda each: _place(heads[each]))
                item = heads.pop(node)
                await send(item | {"node": node})
                messages += 1
                recipients += len(item["recipients"])
                await self._advance(node, answers[node], heads)
        return {"messages": messages, "recipients": recipients, "away": self._away}

    async def _advance(self, node: str, answer: _Answer, heads: dict[str, dict[str, Any]]) -> None:
        """Have the next item of a node among ``heads``, if it has one."""
        try:
            word, value = await answer.next()
        except (PeerAway, Refusal) as trouble:
            self._miss(node, trouble)
            return
        if word == "item":
            heads[node] = value

    async def act(self, send: Send) -> dict[str, Any]:
        """Do it everywhere; a message with an id is in one place only."""
        messages = recipients = 0
        if self._here is not None:
            done = await self._here(send)
            messages, recipients = done["messages"], done["recipients"]
        if messages and self._arguments.get("id"):
            self._peers = []
        with self._asked() as questions:
            for node, question in questions.items():
                try:
                    _, done = await question.next()
                except (PeerAway, Refusal) as trouble:
                    self._miss(node, trouble)
                    continue
                messages += done["messages"]
                recipients += done["recipients"]
        if messages and self._arguments.get("id"):
            self._away = {}
        return {"messages": messages, "recipients": recipients, "away": self._away}

    # -- one message

    async def find(self, send: Send) -> dict[str, Any]:
        """Do it where the message is."""
        refusal: Refusal | None = None
        if self._here is not None:
            try:
                return {"node": self._node} | await self._here(send)
            except Refusal as here:
                refusal = _absent(here)
        for node in self._peers:
            try:
                return {"node": node} | await self._found(node, send)
            except PeerAway as away:
                self._away[node] = str(away)
            except Refusal as there:
                absent = _absent(there)
                if refusal is None or absent.kind is Kind.ABSENT:
                    refusal = absent
        if refusal is None:
            refusal = self._nobody()
        hints = (f"{node} {why}: it may have it." for node, why in self._away.items())
        raise Refusal(refusal.kind, str(refusal), (*refusal.details, *hints))

    async def _found(self, node: str, send: Send) -> dict[str, Any]:
        """Return a node's result, once its items were sent."""
        question, sent = self._ask(node), False
        try:
            word, value = await question.next()
            while word == "item":
                sent = True
                await send(value)
                word, value = await question.next()
        except PeerAway as away:
            if sent:
                raise Refusal(Kind.PROTOCOL, f"{node} {away}, in the middle of it") from None
            raise
        finally:
            question.drop()
        return value


async def _gathered(answer: _Answer, items: dict[_Key, dict[str, Any]]) -> float | None:
    """Take a whole answer of trace; return the time before which it did not look."""
    word, value = await answer.next()
    while word == "item":
        items.setdefault((value["kind"], value["node"], value["id"], value["time"]), value)
        word, value = await answer.next()
    unfinished: float | None = value["unfinished"]
    return unfinished


def _newest(items: dict[_Key, dict[str, Any]], limit: int) -> dict[_Key, dict[str, Any]]:
    """Return the newest of ``items``, the newest last."""
    ordered = sorted(items.items(), key=lambda each: (each[1]["time"], each[1]["id"]))
    return dict(ordered[-limit:])


def _place(item: dict[str, Any]) -> tuple[float, str]:
    """Return what listings of the quarantine are sorted by."""
    return item["arrived"], item["id"]


def _absent(refusal: Refusal) -> Refusal:
    """Return the refusal of a node that has not what was asked for; raise any other."""
    if refusal.kind not in (Kind.ABSENT, Kind.UNAVAILABLE):
        raise refusal
    return refusal


class _Ours:
    """Our own answer, line by line: its items wait until they are taken."""

    def __init__(self, produce: Produce) -> None:
        self._produce = produce
        self._begun = False
        self._taker: Deferred[tuple[str, dict[str, Any]]] = Deferred()
        self._wanted: Deferred[None] = Deferred()

    async def next(self) -> tuple[str, dict[str, Any]]:
        """See :class:`_Answer`."""
        taker: Deferred[tuple[str, dict[str, Any]]] = Deferred()
        self._taker = taker
        if self._begun:
            self._wanted.callback(None)
        else:
            self._begun = True
            Deferred.fromCoroutine(self._produce(self._give)).addCallbacks(
                # The taker is another one by then.
                lambda value: self._taker.callback(("done", value)),
                lambda failure: self._taker.errback(failure),  # noqa: PLW0108
            )
        return await taker

    async def _give(self, item: dict[str, Any]) -> None:
        wanted: Deferred[None] = Deferred()
        self._wanted = wanted
        self._taker.callback(("item", item))
        await wanted
