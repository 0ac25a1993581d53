"""The retry schedule: waits that grow, vary by a tenth, and end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.delivery.retry import RetryPolicy

POLICY = RetryPolicy((300.0, 600.0, 1200.0), 86400.0, 14400.0)
chance = st.floats(0, 1, exclude_max=True)


class RetryPolicyTests(SynchronousTestCase):
    """RetryPolicy, from the ini's values to times."""

    def test_from_settings(self) -> None:
        """The ini's options are the policy."""
        config = parse_config("[delivery]\nretry = 1m 2m\nexpire = 2d\nwarn_after = 1h\n", "x")
        self.assertEqual(
            RetryPolicy.of(config.delivery), RetryPolicy((60.0, 120.0), 172800.0, 3600.0)
        )

    def test_waits(self) -> None:
        """Waits grow with the failures; the last repeats."""
        waits = [POLICY.wait(failures, 0.5) for failures in (0, 1, 2, 3, 4, 99)]
        for wait, expected in zip(waits, (300, 300, 600, 1200, 1200, 1200), strict=True):
            self.assertAlmostEqual(wait, expected)

    @given(st.integers(0, 50), chance)
    def test_jitter(self, failures: int, chance: float) -> None:
        """A wait varies by a tenth and no more."""
        middle = POLICY.wait(failures, 0.5)
        self.assertTrue(0.899 * middle <= POLICY.wait(failures, chance) <= 1.101 * middle)

    @given(st.integers(0, 50), st.floats(0, 200_000), chance)
    def test_next_attempt(self, attempts: int, age: float, chance: float) -> None:
        """The next attempt is in the future, and before the end unless that has passed."""
        due = POLICY.next_attempt(1000.0, attempts, 1000.0 + age, chance)
        self.assertGreater(due, 1000.0 + age)
        if age < 86400.0:
            self.assertLessEqual(due, 1000.0 + 86400.0)

    def test_last_wait_is_cut(self) -> None:
        """The last attempt comes when the message expires."""
        self.assertEqual(POLICY.next_attempt(0.0, 9, 86000.0, 0.5), 86400.0)
        self.assertAlmostEqual(POLICY.next_attempt(0.0, 9, 86400.0, 0.5), 87600.0)

    def test_expiry(self) -> None:
        """A message expires at its age, not before."""
        self.assertFalse(POLICY.expired(0.0, 86399.9))
        self.assertTrue(POLICY.expired(0.0, 86400.0))

    def test_warning(self) -> None:
        """A warning is due after its time; 0 means never."""
        self.assertFalse(POLICY.warning_due(0.0, 14399.9))
        self.assertTrue(POLICY.warning_due(0.0, 14400.0))
        self.assertFalse(RetryPolicy((1.0,), 10.0, 0.0).warning_due(0.0, 1e9))
