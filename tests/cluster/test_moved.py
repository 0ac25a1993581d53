"""Addresses that moved: told once, and only if they stay away."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.moved import LOOKS, Moved


class MovedTests(SynchronousTestCase):
    """:class:`Moved`."""

    def test_told_once(self) -> None:
        """An address that was held is told of when it has been gone for a while."""
        moved = Moved()
        self.assertEqual(moved.look({"a", "b"}), frozenset())
        seen = [moved.look({"b"}) for _ in range(LOOKS + 3)]
        self.assertEqual(seen[LOOKS - 1], {"a"})
        self.assertEqual([each for each in seen if each], [{"a"}])

    def test_back_in_time(self) -> None:
        """One that comes back has not moved."""
        moved = Moved()
        moved.look({"a"})
        for _ in range(3 * LOOKS):
            self.assertEqual(moved.look(frozenset()), frozenset())
            self.assertEqual(moved.look({"a"}), frozenset())

    def test_held_for_a_moment(self) -> None:
        """What came and went between two looks was held, too."""
        moved = Moved()
        moved.took({"a"})
        self.assertEqual([set(moved.look(set())) for _ in range(LOOKS)][-1], {"a"})

    def test_last_look(self) -> None:
        """At the end all that was held lately has moved."""
        moved = Moved()
        moved.look({"a", "b"})
        moved.look({"b"})
        moved.took({"c"})
        self.assertEqual(moved.look_last(), {"a", "b", "c"})
        self.assertEqual(moved.look_last(), frozenset())

    def test_never_ours(self) -> None:
        """One that was never held is nobody's loss."""
        moved = Moved()
        self.assertEqual([moved.look(frozenset()) for _ in range(9)], [frozenset()] * 9)
