"""Routes ``smtp://host:port`` and ``mx``: mail goes to an SMTP server.

A transport finds the targets (:mod:`.mx`) and leaves the rest to :class:`.next_hop.NextHops`.
One instance serves one route; that of ``mx`` serves every domain routed so, and its pools
are keyed by the servers' addresses, so that domains with one provider share connections.

A host that the ini names is tried at each of its addresses.  If the DNS does not know it,
mail waits: somebody mistyped, or moves a server, and will mend it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address

from ..config.model import Delivery, Route, RouteKind
from ..smtp.replies import Reply
from ..spool.api import QueuedMessage
from ..world import DnsAbsent, DnsFault, World
from .api import Fate, NextHopDown, Outcome
from .mx import MAX_TARGETS, Target, Undeliverable, find_addresses, find_mx_targets
from .next_hop import NextHops

__all__ = ["SmtpTransport", "find_host_targets"]

SMTP_PORT = 25


class SmtpTransport:
    """Delivers over SMTP.

    ``hostname`` is what we call ourselves; ``is_self`` says whether a host name or an IP
    address is ours, and is asked for mx routes only.  ``mx_port`` is for tests.
    """

    def __init__(
        self,
        world: World,
        settings: Delivery,
        hostname: str,
        route: Route,
        is_self: Callable[[str], bool],
        mx_port: int = SMTP_PORT,
    ) -> None:
        self._world = world
        self._route = route
        self._hostname = hostname.lower()
        self._is_self = is_self
        self._mx_port = mx_port
        self._hops = NextHops(world, settings, hostname, lmtp=False)
        self._fixed = fixed_target(route)

    async def deliver(self, message: QueuedMessage) -> Sequence[Outcome]:
        """Attempt every recipient; see :class:`.api.Transport`."""
        try:
            targets = self._fixed or await self._find(message.domain)
        except Undeliverable as fault:
            reply = fault.reply
            return [Outcome(one.index, Fate.FAILED, reply) for one in message.recipients]
        return await self._hops.deliver(message, targets)

    async def probe(self, domain: str, mailbox: str) -> Reply:
        """Return what the next hop for ``domain`` says to RCPT TO:<mailbox>.

        Nothing is sent.  Raises NextHopDown where nobody could be asked.
        """
        try:
            targets = self._fixed or await self._find(domain)
        except Undeliverable as fault:
            return fault.reply
        return await self._hops.probe(mailbox, targets)

    async def close(self) -> None:
        """Close idle connections."""
        await self._hops.close()

    async def _find(self, domain: str) -> Sequence[Target]:
        world = self._world
        if self._route.kind is RouteKind.MX:
            return await find_mx_targets(
                world.resolver, world.rng, domain, self._mx_port, self._ours
            )
        return await find_host_targets(world, self._route)

    def _ours(self, name: str) -> bool:
        return name == self._hostname or self._is_self(name)


def fixed_target(route: Route) -> Sequence[Target]:
    """Return the target of a route to an IP address; nothing where a name is to be looked up."""
    try:
        ip_address(route.host)
    except ValueError:
        return ()
    return (Target(route.host, route.host, route.port),)


async def find_host_targets(world: World, route: Route) -> Sequence[Target]:
    """Return the targets of a route to a named host; raises NextHopDown."""
    try:
        addresses = await find_addresses(world.resolver, world.rng, route.host)
    except DnsAbsent:
        reply = Reply(451, "4.4.4", f"The DNS does not know the next hop {route.host}")
        raise NextHopDown(reply, str(route)) from None
    except DnsFault as fault:
        reply = Reply(451, "4.4.3", f"Cannot look up the next hop {route.host}: {fault}")
        raise NextHopDown(reply, str(route)) from None
    return [Target(route.host, address, route.port) for address in addresses[:MAX_TARGETS]]
