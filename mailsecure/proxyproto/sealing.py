"""A PROXY header that proves which node of the cluster it comes from (pure).

Whoever may say on whose behalf a session comes decides what policy it meets: he can lend
himself an address of ``[relay] networks``.  So a header between nodes carries a seal, a
TLV of the custom type :data:`SEAL`:

=========  ======  ==================================================================
octets     what    why
=========  ======  ==================================================================
1          form    1; a later form gets another number
4          key id  which key of the cluster; two are believed while keys are changed
8          sender  the incarnation of the sending node, random at each of its starts
8          to      the incarnation of the node that it was made for
8          count   rises by one with every header of the sender's incarnation
32         MAC     HMAC-SHA256 over every octet of the header, these 32 as zeros
1 to 63    name    the sending node
=========  ======  ==================================================================

The MAC covers the addresses, every other TLV and the length.  Of other TLVs there is at most
one, without a value: :data:`IMPLICIT_TLS`, of a client that begins with TLS.

A header counts once:

* It names the receiver's *present* incarnation, so one that was caught on the way to
  another node, or before a restart, is worthless.
* Within it, the counts of one sender come once each (:class:`ReplayWindow`).
  Connections overtake each other, so they need not come in order.

Nothing here trusts a clock.  The seal vouches for the header, not for what follows it:
who can change a connection between two nodes can change the mail in it, and STARTTLS of
the client is what helps against that.

:class:`Sealer` makes headers, one call a session; :class:`Verifier` judges them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from ..errors import RemoteFault
from .binary import FIXED, SIGNATURE, tlvs_at
from .values import CUSTOM

__all__ = ["IMPLICIT_TLS", "SEAL", "ReplayWindow", "Sealer", "Seen", "Verifier"]

#: The type of the TLV, one of those for applications.
SEAL = CUSTOM[4]
#: The type of the TLV that says: the client begins with TLS (RFC 8314 §3.3).
IMPLICIT_TLS = CUSTOM[5]
#: How far one connection may be overtaken by others.
WINDOW = 1024
#: Incarnations of senders that a receiver remembers.
MAX_SENDERS = 4096
FORM = 1
_TLV = Struct("!BH")
_FIELDS = Struct("!B4sQQQ32s")
_FRONT = Struct("!B4sQQQ")
_NO_MAC = bytes(32)
#: Octets of a block of SHA-256.
_BLOCK = 64
_HEAD = Struct("!12sBBH")
_INET = Struct("!4s4sHH")
_INET6 = Struct("!16s16sHH")
_PROXY, _LOCAL = 0x21, 0x20
_TCP4, _TCP6, _NOBODY = 0x11, 0x21, 0x00
_SAYS_TLS = _TLV.pack(IMPLICIT_TLS, 0)


class Sealer:
    """Makes the headers of one incarnation of this node.

    ``key_id`` is 4 octets, ``key`` what the cluster's key derives for this purpose;
    :meth:`use_key` changes both, and the count goes on.
    """

    __slots__ = ("_count", "_incarnation", "_inner", "_key_id", "_name", "_outer")

    def __init__(self, key_id: bytes, key: bytes, node: str, incarnation: int) -> None:
        self._name = node.encode("ascii")
        if not 1 <= len(self._name) <= 63:
            raise ValueError("a node's name has 1 to 63 octets")
        self._incarnation = incarnation
        self._count = 0
        self.use_key(key_id, key)

    def use_key(self, key_id: bytes, key: bytes) -> None:
        """Seal with another key from now on."""
        if len(key_id) != 4:
            raise ValueError("a key id has 4 octets")
        self._key_id = key_id
        self._inner, self._outer = _keyed(key)

    def proxy(
        self,
        to: int,
        source: IPv4Address | IPv6Address,
        source_port: int,
        destination: IPv4Address | IPv6Address,
        destination_port: int,
        tls: bool = False,
    ) -> bytes:
        """Return the header of a connection that is passed on to incarnation ``to``.

        ``tls``: it came to a port where the client begins with TLS.

        An IPv4 address beside an IPv6 one is told in its mapped form (RFC 4291 §2.5.5.2).
        """
        if source.version == 4 == destination.version:
            kind, form = _TCP4, _INET
            near, far = source.packed, destination.packed
        else:
            kind, form = _TCP6, _INET6
            near, far = _wide(source), _wide(destination)
        said = form.pack(near, far, source_port, destination_port)
        return self._seal(_PROXY, kind, said + _SAYS_TLS if tls else said, to)

    def local(self, to: int) -> bytes:
        """Return the header of a connection of our own, a probe, to incarnation ``to``."""
        return self._seal(_LOCAL, _NOBODY, b"", to)

    def _seal(self, command: int, kind: int, said: bytes, to: int) -> bytes:
        """Return the header that says addresses and TLVs, and then the seal."""
        self._count += 1
        size = _FIELDS.size + len(self._name)
        head = (
            _HEAD.pack(SIGNATURE, command, kind, len(said) + _TLV.size + size)
            + said
            + _TLV.pack(SEAL, size)
            + _FRONT.pack(FORM, self._key_id, self._incarnation, to, self._count)
        )
        # HMAC (RFC 2104), its keyed halves made once: half of what hmac.digest takes.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(head + _NO_MAC + self._name)
        outer.update(inner.digest())
        return head + outer.digest() + self._name


def _keyed(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Return the two hashes of an HMAC-SHA256 with ``key``, as far as the key goes."""
    if len(key) > _BLOCK:
        key = hashlib.sha256(key).digest()
    padded = int.from_bytes(key.ljust(_BLOCK, b"\0"), "big")
    inner, outer = (int.from_bytes(bytes([pad]) * _BLOCK, "big") for pad in (0x36, 0x5C))
    return (
        hashlib.sha256((padded ^ inner).to_bytes(_BLOCK, "big")),
        hashlib.sha256((padded ^ outer).to_bytes(_BLOCK, "big")),
    )


