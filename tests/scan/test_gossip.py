"""Proves that a table is told to who has to know it, whoever comes, goes or is slow."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan import gossip
from mailsecure.scan.gossip import INTERVAL, ROWS, Gossip

from .nodes import Talker


class Words:
    """A table of words."""

    def __init__(self) -> None:
        self.known: list[list[str]] = []
        self.new: list[list[str]] = []
        self.told: list[tuple[str, bool, float]] = []
        self.left: list[str] = []

    def say(self, *words: str) -> None:
        self.new += [[word] for word in words]

    def news(self, most: int) -> list[list[str]]:
        rows, self.new = self.new[:most], self.new[most:]
        self.known += rows
        return rows

    def everything(self, now: float) -> list[list[str]]:
        return list(self.known)

    def heard(self, node: str, rows: list[list[str]], whole: bool, now: float) -> None:
        if any(not isinstance(row, list) for row in rows):
            raise RemoteFault("no row")
        if whole:
            self.known.clear()
        self.known += rows
        self.told.append((node, whole, now))

    def gone(self, node: str) -> None:
        self.left.append(node)


class Node(Talker):
    def __init__(self, clock: Clock, name: str, speaks: bool) -> None:
        super().__init__(name)
        self.words = Words()
        self.gossip = Gossip(clock, "words", self.words, lambda: 7.0)
        if speaks:
            self.gossip.start(self.sharing)
        else:
            self.sharing.hear("words", self.gossip)

    @property
    def known(self) -> list[str]:
        return [row[0] for row in self.words.known]


class GossipTests(SynchronousTestCase):
    """:class:`Gossip` of two nodes, of which one speaks."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.one, self.two = Node(self.clock, "one", True), Node(self.clock, "two", False)

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.clock.advance(INTERVAL)

    def test_told(self) -> None:
        """What is new is told once, with the time of the table; silence is silent."""
        self.one.link(self.two)
        self.turn(2)
        said = len(self.one.said)
        self.turn(10)
        self.assertEqual(len(self.one.said), said)
        self.one.words.say("a", "b")
        self.turn(3)
        self.assertEqual(self.two.known, ["a", "b"])
        self.assertEqual(self.one.said[said:], [{"rows": [["a"], ["b"]], "whole": False}])
        self.assertEqual(self.two.words.told[-1], ("one", False, 7.0))

    def test_late(self) -> None:
        """Who comes late is told everything once."""
        self.one.words.say("a")
        self.turn()
        self.one.link(self.two)
        self.one.words.say("b")
        self.turn(2)
        self.assertEqual(self.two.known, ["a", "b"])
        self.assertEqual([body["whole"] for body in self.one.said], [True])

    def test_slow(self) -> None:
        """Who does not read is told everything when he does."""
        self.one.link(self.two)
        self.turn()
        self.two.reads = False
        self.one.words.say("a")
        self.turn(2)
        self.one.words.say("b")
        self.turn(2)
        self.two.reads = True
        self.turn()
        self.assertEqual(self.two.known, ["a", "b"])

    def test_gone(self) -> None:
        """The end of a link is told to the table, and nothing is said over it."""
        self.one.link(self.two)
        self.turn()
        self.one.part(self.two)
        self.one.words.say("a")
        self.turn(2)
        self.assertEqual(self.one.words.left, ["two"])
        self.assertEqual(self.two.known, [])

    def test_pieces(self) -> None:
        """Much goes in pieces; what is new meanwhile follows; a slow reader starts again."""
        self.patch(gossip, "MESSAGES", 2)
        words = [f"w{number}" for number in range(5 * ROWS)]
        self.one.words.known = [[word] for word in words]
        self.one.link(self.two)
        self.turn()
        self.assertEqual(sum(len(body["rows"]) for body in self.one.said), 2 * ROWS)
        self.one.words.say("new")
        self.turn()
        self.two.reads = False
        self.turn()
        self.two.reads = True
        self.turn(4)
        self.assertEqual(self.two.known, [*words, "new"])
        self.assertTrue(all(len(body["rows"]) <= ROWS for body in self.one.said))
        self.assertEqual([body["whole"] for body in self.one.said].count(True), 2)

    def test_stop(self) -> None:
        """After the stop nothing is said."""
        self.one.link(self.two)
        self.turn()
        self.one.gossip.stop()
        said = len(self.one.said)
        self.one.words.say("a")
        self.turn(5)
        self.assertEqual(len(self.one.said), said)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """What makes no sense is the peer's fault."""
        for rows in (None, {}, "rows", [[]] * (ROWS + 1), [7]):
            with self.assertRaises(RemoteFault):
                self.one.gossip.heard("two", {"rows": rows})
        self.one.sharing.heard("two", {"subject": "words", "body": {"rows": [7]}})
        self.assertEqual(self.one.sharing.ignored, 1)
