"""Proves that it is known where an endpoint of TCP listens, and whether for IPv6 alone."""

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.endpoints import Place, leaves_ipv4, place_of


class PlaceTests(SynchronousTestCase):
    """:func:`place_of`."""

    def test_at_an_address(self):
        """Either family, by position or by name."""
        four = Place(ip_address("192.0.2.25"), 25, None)
        self.assertEqual(place_of("tcp:25:interface=192.0.2.25"), four)
        self.assertEqual(place_of("tcp:interface=192.0.2.25:port=25"), four)
        six = Place(ip_address("2001:db8::25"), 465, 100)
        for kind in ("tcp", "tcp6"):
            said = rf"{kind}:465:interface=2001\:db8\:\:25:backlog=100"
            self.assertEqual(place_of(said), six)

    def test_everywhere(self):
        """Without an address it is every one of the family."""
        four, six = Place(ip_address("0.0.0.0"), 25, None), Place(ip_address("::"), 25, None)
        for said in ("tcp:25", "tcp:25:interface=0.0.0.0"):
            self.assertEqual(place_of(said), four)
        for said in ("tcp6:25", r"tcp6:25:interface=\:\:", r"tcp:25:interface=0\:\:0"):
            self.assertEqual(place_of(said), six)

    def test_elsewhere(self):
        """A path is no place of TCP, nor is what systemd hands over."""
        for said in ("unix:/run/smtp", "systemd:INET:index=0"):
            self.assertIsNone(place_of(said))


class LeavesIpv4Tests(SynchronousTestCase):
    """:func:`leaves_ipv4`."""

    def leaves(self, description, *others):
        """Say whether ``description`` takes IPv6 alone beside ``others``."""
        place = place_of(description)
        first, last = (description, *others), (*others, description)
        self.assertEqual(leaves_ipv4(place, first), leaves_ipv4(place, last))
        return leaves_ipv4(place, last)

    def test_beside(self):
        """The port is listed for IPv4 too, however either is written."""
        for six in ("tcp6:25", r"tcp:25:interface=\:\:", r"tcp6:backlog=9:port=25"):
            for four in (
                "tcp:25",
                "tcp:25:interface=0.0.0.0:backlog=9",
                "tcp:25:interface=192.0.2.1",
            ):
                self.assertTrue(self.leaves(six, "unix:/run/smtp", four, "tcp:465"))

    def test_alone(self):
        """Nobody else is to take IPv4 at this port."""
        for others in ((), ("tcp:465", "unix:/run/smtp"), ("tcp6:465", "systemd:INET:index=0")):
            self.assertFalse(self.leaves("tcp6:25", *others))

    def test_others(self):
        """Only the port of every IPv6 address takes IPv4 at all."""
        for said in ("tcp:25", "tcp:25:interface=192.0.2.25", r"tcp6:25:interface=\:\:1"):
            self.assertFalse(self.leaves(said, "tcp:25"))