def _wide(address: IPv4Address | IPv6Address) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed


class ReplayWindow:
    """Which counts of one sender have come; the last :data:`WINDOW` one by one.

    A count below the window is taken for one that came: it is refused.
    """

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = 0
        # Bit n: highest - n has come.
        self._seen = 0

    def enter(self, count: int) -> bool:
        """Say whether ``count`` (from 1) comes for the first time, and remember it."""
        ahead = count - self._highest
        if ahead > 0:
            self._highest = count
            self._seen = (self._seen << ahead if ahead < WINDOW else 0) & _ALL | 1
            return True
        bit = 1 << -ahead if -ahead < WINDOW else 0
        if not bit or count < 1 or self._seen & bit:
            return False
        self._seen |= bit
        return True


_ALL = (1 << WINDOW) - 1


@dataclass(frozen=True, slots=True)
class Seen:
    """Who made a header: a node, and which start of it."""

    node: str
    incarnation: int


class Verifier:
    """Judges the headers that come to one incarnation of this node.

    ``key`` returns what the cluster key of an id derives for this purpose, or None where
    there is no such key; it is asked each time, so keys may come and go.
    """

    def __init__(self, incarnation: int, key: Callable[[bytes], bytes | None]) -> None:
        self._incarnation = incarnation
        self._key = key
        self._windows: dict[int, ReplayWindow] = {}

    def verify(self, block: bytes) -> Seen:
        """Return who sealed a header, given as the octets that it came in.

        The header must be well made (:func:`.binary.parse_block` took it).  RemoteFault
        says why it counts for nothing.
        """
        start, end = _find(block)
        if end - start < _FIELDS.size + 1 or end - start > _FIELDS.size + 63:
            raise RemoteFault("PROXY header with a seal of a wrong length")
        form, key_id, incarnation, to, count, mac = _FIELDS.unpack_from(block, start)
        if form != FORM:
            raise RemoteFault("PROXY header with a seal of another form")
        key = self._key(key_id)
        if key is None:
            raise RemoteFault("PROXY header sealed with the key of another cluster")
        before, after = block[: start + _FRONT.size], block[start + _FIELDS.size :]
        if not hmac.compare_digest(hmac.digest(key, before + _NO_MAC + after, "sha256"), mac):
            raise RemoteFault("PROXY header with a false seal")
        if to != self._incarnation:
            raise RemoteFault("PROXY header that was made for another node, or before a restart")
        self._enter(incarnation, count)
        return Seen(
            block[start + _FIELDS.size : end].decode("ascii", "backslashreplace"), incarnation
        )

    def _enter(self, incarnation: int, count: int) -> None:
        window = self._windows.get(incarnation)
        if window is None:
            # Only holders of the key get here, with a random number at each start.  To
            # forget one of them would let its headers in again.
            if len(self._windows) >= MAX_SENDERS:
                raise RemoteFault("PROXY header of one sender too many since our start")
            window = self._windows[incarnation] = ReplayWindow()
        if not window.enter(count):
            raise RemoteFault("PROXY header that came before")


def _find(block: bytes) -> tuple[int, int]:
    """Return where the value of the one seal starts and ends."""
    kind = block[13] >> 4
    tlvs = FIXED + (0, 12, 36, 216)[kind]
    found = [(start, end) for type, start, end in tlvs_at(block, tlvs) if type == SEAL]
    if len(found) != 1:
        raise RemoteFault("PROXY header without one seal")
    return found[0]
