"""TLS towards next hops: opportunistic, required, or none.

*Opportunistic* (RFC 7435): STARTTLS where it is offered, and no certificate is looked at,
because the alternative would be no TLS at all.  Where the handshake fails, the next
attempt with that host goes without (:class:`PlainHosts` remembers), as others do.

*Required*: STARTTLS has to be offered, and the certificate has to be signed by an
authority that we trust and to name the host (RFC 6125, by service-identity).  The name is
that of the MX record or the route; a forged MX record is not found out by this (that is
what DANE and MTA-STS are for).  If it fails, mail waits.

TLS 1.2 is the least that either speaks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509, Error
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from ..config.model import TlsLevel

__all__ = ["ClientTls", "PlainHosts"]

#: Hosts whose TLS options are kept; more are made anew.
MAX_KEPT = 1000
#: How long a host whose handshake failed is spoken to without TLS.
PLAIN_FOR = 600.0
_PEM_BEGINS = b"-----BEGIN CERTIFICATE-----"


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Makes connections that look at no certificate; the host's name goes into SNI."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host.encode() if host and host[0] != "[" else b""

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Return a connection for one handshake."""
        connection = SSL.Connection(self._context, None)
        if self._host:
            connection.set_tlsext_host_name(self._host)
        return connection


class ClientTls:
    """Gives out what ``startTLS`` wants, a host each; one a transport.

    ``authorities`` is a PEM file, or None for the system's.  Raises OSError or ValueError
    if it cannot be used.
    """

    def __init__(self, level: TlsLevel, authorities: Path | None) -> None:
        self._kept: dict[str, Any] = {}
        self._context: SSL.Context | None = None
        self._trust: Any = None
        if level is TlsLevel.REQUIRED:
            self._trust = platformTrust() if authorities is None else _authorities(authorities)
        elif level is TlsLevel.OPPORTUNISTIC:
            # Twisted verifies only what is given a trust root: this looks at nothing.
            self._context = CertificateOptions().getContext()
            self._context.set_verify(SSL.VERIFY_NONE, _accept)
            self._context.set_min_proto_version(SSL.TLS1_2_VERSION)

    def options_for(self, host: str) -> Any:
        """Return TLS options for ``host`` (a DNS name, or an IP address)."""
        options = self._kept.get(host)
        if options is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            options = self._kept[host] = self._make(host)
        return options

    def _make(self, host: str) -> Any:
        if self._context is not None:
            return _Unverified(self._context, "" if _is_address(host) else host)
        extra = {"insecurelyLowerMinimumTo": TLSVersion.TLSv1_2}
        return optionsForClientTLS(host, self._trust, extraCertificateOptions=extra)


def _accept(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, okay: int
) -> bool:
    return True


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()


def _authorities(path: Path) -> Any:
    pem = path.read_bytes()
    blocks = [_PEM_BEGINS + block for block in pem.split(_PEM_BEGINS)[1:]]
    if not blocks:
        raise ValueError(f"{path}: no certificate in it")
    try:
        return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
    except Error:
        raise ValueError(f"{path}: a certificate in it cannot be read") from None


class PlainHosts:
    """Remembers, for a while, hosts with which no handshake succeeds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def failed(self, address: str, now: float) -> None:
        """A handshake with ``address`` failed at ``now`` (monotonic seconds)."""
        if len(self._until) >= MAX_KEPT:
            self._until.clear()
        self._until[address] = now + PLAIN_FOR

    def plain(self, address: str, now: float) -> bool:
        """Say whether ``address`` is to be spoken to without TLS for now."""
        return bool(self._until) and now < self._until.get(address, 0.0)
