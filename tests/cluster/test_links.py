"""Proves that links are kept, and that only a death is taken for one, on a network in memory."""

import itertools
import random

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.certificates import make_identity
from mailsecure.cluster.keys import Key, KeyRing
from mailsecure.cluster.link import GREETING, SILENCE, Link, LinkTls, _words, under_tls
from mailsecure.cluster.linkdoor import HALF_OPEN, STRANGERS_A_SECOND
from mailsecure.cluster.linkframes import Kind, Message, encode_message
from mailsecure.cluster.links import LONGEST_DELAY, Links
from mailsecure.cluster.verify import DEADLINE
from mailsecure.errors import LocalFault
from mailsecure.world import World

from .wires import Network

ONE, TWO = Key(b"1" * 32), Key(b"2" * 32)
PORT = 5025
STRANGER = "192.0.2.99"


class Node:
    """A node's links, and what they told."""

    def __init__(self, network, name, address, ring, seed):
        self.network, self.name, self.address = network, name, address
        self.told = []
        self.links = Links(
            World(network, network, lambda: 0.0, random.Random(seed), None),
            name,
            ring,
            address,
            PORT,
            lambda node: self.told.append(("gone", node)),
            lambda node: self.told.append(("left", node)),
        )

    def state(self, node):
        return self.links.snapshot()[node]

    def up(self, node):
        return self.state(node).up


class Case(SynchronousTestCase):
    """Nodes a, b, c at 192.0.2.1, .2, .3."""

    def setUp(self):
        self.network = Network()
        self.nodes = {}
        self.seed = 0

    def start(self, name, *keys, alone=False):
        """Start a process; it knows the other two, unless it is ``alone``."""
        self.seed += 1
        address = self.address(name)
        node = Node(self.network, name, address, KeyRing(keys or (ONE,)), self.seed)
        self.successResultOf(node.links.bind())
        self.nodes[name] = node
        if not alone:
            self.meet(node)
        return node

    @staticmethod
    def address(name):
        return f"192.0.2.{ord(name) - ord('a') + 1}"

    def meet(self, node, names="abc"):
        """Tell a node who is there."""
        places = {name: (self.address(name), PORT) for name in names if name != node.name}
        node.links.wanted(places)

    def pair(self):
        """Start a and b, linked."""
        b, a = self.start("b", alone=True), self.start("a", alone=True)
        for node in (a, b):
            self.meet(node, "ab")
        self.network.settle()
        self.assertTrue(a.up("b") and b.up("a"))
        return a, b

    def kill(self, node):
        """End a node's process; its timers are ours to stop."""
        self.network.kill(node.address)
        node.links._look.stop()
        for peer in node.links._peers.values():
            peer.rest()
            if peer.link is not None:
                peer.link._ended = True


