"""Public keys of DKIM and ARC, as the DNS has them (RFC 6376 §3.6.1, RFC 8463)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ..tags import TagsBroken, parse_tags

__all__ = ["NoKey", "PublicKey", "read_key"]

_ED25519_OCTETS = 32
_MAX_BITS = 8192


class NoKey(ValueError):
    """There is no key, or none that can be used: a permerror."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key; ``testing`` is t=y, ``strict`` t=s: i= must be of exactly the domain."""

    key: RSAPublicKey | Ed25519PublicKey
    testing: bool
    strict: bool

    @property
    def kind(self) -> str:
        """Return what k= and the first half of a= call it."""
        return "rsa" if isinstance(self.key, RSAPublicKey) else "ed25519"

    @property
    def bits(self) -> int:
        """Return its size; an Ed25519 key has 256."""
        return self.key.key_size if isinstance(self.key, RSAPublicKey) else 8 * _ED25519_OCTETS

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Say whether ``signature`` is over ``digest``, a SHA-256."""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, PKCS1v15(), Prehashed(SHA256()))
            else:
                self.key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


def read_key(records: Sequence[str]) -> PublicKey:
    """Return the first key among ``records`` that can be used; :class:`NoKey` says why none."""
    fault = NoKey("no key")
    for record in records[:5]:
        try:
            return _read(parse_tags(record))
        except TagsBroken:
            fault = NoKey("key record cannot be read")
        except NoKey as found:
            fault = found
    raise fault


def _read(tags: dict[str, str]) -> PublicKey:
    if tags.get("v", "DKIM1") != "DKIM1":
        raise NoKey("key record of another version")
    if not {"*", "email"}.intersection(_list(tags.get("s", "*"))):
        raise NoKey("key for another service")
    if "sha256" not in _list(tags.get("h", "sha256")):
        raise NoKey("key for another hash")
    if "p" not in tags:
        raise NoKey("key record without a key")
    written = "".join(tags["p"].split())
    if not written:
        raise NoKey("key revoked")
    flags = _list(tags.get("t", ""))
    kind = tags.get("k", "rsa")
    if kind not in ("rsa", "ed25519"):
        raise NoKey("key of an unknown kind")
    try:
        octets = base64.b64decode(written, validate=True)
        key = _rsa(octets) if kind == "rsa" else Ed25519PublicKey.from_public_bytes(octets)
    except (binascii.Error, UnsupportedAlgorithm, ValueError):
        raise NoKey("key cannot be read") from None
    return PublicKey(key, "y" in flags, "s" in flags)


def _rsa(octets: bytes) -> RSAPublicKey:
    key = load_der_public_key(octets)
    if not isinstance(key, RSAPublicKey):
        raise NoKey("no RSA key")
    if key.key_size > _MAX_BITS:
        raise NoKey(f"key of more than {_MAX_BITS} bits")
    return key


def _list(text: str) -> list[str]:
    return [each.strip() for each in text.split(":")]
