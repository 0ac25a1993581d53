"""What sessions share: the :class:`Desk`, and who is at the other end of one: a :class:`Client`.

:class:`.service.Gateway` makes one desk and replaces its fields at a reload; every
:class:`.session.GatewaySession` reads it, and :mod:`.reception` asks it who may come in.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from ..config.model import Smtp
from ..counters import Counters
from ..records.api import Recorder
from ..scan.scanner import Scanner
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from ..smtp.serving import GOING_DOWN
from ..spool.api import NewMessage, Spool
from ..spool.body import BodyStore
from ..spool.ids import IdSource
from .judging import Judge
from .limits import ClientLimits
from .relaying import RelayRules
from .verify import RecipientVerifier

__all__ = ["Client", "Desk"]

BLOCKED = Reply(554, "5.7.1", "No mail is taken from your network")
TOO_MANY_SESSIONS = Reply(421, "4.7.0", "Too many sessions, try again later")


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end; ``own_address`` returns our side as an address literal.

    ``via`` is the node that passed the session on to us; "" where it came straight.
    """

    address: str
    port: int
    key: str
    own_address: Callable[[], str]
    #: In ``[relay] networks``.
    trusted: bool
    via: str = ""
    #: Its mail is not scanned: ``[scan] relay_only_networks``, ``relay_only_listeners``.
    relay_only: bool = False


@dataclass(slots=True)
class Desk:
    """What all sessions share; replaced field by field at a reload."""

    clock: IReactorTime
    wall: Callable[[], float]
    hostname: str
    smtp: Smtp
    rules: RelayRules
    limits: ClientLimits
    verifier: RecipientVerifier | None
    needs_verifying: Callable[[Recipient], bool]
    spool: Spool
    bodies: BodyStore
    ids: IdSource
    #: Tells delivery of a message that is durable.
    take: Callable[[NewMessage], None]
    counters: Counters
    #: How many sessions there are, this one included.
    session_count: Callable[[], int]
    #: Addresses that are in ``[smtp] blocked``.
    blocked: Container[str]
    #: Judges mail; None where nothing is scanned.
    scanner: Scanner | None = None
    judge: Judge | None = None
    #: Keeps the history; None where there is none.
    recorder: Recorder | None = None
    #: Sessions that run are told to go; and nobody new is let in.
    draining: bool = False
    #: Nobody new is let in.
    resting: bool = False

    @property
    def greeting(self) -> Reply:
        """The greeting of a session that may begin (RFC 5321 §4.3.1)."""
        return Reply(220, "", f"{self.hostname} {self.smtp.banner}")

    def no_room(self, more: int = 0) -> tuple[Reply, str] | None:
        """Return the reply to a new session that this node cannot have, and why.

        ``more`` sessions would come, beside those that are counted.
        """
        if self.draining or self.resting:
            return GOING_DOWN, ""
        if self.session_count() + more > self.smtp.max_sessions:
            return TOO_MANY_SESSIONS, "the gateway is full"
        return None

    def turn_away(
        self, address: str, key: str, trusted: bool, here: bool = True
    ) -> tuple[Reply, str] | None:
        """Return the reply to a client that may not come in, and why.

        None: it may, and unless it is ``trusted`` its session was counted under ``key``.
        ``here`` says that this node would have the session.
        """
        if address in self.blocked:
            return BLOCKED, "blocked"
        refusal = self.no_room() if here else None
        if refusal is None and not trusted:
            why = self.limits.open(key, self.clock.seconds())
            if why:
                return TOO_MANY_SESSIONS, why
        return refusal
