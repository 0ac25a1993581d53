"""Python's garbage collector, tamed.

Nearly everything in mailsecure dies by its reference count.  The collector's full runs
look at every object alive: with ten thousand sessions that is tens of milliseconds in
which the reactor does nothing (design decision 10).  So what is there after the start is
frozen (never looked at again), and the youngest generation may grow much larger before
it is looked at; cycles, such as tracebacks make, are still found.
"""

from __future__ import annotations

import gc

__all__ = ["tame"]

#: Measured with ten thousand idle sessions: a young run at 20,000 objects takes some 2 ms,
#: and a full one comes after 400 of them instead of 100.
_THRESHOLDS = (20_000, 20, 20)


def tame() -> None:
    """Collect once, freeze what is left, and set the thresholds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
