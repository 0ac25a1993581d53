"""The keys of a cluster: who has one belongs to it (pure).

One secret of 32 octets is all that the nodes share.  Nothing uses it directly: each
purpose (signing hellos, naming the key, the authority behind the links) has a key of its
own, derived from the secret and a label (HKDF with SHA-256, RFC 5869), so that nothing
said for one purpose means anything to another, and no derived key tells the secret.

A :class:`KeyRing` holds one or two keys.  All are believed; the first one signs.  So a new
key comes in without a gap: add it second on every node, then move it to the first place
on every node, then remove the old one.

The file has one key a line in Base64 (RFC 4648 §4), ``#`` begins a comment.  :mod:`.keyfile`
reads it.  No text made here, for people or in an exception, holds a key.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = [
    "ID_OCTETS",
    "MOST_KEYS",
    "SECRET_OCTETS",
    "Key",
    "KeyRing",
    "format_keys",
    "new_key",
    "parse_keys",
]

SECRET_OCTETS = 32
ID_OCTETS = 4
MOST_KEYS = 2

_LABEL = b"mailsecure cluster "


class Key:
    """One key of a cluster.

    ``id`` is its public name: 4 octets that every datagram carries.  Derived keys are
    kept once they were asked for.
    """

    __slots__ = ("_derived", "_secret", "id")

    def __init__(self, secret: bytes) -> None:
        """Take 32 octets, from a source that nobody can guess; ValueError if not 32."""
        if len(secret) != SECRET_OCTETS:
            raise ValueError(f"a key has {SECRET_OCTETS} octets, not {len(secret)}")
        self._secret = secret
        self._derived: dict[bytes, bytes] = {}
        self.id = self.derived(b"id")[:ID_OCTETS]

    def derived(self, label: bytes) -> bytes:
        """Return the key of 32 octets for the purpose that ``label`` names, always the same."""
        found = self._derived.get(label)
        if found is None:
            derivation = HKDF(SHA256(), SECRET_OCTETS, None, _LABEL + label)
            found = self._derived[label] = derivation.derive(self._secret)
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Key {self.id.hex()}>"


class KeyRing:
    """The keys of a node's cluster: ``keys[0]`` signs, all are believed."""

    __slots__ = ("_by_id", "keys")

    def __init__(self, keys: tuple[Key, ...]) -> None:
        """Take one or two keys; ValueError if they are none, too many, or the same."""
        if not keys:
            raise ValueError("holds no key: mailsecure cluster keygen writes one")
        if len(keys) > MOST_KEYS:
            raise ValueError(f"holds {len(keys)} keys: {MOST_KEYS} at most, the old and the new")
        self.keys = keys
        self._by_id = {key.id: key for key in keys}
        if len(self._by_id) < len(keys):
            raise ValueError("holds the same key twice")

    def find(self, key_id: bytes) -> Key | None:
        """Return the key that ``key_id`` names, or None: it is another cluster's."""
        return self._by_id.get(key_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyRing):
            return NotImplemented
        return self.keys == other.keys

    def __hash__(self) -> int:
        return hash(self.keys)

    def __repr__(self) -> str:
        return f"<KeyRing {' '.join(key.id.hex() for key in self.keys)}>"


def new_key(octets: bytes) -> Key:
    """Return the key that ``octets`` make: 32 from the system's source of randomness."""
    return Key(octets)


def parse_keys(text: str) -> KeyRing:
    """Return the keys in the text of a key file.

    ValueError says what is wrong with it, in a postmaster's words and without its content.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("#")[0].strip()
        if written:
            keys.append(_parse_key(number, written))
    return KeyRing(tuple(keys))


def _parse_key(number: int, written: str) -> Key:
    try:
        secret = b64decode(written, validate=True)
    except (Base64Error, ValueError):
        # The error quotes nothing today, but it is not ours to promise that.
        raise ValueError(f"line {number} is no key: not Base64") from None
    if len(secret) != SECRET_OCTETS:
        raise ValueError(
            f"line {number} is no key: {len(secret)} octets in Base64 instead of {SECRET_OCTETS}"
        )
    return Key(secret)


def format_keys(ring: KeyRing) -> str:
    """Return the text of a key file that holds ``ring``: secret, for the file only."""
    lines = [
        "# Keys of a mailsecure cluster, one a line: the first signs, all are believed.",
        "# Who has one can take part in the cluster: keep this file to its owner (chmod 600).",
    ]
    for key in ring.keys:
        lines.append(f"{b64encode(key._secret).decode('ascii')}  # {key.id.hex()}")
    return "\n".join(lines) + "\n"
