"""Routes ``lmtp://host:port`` and ``lmtp+unix:/path``: mail goes to a mailbox server.

LMTP (RFC 2033) is SMTP with LHLO and one reply for each recipient after the message, so
that one full mailbox does not hold up the others.  Everything else is as in
:mod:`.smtp_transport`.  A Unix socket needs no TLS, whatever ``[delivery] tls`` says: it
does not leave the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..config.model import Delivery, Route, RouteKind
from ..smtp.replies import Reply
from ..spool.api import QueuedMessage
from ..world import World
from .api import Outcome
from .mx import Target
from .next_hop import NextHops
from .smtp_transport import find_host_targets, fixed_target

__all__ = ["LmtpTransport"]


class LmtpTransport:
    """Delivers over LMTP; ``is_self`` is not asked, because LMTP never leads back."""

    def __init__(
        self,
        world: World,
        settings: Delivery,
        hostname: str,
        route: Route,
        is_self: Callable[[str], bool],
    ) -> None:
        self._world = world
        self._route = route
        self._hops = NextHops(world, settings, hostname, lmtp=True)
        if route.kind is RouteKind.LMTP_UNIX:
            self._fixed: Sequence[Target] = (Target(route.kind.value, path=route.path),)
        else:
            self._fixed = fixed_target(route)

    async def deliver(self, message: QueuedMessage) -> Sequence[Outcome]:
        """Attempt every recipient; see :class:`.api.Transport`."""
        targets = self._fixed or await find_host_targets(self._world, self._route)
        return await self._hops.deliver(message, targets)

    async def probe(self, domain: str, mailbox: str) -> Reply:
        """Return what the server says to RCPT TO:<mailbox>; raises NextHopDown."""
        targets = self._fixed or await find_host_targets(self._world, self._route)
        return await self._hops.probe(mailbox, targets)

    async def close(self) -> None:
        """Close idle connections."""
        await self._hops.close()
