"""From a route of the ini to the transport that serves it."""

from __future__ import annotations

from collections.abc import Callable

from ..config.model import Delivery, Route, RouteKind
from ..world import World
from .api import Transport
from .lmtp import LmtpTransport
from .maildir import MaildirTransport
from .smtp_transport import SmtpTransport

__all__ = ["make_transport"]


def make_transport(
    world: World,
    settings: Delivery,
    hostname: str,
    route: Route,
    is_self: Callable[[str], bool],
) -> Transport:
    """Return the transport for ``route``.

    ``hostname`` is ours; ``is_self`` says whether a host name or an IP address is ours
    (loopback included).  Raises OSError or ValueError where ``tls_ca`` cannot be used.
    """
    if route.kind is RouteKind.MAILDIR:
        return MaildirTransport(world, route.path, hostname)
    if route.kind in (RouteKind.LMTP, RouteKind.LMTP_UNIX):
        return LmtpTransport(world, settings, hostname, route, is_self)
    return SmtpTransport(world, settings, hostname, route, is_self)