class Keeping(Case):
    """Links come up and stay up."""

    def test_three(self):
        """Every pair has one link, from the smaller name, from its address."""
        nodes = [self.start(name) for name in "cab"]
        self.network.settle(1.0)
        for node in nodes:
            self.assertEqual([state.up for state in node.links.snapshot().values()], [True] * 2)
        pairs = {(source, place[0]) for _, source, place in self.network.attempts}
        self.assertEqual(
            pairs,
            {(self.address(x), self.address(y)) for x, y in ("ab", "ac", "bc")},
        )
        self.assertEqual(len(self.network.ends), 6)

    def test_state(self):
        """What status shows."""
        a, b = self.pair()
        self.network.settle(6.0)
        for node, peer in ((a, "b"), (b, "a")):
            state = node.state(peer)
            self.assertEqual((state.connects, state.failures, state.reason), (1, 0, ""))
            self.assertAlmostEqual(state.since, 6.0, delta=0.2)
            self.assertLess(state.round_trip, 0.1)
            self.assertEqual(state.version, Links.version)
        self.assertEqual(a.told + b.told, [])

    def test_stays(self):
        """Pings keep it up, for an hour."""
        a, b = self.pair()
        for _ in range(3600):
            self.network.advance(1.0)
            self.network.settle()
        self.assertEqual((a.state("b").connects, b.state("a").connects), (1, 1))
        self.assertEqual(len(self.network.attempts), 1)

    def test_back_off(self):
        """Attempts on a node that is not there: soon, then ever less often."""
        a = self.start("a", alone=True)
        self.meet(a, "ab")
        self.network.settle(30.0)
        times = [time for time, _, _ in self.network.attempts]
        waits = [later - sooner for sooner, later in itertools.pairwise(times)]
        self.assertAlmostEqual(waits[0], 0.1, delta=0.06)
        self.assertEqual(waits, sorted(waits))
        self.assertAlmostEqual(waits[-1], LONGEST_DELAY, delta=0.1)
        self.assertLess(len(times), 13)
        self.assertEqual(a.state("b").reason, "refused")
        self.assertEqual(a.told, [])

    def test_nudge(self):
        """A node that was heard anew is not waited for."""
        a = self.start("a", alone=True)
        self.meet(a, "ab")
        self.network.settle(20.0)
        b = self.start("b", alone=True)
        a.links.nudge("b")
        a.links.nudge("nobody")
        self.network.settle()
        self.assertTrue(a.up("b"))
        self.assertTrue(b.up("a"))

    def test_accepts_before_it_was_told(self):
        """The other may hear of us first."""
        b = self.start("b", alone=True)
        a = self.start("a")
        self.network.settle()
        self.assertTrue(b.up("a"))
        self.meet(b)
        self.assertTrue(a.up("b"))

    def test_forgotten(self):
        """A node that is wanted no more is connected to no more."""
        a = self.start("a", alone=True)
        self.meet(a, "ab")
        self.network.settle(1.0)
        a.links.wanted({})
        before = len(self.network.attempts)
        self.network.settle(20.0)
        self.assertEqual(len(self.network.attempts), before)
        self.assertEqual(a.links.snapshot(), {})

    def test_forgotten_while_up(self):
        """Its link stays; when that ends, nobody asks why."""
        a, b = self.pair()
        a.links.wanted({})
        self.assertTrue(a.up("b"))
        self.kill(b)
        self.network.settle(1.0)
        self.assertEqual((a.told, a.links.snapshot()), ([], {}))

    def test_forgotten_while_connecting(self):
        """An attempt under way is given up."""
        a = self.start("a", alone=True)
        self.network.silent.add(self.address("b"))
        self.meet(a, "ab")
        self.network.settle(0.2)
        a.links.wanted({})
        self.network.settle(10.0)
        self.assertEqual((a.links.snapshot(), len(self.network.attempts)), ({}, 1))

    def test_moved(self):
        """A node that has another address is connected to there."""
        a = self.start("a", alone=True)
        a.links.wanted({"b": ("192.0.2.77", PORT)})
        self.network.settle(20.0)
        self.start("b", alone=True)
        self.meet(a, "ab")
        self.network.settle()
        self.assertTrue(a.up("b"))

    def test_port_taken(self):
        """One line that says where and why."""
        self.start("a")
        other = Node(self.network, "a", self.address("a"), KeyRing((ONE,)), 9)
        fault = self.failureResultOf(other.links.bind(), LocalFault)
        self.assertEqual(
            str(fault.value),
            "cannot take links at 192.0.2.1 port 5025: Address already in use",
        )
        self.successResultOf(other.links.stopService())


