"""Questions between the nodes of a cluster: what is asked here, and what others ask of us.

:mod:`.everywhere` asks so what only another node knows.  They go over the links (TLS 1.3, both
sides with a certificate of the cluster), under the subject ``ask``.  Who asks numbers its
questions::

    → {"ask": 7, "request": "quarantine.list", "arguments": {…}, "who": "root (uid 0) on a"}
    ← {"begun": 7}
    ← {"piece": 7, "text": "{\"item\":{…}}\\n{\"item\":…"}
    → {"more": 7}
    ← {"piece": 7, "text": "…}\\n{\"done\":{…}}\\n"}
    → {"drop": 7}                  nobody wants the rest
    ← {"broken": 7}                there is no rest: an error, which the log there has

The texts of the pieces, one after the other, are the lines of an answer on the control socket
(:mod:`.wire`).  A piece is sent only when it was asked for, so an answer of any length takes
no room in a link, and nobody has to keep more of it than a piece.

What a peer says is read as strictly as a stranger's.  Its questions are answered only if there
are at most :data:`MOST_OPEN` of it, and it takes each piece within :data:`.answers.PATIENCE`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from ..background import background
from ..errors import RemoteFault
from ..scan.api import Line
from .answers import Giving, Question
from .showing import Send
from .wire import Kind, Refusal

__all__ = ["MOST_OPEN", "Answer", "Questions"]

SUBJECT = "ask"
#: Questions of one peer at a time.
MOST_OPEN = 8
_LONGEST_WORD = 64
_LONGEST_WHO = 400
_HIGHEST = 1 << 53

#: Answers a peer's question: request, arguments, who asks, where the items go.
Answer = Callable[[str, dict[str, Any], str, Send], Awaitable[dict[str, Any]]]


class Questions:
    """Both sides of it (:class:`mailsecure.cluster.sharing.Listener`).

    ``answer`` answers what peers ask.  ``first`` is the number of our first question: not that
    of an earlier life, whose questions a peer may still be at.
    """

    def __init__(self, clock: IReactorTime, answer: Answer, first: int) -> None:
        self._clock = clock
        self._answer = answer
        self._line: Line | None = None
        #: The nodes that can be asked now.
        self.nodes: set[str] = set()
        self._next_number = first
        self._asked: dict[tuple[str, int], Question] = {}
        self._answering: dict[tuple[str, int], Giving] = {}

    def start(self, line: Line) -> None:
        """Begin to listen."""
        self._line = line
        line.hear(SUBJECT, self)

    def ask(self, node: str, request: str, arguments: dict[str, Any], who: str) -> Question:
        """Ask one node; who takes the answer calls :meth:`Question.drop` at its end."""
        self._asked = {key: each for key, each in self._asked.items() if not each.over}
        number, self._next_number = self._next_number, self._next_number + 1
        question = Question(self._clock, lambda body: self._tell(node, body), number)
        self._asked[node, number] = question
        asked = {"ask": number, "request": request, "arguments": arguments, "who": who}
        try:
            if not self._tell(node, asked):
                question.end("is not linked, or does not read")
        except ValueError:
            question.end("cannot be asked that: it is too long")
        return question

    def _tell(self, node: str, body: dict[str, Any]) -> bool:
        return self._line is not None and self._line.tell(node, SUBJECT, body)

    # -- from the links

    def linked(self, node: str) -> None:
        """A node can be asked."""
        self.nodes.add(node)

    def unlinked(self, node: str) -> None:
        """It can no more; what is open will not end."""
        self.nodes.discard(node)
        for (where, _), question in list(self._asked.items()):
            if where == node:
                question.end("has gone")
        for (where, _), answering in list(self._answering.items()):
            if where == node:
                answering.drop()

    def heard(self, node: str, body: dict[str, Any]) -> None:
        """A node asks, or answers; RemoteFault if it makes no sense."""
        if "ask" in body:
            self._take(node, _number(body, "ask"), body)
            return
        for word in ("more", "drop"):
            if word in body:
                answering = self._answering.get((node, _number(body, word)))
                if answering is not None:
                    (answering.more if word == "more" else answering.drop)()
                return
        for word in ("begun", "piece", "broken"):
            if word in body:
                question = self._asked.get((node, _number(body, word)))
                if question is not None and not question.over:
                    _hear(question, word, body)
                return
        raise RemoteFault("neither question nor answer")

    def _take(self, node: str, number: int, body: dict[str, Any]) -> None:
        """Begin to answer a question."""
        request, arguments, who = body.get("request"), body.get("arguments"), body.get("who")
        texts = isinstance(request, str) and isinstance(who, str)
        if not texts or not isinstance(arguments, dict) or (node, number) in self._answering:
            raise RemoteFault("no question")
        request, who = str(request), str(who)
        if len(request) > _LONGEST_WORD or len(who) > _LONGEST_WHO:
            raise RemoteFault("a question that is too long")
        open_now = sum(where == node for where, _ in self._answering)
        answering = Giving(self._clock, lambda said: self._tell(node, said), number)
        if open_now >= MOST_OPEN:
            busy = Refusal(Kind.BUSY, "has too many questions of ours")
            answer: Awaitable[dict[str, Any]] = _refuse(busy)
        else:
            answer = self._answer(request, arguments, who, answering.send)
        self._answering[node, number] = answering
        work = background("an answer to another node", answering.run(answer))
        work.addCallback(lambda _: self._answering.pop((node, number)))


def _hear(question: Question, word: str, body: dict[str, Any]) -> None:
    if word == "begun":
        question.begun()
    elif word == "broken":
        question.end("had an unexpected error; its log has more")
    else:
        text = body.get("text")
        if not isinstance(text, str):
            raise RemoteFault("a piece without a text")
        question.heard(text)


async def _refuse(refusal: Refusal) -> dict[str, Any]:
    raise refusal


def _number(body: dict[str, Any], word: str) -> int:
    number = body[word]
    if type(number) is not int or not 0 < number < _HIGHEST:
        raise RemoteFault("no number of a question")
    return number
