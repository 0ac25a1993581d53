"""Draining: taking a node out of work for a while, so that nobody is cut off.

``mailsecure drain`` begins it, ``mailsecure undrain`` ends it, and a stop does the same in
short (:meth:`Drain.leave`).  What happens, in this order:

1. *The others know.*  Our hello says that we drain: no node passes sessions to us.
2. *Where we are Master and share sessions*, we only direct from now on: new sessions go to
   the others, ours end by themselves.
3. *Handing over.*  New connections are held back (:mod:`.daemon.hold`) for at most
   ``handover_timeout``, until no session runs through us; then our groups stand back and
   another node takes the addresses.  Clients that were held back find it there.
4. *The rest* of our sessions end by themselves until the time is over; then they are told
   421 as soon as they are in no transaction.  Who connects to this node's own addresses is
   told 421 at once.

A group that nobody else could take is not given up: :meth:`Drain.begin` refuses, and where
the others fail before it comes to the handing over, the drain is called off.  If they fail
later, the address comes back here, and as long as it is here we serve.

The states are those of :class:`State`; ``assemble`` makes one :class:`Drain`.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .background import Periodic, background
from .daemon.hold import hold_back, let_in
from .errors import LocalFault

__all__ = ["Addresses", "Directing", "Drain", "Serving", "State"]

_log = Logger(namespace="main")

#: Seconds: until the others have heard, between looks, for connections that are being
#: opened, or wait to be accepted, for an heir to take the addresses, for a goodbye to arrive.
#: Whoever opens one from far away needs a whole round trip; a stop is in more of a hurry.
HEARD = 0.2
LOOK = 0.02
OPENING, OPENING_AT_STOP = 0.25, 0.05
HEIR = 2.0
GOODBYE = 0.1
#: How long transactions may still take once the time for a drain is over.
LAST_TRANSACTIONS = 30.0


class State(Enum):
    """How far it is."""

    WORKING = "working"
    DRAINING = "draining"
    HANDING_OVER = "handing over"
    DRAINED = "drained"


class Serving(Protocol):
    """The gateway."""

    def count_sessions(self) -> int:
        """Return how many sessions there are."""

    def count_unfinished(self) -> int:
        """Return how many of them were not told goodbye yet."""

    def listeners(self) -> Iterable[socket.socket]:
        """Return the sockets at which clients arrive."""

    def rest(self, resting: bool) -> None:
        """Tell 421 to who comes; sessions that run go on."""

    def part(self) -> None:
        """Tell 421 to who is in no transaction now."""

    async def dismiss(self, limit: float) -> None:
        """Tell 421 to all; who is in a transaction may end it within ``limit`` seconds."""


class Directing(Protocol):
    """The load balancer."""

    draining: bool

    @property
    def sessions(self) -> int:
        """How many sessions go through us to others."""


class Addresses(Protocol):
    """The cluster."""

    @property
    def leads(self) -> bool:
        """Whether we are Master of any group."""

    @property
    def holding(self) -> bool:
        """Whether a virtual address is on our interface."""

    def nobody_else(self) -> list[str]:
        """Return the groups that we are Master of and no other node should be now."""

    def speak(self) -> None:
        """Say hello now: our fitness has changed."""

    def drain(self, draining: bool) -> None:
        """Have all groups stand back, or come forward again."""


class Drain:
    """See the module's text.

    ``handover`` is ``handover_timeout``, in seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        serving: Serving,
        addresses: Addresses | None,
        directing: Directing | None,
        handover: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._serving = serving
        self._addresses = addresses
        self._directing = directing
        self._handover = handover
        self._show: Callable[[str], None] = lambda _: None
        #: Why it ended, where nobody said that it should.
        self._why = ""
        self.state = State.WORKING
        self._deadline = 0.0
        #: Counts up; a drain that is not of the present turn has been called off.
        self._turn = 0
        self._look = Periodic(clock, 0.5, "the look at the drain", self._look_at)

    @property
    def draining(self) -> bool:
        """Whether this node is to get no sessions."""
        return self.state is not State.WORKING

    def report(self) -> dict[str, Any]:
        """Return how far it is, for JSON.

        ``state``; open ``sessions`` and ``directed`` ones; seconds ``left`` for them;
        whether we are ``master``; ``why`` it was called off, "" where it was not.
        """
        directed = 0 if self._directing is None else self._directing.sessions
        busy = self.state in (State.DRAINING, State.HANDING_OVER)
        return {
            "state": self.state.value,
            "sessions": self._serving.count_sessions(),
            "directed": directed,
            "left": max(0.0, self._deadline - self._clock.seconds()) if busy else 0.0,
            "master": self._serves,
            "why": self._why,
        }

    def watch(self, show: Callable[[str], None]) -> None:
        """Have ``show`` told :attr:`activity` whenever that changes."""
        self._show = show

    @property
    def activity(self) -> str:
        """What this node does, in a few words."""
        return self.state.value if self.draining else "accepting mail"

    # -- a postmaster's words

    def begin(self, seconds: float) -> None:
        """Drain; sessions may take ``seconds`` to end by themselves.

        While it drains already, that is a new deadline.  LocalFault: nobody else could hold
        a virtual address that is ours.
        """
        alone = self._alone() if self.state is State.WORKING else ""
        if alone:
            raise LocalFault(alone)
        self._deadline = self._clock.seconds() + seconds
        if self.state is not State.WORKING:
            return
        self._why = ""
        self._turn += 1
        self._become(State.DRAINING)
        self._look.start()
        background("the drain", self._drain(self._turn))

    def end(self) -> bool:
        """Take part in the work again; return whether it was drained, or about to be."""
        if self.state is State.WORKING:
            return False
        self._turn += 1
        self._look.stop()
        self._become(State.WORKING)
        let_in(self._serving.listeners())
        self._serving.rest(False)
        if self._directing is not None:
            self._directing.draining = False
        if self._addresses is not None:
            self._addresses.drain(False)
            self._addresses.speak()
        return True

    async def leave(self, limit: float) -> None:
        """Do what a stop needs of it: hand the addresses over when no session needs them.

        ``limit`` is for how long our own sessions may be waited for, in seconds.  Where no
        session is open, or nobody could follow us, nothing is waited for.
        """
        addresses, serving = self._addresses, self._serving
        self._turn += 1
        self._look.stop()
        if addresses is None or not self._open():
            return
        leads = addresses.leads
        if leads and addresses.nobody_else():
            return
        turn, handover = self._turn, self._handover()
        self._deadline = self._clock.seconds() + limit
        self._become(State.DRAINING)
        if self._directing is not None:
            self._directing.draining = True
        addresses.speak()
        if leads and self._directing is not None:
            await self._while(self._occupied, handover, turn)
            if self._occupied():
                await serving.dismiss(max(0.0, limit - 2 * handover))
        if leads:
            self._become(State.HANDING_OVER)
            # The stop closes what was held back; it never comes to us again.
            hold_back(serving.listeners())
            await self._pause(OPENING_AT_STOP)
        await self._while(self._open, handover, turn)
        if leads:
            await self._part()

    # -- the way

    def _become(self, state: State) -> None:
        self.state = state
        self._show(self.activity)
        report = self.report()
        _log.info(
            "{state}: {sessions} sessions here, {directed} directed to others",
            state=state.value,
            sessions=report["sessions"],
            directed=report["directed"],
        )

    def _open(self) -> bool:
        """Whether any session goes through us."""
        directed = 0 if self._directing is None else self._directing.sessions
        return self._serving.count_sessions() + directed > 0

    def _unfinished(self) -> bool:
        """Whether anybody is still to be told goodbye.

        The goodbyes of clients may never arrive where the address has moved.
        """
        directed = 0 if self._directing is None else self._directing.sessions
        return self._serving.count_unfinished() + directed > 0

    def _occupied(self) -> bool:
        """Whether we have a session of our own."""
        return self._serving.count_sessions() > 0

    def _alone(self) -> str:
        """Say why we have to go on; "" where we need not."""
        groups = [] if self._addresses is None else self._addresses.nobody_else()
        names = ", ".join(groups)
        return f"nobody else could be Master of {names}: this node stays at work" * bool(names)

    async def _drain(self, turn: int) -> None:
        addresses, serving = self._addresses, self._serving
        if addresses is not None:
            if self._directing is not None:
                self._directing.draining = True
            addresses.speak()
            await self._pause(HEARD)
            if turn != self._turn:
                return
            if addresses.leads:
                await self._hand_over(addresses, turn)
            else:
                addresses.drain(True)
        if turn != self._turn:
            return
        serving.rest(not self._serves)
        await self._in_time(self._unfinished, turn)
        if turn == self._turn and not self._serves:
            await serving.dismiss(LAST_TRANSACTIONS)
        if turn == self._turn:
            self._become(State.DRAINED)

    async def _hand_over(self, addresses: Addresses, turn: int) -> None:
        """Give the addresses away while no session needs them."""
        serving = self._serving
        if self._directing is not None:
            await self._in_time(self._occupied, turn)
        if turn != self._turn:
            return
        if alone := self._alone():
            _log.error("{reason}", reason=alone)
            self.end()
            self._why = alone
            return
        self._become(State.HANDING_OVER)
        hold_back(serving.listeners())
        try:
            await self._pause(OPENING)
            await self._while(self._open, self._handover(), turn)
            if turn != self._turn:
                return
            await self._part()
            addresses.drain(True)
            await self._while(lambda: addresses.holding, HEIR, turn)
        finally:
            # Whoever called it off has let them in, or stops and must not.
            if turn == self._turn:
                let_in(serving.listeners())
        if turn == self._turn:
            self._become(State.DRAINING)

    async def _part(self) -> None:
        """Say goodbye to who is in no transaction, as long as it arrives."""
        if self._occupied():
            self._serving.part()
            await self._pause(GOODBYE)

    async def _while(self, condition: Callable[[], bool], limit: float, turn: int) -> None:
        """Wait as long as ``condition`` holds, ``limit`` seconds at most, in this turn."""
        ends = self._clock.seconds() + limit
        while condition() and self._clock.seconds() < ends and turn == self._turn:
            await self._pause(LOOK)

    async def _in_time(self, condition: Callable[[], bool], turn: int) -> None:
        """Wait as long as ``condition`` holds, until the deadline, which may be moved."""
        await self._while(
            lambda: condition() and self._clock.seconds() < self._deadline, math.inf, turn
        )

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._clock, seconds)

    @property
    def _serves(self) -> bool:
        """Whether clients have nobody else: an address is here all the same."""
        return self._addresses is not None and self._addresses.leads

    def _look_at(self) -> None:
        if self.state is State.DRAINED:
            self._serving.rest(not self._serves)
