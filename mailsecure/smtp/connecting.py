"""Opening connections to next hops, over TCP and Unix sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from .lost import words_of
from .sending import SmtpConnection

__all__ = ["connect_tcp", "connect_unix"]


class _Attempt(ClientFactory):
    """Makes one connection, once."""

    noisy = False

    def __init__(self, connection: SmtpConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> SmtpConnection:
        """Give out the connection; nobody asks twice."""
        return self._connection

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """Nobody there."""
        self._connection.unreachable(words_of(reason))


async def connect_tcp(
    reactor: Any,
    address: str,
    port: int,
    connection: SmtpConnection,
    timeout: float,
    source: str = "",
) -> SmtpConnection:
    """Open ``connection`` to an IP address; raises :class:`CouldNotOpen`."""
    opened = connection.opened
    assert opened is not None
    bind = (source, 0) if source else None
    connection.connector = reactor.connectTCP(
        address, port, _Attempt(connection), timeout=timeout, bindAddress=bind
    )
    await opened
    return connection


async def connect_unix(
    reactor: Any, path: str, connection: SmtpConnection, timeout: float
) -> SmtpConnection:
    """Open ``connection`` to a Unix socket; raises :class:`CouldNotOpen`."""
    opened = connection.opened
    assert opened is not None
    connection.connector = reactor.connectUNIX(path, _Attempt(connection), timeout=timeout)
    await opened
    return connection
