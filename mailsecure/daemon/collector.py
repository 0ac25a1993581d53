"""Python's garbage collector, tamed.

Nearly everything in mailsecure dies by its reference count.  The collector's full runs
look at every object alive and keep the reactor waiting meanwhile (design decision 10).
So what is there after the start is frozen, never to be looked at again; the young are
looked at in portions of a few milliseconds; and a full run comes only after two million
more containers were made than went, which sessions alone cannot do.  Cycles, such as
tracebacks make, are nearly always young and still found.
"""

from __future__ import annotations

import gc

__all__ = ["tame"]

#: Measured while 9,000 sessions were opened and stayed, and then 12,000 messages relayed, on
#: two cores that had four times as much to do.  Python's own (700, 10, 10) without freezing:
#: full runs of 98 and 280 ms.  (700, 10, 10): full runs of 11 and 30 ms.  (5_000, 20, 20): the
#: middle generation took 23 ms at once.  (20_000, 20, 20): 3 to 6 ms for the youngest alone.
#: These: some 1 ms for the youngest, 3 ms for the middle one, no full run; and hardly any runs
#: while messages are relayed, whatever the thresholds, because little of them is in cycles.
_THRESHOLDS = (5_000, 2, 200)


def tame() -> None:
    """Collect once, freeze what is left, and set the thresholds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
