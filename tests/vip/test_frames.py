"""Proves that neighbours are told in octets that RFC 826 and RFC 4861 prescribe."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.vip.frames import (
    announcements,
    arp_reply,
    arp_request,
    neighbour_advertisement,
)

MAC = bytes.fromhex("02005e102030")
FOUR = IPv4Address("192.0.2.25")
SIX = IPv6Address("2001:db8::25")

REQUEST = (
    "ffffffffffff 02005e102030 0806"  # Ethernet: to all, from us, ARP
    "0001 0800 06 04 0001"  # Ethernet, IPv4, their lengths, request
    "02005e102030 c0000219"  # the sender's addresses
    "000000000000 c0000219"  # the target's: unknown, and the same
)
REPLY = (
    "ffffffffffff 02005e102030 08060001 0800 06 04 000202005e102030 c000021902005e102030 c0000219"
)
#: Without its checksum.
ADVERTISEMENT = (
    "333300000001 02005e102030 86dd"  # Ethernet: to all nodes, from us, IPv6
    "60000000 0020 3a ff"  # version, 32 octets of payload, ICMPv6, hop limit 255
    "20010db8000000000000000000000025"  # source: the address itself
    "ff020000000000000000000000000001"  # destination: all nodes
    "88 00 {checksum} 20000000"  # neighbour advertisement, override only
    "20010db8000000000000000000000025"  # target
    "02 01 02005e102030"  # target's link-layer address, 8 octets
)

macs = st.binary(min_size=6, max_size=6)
sixes = st.integers(0, 2**128 - 1).map(IPv6Address)


def ones_complement_sum(octets):
    """Add 16-bit words, each carry at once (RFC 1071); 0xffff where a checksum is right."""
    total = 0
    for high, low in zip(octets[::2], octets[1::2], strict=True):
        total += 256 * high + low
        if total > 0xFFFF:
            total -= 0xFFFF
    return total


def covered(frame):
    """Return what the checksum of a frame covers: pseudo-header (RFC 8200 §8.1), message."""
    source, destination, message = frame[22:38], frame[38:54], frame[54:]
    length = len(message).to_bytes(4, "big")
    return source + destination + length + b"\0\0\0" + frame[20:21] + message


class ArpTests(SynchronousTestCase):
    """RFC 826's packet, in the forms of RFC 5227."""

    def test_request(self):
        """A request for one's own address, by nobody."""
        self.assertEqual(arp_request(FOUR, MAC), bytes.fromhex(REQUEST))

    def test_reply(self):
        """A reply that nobody asked for."""
        self.assertEqual(arp_reply(FOUR, MAC), bytes.fromhex(REPLY))

    def test_both(self):
        """An IPv4 address is announced in both forms."""
        self.assertEqual(announcements(FOUR, MAC), (arp_request(FOUR, MAC), arp_reply(FOUR, MAC)))


class AdvertisementTests(SynchronousTestCase):
    """RFC 4861 §4.4's message, unsolicited (§7.2.6)."""

    def test_octets(self):
        """Each octet; the checksum is worked out word by word."""
        addresses = (0x2001 + 0x0DB8 + 0x0025) + 0xFF02 + 0x0001
        message = 0x8800 + 0x2000 + (0x2001 + 0x0DB8 + 0x0025) + 0x0201 + 0x0200 + 0x5E10 + 0x2030
        total = addresses + 0x0020 + 0x003A + message
        checksum = ~(total % 0xFFFF) & 0xFFFF
        expected = bytes.fromhex(ADVERTISEMENT.format(checksum=f"{checksum:04x}"))
        self.assertEqual(neighbour_advertisement(SIX, MAC), expected)

    def test_alone(self):
        """An IPv6 address needs one frame."""
        self.assertEqual(announcements(SIX, MAC), (neighbour_advertisement(SIX, MAC),))

    @given(sixes, macs)
    def test_checksum(self, address, mac):
        """Whatever the addresses are, the receiver's sum comes out."""
        self.assertEqual(
            ones_complement_sum(covered(neighbour_advertisement(address, mac))), 0xFFFF
        )

    @given(sixes, macs)
    def test_length(self, address, mac):
        """The header tells how long the message is."""
        frame = neighbour_advertisement(address, mac)
        self.assertEqual(int.from_bytes(frame[18:20], "big"), len(frame) - 54)