class Ends(Case):
    """What the end of a link means."""

    def test_killed(self):
        """The other is told at once, once, whoever connected; and links again later."""
        for victim in (0, 1):
            pair = self.pair()
            dies, stays = pair[victim], pair[1 - victim]
            self.kill(dies)
            self.network.settle()
            self.assertEqual(stays.told, [("gone", dies.name)])
            self.assertFalse(stays.up(dies.name))
            self.network.settle(20.0)
            self.assertEqual(len(stays.told), 1)
            again = self.start(dies.name)
            self.network.settle(LONGEST_DELAY + 0.2)
            self.assertTrue(stays.up(dies.name) and again.up(stays.name))
            self.assertEqual((len(stays.told), stays.state(dies.name).connects), (1, 2))
            for node in (again, stays):
                self.kill(node)

    def test_all_survivors(self):
        """Each of the others is told."""
        nodes = [self.start(name) for name in "abc"]
        self.network.settle(1.0)
        self.kill(nodes[1])
        self.network.settle()
        self.assertEqual(nodes[0].told, [("gone", "b")])
        self.assertEqual(nodes[2].told, [("gone", "b")])
        self.assertTrue(nodes[0].up("c"))

    def test_forged_reset(self):
        """Resets, again and again: linked again, and nobody is gone."""
        a, b = self.pair()
        for _ in range(10):
            self.network.reset(a.address, b.address)
            self.network.settle()
            self.assertFalse(a.up("b"))
            self.network.settle(LONGEST_DELAY + 1.0)
            self.assertTrue(a.up("b") and b.up("a"))
        self.assertEqual(a.told + b.told, [])

    def test_silent(self):
        """A peer of whom nothing comes is dropped, without a verdict."""
        a, b = self.pair()
        self.network.silent.add(b.address)
        attempts = len(self.network.attempts)
        self.network.settle(SILENCE + 1.5)
        self.assertFalse(a.up("b") or b.up("a"))
        self.assertEqual(a.state("b").reason, "silent")
        self.network.silent.clear()
        self.network.settle(GREETING + LONGEST_DELAY)
        self.assertTrue(a.up("b") and b.up("a"))
        self.assertEqual(a.told + b.told, [])
        asked = {source for _, source, place in self.network.attempts[attempts:]}
        self.assertEqual(asked, {a.address})

    def test_dies_behind_a_silent_network(self):
        """No answer is no verdict."""
        a, b = self.pair()
        self.network.reset(a.address, b.address)
        self.network.silent.add(b.address)
        self.network.settle(DEADLINE + 0.1)
        self.kill(b)
        self.network.settle(10.0)
        self.assertEqual(a.told, [])

    def test_restarted_before_we_asked(self):
        """Somebody listens again: the election hears from him."""
        a, b = self.pair()
        self.kill(b)
        again = self.start("b")
        self.network.settle(1.0)
        self.assertTrue(a.up("b") and again.up("a"))
        self.assertEqual((a.told, a.state("b").connects), ([], 2))

    def test_back_while_we_ask(self):
        """A link that comes up ends the question."""
        a, b = self.pair()
        self.network.reset(b.address, a.address)
        for _ in range(3):
            self.network.advance(0)
        self.assertIsNotNone(a.links._peers["b"].verification)
        a.links.nudge("b")
        self.network.settle()
        self.assertTrue(b.up("a"))
        self.assertIsNone(a.links._peers["b"].verification)
        self.assertIsNone(b.links._peers["a"].verification)

    def test_refusal_that_lies(self):
        """A firewall that resets all: believed once for each life of the node."""
        a, b = self.pair()
        port = self.network.ports.pop((b.address, PORT))
        self.network.reset(b.address, a.address)
        self.network.settle()
        self.assertEqual((a.told, b.told), ([("gone", "b")], []))
        for _ in range(2):
            self.network.ports[(b.address, PORT)] = port
            self.network.settle(LONGEST_DELAY + 0.2)
            self.assertTrue(a.up("b"))
            del self.network.ports[(b.address, PORT)]
            self.network.reset(b.address, a.address)
            self.network.settle(1.0)
        self.assertEqual(a.told, [("gone", "b")])
        self.kill(b)
        self.start("b")
        self.network.settle(LONGEST_DELAY + 0.2)
        self.kill(self.nodes["b"])
        self.network.settle(1.0)
        self.assertEqual(a.told, [("gone", "b")] * 2)

    def test_stopped(self):
        """Who stops says so: left, not gone, and no questions."""
        for leaver in (0, 1):
            pair = self.pair()
            leaves, stays = pair[leaver], pair[1 - leaver]
            stopped = leaves.links.stopService()
            self.network.settle(1.0)
            self.successResultOf(stopped)
            self.assertEqual((stays.told, leaves.told), ([("left", leaves.name)], []))
            self.assertEqual(
                stays.state(leaves.name).reason[:10], "it stopped" if leaver == 0 else "refused"
            )
            self.kill(stays)

    def test_stops_although_nobody_listens(self):
        """The stop is bounded; nothing is left to do after it."""
        a, b = self.pair()
        self.network.silent.add(b.address)
        stopped = a.links.stopService()
        self.network.settle(1.0)
        self.successResultOf(stopped)
        self.kill(b)
        self.network.settle(1.0)
        self.assertEqual(self.network.getDelayedCalls(), [])
        a.links.wanted({"c": ("192.0.2.3", PORT)})
        a.links.nudge("c")
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_second_link(self):
        """A second link of the same node replaces the first, whose end it has lost."""
        a, b = self.pair()
        first = b.links._peers["a"].link
        # Our reset is lost on its way to b, and we connect again.
        self.network.silent.add(b.address)
        a.links._peers["b"].link.drop("lost by the test")
        self.network.settle()
        self.network.silent.clear()
        a.links.nudge("b")
        self.network.settle()
        self.assertIsNot(b.links._peers["a"].link, first)
        self.assertTrue(a.up("b") and b.up("a"))
        self.network.settle(5.0)
        self.assertEqual((a.told + b.told, b.state("a").connects), ([], 2))

    def test_standstill(self):
        """Who was held up for long, but less than the others wait, drops nobody."""
        a, b = self.pair()
        self.network.settle(4.0)
        before = self.network.rightNow
        self.network.rightNow += SILENCE - 1.0
        self.network.settle(3.0)
        self.assertGreater(self.network.rightNow - before, SILENCE)
        self.assertEqual((a.state("b").connects, b.state("a").connects), (1, 1))

    def test_dropped_for_good(self):
        """Wanted again while an old attempt still ends."""
        a = self.start("a", alone=True)
        b = self.start("b", alone=True)
        self.meet(a, "ab")
        self.network.advance(0)
        a.links.wanted({})
        self.meet(a, "ab")
        self.network.settle(30.0)
        self.assertTrue(a.up("b") and b.up("a"))
        self.assertEqual((a.state("b").connects, len(self.network.ends)), (1, 2))


