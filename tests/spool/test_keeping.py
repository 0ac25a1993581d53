"""The quarantine stays within its bounds, whatever the spool says."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import Quarantine
from mailsecure.spool import keeping
from mailsecure.spool.api import Freed, QuarantineFilter, SpoolBroken
from mailsecure.spool.ids import MessageId
from mailsecure.spool.keeping import INTERVAL, PAGE, QuarantineKeeper
from mailsecure.testing.spool import MemorySpool
from mailsecure.units import Octets, Seconds
from mailsecure.world import World

from .support import new_message

NOW = 1_000_000_000.0
DAY = 86400.0


def bounds(retention: float = 30 * DAY, max_size: int = 1 << 30) -> Quarantine:
    """The section of the ini."""
    return Quarantine(retention=Seconds(retention), max_size=Octets(max_size))


class KeeperTests(SynchronousTestCase):
    """:class:`QuarantineKeeper` over a spool in memory."""

    def setUp(self) -> None:
        """A keeper that has started, of a spool that is open."""
        self.clock = Clock()
        self.spool = MemorySpool()
        self.spool.open()
        self.told: list[tuple[Freed, str]] = []
        anything: Any = None
        world = World(
            anything, self.clock, lambda: NOW + self.clock.seconds(), random.Random(1), anything
        )
        self.keeper = QuarantineKeeper(
            world, self.spool, bounds(), lambda freed, why: self.told.append((freed, why))
        )
        self.keeper.start()

    def hold(self, count: int, arrived: float, octets: int = 10) -> list[MessageId]:
        """Have messages in the quarantine."""
        messages = [
            new_message(due=arrived + n, body=b"x" * octets, held=(0,)) for n in range(count)
        ]
        for each in messages:
            self.successResultOf(self.spool.accept(each))
        return [each.id for each in messages]

    def left(self) -> list[MessageId]:
        """Return what is still held."""
        return [
            each.id
            for each in self.successResultOf(self.spool.quarantined(QuarantineFilter(), 9999))
        ]

    def round(self) -> None:
        """Let a minute pass, and the turns that a round takes."""
        self.clock.pump([INTERVAL, *[0.0] * 50])

    def test_old(self) -> None:
        """What was held long enough goes, in slices, and each is told."""
        old = self.hold(2 * PAGE + 50, NOW - 31 * DAY)
        young = self.hold(3, NOW - 29 * DAY)
        delete = mock.Mock(side_effect=self.spool.delete_quarantined)
        self.patch(self.spool, "delete_quarantined", delete)
        self.round()
        self.assertEqual([len(call.args[0]) for call in delete.mock_calls], [PAGE, PAGE, 50])
        self.assertEqual(self.left(), young)
        self.assertEqual([freed.id for freed, _ in self.told], old)
        self.assertEqual(self.told[0], (Freed(old[0], ("a@one.example",)), "held for 30d"))

    def test_beside_a_release(self) -> None:
        """What a release takes out of a page does not end the round."""
        self.hold(2 * PAGE + 50, NOW - 31 * DAY)
        real = self.spool.delete_quarantined

        def delete(ids: Any) -> Any:
            self.spool.release_quarantined(ids[:1], NOW)
            return real(ids)

        self.patch(self.spool, "delete_quarantined", delete)
        self.round()
        self.assertEqual(self.left(), [])

    def test_just_now(self) -> None:
        """Neither a second too early nor a round too late."""
        (held,) = self.hold(1, NOW - 30 * DAY + INTERVAL + 1)
        self.round()
        self.assertEqual(self.left(), [held])
        self.round()
        self.assertEqual(self.left(), [])

    def test_surplus(self) -> None:
        """The oldest go until the rest fits; who is queued as well is still served."""
        self.keeper.reconfigure(bounds(max_size=1000))
        mixed = new_message("a@one.example", "b@one.example", due=NOW - 99, body=b"x" * 500)
        mixed.quarantine = new_message(held=(1,)).quarantine
        self.successResultOf(self.spool.accept(mixed))
        ids = self.hold(10, NOW - 50, 100)
        self.round()
        self.assertEqual(self.left(), ids)
        self.assertEqual([freed.id for freed, _ in self.told], [mixed.id])
        self.assertEqual(self.successResultOf(self.spool.totals()), (1, 1, 500))
        self.hold(1, NOW, 250)
        self.round()
        self.assertEqual(len(self.left()), 8)
        self.assertEqual(self.told[-1][1], "the quarantine was larger than 1000")

    def test_much_surplus(self) -> None:
        """More than a page is too much: all of it goes in one round."""
        self.hold(3 * PAGE, NOW - 50, 100)
        self.keeper.reconfigure(bounds(max_size=500))
        self.round()
        self.assertEqual(len(self.left()), 5)

    def test_clock_that_was_never_set(self) -> None:
        """With the time of 1970 nothing is old."""
        self.hold(3, 1000.0)
        self.keeper.reconfigure(bounds(retention=NOW + INTERVAL))
        self.round()
        self.assertEqual(len(self.left()), 3)

    def test_broken_spool(self) -> None:
        """A fault is logged, and the next round is another chance."""
        log = mock.Mock()
        self.patch(keeping, "_log", log)
        self.hold(1, NOW - 31 * DAY)
        self.spool.fail_with = SpoolBroken("no disk")
        self.round()
        log.warn.assert_called_once_with(
            "cannot tidy the quarantine up: {reason}", reason="no disk"
        )
        self.spool.fail_with = None
        self.round()
        self.assertEqual(self.left(), [])

    def test_somebody_was_quicker(self) -> None:
        """What a postmaster releases meanwhile is no reason to go round for ever."""
        self.hold(PAGE, NOW - 31 * DAY)
        calls: list[Any] = []

        def nobody(ids: Any, recipients: Any = ()) -> Deferred[Any]:
            calls.append(ids)
            done: Deferred[Any] = Deferred()
            done.callback([])
            return done

        self.patch(self.spool, "delete_quarantined", nobody)
        self.keeper.reconfigure(bounds(max_size=0))
        self.round()
        self.assertEqual(len(calls), 2)
        self.assertEqual(self.told, [])

    def test_one_round_at_a_time(self) -> None:
        """A spool that hangs is asked once; stop does not wait for it."""
        waiting: Deferred[Any] = Deferred()
        asked = mock.Mock(return_value=waiting)
        self.patch(self.spool, "quarantined", asked)
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(asked.call_count, 1)
        self.successResultOf(self.keeper.stop())
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(asked.call_count, 1)

    def test_bug(self) -> None:
        """An unexpected exception ends a round, not the keeper."""
        self.patch(self.spool, "quarantined", lambda *_: fail(ValueError("a bug")))
        self.round()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.round()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.successResultOf(self.keeper.stop())
