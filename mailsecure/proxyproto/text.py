"""Version 1 of the PROXY protocol: one line of text (pure).

``PROXY TCP4 192.0.2.7 192.0.2.25 50123 25`` and CRLF, or ``PROXY UNKNOWN`` and whatever
follows on the line (proxy-protocol.txt §2.1).  The standard asks a receiver to be strict,
because the line decides who a client is: one space between words, decimal numbers without
leading zeros, addresses of the family that is named, and 107 octets in all.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

from ..errors import RemoteFault
from .values import Header, Inet, Transport

__all__ = ["MAX_LINE", "PREFIX", "encode_line", "parse_line"]

#: The longest line, CRLF included (§2.1).
MAX_LINE = 107
PREFIX = b"PROXY "
_FAMILIES: dict[str, type[IPv4Address] | type[IPv6Address]] = {
    "TCP4": IPv4Address,
    "TCP6": IPv6Address,
}


def encode_line(header: Header) -> bytes:
    """Return the line; UNKNOWN for what version 1 cannot say."""
    source, destination = header.source, header.destination
    if (
        header.local
        or header.transport is not Transport.STREAM
        or not isinstance(source, Inet)
        or not isinstance(destination, Inet)
        or source.address.version != destination.address.version
    ):
        return b"PROXY UNKNOWN\r\n"
    line = (
        f"PROXY TCP{source.address.version} {source.address} {destination.address}"
        f" {source.port} {destination.port}\r\n"
    )
    return line.encode("ascii")


def parse_line(line: bytes) -> Header:
    """Read one line, without its CRLF; RemoteFault where it is not well made."""
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise RemoteFault("PROXY line with octets that are not ASCII") from None
    if words[0] != "PROXY" or len(words) < 2:
        raise RemoteFault("not a PROXY line")
    if words[1] == "UNKNOWN":
        return Header(1, transport=Transport.UNSPEC)
    family = _FAMILIES.get(words[1])
    if family is None:
        raise RemoteFault("PROXY line of an unknown family")
    if len(words) != 6:
        raise RemoteFault("PROXY line with too few or too many words")
    source, destination = (_address(family, word) for word in words[2:4])
    source_port, destination_port = (_port(word) for word in words[4:])
    return Header(
        1, source=Inet(source, source_port), destination=Inet(destination, destination_port)
    )


def _address(family: type[IPv4Address] | type[IPv6Address], word: str) -> IPv4Address | IPv6Address:
    # A zone ("%eth0") means something on the proxy only.
    if "%" in word:
        raise RemoteFault("PROXY line with a zone in an address")
    try:
        return family(word)
    except AddressValueError:
        raise RemoteFault("PROXY line with a bad address") from None


def _port(word: str) -> int:
    if not word.isdecimal() or len(word) > 5 or (word[0] == "0" and word != "0"):
        raise RemoteFault("PROXY line with a bad port")
    port = int(word)
    if port > 65535:
        raise RemoteFault("PROXY line with a bad port")
    return port
