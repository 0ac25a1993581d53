"""What :mod:`.links` knows of one node, and what of that status shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from .link import Link
from .verify import Verification

__all__ = ["FIRST_DELAY", "LinkState", "Peer", "Place"]

#: An address and a port.
Place = tuple[str, int]

#: Seconds from a failure to the next attempt, at first.
FIRST_DELAY = 0.1


@dataclass(frozen=True, slots=True)
class LinkState:
    """What status shows of the link to one node.

    ``since``: seconds that it is up, or down.  ``round_trip``: seconds, None before the
    first PING has come back.  ``connects``: how often it came up; ``failures``: attempts
    that failed, and links that ended otherwise than by us or a BYE; ``reason``: why the
    last one did, or "".
    """

    up: bool
    since: float
    round_trip: float | None
    connects: int
    failures: int
    reason: str
    version: str


class Peer:
    """One node.  Only :class:`~.links.Links` changes it."""

    __slots__ = (
        "believed",
        "buried",
        "connector",
        "connects",
        "delay",
        "failures",
        "link",
        "place",
        "reason",
        "retry",
        "since",
        "verification",
        "version",
    )

    def __init__(self, now: float) -> None:
        #: Where it is; None where membership does not know it.
        self.place: Place | None = None
        self.link: Link | None = None
        #: The attempt to connect, the next one, and what is waited before the one after.
        self.connector: Any = None
        self.retry: IDelayedCall | None = None
        self.delay = FIRST_DELAY
        self.verification: Verification | None = None
        #: The instance that was said to be gone; whether its refusals are to be believed.
        self.buried = ""
        self.believed = True
        self.since = now
        self.connects = 0
        self.failures = 0
        self.reason = ""
        self.version = ""

    def state(self, now: float) -> LinkState:
        """Return what status shows."""
        link = self.link
        return LinkState(
            up=link is not None,
            since=now - self.since,
            round_trip=link.round_trip if link is not None else None,
            connects=self.connects,
            failures=self.failures,
            reason=self.reason,
            version=self.version,
        )

    def end_verification(self) -> None:
        """Ask no more whether it is dead."""
        verification, self.verification = self.verification, None
        if verification is not None:
            verification.cancel()

    def end_retry(self) -> None:
        """Make no attempt to connect later."""
        retry, self.retry = self.retry, None
        if retry is not None and retry.active():
            retry.cancel()

    def rest(self) -> None:
        """Neither connect nor verify; a link that is up stays."""
        self.end_retry()
        self.end_verification()
        connector, self.connector = self.connector, None
        if connector is not None and self.link is None:
            connector.disconnect()
