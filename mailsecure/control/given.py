"""What may be given to an option: texts and times, and what is said where they are none.

An empty text is refused, not passed over: ``--sender "$WHO"`` in a script whose variable is
empty would choose everybody's mail.  The commands name these types (no Twisted).
"""

from __future__ import annotations

import time
from typing import Any

import click

from ..errors import RemoteFault
from ..smtp.grammar import canonical_domain
from ..units import parse_seconds
from .lines import bare
from .moments import parse_moment

__all__ = ["Address", "Age", "Duration", "Moment", "Part"]


class Part(click.ParamType):  # type: ignore[type-arg] # generic since click 8.2
    """A text that is not empty."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the text."""
        if not value.strip():
            self.fail("it is empty; leave it out if it shall not matter", param, ctx)
        return value


class Address(Part):
    """An address, or a part of one, as it is kept.

    It may come with its brackets from the log, and its domain in the letters that people
    write; the queue has A-labels (RFC 5890 §2.3.2.1).  ``<>`` is itself.
    """

    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the address."""
        text = bare(super().convert(value, param, ctx))
        local, at, domain = text.rpartition("@")
        if not at or domain.isascii():
            return text
        try:
            return local + at + canonical_domain(domain)
        except RemoteFault:
            return text


class Duration(click.ParamType):  # type: ignore[type-arg] # generic since click 8.2
    """A duration as in the ini."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the seconds."""
        try:
            return parse_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg] # generic since click 8.2
    """A time as people say it; of a day its beginning, or its ``end``."""

    name = "time"

    def __init__(self, end: bool) -> None:
        self._end = end

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return Unix seconds."""
        now = time.time()
        try:
            found = parse_moment(value, now, self._end)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if found > now and not self._end:
            self.fail(f"{value!r} is still to come", param, ctx)
        return found


class Age(click.ParamType):  # type: ignore[type-arg] # generic since click 8.2
    """How long ago: a duration as in the ini, or a time as people say it."""

    name = "age"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the seconds."""
        try:
            return parse_seconds(value)
        except ValueError:
            pass
        now = time.time()
        try:
            ago = now - parse_moment(value, now)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if ago < 0:
            self.fail(f"{value!r} is still to come", param, ctx)
        return max(ago, 0.001)
