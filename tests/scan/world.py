"""A world and a site for tests of checks: a clock in hand, a DNS in a dictionary."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from mailsecure.config.load import parse_config
from mailsecure.scan.api import Site
from mailsecure.scan.values import Facts
from mailsecure.smtp.envelope import Recipient
from mailsecure.testing.resolver import FakeResolver, Zone
from mailsecure.testing.workers import InlineWorkers
from mailsecure.world import World

#: When our tests play, in Unix seconds.
NOW = 1_800_000_000


class Scene:
    """A site, and what the test moves: ``clock``, ``wall``, ``zone``."""

    def __init__(self, ini: str = "", zone: Zone | None = None, state: Path | str = ".") -> None:
        self.clock = Clock()
        self.offset = float(NOW)
        self.resolver = FakeResolver(zone)
        self.world = World(None, self.clock, self.wall, random.Random(1), self.resolver)
        self.config = parse_config(ini, "test.ini")
        self.line: Any = None
        self.state = Path(state)

    def wall(self) -> float:
        """Return Unix time, which goes with the clock."""
        return self.offset + self.clock.seconds()

    @property
    def zone(self) -> Zone:
        """The DNS."""
        return self.resolver.zone

    def site(self) -> Site:
        """Return what a maker is given."""
        line = None if self.line is None else lambda: self.line
        return Site(self.config, self.world, InlineWorkers(), self.state, line)


def stranger(**known: Any) -> Facts:
    """Return the facts of a client of which nothing bad is known."""
    facts: dict[str, Any] = {
        "session": "s1",
        "client": "192.0.2.1",
        "helo": "mx.example.net",
        "reverse_path": "a@example.net",
        "sender_domain": "example.net",
        "recipient": Recipient("u@us.example", "us.example"),
    }
    return Facts(**(facts | known))
