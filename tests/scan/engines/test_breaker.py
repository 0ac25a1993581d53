"""The circuit breaker: its states one by one, and as a whole under any history."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
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
            self.breaker.failed(0, now)

    def test_in_a_row(self) -> None:
        """Only failures in a row count."""
        self.fail_times(2)
        self.breaker.succeeded(0)
        self.fail_times(2)
        self.assertIs(self.breaker.state, State.WELL)
        self.assertEqual(self.breaker.enter(0.0), 0)
        self.fail_times(1, 5.0)
        self.assertIs(self.breaker.state, State.DOWN)
        self.assertIsNone(self.breaker.enter(14.9))

    def test_trial(self) -> None:
        """After the pause one may enter, and decides."""
        self.fail_times(3)
        ticket = self.breaker.enter(10.0)
        assert ticket is not None
        self.assertIs(self.breaker.state, State.TRYING)
        self.assertFalse(self.breaker.would_enter(1000.0))
        self.assertIsNone(self.breaker.enter(1000.0))
        self.breaker.failed(ticket, 12.0)
        self.assertFalse(self.breaker.would_enter(31.9))
        ticket = self.breaker.enter(32.0)
        assert ticket is not None
        self.breaker.succeeded(ticket)
        self.assertEqual(self.breaker.enter(32.0), 0)

    def test_doubling(self) -> None:
        """Each pause is twice the one before, up to five minutes; a success begins anew."""
        self.fail_times(3)
        now, pauses = 0.0, []
        for _ in range(7):
            pauses.append(self.breaker.until - now)
            now = self.breaker.until
            ticket = self.breaker.enter(now)
            assert ticket is not None
            self.breaker.failed(ticket, now)
        self.assertEqual(pauses, [10, 20, 40, 80, 160, LONGEST_PAUSE, LONGEST_PAUSE])
        self.breaker.succeeded(0)
        self.fail_times(3, now)
        self.assertEqual(self.breaker.until, now + 10)

    def test_latecomers(self) -> None:
        """Failures that began before it opened prolong nothing; a success opens the door."""
        self.fail_times(3)
        self.fail_times(5, 9.0)
        self.assertEqual(self.breaker.until, 10.0)
        ticket = self.breaker.enter(10.0)
        self.fail_times(1, 10.0)
        self.assertIs(self.breaker.state, State.TRYING)
        self.breaker.succeeded(0)
        self.assertIs(self.breaker.state, State.WELL)
        assert ticket is not None
        self.breaker.left(ticket, 11.0)
        self.assertIs(self.breaker.state, State.WELL)

    def test_probe(self) -> None:
        """An answered ping lets messages in, on probation: one failure, and a longer pause."""
        self.fail_times(3)
        ticket = self.breaker.enter(10.0)
        assert ticket is not None
        self.breaker.probed(ticket)
        self.assertEqual(self.breaker.enter(10.0), 0)
        self.fail_times(1, 10.0)
        self.assertIs(self.breaker.state, State.DOWN)
        self.assertEqual(self.breaker.until, 30.0)

    def test_probe_while_well(self) -> None:
        """A ping proves too little to forgive failures of messages."""
        self.fail_times(2)
        self.breaker.probed(0)
        self.fail_times(1)
        self.assertIs(self.breaker.state, State.DOWN)

    def test_left(self) -> None:
        """A trial that proved nothing is repeated at once."""
        self.fail_times(3)
        ticket = self.breaker.enter(10.0)
        assert ticket is not None
        self.breaker.left(ticket, 10.5)
        self.assertIs(self.breaker.state, State.DOWN)
        self.assertEqual(self.breaker.enter(10.5), ticket + 1)


class History(RuleBasedStateMachine):
    """Visits begin and end in any order; what the breaker promises always holds."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(2, 1.0)
        self.now = 0.0
        self.visits: list[int] = []
        self.row = 0

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def enter(self) -> None:
        """Somebody comes."""
        before = self.breaker.state
        may = self.breaker.would_enter(self.now)
        ticket = self.breaker.enter(self.now)
        assert (ticket is not None) == may
        if before is State.WELL:
            assert ticket == 0
        elif ticket is not None:
            assert before is State.DOWN
            assert self.now >= self.breaker.until
            assert self.breaker.state is State.TRYING
            assert ticket not in self.visits
        if ticket is not None:
            self.visits.append(ticket)

    @rule(data=st.data(), end=st.sampled_from(["succeeded", "probed", "failed", "left"]))
    def end(self, data: st.DataObject, end: str) -> None:
        """A visit ends."""
        if not self.visits:
            return
        ticket = self.visits.pop(data.draw(st.integers(0, len(self.visits) - 1)))
        before = self.breaker.state
        if end == "succeeded":
            self.breaker.succeeded(ticket)
            assert self.breaker.state is State.WELL
        elif end == "probed":
            self.breaker.probed(ticket)
            assert (self.breaker.state is State.WELL) or self.breaker.state is before
        elif end == "failed":
            self.breaker.failed(ticket, self.now)
            assert self.breaker.state is not State.WELL or before is State.WELL
        else:
            self.breaker.left(ticket, self.now)
            assert (before, self.breaker.state) != (State.WELL, State.DOWN)

    @invariant()
    def never_for_ever(self) -> None:
        """Whatever happened: no pause is longer than the longest, and a trial is under way."""
        if self.breaker.state is State.DOWN:
            assert self.breaker.until <= self.now + LONGEST_PAUSE
        if self.breaker.state is State.TRYING:
            assert any(self.visits)


class HistoryTests(SynchronousTestCase):
    """Any history."""

    def test_any(self) -> None:
        """Many of them."""
        run_state_machine_as_test(
            History, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
