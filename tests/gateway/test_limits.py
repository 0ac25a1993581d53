"""Limits a client: sessions at once, rates, what counts as one client, bounded memory."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.gateway.limits import TRUSTED_FOR, ClientLimits, Limits, client_key


class ClientKeyTests(SynchronousTestCase):
    """client_key."""

    def test_keys(self) -> None:
        """An IPv4 address counts for itself, an IPv6 address for its /64."""
        for address, key in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8::1", "2001:db8:0:0::/64"),
            ("fe80::1%eth0", "fe80:0:0:0::/64"),
            ("::1", "0:0:0:0::/64"),
            ("1::", "1:0:0:0::/64"),
        ):
            self.assertEqual(client_key(address), key)

    @given(st.ip_addresses(v=6))
    def test_is_the_network(self, address: IPv6Address) -> None:
        """The key is the network that the address is in."""
        if address.ipv4_mapped is None:
            self.assertIn(address, IPv6Network(client_key(str(address))))


class ClientLimitsTests(SynchronousTestCase):
    """ClientLimits."""

    def test_sessions_at_once(self) -> None:
        """One more than allowed is refused; after a close there is room again."""
        limits = ClientLimits(Limits(2, 0, 0, 0))
        self.assertEqual([limits.open("a", 0), limits.open("a", 0)], ["", ""])
        self.assertEqual(limits.open("a", 0), "too many sessions at once")
        self.assertEqual(limits.open("b", 0), "")
        limits.close("a")
        self.assertEqual(limits.open("a", 0), "")
        limits.close("unknown")

    def test_rates(self) -> None:
        """A minute's worth may come at once, then as fast as the rate."""
        for ask in (
            lambda limits, now: not limits.open("a", now),
            lambda limits, now: limits.message("a", now),
            lambda limits, now: limits.recipient("a", now),
        ):
            limits = ClientLimits(Limits(99, 3, 3, 3))
            self.assertEqual([ask(limits, 100.0) for _ in range(4)], [True, True, True, False])
            self.assertTrue(ask(limits, 120.5))
            self.assertFalse(ask(limits, 121.0))

    def test_no_rate(self) -> None:
        """A rate of 0 is no limit."""
        limits = ClientLimits(Limits(5000, 0, 0, 0))
        for _ in range(1000):
            self.assertEqual(limits.open("a", 0), "")
            self.assertTrue(limits.message("a", 0))
            self.assertTrue(limits.recipient("a", 0))

    def test_known(self) -> None:
        """Who sent a message is known for a day."""
        limits = ClientLimits(Limits(9, 0, 0, 0))
        self.assertFalse(limits.is_known("a", 0))
        limits.open("a", 0)
        self.assertFalse(limits.is_known("a", 0))
        limits.sent_mail("a", 10)
        self.assertTrue(limits.is_known("a", 10 + TRUSTED_FOR - 1))
        self.assertFalse(limits.is_known("a", 10 + TRUSTED_FOR))

    def test_bounded(self) -> None:
        """A flood of clients does not grow the memory, and keeps those with sessions."""
        limits = ClientLimits(Limits(1, 0, 0, 0), capacity=10)
        limits.open("busy", 0)
        for number in range(100):
            limits.message(f"client{number}", 0)
        self.assertEqual(len(limits), 10)
        self.assertEqual(limits.open("busy", 0), "too many sessions at once")

    def test_all_busy(self) -> None:
        """Where every record has a session, none is forgotten."""
        limits = ClientLimits(Limits(1, 0, 0, 0), capacity=2)
        for key in "abc":
            self.assertEqual(limits.open(key, 0), "")
        self.assertEqual(len(limits), 3)
