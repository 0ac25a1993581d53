"""The values between the scheduler, the routes and the transports (pure).

The scheduler (:mod:`.scheduler`) hands a :class:`Transport` one message with the
recipients of one domain and gets one :class:`Outcome` a recipient back.  A transport
knows one kind of next hop; it knows nothing of queues, retries or bounces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from ..errors import RemoteFault
from ..smtp.replies import Reply
from ..spool.values import QueuedMessage

__all__ = ["Fate", "NextHopDown", "Outcome", "Prober", "Transport"]


class Fate(Enum):
    """What an attempt did to one recipient."""

    #: The next hop took responsibility and will send what DSNs are asked for.
    DELIVERED = "delivered"
    #: Taken by a next hop without DSN (RFC 3461 §4.1 "relayed").
    RELAYED = "relayed"
    #: Try again later.
    DEFERRED = "deferred"
    #: Never try again: bounce.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the recipient with this ``index``.

    ``reply`` is the next hop's own where it gave one, else made up here with a
    fitting enhanced status code.  ``next_hop`` names who answered, as
    ``mx.example.net[192.0.2.1]:25`` or ``maildir:/path``; "" if nobody did.  ``tls``
    holds the facts of TLS towards it (``TLSv1.3 TLS_AES_256_GCM_SHA384``), "" without.
    ``final`` says that a mailbox took the message: where a DSN for success was asked
    for and nobody behind us sends one, it says "delivered", not "relayed".
    """

    index: int
    fate: Fate
    reply: Reply
    next_hop: str = ""
    tls: str = ""
    final: bool = False


class NextHopDown(RemoteFault):
    """No recipient could be tried, and no other message for this domain can be.

    Raised for: refused, unreachable, timed out, DNS away, a 4xx greeting.  The
    scheduler leaves the destination alone for a while.  A *permanent* fault of a whole
    domain (null MX, no such domain) is not this: it is an Outcome for each recipient.
    """

    def __init__(self, reply: Reply, next_hop: str = "") -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.next_hop = next_hop


class Transport(Protocol):
    """One way to a next hop."""

    async def deliver(self, message: QueuedMessage) -> Sequence[Outcome]:
        """Attempt every recipient of ``message``; exactly one Outcome for each.

        Raises :class:`NextHopDown`; anything else is a fault of ours, which the
        scheduler treats as a deferral of this message.  Bounded in time.
        """

    async def close(self) -> None:
        """Close idle connections; called at stop and when a route is replaced."""


@runtime_checkable
class Prober(Protocol):
    """A transport whose next hop can be asked about a recipient (SMTP, LMTP)."""

    async def probe(self, domain: str, mailbox: str) -> Reply:
        """Return the reply to RCPT for ``mailbox``; no message is sent.

        Raises :class:`NextHopDown`.
        """
