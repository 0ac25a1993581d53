"""The end of a process is told from all that resembles it, at once, between real processes."""

from __future__ import annotations

import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Sequence
from contextlib import suppress

from tests.live import needs

from .harness import ROOT, free_port

NODE = ROOT / "tests" / "live" / "link_node.py"
KILLS = 9
#: What the median of these may take: the aim is 3 ms, where the machine does nothing else.
MEDIAN = 0.05
SILENCE = 10.0


class Process:
    """A :mod:`.link_node`; ``prefix`` runs it elsewhere."""

    def __init__(
        self,
        name: str,
        place: tuple[str, int],
        peers: dict[str, tuple[str, int]],
        prefix: Sequence[str] = (),
    ) -> None:
        arguments = [f"{peer}={host}:{port}" for peer, (host, port) in peers.items()]
        self.name = name
        self.lines: queue.Queue[list[str]] = queue.Queue()
        self.seen: list[list[str]] = []
        self._process = subprocess.Popen(
            [
                *prefix,
                sys.executable,
                str(NODE),
                name,
                *map(str, place),
                *arguments,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.put(line.split())

    def wait(self, *words: str, timeout: float = 10.0) -> float:
        """Return when it said ``words``, from now on; fail if it does not."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name} did not say {words}, but {self.seen}") from None
            self.seen.append(line)
            if tuple(line[1 : 1 + len(words)]) == words:
                return float(line[0])

    def said(self, word: str) -> bool:
        """Say whether it has said ``word`` at any time."""
        with suppress(queue.Empty):
            while True:
                self.seen.append(self.lines.get_nowait())
        return any(line[1] == word for line in self.seen)

    def signal(self, number: int) -> float:
        """Send a signal; return when."""
        now = time.monotonic()
        os.kill(self.pid, number)
        return now

    def end(self) -> None:
        """Kill it and reap it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()


class LinksCase(unittest.TestCase):
    """Two nodes; ``one`` connects, for its name is the smaller."""

    def setUp(self) -> None:
        """Choose where they are."""
        self.places = {name: ("127.0.0.1", free_port()) for name in ("one", "two")}

    def start(self, name: str, prefix: Sequence[str] = ()) -> Process:
        """Start a node that knows the other."""
        peers = {peer: place for peer, place in self.places.items() if peer != name}
        process = Process(name, self.places[name], peers, prefix)
        self.addCleanup(process.end)
        process.wait("bound")
        return process

    def pair(self) -> tuple[Process, Process]:
        """Start both, linked."""
        two = self.start("two")
        one = self.start("one")
        one.wait("up", "two")
        two.wait("up", "one")
        return one, two


class Deaths(LinksCase):
    """A process ends."""

    def kills(self, survivor: str, victim: str) -> list[float]:
        """Kill one of them again and again; return how long the other took to know."""
        stays = self.start(survivor)
        took = []
        for _ in range(KILLS):
            dies = self.start(victim)
            stays.wait("up", victim)
            dies.wait("up", survivor)
            time.sleep(0.1)
            killed = dies.signal(signal.SIGKILL)
            took.append(stays.wait("gone", victim) - killed)
            dies.end()
        stays.end()
        return took

    def test_killed(self) -> None:
        """Kill -9 is known within milliseconds, whoever connected."""
        for survivor, victim in (("one", "two"), ("two", "one")):
            with self.subTest(survivor=survivor):
                took = sorted(self.kills(survivor, victim))
                if os.environ.get("MAILSECURE_MEASURE"):
                    print(f"\n{survivor} survives:", *(f"{each * 1000:.2f}" for each in took), "ms")
                self.assertLess(statistics.median(took), MEDIAN)

    def test_stopped(self) -> None:
        """Who stops in good order says so; that is no death."""
        one, two = self.pair()
        two.signal(signal.SIGTERM)
        one.wait("left", "two")
        one.wait("down", "two")
        time.sleep(1.0)
        self.assertFalse(one.said("gone"))


class NoDeaths(LinksCase):
    """A process lives."""

    def test_reset(self) -> None:
        """A reset of the link alone: it is made again, and nobody is gone."""
        for victim in (0, 1):
            with self.subTest(victim=victim):
                pair = self.pair()
                for _ in range(5):
                    pair[victim].signal(signal.SIGUSR1)
                    pair[0].wait("down", "two")
                    pair[1].wait("down", "one")
                    pair[0].wait("up", "two")
                    pair[1].wait("up", "one")
                time.sleep(0.7)
                self.assertFalse(pair[0].said("gone") or pair[1].said("gone"))
                pair[0].end()
                pair[1].end()

    def test_frozen(self) -> None:
        """SIGSTOP: dropped after a while, not gone; linked again after SIGCONT."""
        one, two = self.pair()
        stopped = two.signal(signal.SIGSTOP)
        down = one.wait("down", "two", "silent", timeout=SILENCE + 10)
        self.assertLess(down - stopped, SILENCE + 6)
        self.assertFalse(one.said("gone"))
        two.signal(signal.SIGCONT)
        one.wait("up", "two", timeout=15)
        self.assertFalse(one.said("gone") or two.said("gone"))

    def test_frozen_then_reset(self) -> None:
        """A link that is reset while the process stands still: its kernel answers for it."""
        one, two = self.pair()
        two.signal(signal.SIGSTOP)
        one.signal(signal.SIGUSR1)
        one.wait("down", "two")
        time.sleep(1.5)
        self.assertFalse(one.said("gone"))
        two.signal(signal.SIGCONT)
        one.wait("up", "two", timeout=15)
        self.assertFalse(one.said("gone") or two.said("gone"))

    def test_listener_of_a_new_life(self) -> None:
        """A death where somebody listens again before anybody could ask: nothing is said.

        The heir of the socket stands for a process that was started that quickly.
        """
        one = self.start("one")
        two = self.start("two", prefix=("env", "HEIR=1"))
        one.wait("up", "two")
        two.wait("up", "one")
        two.signal(signal.SIGKILL)
        one.wait("down", "two")
        time.sleep(1.0)
        self.assertFalse(one.said("gone"))


@needs(root=True, programs=("ip", "iptables"))
class Dropped(LinksCase):
    """Two network namespaces; the second drops what it receives."""

    def setUp(self) -> None:
        """Make the namespaces, and a cable between them."""
        self.spaces = [f"links{os.getpid()}{letter}" for letter in "ab"]
        self.places = {"one": ("192.0.2.1", 5025), "two": ("192.0.2.2", 5025)}
        for space in self.spaces:
            self.ip("netns", "add", space)
            self.addCleanup(self.ip, "netns", "delete", space)
        first, second = self.spaces
        self.ip(
            "-n", first, "link", "add", "cable", "type", "veth", "peer", "cable", "netns", second
        )
        for space, (address, _) in zip(self.spaces, self.places.values(), strict=True):
            self.ip("-n", space, "address", "add", f"{address}/24", "dev", "cable")
            self.ip("-n", space, "link", "set", "cable", "up")
            self.ip("-n", space, "link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        """Run ``ip``."""
        subprocess.run(["ip", *arguments], check=True)

    def rule(self, *arguments: str) -> None:
        """Run ``iptables`` where the second node is."""
        subprocess.run(["ip", "netns", "exec", self.spaces[1], "iptables", *arguments], check=True)

    def spaced_pair(self) -> tuple[Process, Process]:
        """Start both, linked."""
        two = self.start("two", ("ip", "netns", "exec", self.spaces[1]))
        one = self.start("one", ("ip", "netns", "exec", self.spaces[0]))
        one.wait("up", "two")
        two.wait("up", "one")
        return one, two

    def test_dropped(self) -> None:
        """A network that drops everything: not gone, even when the process ends behind it."""
        one, two = self.spaced_pair()
        self.rule("-A", "INPUT", "-j", "DROP")
        cut = time.monotonic()
        down = one.wait("down", "two", timeout=SILENCE + 10)
        self.assertLess(down - cut, SILENCE + 6)
        two.signal(signal.SIGKILL)
        time.sleep(1.5)
        self.assertFalse(one.said("gone"))

    def test_reset_behind_a_silent_network(self) -> None:
        """A reset where the way is cut, too: there is no answer, so nothing is known."""
        one, _ = self.spaced_pair()
        self.rule("-A", "INPUT", "-j", "DROP")
        one.signal(signal.SIGUSR1)
        one.wait("down", "two")
        time.sleep(1.5)
        self.assertFalse(one.said("gone"))

    def test_killed(self) -> None:
        """Between two kernels' stacks, too, a death is known at once."""
        one, two = self.spaced_pair()
        killed = two.signal(signal.SIGKILL)
        self.assertLess(one.wait("gone", "two") - killed, 1.0)
