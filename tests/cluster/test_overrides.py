"""Weights set by hand: all nodes come to the same, whatever order the words come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.overrides import HIGHEST_STAMP, MOST, Overrides
from mailsecure.cluster.values import Override

names = st.text("abc", min_size=1, max_size=2)
weights = st.none() | st.integers(0, 9)
words = st.builds(Override, names, weights, st.integers(0, 5), st.integers(0, 2))


def known(overrides: Overrides) -> dict[str, int | None]:
    """Return every weight that is set, in no order."""
    return {each.node: each.weight for each in overrides.next(MOST)}


def full(overrides: Overrides) -> None:
    """Say a word of as many nodes as there may be."""
    for number in range(MOST):
        overrides.set(f"mx{number}", number, 1)


class OverridesTests(SynchronousTestCase):
    """:class:`Overrides`."""

    def test_set(self) -> None:
        """The last word counts, and can be taken back."""
        overrides = Overrides()
        self.assertIs(overrides.weight("mx2"), None)
        overrides.set("mx2", 5, 9)
        overrides.set("mx2", 0, 9)
        self.assertEqual(overrides.weight("mx2"), 0)
        overrides.set("mx2", None, 9)
        self.assertIs(overrides.weight("mx2"), None)
        self.assertEqual(overrides.next(5), (Override("mx2", None, 3, 9),))

    def test_later_than_all_heard(self) -> None:
        """A word outranks everything that its node has heard, of any node."""
        overrides = Overrides()
        overrides.merge(Override("mx1", 1, 7, 99))
        overrides.set("mx2", 2, 1)
        self.assertEqual(overrides.next(5)[0], Override("mx2", 2, 8, 1))

    def test_last_stamp(self) -> None:
        """Stamps do not grow out of their field."""
        overrides = Overrides()
        overrides.merge(Override("mx1", 1, HIGHEST_STAMP, 1))
        overrides.set("mx1", 2, 2)
        self.assertEqual(overrides.next(1), (Override("mx1", 2, HIGHEST_STAMP, 2),))

    def test_changes(self) -> None:
        """It is told whether a weight changed, not whether a word came."""
        overrides = Overrides()
        word = Override("mx1", 5, 1, 1)
        self.assertTrue(overrides.merge(word))
        self.assertFalse(overrides.merge(word))
        self.assertFalse(overrides.merge(Override("mx1", 7, 0, 9)))
        self.assertFalse(overrides.merge(Override("mx1", 5, 2, 1)))
        self.assertTrue(overrides.merge(Override("mx1", None, 3, 1)))

    def test_turns(self) -> None:
        """New words come first; then each has its turn."""
        overrides = Overrides()
        for name in "abc":
            overrides.set(name, 1, 1)
        self.assertEqual([each.node for each in overrides.next(2)], ["c", "b"])
        self.assertEqual([each.node for each in overrides.next(2)], ["a", "c"])
        overrides.set("b", 2, 1)
        self.assertEqual([each.node for each in overrides.next(2)], ["b", "a"])
        self.assertEqual(len(overrides.next(9)), 3)

    def test_bound(self) -> None:
        """Of too many nodes the one with the oldest word is left out."""
        overrides = Overrides()
        full(overrides)
        overrides.set("one more", 1, 1)
        self.assertEqual(len(known(overrides)), MOST)
        self.assertIs(overrides.weight("mx0"), None)
        self.assertEqual(overrides.weight("one more"), 1)

    def test_too_old(self) -> None:
        """A word that is older than all of a full set changes nothing."""
        overrides = Overrides()
        overrides.set("mx", 1, 1)
        full(overrides)
        before = known(overrides)
        self.assertFalse(overrides.merge(Override("old", 1, 0, 1)))
        self.assertEqual(known(overrides), before)

    @given(st.lists(words), st.data())
    def test_converges(self, said: list[Override], data: st.DataObject) -> None:
        """Order and repetition do not matter."""
        first, second = Overrides(), Overrides()
        for word in said:
            first.merge(word)
        for word in data.draw(st.permutations(said + said)):
            second.merge(word)
        self.assertEqual(known(first), known(second))

    @given(st.lists(st.tuples(st.booleans(), names, weights, st.booleans()), max_size=30))
    def test_two_nodes(self, events: list[tuple[bool, str, int | None, bool]]) -> None:
        """Two nodes that are told things, and hear each other now and then, agree at last."""
        one, other = Overrides(), Overrides()
        for at_one, name, weight, heard in events:
            node, peer = (one, other) if at_one else (other, one)
            node.set(name, weight, 1 if at_one else 2)
            if heard:
                for word in node.next(1):
                    peer.merge(word)
        for node, peer in ((one, other), (other, one)):
            for word in node.next(MOST):
                peer.merge(word)
        self.assertEqual(known(one), known(other))
