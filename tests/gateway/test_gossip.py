"""Proves that what clients do at one node is known to all, whoever comes, goes or is slow."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.sharing import Sharing
from mailsecure.errors import RemoteFault
from mailsecure.gateway.gossip import SUBJECT, LimitsGossip
from mailsecure.gateway.limits import ClientLimits, Limits
from mailsecure.scan import gossip
from mailsecure.scan.gossip import INTERVAL, ROWS

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


class Node:
    """The limits of one node, and its end of the lines."""

    def __init__(self, clock, name):
        self.name = name
        self.peers = {}
        self.reads = True
        self.said = []
        self.limits = ClientLimits(Limits(10, 100, 100, 100), telling=True)
        self.gossip = LimitsGossip(clock, self.limits)
        self.sharing = Sharing(self.send)
        self.gossip.start(self.sharing)

    def send(self, node, message):
        peer = self.peers.get(node)
        if peer is None or not peer.reads:
            return False
        self.said.append(message["body"])
        peer.sharing.heard(self.name, message)
        return True

    def link(self, other):
        for one, two in ((self, other), (other, self)):
            one.peers[two.name] = two
            one.sharing.linked(two.name)

    def part(self, other):
        for one, two in ((self, other), (other, self)):
            del one.peers[two.name]
            one.sharing.unlinked(two.name)

    def room(self, key="client"):
        """Return how many sessions a client may still have here."""
        opened = 0
        while not self.limits.open(key, 0):
            opened += 1
        for _ in range(opened):
            self.limits.close(key)
        return opened


class GossipTests(SynchronousTestCase):
    """:class:`LimitsGossip` of two or three nodes."""

    def setUp(self):
        self.clock = Clock()
        self.one, self.two = Node(self.clock, "one"), Node(self.clock, "two")

    def open(self, node, count, key="client"):
        for _ in range(count):
            self.assertEqual(node.limits.open(key, 0), "")

    def turn(self, turns=1):
        for _ in range(turns):
            self.clock.advance(INTERVAL)

    def test_told(self):
        """A session that is opened or ends at one node is counted at the other."""
        self.one.link(self.two)
        self.turn()
        self.open(self.one, 6)
        self.turn()
        self.assertEqual(self.two.room(), 4)
        self.one.limits.close("client")
        self.turn()
        self.assertEqual(self.two.room(), 5)

    def test_silence(self):
        """Where nothing happens, nothing is said."""
        self.one.link(self.two)
        self.turn(2)
        said = len(self.one.said)
        self.turn(100)
        self.assertEqual(len(self.one.said), said)

    def test_late_node(self):
        """Who comes later is told everything, once."""
        self.open(self.one, 7)
        self.one.limits.sent_mail("friend", 0)
        self.turn(4)
        self.one.link(self.two)
        self.turn(2)
        self.assertEqual(self.two.room(), 3)
        self.assertTrue(self.two.limits.is_known("friend", 1))
        self.assertEqual([body["whole"] for body in self.one.said], [True])

    def test_end(self):
        """The sessions of a node vanish with its link, and come back with it."""
        self.one.link(self.two)
        self.open(self.one, 7)
        self.turn(2)
        self.one.part(self.two)
        self.assertEqual(self.two.room(), 10)
        self.one.link(self.two)
        self.turn(2)
        self.assertEqual(self.two.room(), 3)

    def test_slow_reader(self):
        """What a node did not read is told again when it reads."""
        self.one.link(self.two)
        self.turn()
        self.two.reads = False
        self.open(self.one, 7)
        self.turn(3)
        self.one.limits.close("client")
        self.turn(3)
        self.assertEqual(self.two.room(), 10)
        self.two.reads = True
        self.turn(2)
        self.assertEqual(self.two.room(), 4)

    def test_many(self):
        """Everything of a large node goes in pieces, and what happens meanwhile is not lost."""
        self.patch(gossip, "MESSAGES", 2)
        clients = [f"client{number}" for number in range(5 * ROWS)]
        for key in clients:
            self.open(self.one, 9, key)
        self.turn(20)
        self.one.link(self.two)
        self.turn()
        self.assertEqual(sum(len(body["rows"]) for body in self.one.said), 2 * ROWS)
        for key in clients[:3]:
            self.one.limits.close(key)
        self.turn(5)
        self.assertTrue(all(len(body["rows"]) <= ROWS for body in self.one.said))
        self.assertEqual([self.two.room(key) for key in clients[:4]], [2, 2, 2, 1])
        self.assertEqual({self.two.room(key) for key in clients[4:]}, {1})

    def test_stop(self):
        """After the stop nothing is said."""
        self.one.link(self.two)
        self.turn(2)
        self.one.gossip.stop()
        said = len(self.one.said)
        self.open(self.one, 1)
        self.turn(5)
        self.assertEqual(len(self.one.said), said)

    @given(json_like)
    def test_nonsense(self, rows):
        """Whatever a node says, nothing but RemoteFault comes of it."""
        node = Node(Clock(), "one")
        for body in ({"rows": rows}, {"rows": [rows]}, {"rows": rows, "whole": rows}):
            try:
                node.gossip.heard("two", body)
            except RemoteFault:
                continue

    def test_out_of_bounds(self):
        """Every bound holds."""
        good = ["client", 1, 1, 1, 1, False]
        self.one.gossip.heard("two", {"rows": [good] * ROWS})
        for rows in (
            None,
            [good] * (ROWS + 1),
            [good[:5]],
            [["", *good[1:]]],
            [["k" * 65, *good[1:]]],
            [[7, *good[1:]]],
            [["client", -1, 1, 1, 1, False]],
            [["client", True, 1, 1, 1, False]],
            [["client", 1, 1, 1, 10**7, False]],
            [["client", 1, 1, 1, 1, 0]],
        ):
            with self.assertRaises(RemoteFault, msg=str(rows)[:60]):
                self.one.gossip.heard("two", {"rows": rows})
        self.one.sharing.heard("two", {"subject": SUBJECT, "body": {"rows": "all"}})
        self.assertEqual(self.one.sharing.ignored, 1)
