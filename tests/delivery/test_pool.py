"""The pool keeps its limits, its order and its connections, and survives their loss."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.delivery.pool import RELENT, ConnectionPool, PoolLimits
from mailsecure.smtp.replies import Reply
from mailsecure.smtp.sending import CouldNotOpen
from mailsecure.smtp.transaction import Capabilities

REFUSED = Reply(421, "4.7.0", "Too many connections")


class FakeConnection:
    """What the pool sees of a connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.usable = True
        self.left = False
        self.messages = 0
        self.capabilities = Capabilities()
        self.lost = None

    def leave(self) -> None:
        self.usable = False
        self.left = True

    def die(self) -> None:
        self.usable = False
        if self.lost is not None:
            self.lost(self)


class PoolTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.attempts: list[Deferred[FakeConnection]] = []
        self.made: list[FakeConnection] = []
        self.at_once = True
        self.pool = self.make(2)

    def make(self, concurrency: int, reuse_count: int = 100) -> ConnectionPool:
        limits = PoolLimits(concurrency, 5.0, reuse_count)
        return ConnectionPool(self.clock, limits, self.open)

    async def open(self) -> FakeConnection:
        if not self.at_once:
            attempt: Deferred[FakeConnection] = Deferred()
            self.attempts.append(attempt)
            await attempt
        self.made.append(FakeConnection(len(self.made)))
        return self.made[-1]

    def acquire(self, fresh: bool = False) -> Deferred[FakeConnection]:
        return Deferred.fromCoroutine(self.pool.acquire(fresh))

    def got(self, fresh: bool = False) -> FakeConnection:
        return self.successResultOf(self.acquire(fresh))

    def test_limit_and_order(self):
        first, second = self.got(), self.got()
        third, fourth = self.acquire(), self.acquire()
        self.assertNoResult(third)
        self.assertEqual(self.pool.connections, 2)
        self.pool.release(second)
        self.assertIs(self.successResultOf(third), second)
        self.pool.release(first)
        self.assertIs(self.successResultOf(fourth), first)

    def test_last_used_is_taken_first(self):
        first, second = self.got(), self.got()
        self.pool.release(first)
        self.pool.release(second)
        self.assertIs(self.got(), second)

    def test_idle_ones_leave_in_time(self):
        first, second = self.got(), self.got()
        self.pool.release(first)
        self.clock.advance(3)
        self.pool.release(second)
        self.clock.advance(2)
        self.assertEqual((first.left, second.left), (True, False))
        self.clock.advance(3)
        self.assertTrue(second.left)
        self.assertTrue(self.pool.unused)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_number_of_messages(self):
        self.pool = self.make(2, reuse_count=3)
        first = self.got()
        first.messages = 3
        self.pool.release(first)
        self.assertTrue(first.left)
        second = self.got()
        second.capabilities = Capabilities(mail_max=1)
        second.messages = 1
        self.pool.release(second)
        self.assertTrue(second.left)

    def test_lost_connection_makes_room(self):
        first, second = self.got(), self.got()
        third = self.acquire()
        first.die()
        self.pool.release(first)
        self.assertEqual(self.successResultOf(third).number, 2)
        second.die()
        self.assertEqual(self.pool.connections, 1)

    def test_lost_while_idle(self):
        first = self.got()
        self.pool.release(first)
        first.die()
        self.assertIsNone(self.pool.take_idle())
        self.assertTrue(self.pool.unused)
        self.clock.advance(10)
        self.assertFalse(first.left)

    def test_fresh(self):
        first, second = self.got(), self.got()
        self.pool.release(first)
        self.pool.release(second)
        third = self.got(fresh=True)
        self.assertEqual(third.number, 2)
        self.assertTrue(second.left)
        self.assertEqual(self.pool.connections, 2)

    def fail(self, attempt: Deferred) -> None:  # type: ignore[override]
        attempt.errback(CouldNotOpen(REFUSED))

    def test_down_for_all(self):
        self.at_once = False
        self.pool = self.make(1)
        first, second, third = self.acquire(), self.acquire(), self.acquire()
        self.fail(self.attempts[0])
        for one in (first, second, third):
            self.failureResultOf(one, CouldNotOpen)
        self.assertTrue(self.pool.unused)

    def test_one_too_many_waits(self):
        self.pool = self.make(5)
        first = self.got()
        self.at_once = False
        second = self.acquire()
        self.fail(self.attempts[0])
        third = self.acquire()
        self.assertEqual(len(self.attempts), 1)
        self.pool.release(first)
        self.assertIs(self.successResultOf(second), first)
        self.pool.release(first)
        self.assertIs(self.successResultOf(third), first)
        self.clock.advance(RELENT)
        self.acquire()
        self.assertEqual(len(self.attempts), 2)

    def test_one_too_many_and_then_none(self):
        self.pool = self.make(5)
        first = self.got()
        self.at_once = False
        second = self.acquire()
        self.fail(self.attempts[0])
        first.die()
        # The only one is gone: who waits tries again, and hears the truth.
        self.fail(self.attempts[1])
        self.failureResultOf(second, CouldNotOpen)

    def test_refused_while_another_opens(self):
        self.at_once = False
        first, second = self.acquire(), self.acquire()
        self.fail(self.attempts[1])
        self.assertNoResult(second)
        self.attempts[0].callback(None)
        self.pool.release(self.successResultOf(first))
        self.assertEqual(self.successResultOf(second).number, 0)

    def test_cancelled(self):
        self.pool = self.make(1)
        self.at_once = False
        first, second, third = self.acquire(), self.acquire(), self.acquire()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        # The one who waits gets the turn of the one who gave up.
        self.attempts[1].callback(None)
        self.assertEqual(self.successResultOf(third).number, 0)

    def test_close(self):
        first, second = self.got(), self.got()
        self.pool.release(first)
        self.successResultOf(Deferred.fromCoroutine(self.pool.close()))
        self.assertTrue(first.left)
        self.assertFalse(second.left)
        self.pool.release(second)
        self.assertTrue(second.left)
        self.assertEqual(self.clock.getDelayedCalls(), [])
