"""Which way the mail of a domain goes (pure).

The table is [domains] of the ini: ``example.com`` for exactly that domain,
``.example.com`` for every domain below it, ``*`` for all others.  The most exact entry
wins: the domain itself, then its parents from the longest, then ``*``.  An address
literal (``[192.0.2.1]``) has no parents.

The gateway asks :meth:`Routes.is_ours` once a recipient, the scheduler
:meth:`Routes.find` once a domain that it has not seen lately.  ``*`` makes no domain
ours: it says where mail from the relay networks may go, never who else may send there.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config.model import Route, RouteKind

__all__ = ["FALL_BACK", "Routes", "next_hop_key"]

#: The way of a domain without any entry: a bounce to a sender whom only the relay
#: networks' rules or an earlier configuration let in.
FALL_BACK = Route(RouteKind.MX)


class Routes:
    """The routes of one configuration.

    ``domains`` has lower-case A-labels, ``.parent`` and ``*`` for keys, as the loader of
    the ini makes them.
    """

    def __init__(self, domains: Mapping[str, Route]) -> None:
        self._exact = {
            domain.lower(): route
            for domain, route in domains.items()
            if domain != "*" and not domain.startswith(".")
        }
        self._below = {
            domain[1:].lower(): route for domain, route in domains.items() if domain.startswith(".")
        }
        self._rest = domains.get("*")

    def find(self, domain: str) -> Route | None:
        """Return the route for mail to ``domain`` (canonical text), or None."""
        return self._named(domain) or self._rest

    def is_ours(self, domain: str) -> bool:
        """Say whether an entry other than ``*`` names ``domain``."""
        return self._named(domain) is not None

    def _named(self, domain: str) -> Route | None:
        name = domain.lower()
        route = self._exact.get(name)
        if route is not None or not self._below or name.startswith("["):
            return route
        _, dot, parent = name.partition(".")
        while dot:
            route = self._below.get(parent)
            if route is not None:
                return route
            _, dot, parent = parent.partition(".")
        return None


def next_hop_key(route: Route, domain: str) -> str:
    """Return what names the next hop of ``domain``: connections are counted by it.

    All domains of one fixed route share its next hop; with ``mx`` each domain has its
    own, because whether two domains share servers is known only after the DNS answered.
    """
    return f"mx:{domain}" if route.kind is RouteKind.MX else str(route)
