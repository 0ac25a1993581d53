"""The server's TLS: certificate, key, and their replacement while sessions run.

TLS 1.2 is the least (RFC 8996, RFC 8314 §4.1).  :class:`ServerTls` is what Twisted asks
for a connection's context; :meth:`ServerTls.load` puts a new certificate in its place
for every handshake from then on, and leaves the old one where the new is no good.
"""

from __future__ import annotations

from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..errors import LocalFault

__all__ = ["ServerTls"]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """The certificate of the moment."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = _context(certificate, key)

    def load(self, certificate: Path, key: Path) -> None:
        """Use another certificate; :class:`LocalFault` says why it cannot be used."""
        self._context = _context(certificate, key)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted's question at each handshake."""
        return SSL.Connection(self._context, None)


def _context(certificate: Path, key: Path) -> SSL.Context:
    try:
        chain = _certificates(certificate.read_bytes())
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, key.read_bytes(), b"")
        options = CertificateOptions(
            privateKey=private,
            certificate=chain[0],
            extraCertChain=chain[1:],
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        context = options.getContext()
        context.check_privatekey()
    except OSError as error:
        raise LocalFault(f"cannot read {error.filename}: {error.strerror}") from None
    except (SSL.Error, crypto.Error, ValueError, TypeError):
        raise LocalFault(
            f"{certificate} and {key} are not a certificate and its private key in PEM "
            "(a key must not be encrypted)"
        ) from None
    return context


def _certificates(pem: bytes) -> list[crypto.X509]:
    end = b"-----END CERTIFICATE-----"
    parts = [part + end for part in pem.split(end)[:-1]]
    chain = [crypto.load_certificate(crypto.FILETYPE_PEM, part) for part in parts]
    if not chain:
        raise ValueError("no certificate")
    return chain
