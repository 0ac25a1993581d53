"""The circuit breaker: its states one by one, and as a whole under any history."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.engines.breaker import LONGEST_PAUSE, Breaker, State


class BreakerTests(SynchronousTestCase):
    """Three failures, ten seconds."""

    def setUp(self) -> None:
        self.breaker = Breaker(3, 10.0)

    def fail_times(self, times: int, now: float = 0.0) -> None:
        for _ in range(times):
            self.breaker.failed(now)

    def test_in_a_row(self) -> None:
        """Only failures in a row count."""
        self.fail_times(2)
        self.breaker.succeeded()
        self.fail_times(2)
        self.assertIs(self.breaker.state, State.WELL)
        self.assertTrue(self.breaker.lets_in)
        self.fail_times(1, 5.0)
        self.assertIs(self.breaker.state, State.DOWN)
        self.assertFalse(self.breaker.lets_in)
        self.assertFalse(self.breaker.try_out(14.9))

    def test_trial(self) -> None:
        """After the pause there is one trial, no message's, and it decides."""
        self.assertFalse(self.breaker.try_out(0.0))
        self.fail_times(3)
        self.assertTrue(self.breaker.try_out(10.0))
        self.assertIs(self.breaker.state, State.TRYING)
        self.assertFalse(self.breaker.try_out(1000.0))
        self.assertFalse(self.breaker.lets_in)
        self.breaker.unanswered(12.0)
        self.assertFalse(self.breaker.try_out(21.9))
        self.assertTrue(self.breaker.try_out(22.0))
        self.breaker.answered()
        self.assertTrue(self.breaker.lets_in)

    def test_doubling(self) -> None:
        """Who comes back only to fail is left alone twice as long, up to five minutes.

        As long as it only stays away it is asked again and again.
        """
        self.fail_times(3)
        now, pauses = 0.0, []
        for _ in range(7):
            pauses.append(self.breaker.until - now)
            now = self.breaker.until
            self.breaker.try_out(now)
            self.breaker.unanswered(now)
            self.assertEqual(self.breaker.until - now, pauses[-1])
            now = self.breaker.until
            self.breaker.try_out(now)
            self.breaker.answered()
            self.breaker.failed(now)
        self.assertEqual(pauses, [10, 20, 40, 80, 160, LONGEST_PAUSE, LONGEST_PAUSE])
        self.breaker.succeeded()
        self.fail_times(3, now)
        self.assertEqual(self.breaker.until, now + 10)

    def test_latecomers(self) -> None:
        """Failures that began before it opened prolong nothing; a success opens the door."""
        self.fail_times(3)
        self.fail_times(5, 9.0)
        self.breaker.unanswered(9.0)
        self.assertEqual(self.breaker.until, 10.0)
        self.breaker.try_out(10.0)
        self.fail_times(1, 10.0)
        self.assertIs(self.breaker.state, State.TRYING)
        self.breaker.succeeded()
        self.assertIs(self.breaker.state, State.WELL)
        self.breaker.left(11.0)
        self.assertIs(self.breaker.state, State.WELL)

    def test_probation(self) -> None:
        """An answered ping lets messages in, on probation: one failure, and a longer pause."""
        self.fail_times(3)
        self.breaker.try_out(10.0)
        self.breaker.answered()
        self.fail_times(1, 10.0)
        self.assertIs(self.breaker.state, State.DOWN)
        self.assertEqual(self.breaker.until, 30.0)

    def test_probe_while_well(self) -> None:
        """A ping proves too little to forgive failures; unanswered it is one itself."""
        self.fail_times(1)
        self.breaker.answered()
        self.breaker.unanswered(0.0)
        self.assertTrue(self.breaker.lets_in)
        self.breaker.unanswered(0.0)
        self.assertIs(self.breaker.state, State.DOWN)

    def test_doubts(self) -> None:
        """Messages that were not judged never open it, unless the scanner does not answer."""
        for _ in range(100):
            self.breaker.doubted()
        self.assertTrue(self.breaker.lets_in)
        self.breaker.answered()
        self.breaker.unanswered(0.0)
        self.assertTrue(self.breaker.lets_in)
        self.breaker.doubted()
        self.breaker.unanswered(0.0)
        self.assertIs(self.breaker.state, State.DOWN)
        self.breaker.doubted()
        self.assertEqual(self.breaker.doubts, 0)

    def test_doubts_forgiven(self) -> None:
        """A message that was judged clears the scanner of them."""
        self.breaker.doubted()
        self.breaker.doubted()
        self.breaker.succeeded()
        self.breaker.unanswered(0.0)
        self.assertTrue(self.breaker.lets_in)

    def test_left(self) -> None:
        """A trial that proved nothing is repeated at once."""
        self.fail_times(3)
        self.breaker.try_out(10.0)
        self.breaker.left(10.5)
        self.assertIs(self.breaker.state, State.DOWN)
        self.assertTrue(self.breaker.try_out(10.5))


class History(RuleBasedStateMachine):
    """Messages and probes end in any order; what the breaker promises always holds."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(2, 1.0)
        self.now = 0.0
        self.probing = False
        #: Whether anything but messages has failed since the last success.
        self.struck = False

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def succeed(self) -> None:
        """A message is judged, whenever it came."""
        self.breaker.succeeded()
        assert self.breaker.lets_in
        self.struck = False

    @rule()
    def doubt(self) -> None:
        """A message is not."""
        before = self.breaker.state
        self.breaker.doubted()
        assert self.breaker.state is before

    @rule()
    def fail(self) -> None:
        """No connection."""
        before = self.breaker.state
        self.breaker.failed(self.now)
        self.struck = True
        assert self.breaker.state is before or before is State.WELL

    @precondition(lambda self: not self.probing)
    @rule()
    def ask(self) -> None:
        """A probe begins."""
        before = self.breaker.state
        due = before is State.DOWN and self.now >= self.breaker.until
        assert self.breaker.try_out(self.now) == due
        self.probing = due or before is State.WELL

    @precondition(lambda self: self.probing)
    @rule(end=st.sampled_from(["answered", "unanswered", "left"]))
    def end(self, end: str) -> None:
        """It ends."""
        before = self.breaker.state
        self.probing = False
        if end == "answered":
            self.breaker.answered()
            assert self.breaker.lets_in or before is State.DOWN
        elif end == "unanswered":
            self.breaker.unanswered(self.now)
            self.struck = True
        else:
            self.breaker.left(self.now)
        if before is State.TRYING and end != "answered":
            assert self.breaker.state is State.DOWN

    @invariant()
    def promises(self) -> None:
        """Messages alone open nothing; no pause is for ever, and a trial is under way."""
        assert self.breaker.lets_in or self.struck
        if self.breaker.state is State.DOWN:
            assert self.breaker.until <= self.now + LONGEST_PAUSE
        if self.breaker.state is State.TRYING:
            assert self.probing


class HistoryTests(SynchronousTestCase):
    """Any history."""

    def test_any(self) -> None:
        """Many of them."""
        run_state_machine_as_test(
            History, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
