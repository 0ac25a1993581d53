"""Proves what systemd is told, over a real socket of both kinds, and when."""

import os
import socket
import time

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.systemd import ServiceNotices

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class NoticesTestCase(SynchronousTestCase):
    """A systemd that only listens."""

    def setUp(self):
        self.clock = Clock()
        kept = {name: os.environ.get(name) for name in VARIABLES}
        self.addCleanup(self.environment, **kept)
        self.environment(**dict.fromkeys(VARIABLES))

    def environment(self, **values):
        """Set the variables; None takes one away."""
        for name, value in values.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def listen(self, address):
        """Return a socket at ``address`` in the file system or, with NUL, beside it."""
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(wire.close)
        wire.bind(address)
        wire.setblocking(False)
        return wire

    def heard(self, wire):
        """Return the datagrams that came, each as its lines."""
        found = []
        while True:
            try:
                found.append(wire.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def notices(self, **values):
        """Return a line to systemd, and the socket it leads to."""
        address = os.path.relpath(self.mktemp())
        wire = self.listen(address)
        self.environment(NOTIFY_SOCKET=address, **values)
        return ServiceNotices(self.clock), wire


class LineTests(NoticesTestCase):
    """What is sent, and where to."""

    def test_a_life(self):
        """Ready, reloading, ready, stopping: one datagram each, in systemd's words."""
        self.patch(time, "monotonic_ns", lambda: 12_345_678_999)
        notices, wire = self.notices()
        notices.ready("accepting mail")
        notices.reloading()
        notices.ready("accepting mail")
        notices.stopping()
        notices.stopped()
        ready = ["READY=1", "STATUS=accepting mail"]
        self.assertEqual(
            self.heard(wire),
            [
                ready,
                ["RELOADING=1", "MONOTONIC_USEC=12345678"],
                ready,
                ["STOPPING=1", "STATUS=stopping"],
            ],
        )

    def test_abstract(self):
        """A leading @ is Linux's abstract namespace."""
        name = f"mailsecure-test-{os.getpid()}-{id(self)}"
        wire = self.listen(f"\0{name}")
        self.environment(NOTIFY_SOCKET=f"@{name}")
        ServiceNotices(self.clock).tell("READY=1")
        self.assertEqual(self.heard(wire), [["READY=1"]])

    def test_children_do_not_speak(self):
        """The variables are taken out of the environment."""
        self.notices(WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
        for name in VARIABLES:
            self.assertNotIn(name, os.environ)

    def test_nobody_there(self):
        """Without systemd nothing is said, and a deaf one does no harm."""
        ServiceNotices(self.clock).ready("accepting mail")
        self.environment(NOTIFY_SOCKET=self.mktemp())
        ServiceNotices(self.clock).ready("accepting mail")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full(self):
        """A systemd that does not read cannot make the reactor wait."""
        notices, wire = self.notices()
        for _ in range(2000):
            notices.tell("STATUS=" + "x" * 1000)
        self.assertLess(len(self.heard(wire)), 2000)


class WatchdogTests(NoticesTestCase):
    """WATCHDOG=1, from the reactor."""

    def barks(self, wire):
        """Return how often the watchdog was fed since last asked."""
        return self.heard(wire).count(["WATCHDOG=1"])

    def test_twice_an_interval(self):
        """It is fed twice in the time that systemd grants, from ready until the end."""
        notices, wire = self.notices(WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
        self.clock.advance(100)
        self.assertEqual(self.barks(wire), 0)
        notices.ready("accepting mail")
        self.clock.pump([15] * 4)
        self.assertEqual(self.barks(wire), 4)
        notices.stopping()
        self.clock.pump([15] * 2)
        self.assertEqual(self.barks(wire), 2)
        notices.stopped()
        self.clock.advance(100)
        self.assertEqual(self.barks(wire), 0)

    def test_a_reload_does_not_double_it(self):
        """Ready again is not one more watchdog."""
        notices, wire = self.notices(WATCHDOG_USEC="30000000")
        notices.ready("")
        notices.ready("")
        self.clock.advance(15)
        self.assertEqual(self.barks(wire), 1)

    def test_not_ours(self):
        """That of another process, or nonsense, is not fed."""
        for values in (
            {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "-1"},
        ):
            notices, _ = self.notices(**values)
            notices.ready("")
            self.assertEqual(self.clock.getDelayedCalls(), [])
