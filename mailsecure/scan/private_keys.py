"""Private keys of DKIM and ARC: read, made, and what the DNS is told of them.

PEM, RSA or Ed25519 (RFC 8463).  :mod:`.signing` reads them, :mod:`.jobs.sign` signs with
them, the command ``dkim keygen`` makes them.
"""

from __future__ import annotations

import base64
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

__all__ = ["PrivateKey", "algorithm_of", "key_record", "load_key", "new_key", "written"]

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

_EXPONENT = 65537


@lru_cache(maxsize=64)
def load_key(pem: str) -> PrivateKey:
    """Return the private key in ``pem``; ValueError if there is none that signs."""
    try:
        key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("is encrypted with a password") from None
    except ValueError:
        raise ValueError("is no private key in PEM") from None
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError("is neither an RSA nor an Ed25519 key")
    return key


def algorithm_of(key: PrivateKey) -> str:
    """Return what a= calls it (RFC 6376 §3.3, RFC 8463 §3)."""
    return "rsa-sha256" if isinstance(key, RSAPrivateKey) else "ed25519-sha256"


def new_key(bits: int) -> PrivateKey:
    """Make a key: RSA of so many ``bits``, or Ed25519 where that is 0."""
    return generate_private_key(_EXPONENT, bits) if bits else Ed25519PrivateKey.generate()


def written(key: PrivateKey) -> str:
    """Return ``key`` in PEM (PKCS #8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def key_record(key: PrivateKey) -> str:
    """Return the TXT record of the public half (RFC 6376 §3.6.1, RFC 8463 §4)."""
    public = key.public_key()
    if isinstance(key, RSAPrivateKey):
        kind, octets = "rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        kind, octets = "ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode('ascii')}"
