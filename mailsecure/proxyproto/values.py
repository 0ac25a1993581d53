"""The words of the PROXY protocol (pure).

The standard is HAProxy's ``proxy-protocol.txt``: a proxy that passes a connection on puts
one header before its octets, in version 1 a line of text, in version 2 a binary block that
may carry more (TLVs).  The names here are those of the standard, without its prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address

__all__ = [
    "CUSTOM",
    "Endpoint",
    "Header",
    "Inet",
    "Ssl",
    "SslClient",
    "Tlv",
    "TlvType",
    "Transport",
    "Unix",
]

#: The types that the standard leaves to applications (§2.2.8).
CUSTOM = range(0xE0, 0xF0)


class TlvType(IntEnum):
    """Types of TLV that the standard names (§2.2)."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30


class Transport(IntEnum):
    """What the connection to the proxy was, as version 2 numbers it (§2.2)."""

    UNSPEC = 0
    STREAM = 1
    DGRAM = 2


@dataclass(frozen=True, slots=True)
class Inet:
    """One end of a connection over IP."""

    address: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class Unix:
    """One end of a connection over a Unix socket; the path without its final NULs."""

    path: bytes


Endpoint = Inet | Unix


@dataclass(frozen=True, slots=True)
class Tlv:
    """One addition to a header of version 2.

    ``type`` is a :class:`TlvType` where the standard names it, else a plain number.
    """

    type: int
    value: bytes


class SslClient(IntFlag):
    """What the client did towards the proxy (§2.2.6)."""

    SSL = 1
    CERT_CONN = 2
    CERT_SESS = 4


@dataclass(frozen=True, slots=True)
class Ssl:
    """The value of an SSL TLV.  ``verify`` is 0 where the client's certificate was good."""

    client: SslClient
    verify: int
    version: str = ""
    common_name: str = ""
    cipher: str = ""
    signature: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """One header.

    ``local``: the proxy speaks for itself (a health check), so the addresses of the
    connection itself hold.  They also hold where ``source`` is None: the proxy could not
    or would not say (UNKNOWN, UNSPEC, a family that does not concern us).
    """

    version: int
    local: bool = False
    transport: Transport = Transport.STREAM
    source: Endpoint | None = None
    destination: Endpoint | None = None
    tlvs: tuple[Tlv, ...] = ()

    def values(self, type: int) -> list[bytes]:
        """Return the values of all TLVs of one type, in their order."""
        return [tlv.value for tlv in self.tlvs if tlv.type == type]