class Rotation(Case):
    """Another ring while links are up."""

    def test_whole(self):
        """Add, use, drop: at each step, in either order, both are linked in the end."""
        a, b = self.pair()
        for keys in ((ONE, TWO), (TWO, ONE), (TWO,)):
            for node in (a, b):
                node.links.rekey(KeyRing(keys))
                self.network.settle(LONGEST_DELAY + 1.0)
                self.assertTrue(a.up("b") and b.up("a"), (keys, node.name))
        self.assertEqual(a.told + b.told, [])

    def test_same(self):
        """The same ring again changes nothing."""
        a, _ = self.pair()
        before = a.links._tls
        a.links.rekey(KeyRing((ONE,)))
        self.assertIs(a.links._tls, before)

    def test_removed(self):
        """Who has only the removed key is out, and that is no death."""
        a, b = self.pair()
        a.links.rekey(KeyRing((TWO,)))
        self.network.settle(10.0)
        self.assertFalse(a.up("b") or b.up("a"))
        self.assertEqual(a.told + b.told, [])
        self.assertIn("TLS", a.state("b").reason)


class Talker(Protocol):
    """A stranger without TLS."""

    def __init__(self, says):
        self.says = says
        self.heard = b""
        self.lost = None

    def connectionMade(self):
        self.transport.write(self.says)

    def dataReceived(self, data):
        self.heard += data

    def connectionLost(self, reason):
        self.lost = reason


class Once(ClientFactory):
    """Makes one protocol."""

    def __init__(self, protocol):
        self.made = protocol

    def buildProtocol(self, addr):
        return self.made


class Impostor:
    """A member of the cluster that says what the test wants."""

    version = "1"
    instance = "x"

    def __init__(self, network, node, *keys):
        self.network, self.node = network, node
        self.tls = LinkTls(make_identity(node, KeyRing(keys), b"i" * 32))
        self.ends = []

    def connect(self, wanted="a", source="192.0.2.9"):
        self.link = Link(self, self.network, wanted)
        made = under_tls(self.link, self.tls, self.network, None)
        place = (f"192.0.2.{ord(wanted) - ord('a') + 1}", PORT)
        self.network.connectTCP(*place, Once(made), 5, (source, 0))
        self.network.settle()

    def opened(self, link):
        pass

    def leaves(self, link):
        pass

    def closed(self, link, reason, ours):
        self.ends.append(reason)


