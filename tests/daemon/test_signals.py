"""Proves that SIGHUP is work for the reactor's turn, not for the signal's moment."""

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.daemon.signals import on_another_end, on_hangup


class Reactor:
    """Keeps what it was asked to do in its turn."""

    def __init__(self):
        self.turn = []

    def callFromThread(self, work):
        self.turn.append(work)


class HangupTests(SynchronousTestCase):
    """:func:`on_hangup` with a real signal."""

    def test_each_one(self):
        """Each SIGHUP is one call, later, in the reactor."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        reactor, called = Reactor(), []
        on_hangup(reactor, lambda: called.append("work"))
        self.assertEqual(reactor.turn, [])
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual((called, len(reactor.turn)), ([], 2))
        for work in reactor.turn:
            work()
        self.assertEqual(called, ["work", "work"])


class AnotherEndTests(SynchronousTestCase):
    """:func:`on_another_end` with real signals."""

    def test_each_one(self):
        """SIGTERM and SIGINT are work for later, and nothing else."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        reactor = Reactor()
        on_another_end(reactor, print)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(reactor.turn, [print, print])
