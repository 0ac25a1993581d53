"""Proves that notify commands run in turn, with their arguments, and never for ever."""

import os
import random
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.cluster import notify
from mailsecure.cluster.notify import LIMIT, MOST_WAITING, Notices
from mailsecure.world import World


class FakeProcesses(Clock):
    """A reactor that notes what it should start."""

    def __init__(self):
        super().__init__()
        self.started = []
        self.killed = []
        self.missing = False

    def spawnProcess(self, protocol, executable, args, env):
        if self.missing:
            raise OSError(2, "No such file or directory")
        self.started.append((protocol, args))
        protocol.makeConnection(self)

    def signalProcess(self, name):
        self.killed.append(name)

    def end(self, failed=False):
        """The command started last ends."""
        protocol, _ = self.started[-1]
        protocol.processExited(Failure(ProcessTerminated(1) if failed else ProcessDone(0)))


class NoticesTests(SynchronousTestCase):
    """Without processes."""

    def setUp(self):
        self.reactor = FakeProcesses()
        world = World(self.reactor, self.reactor, lambda: 0.0, random.Random(1), None)
        self.notices = Notices(world)

    def commands(self):
        return [words for _, words in self.reactor.started]

    def test_no_command(self):
        """An empty command is none."""
        self.notices.put("", ("mail", "backup", "master", "x"))
        self.assertEqual(self.commands(), [])

    def test_one_after_another(self):
        """The second begins when the first has ended, whatever its end was."""
        self.notices.put("/run it", ("mail", "backup", "master", "the timer"))
        self.notices.put("/run it", ("mail", "master", "backup", "higher priority"))
        self.assertEqual(self.commands(), [("/run", "it", "mail", "backup", "master", "the timer")])
        self.reactor.end(failed=True)
        self.assertEqual(
            self.commands()[1:], [("/run", "it", "mail", "master", "backup", "higher priority")]
        )
        self.reactor.end()
        self.assertEqual(len(self.commands()), 2)

    def test_killed_when_it_takes_too_long(self):
        """Its time is bounded; the next one runs after it."""
        self.notices.put("/slow", ())
        self.notices.put("/next", ())
        self.reactor.advance(LIMIT - 1)
        self.assertEqual(self.reactor.killed, [])
        self.reactor.advance(1)
        self.assertEqual(self.reactor.killed, ["KILL"])
        self.reactor.end(failed=True)
        self.assertEqual(self.commands()[-1], ("/next",))

    def test_missing(self):
        """A command that is not there does not keep the next from running."""
        self.reactor.missing = True
        self.notices.put("/missing", ())
        self.reactor.missing = False
        self.notices.put("/there", ())
        self.assertEqual(self.commands(), [("/there",)])

    def test_bounded(self):
        """With too many waiting, the oldest are left out."""
        for number in range(MOST_WAITING + 3):
            self.notices.put(f"/run {number}", ())
        for _ in range(MOST_WAITING + 3):
            self.reactor.end()
            if len(self.reactor.started) == MOST_WAITING + 1:
                break
        self.assertEqual(self.commands()[0], ("/run", "0"))
        self.assertEqual(self.commands()[1], ("/run", "3"))
        self.assertEqual(self.commands()[-1], ("/run", str(MOST_WAITING + 2)))

    def test_finish(self):
        """The stop waits for what runs, within its limit."""
        self.notices.put("/one", ())
        done = Deferred.fromCoroutine(self.notices.finish(5.0))
        self.assertNoResult(done)
        self.reactor.advance(5.0)
        self.assertEqual(self.reactor.killed, ["KILL"])
        self.reactor.end(failed=True)
        self.successResultOf(done)

    def test_finish_with_nothing(self):
        """Nothing to wait for."""
        self.successResultOf(Deferred.fromCoroutine(self.notices.finish(5.0)))


class RealTests(TestCase):
    """With processes."""

    async def test_arguments_and_environment(self):
        """The words arrive as they are; what is systemd's stays here."""
        self.patch(os, "environ", os.environ | {"NOTIFY_SOCKET": "/run/systemd"})
        self.assertNotIn("NOTIFY_SOCKET", notify._environment())
        out = Path(self.mktemp()).absolute()
        script = Path(self.mktemp()).absolute()
        script.write_text(f'#!/bin/sh\nprintf "%s|" "$@" "$NOTIFY_SOCKET" > {out}\n')
        script.chmod(0o700)
        notices = Notices(World(reactor, reactor, lambda: 0.0, random.Random(1), None))
        notices.put(f"{script} 'two words'", ("mail", "backup", "master", "$(id); `id`"))
        await notices.finish(10.0)
        await deferLater(reactor, 0)
        self.assertEqual(out.read_text(), "two words|mail|backup|master|$(id); `id`||")
