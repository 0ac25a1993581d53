"""What was answered with 250 arrives, whatever happens to the process and its disk.

Clients send messages with unique ids without a pause, over hundreds of crashes; the next
hop lives on.  After the last start every id that was answered with 250 must have
arrived, each whole.  ``MAILSECURE_CRASH_ROUNDS`` sets the number of crashes.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from tests.live import needs

from .disks import failing_fsync, fill, small_disk
from .harness import Gateway, LiveTestCase, until
from .load import Load, is_intact
from .sinks import Sink, Taken, without_trace

ROUNDS = int(os.environ.get("MAILSECURE_CRASH_ROUNDS", "200"))


class CrashTestCase(LiveTestCase):
    """A sink that checks what it takes, and forgets all but the heads."""

    def setUp(self) -> None:
        """Make the sink."""
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.close)
        self.broken: list[str] = []
        self.sink.before_final = self.check
        self.seed = random.randrange(1 << 32)
        self.chance = random.Random(self.seed)

    def check(self, taken: Taken) -> None:
        """Note a message that is not whole; keep no more than its head."""
        if not is_intact(without_trace(taken.content)):
            self.broken.append(repr(taken.raw[:300]))
        taken.raw = taken.raw[:500]

    def assert_nothing_lost(self, node: Gateway, load: Load) -> None:
        """Compare what clients were told with what arrived."""
        load.await_acknowledged(101)
        load.stop()
        self.assertEqual(load.surprises, [])
        arrived: set[str] = set()

        def all_there() -> bool:
            arrived.update(self.sink.uniques())
            return load.acknowledged <= arrived

        try:
            until(all_there, "every message that was answered with 250", 60, node.tail)
        except AssertionError:
            lost = sorted(load.acknowledged - arrived)
            self.fail(f"seed {self.seed}: {len(lost)} lost: {lost[:10]}")
        node.settle(60)
        self.assertEqual(self.broken, [])
        wrong = set(load.refused) & set(self.sink.uniques())
        self.assertEqual(wrong, set(), "refused with 4xx, yet delivered")


class Killed(CrashTestCase):
    """kill -9."""

    def test_kill_under_load(self) -> None:
        """Hundreds of crashes at random moments lose nothing."""
        node = self.gateway(domains=f"example.com = {self.sink.route}")
        load = Load(node.address, "a@example.com", clients=5)
        slowest = 0.0
        for _ in range(ROUNDS):
            time.sleep(self.chance.uniform(0.1, 0.6))
            node.kill()
            slowest = max(slowest, node.restart())
        self.assert_nothing_lost(node, load)
        self.assertLess(slowest, 10)

    def test_kill_with_a_sink_that_stalls(self) -> None:
        """The same while the next hop takes messages and does not say so."""
        node = self.gateway(domains=f"example.com = {self.sink.route}")
        load = Load(node.address, "a@example.com", clients=3)
        for round_ in range(8):
            (self.sink.stalled.set if round_ % 2 == 0 else self.sink.stalled.clear)()
            time.sleep(self.chance.uniform(0.2, 0.8))
            node.kill()
            node.restart()
        self.sink.stalled.clear()
        self.assert_nothing_lost(node, load)

    def test_terminated_under_load(self) -> None:
        """SIGTERM under load loses nothing either, and ends in order."""
        node = self.gateway(domains=f"example.com = {self.sink.route}")
        load = Load(node.address, "a@example.com", clients=5)
        for _ in range(8):
            time.sleep(self.chance.uniform(0.1, 0.5))
            # twistd ends by the signal itself once everything is closed.
            self.assertIn(node.stop(), (0, -signal.SIGTERM))
            node.restart()
        self.assert_nothing_lost(node, load)


class FailingDisk(CrashTestCase):
    """Crashes on a disk that is full, or cannot sync."""

    @needs(root=True, programs=("mkfs.ext4", "mount"))
    def test_full_disk(self) -> None:
        """A disk that fills up under load, with crashes in between."""
        with small_disk(self.temporary_directory(), size="64M") as disk:
            node = self.gateway(
                domains=f"example.com = {self.sink.route}",
                node=f"state = {disk}/state",
                spool="segment_size = 1M\nmin_free = 16M",
            )
            load = Load(node.address, "a@example.com", clients=4)
            for _ in range(10):
                time.sleep(self.chance.uniform(0.2, 0.6))
                ballast = fill(disk, leave=self.chance.choice((0, 100_000, 4_000_000)))
                time.sleep(self.chance.uniform(0.1, 0.4))
                if self.chance.random() < 0.7:
                    node.kill()
                    self.free_and_restart(node, ballast)
                else:
                    ballast.unlink()
            self.assert_nothing_lost(node, load)
            self.assertIn("452 4.3.1", {each[:9] for each in load.refused.values()})
            node.stop()

    def free_and_restart(self, node: Gateway, ballast: Path) -> None:
        """Start on the full disk now and then; it may say no, but must come up with room."""
        if self.chance.random() < 0.5:
            # Until it greets or has ended: who still tries when there is room would do either.
            with contextlib.suppress(AssertionError):
                node.start()
        ballast.unlink()
        if node.process is not None and node.process.poll() is not None:
            node.restart()

    @needs(root=True, programs=("strace",))
    def test_failing_fsync(self) -> None:
        """Syncs that fail now and then, with crashes in between."""
        node = self.gateway(domains=f"example.com = {self.sink.route}")
        load = Load(node.address, "a@example.com", clients=4)
        for _ in range(12):
            time.sleep(self.chance.uniform(0.2, 0.5))
            when = self.chance.choice(("1", "2", "3", "5", "1+", "2+2"))
            with failing_fsync(node.pid, when):
                time.sleep(self.chance.uniform(0.1, 0.5))
                if self.chance.random() < 0.5:
                    node.kill()
            if node.process is not None and node.process.poll() is not None:
                node.restart()
        self.assert_nothing_lost(node, load)
        self.assertTrue(load.refused, "no sync failed under the load")
