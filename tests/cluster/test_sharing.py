"""Proves that what is shared reaches its subject, and that nonsense does no harm."""

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.link import Link
from mailsecure.cluster.sharing import Sharing
from mailsecure.errors import RemoteFault

from .test_links import Case


class Listener:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def linked(self, node):
        self.told.append(("linked", node))

    def unlinked(self, node):
        self.told.append(("unlinked", node))

    def heard(self, node, body):
        if "nonsense" in body:
            raise RemoteFault("nonsense")
        self.told.append((node, body))


class SharingTests(SynchronousTestCase):
    """:class:`Sharing` without links."""

    def setUp(self):
        self.sharing = Sharing(lambda node, message: True)
        self.listener = Listener()
        self.sharing.hear("weather", self.listener)

    def test_nonsense(self):
        """It is counted, and nothing else."""
        for message in (
            {},
            {"subject": "weather"},
            {"subject": "weather", "body": []},
            {"subject": ["weather"], "body": {}},
            {"subject": "sports", "body": {}},
            {"subject": "weather", "body": {"nonsense": 1}},
        ):
            self.sharing.heard("mx2", message)
        self.assertEqual(self.sharing.ignored, 6)
        self.assertEqual(self.listener.told, [])

    def test_late_listener(self):
        """Who listens later is told who is linked."""
        self.sharing.linked("mx2")
        self.sharing.linked("mx3")
        self.sharing.unlinked("mx3")
        late = Listener()
        self.sharing.hear("sports", late)
        self.assertEqual(late.told, [("linked", "mx2")])


class OverLinksTests(Case):
    """:class:`Sharing` over links."""

    def listened(self):
        a, b = self.pair()
        listener = Listener()
        b.links.sharing.hear("weather", listener)
        self.assertEqual(listener.told, [("linked", "a")])
        listener.told.clear()
        return a, b, listener

    def test_told(self):
        """What one says the other hears."""
        a, _, listener = self.listened()
        self.assertTrue(a.links.sharing.tell("b", "weather", {"rain": True}))
        self.assertFalse(a.links.sharing.tell("c", "weather", {"rain": True}))
        self.network.settle()
        self.assertEqual(listener.told, [("a", {"rain": True})])

    def test_end(self):
        """The end of the link is told, and its coming back."""
        a, b, listener = self.listened()
        self.kill(a)
        self.network.settle(1.0)
        self.assertEqual(listener.told, [("unlinked", "a")])
        self.assertFalse(b.links.sharing.tell("a", "weather", {}))
        self.start("a", alone=True)
        self.meet(self.nodes["a"], "ab")
        self.network.settle(8.0)
        self.assertEqual(listener.told[-1], ("linked", "a"))

    def test_peer_that_does_not_read(self):
        """Nothing is heaped up for it."""
        a, _, listener = self.listened()
        (link,) = [peer.link for peer in a.links._peers.values() if peer.link]
        self.assertIsInstance(link, Link)
        link.pauseProducing()
        self.assertFalse(a.links.sharing.tell("b", "weather", {}))
        link.resumeProducing()
        self.assertTrue(a.links.sharing.tell("b", "weather", {}))
        self.network.settle()
        self.assertEqual(len(listener.told), 1)
