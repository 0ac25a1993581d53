"""Version 2 of the PROXY protocol: a binary block (pure).

Twelve octets that no other protocol starts with, version and command, family and
transport, the length of the rest, two addresses, and then TLVs (proxy-protocol.txt §2.2).
A CRC32C is checked where there is one.  What a receiver must skip rather than refuse, it
skips: addresses of LOCAL and UNSPEC, types of TLV that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from ..errors import RemoteFault
from .values import Endpoint, Header, Inet, Ssl, SslClient, Tlv, TlvType, Transport, Unix

__all__ = [
    "FIXED",
    "SIGNATURE",
    "crc32c",
    "encode_block",
    "encode_ssl",
    "length_of",
    "parse_block",
    "parse_ssl",
    "tlvs_at",
]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Octets before the addresses.
FIXED = 16

_HEAD = Struct("!12sBBH")
_INET = Struct("!4s4sHH")
_INET6 = Struct("!16s16sHH")
_UNIX = Struct("!108s108s")
_TLV = Struct("!BH")
_SSL = Struct("!BI")
_VERSION = 0x20
_AF_UNSPEC, _AF_INET, _AF_INET6, _AF_UNIX = range(4)
#: The parts of an SSL TLV, in the order of the fields of :class:`Ssl` (§2.2.6).
_SSL_PARTS = {0x21: "version", 0x22: "common_name", 0x23: "cipher", 0x24: "signature", 0x25: "key"}


def length_of(head: bytes) -> int:
    """Return the length of the whole block; ``head`` is its first 16 octets or more."""
    signature, command, _, rest = _HEAD.unpack_from(head)
    if signature != SIGNATURE:
        raise RemoteFault("not a PROXY header")
    if command & 0xF0 != _VERSION:
        raise RemoteFault("PROXY header of an unknown version")
    return FIXED + int(rest)


# -- write


def encode_block(header: Header, checksum: bool = False) -> bytes:
    """Return the block.  ``checksum`` adds a CRC32C; the caller's TLVs have none.

    Addresses that cannot be told together (None, two families) go as UNSPEC.
    """
    family, transport, addresses = _AF_UNSPEC, Transport.UNSPEC, b""
    source, destination = header.source, header.destination
    if isinstance(source, Inet) and isinstance(destination, Inet):
        if source.address.version == destination.address.version:
            form = _INET if source.address.version == 4 else _INET6
            family = _AF_INET if form is _INET else _AF_INET6
            addresses = form.pack(
                source.address.packed, destination.address.packed, source.port, destination.port
            )
    elif isinstance(source, Unix) and isinstance(destination, Unix):
        family, addresses = _AF_UNIX, _UNIX.pack(source.path, destination.path)
    if family != _AF_UNSPEC:
        transport = header.transport
    rest = addresses + b"".join(
        _TLV.pack(each.type, len(each.value)) + each.value for each in header.tlvs
    )
    if checksum:
        rest += _TLV.pack(TlvType.CRC32C, 4) + bytes(4)
    command = _VERSION | (not header.local)
    block = _HEAD.pack(SIGNATURE, command, family << 4 | transport, len(rest)) + rest
    return block[:-4] + crc32c(block).to_bytes(4, "big") if checksum else block


def encode_ssl(ssl: Ssl) -> bytes:
    """Return the value of an SSL TLV."""
    parts = ((type, getattr(ssl, name).encode()) for type, name in _SSL_PARTS.items())
    return _SSL.pack(ssl.client, ssl.verify) + b"".join(
        _TLV.pack(type, len(text)) + text for type, text in parts if text
    )


# -- read


def parse_block(block: bytes) -> Header:
    """Read one whole block; RemoteFault where it is not well made."""
    if len(block) < FIXED or length_of(block) != len(block):
        raise RemoteFault("PROXY header of a wrong length")
    command, kind = block[12] & 15, block[13]
    if command > 1:
        raise RemoteFault("PROXY header with an unknown command")
    local = command == 0
    family = kind >> 4
    if family > _AF_UNIX or kind & 15 > Transport.DGRAM:
        raise RemoteFault("PROXY header of an unknown family or transport")
    transport = Transport(kind & 15)
    source, destination, end = _endpoints(block, family)
    tlvs = tuple(Tlv(type, block[start:stop]) for type, start, stop in tlvs_at(block, end))
    _check_sum(block, end)
    if local or transport is Transport.UNSPEC:
        source = destination = None
    return Header(2, local, transport, source, destination, tlvs)


def _endpoints(block: bytes, family: int) -> tuple[Endpoint | None, Endpoint | None, int]:
    """Return both ends, and where the TLVs start."""
    if family == _AF_UNSPEC:
        return None, None, FIXED
    form = (_INET, _INET6, _UNIX)[family - 1]
    end = FIXED + form.size
    if len(block) < end:
        raise RemoteFault("PROXY header too short for its addresses")
    fields = form.unpack_from(block, FIXED)
    if family == _AF_UNIX:
        source, destination = (Unix(path.rstrip(b"\0")) for path in fields)
        return source, destination, end
    address = IPv4Address if family == _AF_INET else IPv6Address
    near, far, near_port, far_port = fields
    return Inet(address(near), near_port), Inet(address(far), far_port), end


def tlvs_at(block: bytes, start: int) -> Iterable[tuple[int, int, int]]:
    """Yield type, start and end of the value of each TLV from ``start`` on."""
    size = len(block)
    while start < size:
        if size - start < _TLV.size:
            raise RemoteFault("PROXY header with half a TLV")
        type, length = _TLV.unpack_from(block, start)
        start += _TLV.size
        if size - start < length:
            raise RemoteFault("PROXY header with a TLV longer than itself")
        yield type, start, start + length
        start += length


def _check_sum(block: bytes, tlvs: int) -> None:
    found = [(start, end) for type, start, end in tlvs_at(block, tlvs) if type == TlvType.CRC32C]
    if not found:
        return
    (start, end), *more = found
    if more or end - start != 4:
        raise RemoteFault("PROXY header with a bad CRC32C field")
    if crc32c(block[:start] + bytes(4) + block[end:]) != int.from_bytes(block[start:end], "big"):
        raise RemoteFault("PROXY header with a wrong CRC32C")


def parse_ssl(value: bytes) -> Ssl:
    """Read the value of an SSL TLV; parts that are not known are skipped."""
    if len(value) < _SSL.size:
        raise RemoteFault("PROXY header with a short SSL field")
    client, verify = _SSL.unpack_from(value)
    parts: dict[str, str] = {}
    for type, start, end in tlvs_at(value, _SSL.size):
        if type in _SSL_PARTS:
            parts[_SSL_PARTS[type]] = value[start:end].decode("utf-8", "backslashreplace")
    return Ssl(SslClient(client & 7), verify, **parts)


def _table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)  # noqa: PLW2901
        entries.append(entry)
    return tuple(entries)


_CRC = _table()


def crc32c(data: bytes) -> int:
    """Return the CRC32C of ``data`` (RFC 9260, Appendix A: Castagnoli, reflected)."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _CRC[(crc ^ octet) & 255]
    return crc ^ 0xFFFFFFFF
