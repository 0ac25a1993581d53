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

A group that nobody else could take is not given up: :meth:`Drain.begin` refuses.  If the
others fail later, the address comes back here, and while it does we serve.

The states are those of :class:`State`; ``assemble`` makes one :class:`Drain`.
"""

from __future__ import annotations

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

#: Seconds: until the others have heard, between looks, for connections that the kernel has
#: accepted already, for an heir to take the addresses, for a goodbye to arrive.
HEARD = 0.2
LOOK = 0.02
BACKLOG = 0.02
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
        """Return the groups that we are Master of and no other node could be."""

    def speak(self) -> None:
        """Say hello now: our fitness has changed."""

    def drain(self, draining: bool) -> None:
        """Have all groups stand back, or come forward again."""


class Drain:
    """See the module's text.  ``handover`` is ``handover_timeout``, in seconds."""

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
        """Return ``state``, open ``sessions``, ``directed`` ones, and seconds ``left``."""
        directed = 0 if self._directing is None else self._directing.sessions
        busy = self.state in (State.DRAINING, State.HANDING_OVER)
        return {
            "state": self.state.value,
            "sessions": self._serving.count_sessions(),
            "directed": directed,
            "left": max(0.0, self._deadline - self._clock.seconds()) if busy else 0.0,
        }

    # -- a postmaster's words

    def begin(self, seconds: float) -> None:
        """Drain; sessions may take ``seconds`` to end by themselves.

        While it drains already, that is a new deadline.  LocalFault: nobody else could hold
        a virtual address that is ours.
        """
        addresses = self._addresses
        alone = [] if addresses is None else addresses.nobody_else()
        if alone and self.state is State.WORKING:
            raise LocalFault(
                f"nobody else could be Master of {', '.join(alone)}: this node stays at work"
            )
        self._deadline = self._clock.seconds() + seconds
        if self.state is not State.WORKING:
            return
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

    async def leave(self) -> None:
        """Do what a stop needs of it: hand the addresses over once no session runs."""
        addresses = self._addresses
        self._turn += 1
        self._look.stop()
        if addresses is None or not self._open():
            return
        self.state = State.HANDING_OVER
        if self._directing is not None:
            self._directing.draining = True
        addresses.speak()
        if addresses.leads:
            hold_back(self._serving.listeners())
        # The stop closes what was held back; it never comes to us again.
        await self._while(self._open, self._handover(), self._turn)

    # -- the way

    def _become(self, state: State) -> None:
        self.state = state
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

    async def _drain(self, turn: int) -> None:
        addresses, serving = self._addresses, self._serving
        if addresses is not None:
            if self._directing is not None:
                self._directing.draining = True
            addresses.speak()
            await self._pause(HEARD)
            if addresses.leads and turn == self._turn:
                await self._hand_over(addresses, turn)
        if turn != self._turn:
            return
        serving.rest(not self._serves)
        while self._open() and self._clock.seconds() < self._deadline and turn == self._turn:
            await self._pause(LOOK)
        if turn == self._turn:
            await serving.dismiss(LAST_TRANSACTIONS)
        if turn == self._turn:
            self._become(State.DRAINED)

    async def _hand_over(self, addresses: Addresses, turn: int) -> None:
        """Give the addresses away while no session needs them."""
        serving = self._serving
        if self._directing is not None:
            left = self._deadline - self._clock.seconds()
            await self._while(lambda: serving.count_sessions() > 0, left, turn)
        if turn != self._turn:
            return
        self._become(State.HANDING_OVER)
        hold_back(serving.listeners())
        try:
            await self._pause(BACKLOG)
            await self._while(self._open, self._handover(), turn)
            if turn != self._turn:
                return
            if serving.count_sessions():
                serving.part()
                await self._pause(GOODBYE)
            addresses.drain(True)
            await self._while(lambda: addresses.holding, HEIR, turn)
        finally:
            let_in(serving.listeners())
        if turn == self._turn:
            self._become(State.DRAINING)

    async def _while(self, condition: Callable[[], bool], limit: float, turn: int) -> None:
        """Wait as long as ``condition`` holds, ``limit`` seconds at most."""
        ends = self._clock.seconds() + limit
        while condition() and self._clock.seconds() < ends and turn == self._turn:
            await self._pause(LOOK)

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._clock, seconds)

    @property
    def _serves(self) -> bool:
        """Whether clients have nobody else: an address is here all the same."""
        return self._addresses is not None and self._addresses.leads

    def _look_at(self) -> None:
        if self.state is State.DRAINED:
            self._serving.rest(not self._serves)