class Door(Case):
    """Strangers, and members that lie."""

    def knock(self, says=b"", source=STRANGER, to="a"):
        talker = Talker(says)
        self.network.connectTCP(self.address(to), PORT, Once(talker), 5, (source, 0))
        self.network.settle()
        return talker

    def test_stranger(self):
        """Gets nothing, is closed in time and counted."""
        a = self.start("a", alone=True)
        silent = self.knock()
        for says in (b"EHLO stranger\r\n", bytes(600), b"\x16\x03\x01\x00\x05hello"):
            talker = self.knock(says)
            self.assertIsNotNone(talker.lost)
            # At most an alert of TLS.
            self.assertLess(len(talker.heard), 10)
        self.assertIsNone(silent.lost)
        self.network.settle(GREETING + 0.1)
        self.assertIsNotNone(silent.lost)
        self.assertEqual((a.links.turned_away, silent.heard), (4, b""))
        self.assertEqual(a.links.snapshot(), {})

    def test_other_cluster(self):
        """A certificate of another cluster's key is none."""
        a = self.start("a", alone=True)
        impostor = Impostor(self.network, "0", TWO)
        impostor.connect()
        self.assertEqual(len(impostor.ends), 1)
        self.assertEqual((a.links.turned_away, a.links.snapshot()), (1, {}))

    def test_half_open(self):
        """So many may stand in the door, and a node that we know comes in past them."""
        a = self.start("b", alone=True)
        self.meet(a, "ab")
        crowd = []
        for _ in range(HALF_OPEN + 10):
            crowd.append(self.knock(to="b"))
            self.network.advance(1 / STRANGERS_A_SECOND)
        standing = [each for each in crowd if each.lost is None]
        self.assertEqual(len(standing), HALF_OPEN)
        known = self.start("a", alone=True)
        self.meet(known, "ab")
        self.network.settle()
        self.assertTrue(known.up("b"))
        self.assertIsNotNone(crowd[0].lost)
        self.assertEqual(a.links.turned_away, 11)

    def test_crowd_of_known(self):
        """Even connections from a node's address are bounded."""
        b = self.start("b", alone=True)
        self.meet(b, "ab")
        crowd = [self.knock(source=self.address("a"), to="b") for _ in range(HALF_OPEN + 1)]
        self.assertEqual(len([each for each in crowd if each.lost is None]), HALF_OPEN)

    def test_rate(self):
        """Handshakes with strangers are few a second, those with nodes are not counted."""
        a = self.start("a", alone=True)
        for _ in range(3 * HALF_OPEN):
            self.knock(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(a.links.turned_away, 3 * HALF_OPEN)
        refused = self.knock(b"x")
        self.assertEqual(refused.heard, b"")
        self.assertEqual(len(self.network.ends), 0)
        self.network.advance(1.0)
        admitted = [self.knock() for _ in range(STRANGERS_A_SECOND + 5)]
        still = [each for each in admitted if each.lost is None]
        self.assertEqual(len(still), STRANGERS_A_SECOND)

    def test_stops_with_strangers(self):
        """Those in the door are closed with it."""
        a = self.start("a", alone=True)
        silent = self.knock()
        stopped = a.links.stopService()
        self.network.settle(1.0)
        self.successResultOf(stopped)
        self.assertIsNotNone(silent.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_our_own_name(self):
        """A member with our name gets no link."""
        a = self.start("a", alone=True)
        impostor = Impostor(self.network, "a", ONE)
        impostor.connect()
        self.assertEqual((len(impostor.ends), a.links.snapshot()), (1, {}))

    def test_not_for_it_to_connect(self):
        """A greater name waits until we connect."""
        a = self.start("a", alone=True)
        impostor = Impostor(self.network, "z", ONE)
        impostor.connect()
        self.assertEqual((len(impostor.ends), a.links.snapshot()), (1, {}))

    def test_another_name_than_its_certificate(self):
        """Says it is somebody else."""
        a = self.start("b", alone=True)
        impostor = Impostor(self.network, "0", ONE)
        impostor.node = "a"
        impostor.connect("b")
        self.assertEqual((len(impostor.ends), a.links.snapshot()), (1, {}))

    def test_another_node_than_wanted(self):
        """Where b should be, 0 answers."""
        a = self.start("a", alone=True)
        other = Node(self.network, "0", self.address("b"), KeyRing((ONE,)), 7)
        self.successResultOf(other.links.bind())
        self.meet(a, "ab")
        self.network.settle()
        self.assertFalse(a.up("b"))
        self.assertEqual(a.state("b").reason, "its certificate is that of 0")

    def test_nonsense(self):
        """A member that breaks the protocol is dropped, whatever it says."""
        b = self.start("b", alone=True)
        for said in (
            encode_message(Message(Kind.PING)),
            encode_message(Message(Kind.HELLO)),
            encode_message(Message(Kind.HELLO, {"node": 1, "version": "1", "instance": "x"})),
            encode_message(
                Message(Kind.HELLO, {"node": "a", "version": "1" * 65, "instance": "x"})
            ),
            bytes(4),
        ):
            impostor = Impostor(self.network, "a", ONE)
            link = Link(impostor, self.network, "b")
            link.handshakeCompleted = lambda link=link, said=said: link.transport.write(said)
            made = under_tls(link, impostor.tls, self.network, None)
            place = (self.address("b"), PORT)
            self.network.connectTCP(*place, Once(made), 5, (self.address("a"), 0))
            self.network.settle()
            self.assertEqual(len(impostor.ends), 1)
        self.assertEqual((b.told, b.links.snapshot()), ([], {}))

    def test_twice_hello(self):
        """Once is enough; what follows a fault is not heard."""
        b = self.start("b", alone=True)
        self.meet(b, "ab")
        impostor = Impostor(self.network, "a", ONE)
        impostor.connect("b")
        self.assertTrue(b.up("a"))
        hello = {"node": "a", "version": "1", "instance": "x"}
        impostor.link.transport.write(
            encode_message(Message(Kind.HELLO, hello)) + encode_message(Message(Kind.BYE))
        )
        self.network.settle()
        self.assertFalse(b.up("a"))
        self.assertEqual((b.told, b.state("a").reason), ([], "says hello twice"))

    def test_does_not_read(self):
        """A peer whose buffer is full gets no answers."""
        b = self.start("b", alone=True)
        impostor = Impostor(self.network, "a", ONE)
        impostor.connect("b")
        link = b.links._peers["a"].link
        pings = encode_message(Message(Kind.PING, {"number": 1})) * 3
        link.pauseProducing()
        written = []
        self.patch(link.transport, "write", written.append)
        link.dataReceived(pings)
        self.assertEqual(written, [])
        link.resumeProducing()
        link.dataReceived(pings)
        self.assertEqual(len(written), 3)
        link.stopProducing()

    def test_pong_of_another_ping(self):
        """Measures nothing."""
        b = self.start("b", alone=True)
        Impostor(self.network, "a", ONE).connect("b")
        link = b.links._peers["a"].link
        before = link.round_trip
        link.dataReceived(encode_message(Message(Kind.PONG, {"number": "one"})))
        self.assertEqual(link.round_trip, before)


class Reasons(Case):
    """Ends in words."""

    def test_words(self):
        """Each kind of end."""
        for reason, words in (
            (error.ConnectionDone(), "closed by the peer"),
            (error.ConnectionLost(), "lost"),
            (error.ConnectionLost("Connection timed out"), "lost: Connection timed out"),
            (
                SSL.Error([("SSL routines", "", "certificate verify failed")]),
                "TLS: certificate verify failed",
            ),
            (SSL.Error(), "TLS: broken off"),
            (OSError("no buffer space"), "no buffer space"),
        ):
            self.assertEqual(_words(Failure(reason)), words)
