"""Certificates without files: one secret is all that a cluster is configured with (pure).

Links are TLS, and TLS wants certificates.  An administrator should not have to run an
authority for that, so each key of the ring *is* one: an Ed25519 key (RFC 8032) is derived
from it, and the authority's certificate from that, the same octets on every node.  At its
start each node makes a key pair of its own in memory, and signs its certificate with the
authority of ``ring.keys[0]``.  A peer is believed if any authority of the ring has signed
its certificate.  So who can read the key file belongs to the cluster, and nobody else does.

The certificate's common name is the node's name; :mod:`.link` compares it with who the
peer says it is.  Certificates are valid from 1970 to 9999, because no clock is trusted
here: they end with the process, and an authority ends when its key leaves the ring.

This module draws nothing: the caller gives the octets for the node's own key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .keys import Key, KeyRing

__all__ = ["SEED_OCTETS", "Identity", "authority_of", "issuer_of", "make_identity", "node_of"]

#: What a node's own key is made of.
SEED_OCTETS = 32

_LABEL = b"link authority"
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
#: RFC 5280 §4.1.2.5: "no well-defined expiration date".
_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_SERIAL_OCTETS = 16
_BOTH_SIDES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Identity:
    """What a node shows (``certificate``, ``key``), and whom it believes."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey
    authorities: tuple[x509.Certificate, ...]


def make_identity(node: str, ring: KeyRing, seed: bytes) -> Identity:
    """Return the identity of ``node``; ``seed`` is 32 secret octets, new at each start."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key()
    signer = ring.keys[0]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(node))
        .issuer_name(_authority_name(signer))
        .public_key(public)
        # A number that no other certificate of this authority has: that of the key.
        .serial_number(_serial(public.public_bytes_raw()))
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_BOTH_SIDES), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_signed_by(_authority_key(signer)), critical=False)
        .sign(_authority_key(signer), None)
    )
    return Identity(certificate, key, tuple(authority_of(each) for each in ring.keys))


def authority_of(key: Key) -> x509.Certificate:
    """Return the certificate of the authority that ``key`` is; always the same octets."""
    private = _authority_key(key)
    public = private.public_key()
    name = _authority_name(key)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, None)
    )


def node_of(certificate: x509.Certificate) -> str:
    """Return the node's name in a certificate that was verified; "" if there is none."""
    return _common_name(certificate.subject)


def issuer_of(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> bool:
    """Say whether one of ``authorities`` is named as the issuer of a verified certificate."""
    return any(certificate.issuer == each.subject for each in authorities)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = found[0].value if len(found) == 1 else ""
    return value if isinstance(value, str) else ""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _authority_name(key: Key) -> x509.Name:
    return _name(f"mailsecure cluster {key.id.hex()}")


def _authority_key(key: Key) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(key.derived(_LABEL))


def _signed_by(authority: Ed25519PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())


def _serial(public: bytes) -> int:
    # RFC 5280 §4.1.2.2: positive, 20 octets at most.
    return int.from_bytes(public[:_SERIAL_OCTETS]) | 1 << (8 * _SERIAL_OCTETS)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
