"""One answer that goes over a link: who gives it, and who takes it.

:mod:`.questions` has the protocol and calls both.  :class:`Giving` turns what a request answers
into the lines of the control socket (:mod:`.wire`) and cuts them into pieces; :class:`Question`
makes lines of the pieces again.  ``tell`` says something to the other side, and returns False
where that is not linked or does not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from ..errors import LocalFault, RemoteFault
from .wire import Kind, Refusal, decode_answer, encode, refused

__all__ = ["BEGIN", "LONGEST_LINE", "PATIENCE", "PIECE", "Giving", "PeerAway", "Question"]

#: Characters; within a frame of 64 KiB whatever has to be escaped.
PIECE = 24_000
#: Seconds until a peer says that it has begun, and for each piece.
BEGIN, PATIENCE = 5.0, 60.0
#: The longest line, in characters: a message with very many recipients.
LONGEST_LINE = 8 << 20

_Tell = Callable[[dict[str, Any]], bool]


class PeerAway(Exception):
    """A node did not answer; the text says why, for people."""


class _Dropped(Exception):
    """Nobody wants the rest of an answer."""


class Question:
    """What one peer is asked; :meth:`next` takes its answer, line by line."""

    def __init__(self, clock: IReactorTime, tell: _Tell, number: int):
        self._clock = clock
        self._tell = tell
        self._number = number
        self._lines: deque[str] = deque()
        self._begun = False
        self._partial: list[str] = []
        self._partial_length = 0
        self._waiting: Deferred[None] | None = None
        #: Why there will be no more.
        self._away = ""
        #: The first piece comes unasked.
        self._granted = True
        #: Set when nothing more is to come, or wanted.
        self.over = False

    async def next(self) -> tuple[str, dict[str, Any]]:
        """Return ``item`` or ``done`` with its value.

        Raises the :class:`.wire.Refusal` that the peer said, and :class:`PeerAway`.
        """
        while not self._lines:
            await self._more()
        try:
            word, value = decode_answer(self._lines.popleft().encode())
        except RemoteFault as fault:
            raise self._ended(str(fault)) from None
        except Refusal:
            self.over = True
            raise
        self.over = word == "done"
        return word, value

    def drop(self) -> None:
        """Want no more of it."""
        if not self.over:
            self.over = True
            self._tell({"drop": self._number})

    async def _more(self) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        if not self._away and not self._granted:
            self._granted = True
            if not self._tell({"more": self._number}):
                self._away = "does not read"
        if self._away:
            raise self._ended(self._away)
        waiting.addTimeout(PATIENCE if self._begun else BEGIN, self._clock)
        try:
            await waiting
        except DeferredTimeout:
            raise self._ended("does not answer") from None

    def _ended(self, why: str) -> PeerAway:
        self.drop()
        return PeerAway(why)

    # -- what the peer says

    def begun(self) -> None:
        """It is at it."""
        self._begun = True
        self._go_on()

    def heard(self, text: str) -> None:
        """A piece has come; RemoteFault if it was not asked for, or a line is too long."""
        if not self._granted:
            raise RemoteFault("a piece that was not asked for")
        self._begun, self._granted = True, False
        *lines, rest = text.split("\n")
        if lines:
            lines[0] = "".join((*self._partial, lines[0]))
            self._partial, self._partial_length = [], 0
            self._lines.extend(lines)
        if rest:
            self._partial.append(rest)
            self._partial_length += len(rest)
        if self._partial_length > LONGEST_LINE:
            self.end("says too much")
            raise RemoteFault("a line that is too long")
        self._go_on()

    def end(self, why: str) -> None:
        """Nothing more comes."""
        self._away = self._away or why
        self._go_on()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


class Giving:
    """One question of a peer, while it is answered."""

    def __init__(self, clock: IReactorTime, tell: _Tell, number: int):
        self._clock = clock
        self._tell = tell
        self._number = number
        self._text = ""
        self._pieces = 1
        self._room: Deferred[None] | None = None
        self._dropped = False

    async def run(self, answer: Awaitable[dict[str, Any]]) -> None:
        """Send what ``answer`` returns or refuses, as the last line."""
        self._say({"begun": self._number})
        finished = False
        try:
            try:
                last = {"done": await answer}
            except Refusal as refusal:
                last = refused(refusal)
            except LocalFault as fault:
                last = refused(Refusal(Kind.DISK, str(fault)))
            self._text += encode(last).decode("ascii")
            while self._text:
                await self._piece()
            finished = True
        except _Dropped:
            finished = True
        finally:
            if not finished:
                self._tell({"broken": self._number})

    async def send(self, item: dict[str, Any]) -> None:
        """Send one item, when it is wanted; see :data:`.showing.Send`."""
        self._text += encode({"item": item}).decode("ascii")
        while len(self._text) >= PIECE:
            await self._piece()

    async def _piece(self) -> None:
        while not self._pieces and not self._dropped:
            self._room = Deferred()
            self._room.addTimeout(PATIENCE, self._clock)
            try:
                await self._room
            except DeferredTimeout:
                self._dropped = True
        if self._dropped:
            raise _Dropped
        self._pieces -= 1
        piece, self._text = self._text[:PIECE], self._text[PIECE:]
        self._say({"piece": self._number, "text": piece})

    def _say(self, body: dict[str, Any]) -> None:
        self._dropped = self._dropped or not self._tell(body)

    def more(self) -> None:
        """The peer has room for one more."""
        self._pieces = 1
        self._go_on()

    def drop(self) -> None:
        """The peer wants no more, or is gone."""
        self._dropped = True
        self._go_on()

    def _go_on(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.callback(None)
