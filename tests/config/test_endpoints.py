"""Proves that an endpoint at one IP address is known as such."""

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.endpoints import Place, place_of


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

    def test_elsewhere(self):
        """Everywhere is not one address, and a path is none."""
        for said in ("tcp:25", "tcp6:25", "unix:/run/smtp", "systemd:INET:index=0"):
            self.assertIsNone(place_of(said))
