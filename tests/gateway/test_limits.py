"""Limits a client: sessions at once, rates, what counts as one client, bounded memory."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.gateway.limits import TRUSTED_FOR, ClientLimits, Limits, Row, client_key


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


NODES = "xyz"
#: What happens: a session opens or ends at a node, mail comes, or a node tells its news.
events = st.lists(
    st.tuples(
        st.sampled_from(NODES),
        st.sampled_from(["open", "close", "message", "recipient", "sent", "tell"]),
        st.sampled_from("ab"),
    ),
    max_size=60,
)


class ClusterTests(SynchronousTestCase):
    """ClientLimits of several nodes that tell each other what happens."""

    def test_sessions_elsewhere(self) -> None:
        """Sessions at other nodes count, until their node ends them or is forgotten."""
        limits = ClientLimits(Limits(5, 0, 0, 0))
        limits.heard("x", [Row("a", 2), Row("b", 1)], 0)
        limits.heard("y", [Row("a", 2)], 0)
        self.assertEqual([limits.open("a", 0), bool(limits.open("a", 0))], ["", True])
        limits.heard("x", [Row("a", 1)], 0)
        self.assertEqual([limits.open("a", 0), bool(limits.open("a", 0))], ["", True])
        limits.forget("y")
        limits.heard("x", [Row("a", 0), Row("c", 0)], 0)
        self.assertEqual([limits.open("a", 0) for _ in range(3)], [""] * 3)
        self.assertTrue(limits.open("a", 0))
        limits.forget("nobody")

    def test_rates_elsewhere(self) -> None:
        """What is done elsewhere is taken off here, but nothing is owed."""
        limits = ClientLimits(Limits(99, 3, 3, 3))
        limits.heard("x", [Row("a", 0, 2, 2, 2)], 0)
        asks = (
            lambda now: not limits.open("a", now),
            lambda now: limits.message("a", now),
            lambda now: limits.recipient("a", now),
        )
        for ask in asks:
            self.assertEqual([ask(0), ask(0)], [True, False])
        limits.heard("x", [Row("a", 0, 99, 99, 99)], 0)
        for ask in asks:
            self.assertFalse(ask(19))
            self.assertTrue(ask(21))

    def test_known_elsewhere(self) -> None:
        """Who sent mail to one node is known at all."""
        here, there = (ClientLimits(Limits(9, 9, 9, 9), telling=True) for _ in range(2))
        here.sent_mail("a", 10)
        there.heard("here", here.news(9), 10)
        self.assertTrue(there.is_known("a", 11))
        self.assertEqual(there.news(9), [])

    def test_known_is_told_seldom(self) -> None:
        """Another message says nothing new, until the time is nearly over."""
        limits = ClientLimits(Limits(9, 9, 9, 9), telling=True)
        limits.sent_mail("a", 0)
        self.assertEqual(limits.news(9), [Row("a", 0, known=True)])
        limits.sent_mail("a", 60)
        self.assertEqual(limits.news(9), [])
        limits.sent_mail("a", 4000)
        self.assertEqual(limits.news(9), [Row("a", 0, known=True)])

    def test_news(self) -> None:
        """Each client's is told once, the first first, and not more than is wanted."""
        limits = ClientLimits(Limits(9, 9, 9, 9), telling=True)
        limits.open("a", 0)
        limits.message("b", 0)
        limits.recipient("b", 0)
        limits.open("a", 0)
        limits.close("a")
        self.assertEqual(limits.news(1), [Row("a", 1, 2)])
        self.assertEqual(limits.news(9), [Row("b", 0, 0, 1, 1)])
        self.assertEqual(limits.news(9), [])
        limits.close("a")
        self.assertEqual(limits.news(9), [Row("a", 0)])

    def test_nobody_listens(self) -> None:
        """News do not pile up; without a cluster there are none."""
        limits = ClientLimits(Limits(9, 9, 9, 9), 3, telling=True)
        for key in "abcde":
            limits.open(key, 0)
        self.assertEqual([row.key for row in limits.news(9)], ["c", "d", "e"])
        alone = ClientLimits(Limits(9, 9, 9, 9))
        alone.open("a", 0)
        self.assertEqual(alone.news(9), [])

    def test_bound(self) -> None:
        """Of clients elsewhere no more are remembered than of those here."""
        limits = ClientLimits(Limits(1, 0, 0, 0), 3)
        limits.heard("x", [Row(key, 1) for key in "abcde"], 0)
        self.assertEqual([bool(limits.open(key, 0)) for key in "abcde"], [True] * 3 + [False] * 2)

    def test_everything(self) -> None:
        """A node that knows nothing is told sessions first, then who was known last."""
        limits = ClientLimits(Limits(9, 9, 9, 9), telling=True)
        for key in "abc":
            limits.sent_mail(key, 0)
        limits.open("d", 0)
        limits.open("b", 0)
        limits.message("e", 0)
        self.assertEqual(
            limits.everything(1, 3),
            [Row("b", 1, known=True), Row("d", 1), Row("c", 0, known=True)],
        )
        self.assertEqual(len(limits.everything(1, 99)), 4)

    @given(events)
    def test_sums(self, happened: list[tuple[str, str, str]]) -> None:
        """Once all is told, every node counts the sessions of all, and knows whom any knows."""
        nodes = {name: ClientLimits(Limits(999, 0, 0, 0), telling=True) for name in NODES}
        open_sessions = dict.fromkeys([(node, key) for node in NODES for key in "ab"], 0)
        known = set()

        def tell(name: str) -> None:
            rows = nodes[name].news(99)
            for other, limits in nodes.items():
                if other != name:
                    limits.heard(name, rows, 0)

        for name, what, key in happened:
            limits = nodes[name]
            if what == "open":
                self.assertEqual(limits.open(key, 0), "")
                open_sessions[name, key] += 1
            elif what == "close":
                limits.close(key)
                open_sessions[name, key] = max(0, open_sessions[name, key] - 1)
            elif what == "message":
                limits.message(key, 0)
            elif what == "recipient":
                limits.recipient(key, 0)
            elif what == "sent":
                limits.sent_mail(key, 0)
                known.add(key)
            else:
                tell(name)
        for name in NODES:
            tell(name)
        for limits in nodes.values():
            for key in "ab":
                total = sum(open_sessions[name, key] for name in NODES)
                limits.limits = Limits(total + 1, 0, 0, 0)
                self.assertEqual(limits.open(key, 0), "")
                self.assertTrue(limits.open(key, 0))
                self.assertEqual(limits.is_known(key, 0), key in known)
