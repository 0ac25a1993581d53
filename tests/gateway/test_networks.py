"""Proves that an address is found in its networks, whatever it looks like."""

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.gateway import networks
from mailsecure.gateway.networks import NetworkList

SOME = tuple(map(ip_network, ("192.0.2.0/24", "203.0.113.5/32", "2001:db8::/32", "fe80::/10")))


class NetworkListTests(SynchronousTestCase):
    """NetworkList."""

    def test_found(self):
        """Both families, mapped addresses, zones."""
        some = NetworkList(SOME)
        for address in (
            "192.0.2.7",
            "203.0.113.5",
            "2001:db8::1",
            "fe80::1%eth0",
            "::ffff:192.0.2.7",
        ):
            self.assertIn(address, some)
            self.assertIn(address, some)

    def test_not_found(self):
        """Others, and what is no address."""
        some = NetworkList(SOME)
        for address in ("192.0.3.7", "203.0.113.4", "2001:db9::1", "::1", "", "mx.test"):
            self.assertNotIn(address, some)

    def test_empty(self):
        """Nobody is in no networks, and that is false."""
        self.assertNotIn("192.0.2.7", NetworkList())
        self.assertFalse(NetworkList())
        self.assertTrue(NetworkList(SOME))

    def test_bounded(self):
        """It remembers so many, and then starts afresh."""
        self.patch(networks, "MAX_REMEMBERED", 3)
        some = NetworkList(SOME)
        for last in range(10):
            self.assertIn(f"192.0.2.{last}", some)
            self.assertLessEqual(len(some._known), 3)
