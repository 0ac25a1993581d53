"""Keeps the quarantine within its bounds: [quarantine] retention and max_size.

Every minute :class:`QuarantineKeeper` deletes what is held for longer than ``retention``
and, while all that is held takes more than ``max_size`` of the disk, what is oldest.  It
does so a page at a time, each a small transaction, with a turn of the reactor between, so
that mail hardly notices the end of a hundred thousand messages.  What is deleted is told,
message by message, to ``expired``, which ``assemble`` connects with the history.

A spool that is broken, full or slow is no reason to stop: the next minute comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..background import Periodic, background
from ..config.scanning import Quarantine as Settings
from ..errors import LocalFault
from ..units import format_octets, format_seconds
from ..world import World
from .api import Freed, QuarantineFilter, QuarantineListing, Spool

__all__ = ["QuarantineKeeper"]

_log = Logger(namespace="queue")

INTERVAL = 60.0
#: Messages that one transaction deletes at most.
PAGE = 100


class QuarantineKeeper:
    """The quarantine's housekeeping.

    ``expired`` is called with each message that was deleted and with why, in words.
    """

    def __init__(
        self, world: World, spool: Spool, settings: Settings, expired: Callable[[Freed, str], None]
    ) -> None:
        self._wall = world.wall
        self._clock = world.clock
        self._spool = spool
        self._settings = settings
        self._expired = expired
        self._round: Deferred[None] | None = None
        self._rounds = Periodic(self._clock, INTERVAL, "keeping the quarantine", self._begin)

    def start(self) -> None:
        """Begin; the first round comes after a minute."""
        self._rounds.start()

    def stop(self) -> Deferred[None]:
        """End; fires when nothing is under way any more.  Before the spool is closed."""
        self._rounds.stop()
        under_way = self._round
        if under_way is None:
            return succeed(None)
        under_way.cancel()
        return under_way

    def reconfigure(self, settings: Settings) -> None:
        """Take new bounds, which count from the next round on."""
        self._settings = settings

    def _begin(self) -> None:
        if self._round is None:
            self._round = background("keeping the quarantine", self.sweep())
            self._round.addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self._round = None

    async def sweep(self) -> None:
        """Delete what is too old, and what is too much."""
        try:
            await self._end_old()
            await self._end_surplus()
        except LocalFault as fault:
            _log.warn("cannot tidy the quarantine up: {reason}", reason=str(fault))

    async def _end_old(self) -> None:
        retention = self._settings.retention
        # 0 would be no bound at all: a clock that was never set.
        until = max(self._wall() - retention, 1.0)
        why = f"held for {format_seconds(retention)}"
        more = True
        while more:
            page = await self._spool.quarantined(QuarantineFilter(until=until), PAGE)
            # Of which a release may have taken some meanwhile: there are more all the same.
            more = await self._end(page, why) > 0 and len(page) == PAGE

    async def _end_surplus(self) -> None:
        most = self._settings.max_size
        why = f"the quarantine was larger than {format_octets(most)}"
        ended = 1
        while ended:
            _, _, stored = await self._spool.quarantine_totals()
            surplus = stored - most
            if surplus <= 0:
                return
            page = await self._spool.quarantined(QuarantineFilter(), PAGE)
            chosen = []
            for listing in page:
                if surplus <= 0:
                    break
                chosen.append(listing)
                surplus -= listing.stored
            ended = await self._end(chosen, why)

    async def _end(self, page: Sequence[QuarantineListing], why: str) -> int:
        """Delete a page; return how many messages somebody else had not taken before."""
        if not page:
            return 0
        ended = await self._spool.delete_quarantined([each.id for each in page])
        for each in ended:
            self._expired(each, why)
        if ended:
            _log.info(
                "{messages} messages left the quarantine: {reason}",
                messages=len(ended),
                reason=why,
            )
        await deferLater(self._clock, 0)
        return len(ended)
