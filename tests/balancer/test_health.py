"""Who fails is out, for longer each time, and back only after a hello and a probe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.balancer.health import Band, Moderation, PeerHealth, Recovery, State, unfit_words
from mailsecure.cluster.values import Fitness


class PeerHealthTests(SynchronousTestCase):
    """PeerHealth."""

    def setUp(self) -> None:
        """One that was in from the start."""
        self.peer = PeerHealth(0.0, Recovery(first=1.0, longest=8.0, forget=100.0))

    def recover(self, now: float) -> None:
        """Bring it back."""
        self.peer.heard(now, Fitness.FIT)
        self.assertTrue(self.peer.wants_probe(now))
        self.peer.probing()
        self.assertTrue(self.peer.greeted(now))

    def test_out_at_once(self) -> None:
        """One failure is enough; those on their way say nothing new."""
        self.assertTrue(self.peer.may_serve)
        self.assertTrue(self.peer.failed(10.0, "refused"))
        self.assertFalse(self.peer.may_serve)
        self.assertFalse(self.peer.failed(10.5, "silent"))
        self.assertFalse(self.peer.greeted(10.6))
        self.assertIs(self.peer.state, State.OUT)
        self.assertEqual((self.peer.until, self.peer.ejections), (11.0, 1))
        self.assertEqual(self.peer.last_failure, "silent")

    def test_back(self) -> None:
        """After its time, a hello since, and a probe that is greeted; nothing less."""
        self.peer.heard(10.0, Fitness.FIT)
        self.peer.failed(10.0, "refused")
        self.assertFalse(self.peer.wants_probe(20.0))
        self.peer.heard(10.5, Fitness.FIT)
        self.assertFalse(self.peer.wants_probe(10.9))
        self.assertTrue(self.peer.wants_probe(11.0))
        self.peer.probing()
        self.assertIs(self.peer.state, State.PROBED)
        self.assertFalse(self.peer.may_serve or self.peer.wants_probe(11.0))
        self.assertTrue(self.peer.greeted(11.1))
        self.assertTrue(self.peer.may_serve)
        self.assertFalse(self.peer.greeted(11.2))

    def test_backs_off(self) -> None:
        """Twice as long each time, to a limit; the first again after good service."""
        now, found = 0.0, []
        for _ in range(3):
            self.peer.failed(now, "refused")
            found.append(self.peer.until - now)
            now = self.peer.until
            self.recover(now)
        self.peer.failed(now, "refused")
        found.append(self.peer.until - now)
        for _ in range(2):
            now = self.peer.until
            self.peer.heard(now, Fitness.FIT)
            self.peer.probing()
            # Failing probes are no new ejections.
            self.assertFalse(self.peer.failed(now, "silent"))
            found.append(self.peer.until - now)
        self.assertEqual(found, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0])
        self.assertEqual(self.peer.ejections, 4)
        self.recover(self.peer.until)
        now = self.peer.until + 100.0
        self.peer.failed(now, "refused")
        self.assertEqual(self.peer.until - now, 1.0)

    def test_starts_anew(self) -> None:
        """Another incarnation need not wait; one that is in loses nothing."""
        self.peer.heard(1.0, Fitness.FIT, anew=True)
        self.assertTrue(self.peer.may_serve)
        self.peer.failed(2.0, "refused")
        self.peer.heard(2.1, Fitness.FIT, anew=True)
        self.assertTrue(self.peer.wants_probe(2.1))

    def test_says_so_itself(self) -> None:
        """What hello says holds at once, in both directions."""
        self.peer.heard(1.0, Fitness.DRAINING)
        self.assertFalse(self.peer.may_serve)
        self.peer.heard(2.0, Fitness.FIT)
        self.assertTrue(self.peer.may_serve)

    def test_words(self) -> None:
        """Every flag has its words."""
        self.assertEqual(unfit_words(Fitness.FIT), "")
        for flag in Fitness:
            if flag:
                self.assertNotEqual(unfit_words(flag), "")
        both = Fitness.DRAINING | Fitness.SPOOL
        self.assertEqual(unfit_words(both), "draining, its spool is not well")


class ModerationTests(SynchronousTestCase):
    """Moderation."""

    def test_less_and_more(self) -> None:
        """High load takes the weight down step by step, low load brings it back."""
        each = Moderation(0.0, Band())
        now = 0.0
        for _ in range(100):
            now += 1.0
            each.report(now, 1.0)
        self.assertAlmostEqual(each.factor, 0.1)
        for _ in range(100):
            now += 1.0
            each.report(now, 0.0)
        self.assertEqual(each.factor, 1.0)

    @given(st.lists(st.floats(-1, 2), max_size=100))
    def test_bounded(self, loads: list[float]) -> None:
        """Within its bounds, one step at a time, and never two within the pause."""
        band = Band()
        each = Moderation(0.0, band)
        last, changed = 1.0, 0.0
        for number, load in enumerate(loads):
            now = number * 0.7
            told = each.report(now, load)
            self.assertEqual(told, each.factor != last)
            if told:
                self.assertGreaterEqual(now - changed, band.pause)
                self.assertLessEqual(abs(each.factor - last), band.step + 1e-9)
                last, changed = each.factor, now
            self.assertTrue(band.least <= each.factor <= 1.0)

    def test_does_not_swing(self) -> None:
        """Two peers that share a load by what they report settle, and stay."""
        peers = [Moderation(0.0, Band()), Moderation(0.0, Band())]
        capacity, now, changes = [0.7, 1.3], 0.0, []
        for number in range(600):
            now += 0.5
            total = sum(peer.factor for peer in peers)
            for peer, size in zip(peers, capacity, strict=True):
                if peer.report(now, 1.5 * peer.factor / total / size):
                    changes.append(number)
        self.assertTrue(changes)
        self.assertLess(max(changes), 200)
