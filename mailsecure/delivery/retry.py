"""When to try again, when to warn, when to give up (pure).

RFC 5321 §4.5.4.1 asks for retries with growing waits over four to five days, RFC 3461
§5.2.6 leaves to us when a sender is told of a delay.  The waits come from the ini and
the last one repeats.  Each is varied by a tenth either way, so that messages which
failed together do not come back together.

A *recipient* waits by the number of attempts that were made for it.  A *next hop* that
cannot be reached waits by the number of its failures in a row; what is queued for it
waits with it and is not attempted.

All times are Unix seconds.  ``chance`` is a random number from 0 up to 1, drawn by the
caller from ``World.rng``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config.model import Delivery

__all__ = ["RetryPolicy"]

#: The part of a wait by which it is varied.
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The schedule: ``waits`` in seconds (at least one), ``expire``, ``warn_after`` (0: never)."""

    waits: tuple[float, ...]
    expire: float
    warn_after: float

    @classmethod
    def of(cls, settings: Delivery) -> RetryPolicy:
        """Return the policy that [delivery] asks for."""
        return cls(settings.retry, settings.expire, settings.warn_after)

    def wait(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after so many failures in a row (from 1 on)."""
        place = min(max(failures, 1), len(self.waits)) - 1
        return self.waits[place] * (1 - JITTER + 2 * JITTER * chance)

    def next_attempt(self, arrived: float, attempts: int, now: float, chance: float) -> float:
        """Return when a recipient is due after its ``attempts``-th attempt, made ``now``.

        Never later than when the message expires, so that no sender waits a whole last
        interval for the bounce.
        """
        due = now + self.wait(attempts, chance)
        end = arrived + self.expire
        return min(due, end) if end > now else due

    def expired(self, arrived: float, now: float) -> bool:
        """Say whether the next deferral of a message is its last."""
        return now - arrived >= self.expire

    def warning_due(self, arrived: float, now: float) -> bool:
        """Say whether the sender should have been told of the delay by now."""
        return 0 < self.warn_after <= now - arrived
