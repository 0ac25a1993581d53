"""Moments as people say them: ``8h``, ``yesterday``, ``2026-11-30 08:15`` (pure).

All is UTC, as everything that the commands show, unless an offset is given.  A day may be a
beginning or an end: ``--since yesterday --until yesterday`` is the whole of it.  A time of
day is the last one that was: who says ``23:15`` after midnight means yesterday's.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..units import parse_seconds

__all__ = ["EXAMPLES", "parse_moment"]

EXAMPLES = "8h (ago), today, this morning, yesterday, 08:15, 2026-11-30, 2026-11-30T08:15+01:00"
_DAY = timedelta(days=1)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def parse_moment(text: str, now: float, end: bool = False) -> float:
    """Return the Unix time that ``text`` means at Unix time ``now``.

    A day, or a part of one, means its beginning; its end if ``end``.  ValueError: with what
    could have been said.
    """
    words = " ".join(text.lower().split())
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    spans = {
        "today": (today, _DAY),
        "yesterday": (today - _DAY, _DAY),
        "this morning": (today, _DAY / 2),
    }
    if words == "now":
        return now
    if words in spans:
        begin, length = spans[words]
        return (begin + length * end).timestamp()
    if match := _CLOCK.fullmatch(words):
        hour, minute, second = (int(part or 0) for part in match.groups())
        if hour < 24 and minute < 60 and second < 60:
            clock = today + timedelta(hours=hour, minutes=minute, seconds=second)
            return (clock if clock.timestamp() <= now else clock - _DAY).timestamp()
    try:
        return now - parse_seconds(words)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        if end and _DATE.fullmatch(words):
            moment += _DAY
        seconds = moment.timestamp()
        if seconds < 0:
            raise ValueError("before 1970")
        return seconds
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write {EXAMPLES}") from None
