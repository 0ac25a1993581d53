"""A network of clients is found by what the texts of its addresses begin with."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records.networks import holds, network_of, part_of


class NetworkTests(SynchronousTestCase):
    """What is a network, and what its addresses have in common."""

    def test_what_is_none(self) -> None:
        """An address, a name, a part of either, a mask that is too long."""
        for text in ("192.0.2.1", "mail.example", "192.0.", "192.0.2.0/33", "a/b", "/", ""):
            self.assertEqual(network_of(text), None, text)
        self.assertEqual(str(network_of(" 192.0.2.77/24 ")), "192.0.2.0/24")

    def test_parts(self) -> None:
        """As much as each address has."""
        for text, part in (
            ("192.0.2.0/24", "192.0.2."),
            ("192.0.2.0/25", "192.0.2."),
            ("192.0.2.1/32", "192.0.2.1"),
            ("10.0.0.0/8", "10."),
            ("8.0.0.0/7", "."),
            ("2001:db8::/32", "2001:db8:"),
            ("2001:db8:0:1::/64", "2001:db8:"),
            ("::/0", ":"),
            ("1:2:3:4:5:6:7:8/128", "1:2:3:4:5:6:7:8"),
        ):
            network = network_of(text)
            assert network is not None
            self.assertEqual(part_of(network), part, text)

    def test_what_is_in_it(self) -> None:
        """A client may have a name behind its address; what is no address is in none."""
        network = network_of("192.0.2.0/25")
        assert network is not None
        for client, held in (
            ("192.0.2.5", True),
            ("192.0.2.5 mail.example", True),
            ("192.0.2.200", False),
            ("2001:db8::1", False),
            ("192.0.2.5@example.com", False),
            ("", False),
        ):
            self.assertEqual(holds(network, client), held, client)

    @given(
        st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 128), st.booleans()
    )
    def test_each_address_has_the_part(self, address: object, length: int, named: bool) -> None:
        """Of any network, any address, however it is written."""
        text = str(address)
        network = network_of(f"{text}/{length % (33 if '.' in text else 129)}")
        assert network is not None
        self.assertIn(part_of(network), text)
        self.assertTrue(holds(network, text + " name" * named))
        self.assertIn(ip_address(text), network)
