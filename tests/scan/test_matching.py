"""Proves that clients and mailboxes are told apart as the ini means it."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.checks.matching import (
    is_listed_mailbox,
    is_listed_name,
    is_public,
    is_within,
    network_of,
    read_address,
)

PRIVATE = """
127.0.0.1 10.1.2.3 172.31.0.1 192.168.1.1 169.254.1.1 100.64.0.1 0.0.0.0 255.255.255.255
239.1.1.1 ::1 :: fd00::1 fe80::1 ff02::1
"""
PUBLIC = "192.0.2.1 8.8.8.8 100.128.0.1 172.32.0.1 2001:db8::1 2a00::1"


class MatchingTests(SynchronousTestCase):
    """The functions of :mod:`mailsecure.scan.checks.matching`."""

    def test_addresses(self):
        """Zones are cut off, mapped addresses are IPv4, anything else is none."""
        self.assertEqual(read_address("fe80::1%eth0"), ip_address("fe80::1"))
        self.assertEqual(read_address("::ffff:192.0.2.1"), ip_address("192.0.2.1"))
        for text in ("", "unix", "192.0.2.1.", "[192.0.2.1]"):
            self.assertIsNone(read_address(text))

    def test_networks(self):
        """A client's network is cut by its family's prefix."""
        self.assertEqual(network_of("192.0.2.77", 24, 64), "192.0.2.0/24")
        self.assertEqual(network_of("::ffff:192.0.2.77", 32, 64), "192.0.2.77/32")
        self.assertEqual(network_of("2001:db8:1:2:3::4", 24, 64), "2001:db8:1:2::/64")
        self.assertEqual(network_of("unix", 24, 64), "unix")

    @given(st.ip_addresses())
    def test_own_network(self, address):
        """Every client is in its network."""
        network = ip_network(network_of(str(address), 20, 56))
        plain = read_address(str(address))
        self.assertTrue(is_within(plain, (network,)))

    def test_within(self):
        """Families do not mix; no address is nowhere."""
        networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
        self.assertTrue(is_within(ip_address("192.0.2.9"), networks))
        self.assertTrue(is_within(ip_address("2001:db8::9"), networks))
        self.assertFalse(is_within(ip_address("198.51.100.1"), networks))
        self.assertFalse(is_within(None, networks))

    def test_public(self):
        """Nobody is asked about private addresses."""
        for text in PRIVATE.split():
            self.assertFalse(is_public(ip_address(text)), text)
        for text in PUBLIC.split():
            self.assertTrue(is_public(ip_address(text)), text)

    def test_names(self):
        """A name is meant as it stands, or everything below it."""
        patterns = ("mx.example.net", ".Example.org")
        for name in ("mx.example.net", "MX.Example.Net", "a.example.org", "a.b.example.org"):
            self.assertTrue(is_listed_name(name, patterns), name)
        for name in ("", "example.net", "a.mx.example.net", "example.org", "badexample.org"):
            self.assertFalse(is_listed_name(name, patterns), name)

    def test_mailboxes(self):
        """A mailbox, a domain, or everything below a domain."""
        patterns = ("Boss@example.com", "example.net", ".example.org")
        for mailbox in (
            "boss@example.com",
            "x@EXAMPLE.net",
            '"a@b"@example.net',
            "x@y.example.org",
        ):
            self.assertTrue(is_listed_mailbox(mailbox, patterns), mailbox)
        for mailbox in ("", "x@example.com", "x@y.example.net", "x@example.org"):
            self.assertFalse(is_listed_mailbox(mailbox, patterns), mailbox)
