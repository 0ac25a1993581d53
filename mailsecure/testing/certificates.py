"""Certificates for tests: a little authority of our own, made in memory in milliseconds.

:func:`make_authority` gives an authority, :meth:`Authority.certificate` a certificate that
it has signed for some names; both have PEM texts for files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import PrivateCertificate

__all__ = ["Authority", "make_authority"]


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, as PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def server_options(self) -> Any:
        """Return what ``startTLS`` takes on a server's side."""
        return PrivateCertificate.loadPEM(self.key_pem + self.certificate_pem).options()


@dataclass(frozen=True)
class Authority:
    """An authority; ``pem`` is what a client has to trust."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    pem: bytes

    def certificate(self, *names: str) -> Issued:
        """Return a certificate for DNS names and IP addresses, valid for a day."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0]), self.name, key).add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
        )
        signed = builder.sign(self.key, hashes.SHA256())
        return Issued(_pem(signed), _key_pem(key))


def make_authority() -> Authority:
    """Return a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Authority for tests")
    builder = _builder(name, name, key).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    return Authority(name, key, _pem(builder.sign(key, hashes.SHA256())))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
