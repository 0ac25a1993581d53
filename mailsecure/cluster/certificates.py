"""Certificates for the links between nodes, made of the cluster's key.

A cluster has one secret, the key that signs its hellos.  From each key of the ring the
private key of a certificate authority is derived (HKDF, RFC 5869, in :mod:`.keys`), so all
nodes have the same authority without a file.  At start a node makes itself a key and a
certificate with its name, signed by that authority; both live in memory only, and are made
anew at the next start.  So there is nothing to hand out, to protect or to renew, and
rotating the cluster's key rotates all of this.

The certificates are valid from 1970 to 9999: whether a link may be had must not depend on
a clock.  Ed25519 (RFC 8032), TLS 1.3 only (RFC 8446).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from .keys import Key, KeyRing

__all__ = ["LinkTls", "named"]

_LABEL = b"link authority"
# What RFC 5280 §4.1.2.5 has for "no end".
_BEGIN, _END = datetime(1970, 1, 2), datetime(9999, 12, 31, 23, 59, 59)


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class LinkTls:
    """What Twisted asks for each handshake of a link of ``node``, whichever end we are."""

    def __init__(self, ring: KeyRing, node: str) -> None:
        self._node = node
        self.rekey(ring)

    def rekey(self, ring: KeyRing) -> None:
        """Believe in ``ring`` from the next handshake on."""
        self._context = _context(ring, self._node)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted's question where we connected."""
        return SSL.Connection(self._context, None)

    serverConnectionForTLS = clientConnectionForTLS


def _context(ring: KeyRing, node: str) -> SSL.Context:
    authority, signer = _authority(ring.keys[0])
    private = Ed25519PrivateKey.generate()
    certificate = _certificate(_name(node), authority.subject, private, signer, authority=False)
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(crypto.X509.from_cryptography(certificate))
    context.use_privatekey(crypto.PKey.from_cryptography_key(private))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    store = context.get_cert_store()
    if store is None:
        raise AssertionError("a context without a store")
    for key in ring.keys:
        store.add_cert(crypto.X509.from_cryptography(_authority(key)[0]))
    return context


def _authority(key: Key) -> tuple[x509.Certificate, Ed25519PrivateKey]:
    """Return the authority of ``key``: the same on every node."""
    private = Ed25519PrivateKey.from_private_bytes(key.derived(_LABEL))
    name = _name(f"mailsecure cluster {key.id.hex()}")
    return _certificate(name, name, private, private, authority=True), private


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    private: Ed25519PrivateKey,
    signer: Ed25519PrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer, subject, private.public_key(), x509.random_serial_number(), _BEGIN, _END
    )
    constraints = x509.BasicConstraints(ca=authority, path_length=0 if authority else None)
    return builder.add_extension(constraints, critical=True).sign(signer, None)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def named(certificate: Any) -> str:
    """Return the node that the other end's certificate names, "" if there is none."""
    if certificate is None:
        return ""
    found = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
