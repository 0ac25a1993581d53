"""Proves the order of the daemon's life: start, stop, reload, and each way to fail at it."""

import atexit
import io
import os
import random
import sys
from pathlib import Path

from twisted.application.service import Application, Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailsecure import life
from mailsecure.config.files import read_config
from mailsecure.daemon.capabilities import CAP_NET_ADMIN, CAP_NET_RAW
from mailsecure.daemon.privileges import Identity
from mailsecure.errors import ConfigProblems, LocalFault
from mailsecure.life import Daemon, Parts
from mailsecure.spool.api import Filter
from mailsecure.world import World

INI = """\
[node]
hostname = mx.test
state = state
user = {user}
[smtp]
max_sessions = {sessions}
[domains]
example.com = smtp://192.0.2.1
[relay]
networks = {networks}
"""


class Reactor(Clock):
    """A reactor of Clock: its threads are at once, its end is only noted."""

    def __init__(self, history):
        super().__init__()
        self.history = history
        self.turn = []

    def stop(self):
        self.history.append("reactor.stop")


class InstantWorld(World):
    """A world in which threads take no time."""

    def in_thread(self, call, *arguments):
        try:
            return succeed(call(*arguments))
        except ConfigProblems:
            return fail()


class Fake:
    """A part that notes each call in the common history, and answers as told.

    ``answers[call]`` is returned by that call, or raised if it is an exception.
    """

    def __init__(self, name, history, **answers):
        self.name = name
        self.history = history
        self.answers = answers

    def called(self, call):
        self.history.append(f"{self.name}.{call}")
        answer = self.answers.get(call)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def awaited(self, call):
        answer = self.called(call)
        if isinstance(answer, Deferred):
            await answer


class FakeLog(Fake):
    def open(self):
        self.called("open")

    def start(self):
        self.called("start")

    def stop(self):
        self.called("stop")

    def reopen(self):
        self.called("reopen")

    def give_to(self, uid, gid):
        self.called(f"give_to({uid}, {gid})")

    def __call__(self, event):
        """Write nothing."""


class FakeSpool(Fake):
    async def open(self):
        await self.awaited("open")

    async def close(self):
        await self.awaited("close")


class FakeScheduler(Fake):
    async def start(self):
        await self.awaited("start")

    async def stop(self):
        await self.awaited("stop")

    async def flush(self, filter):
        self.called(f"flush({filter})")


class FakePort(Fake):
    def bind(self):
        return Deferred.fromCoroutine(self.awaited("bind"))

    def stopService(self):
        return Deferred.fromCoroutine(self.awaited("stop"))


class FakeGateway(Fake):
    listening = ("tcp:25:interface=192.0.2.25",)

    async def bind(self):
        await self.awaited("bind")

    def startService(self):
        self.called("start")

    def stopService(self):
        return Deferred.fromCoroutine(self.awaited("stop"))


class FakeCluster(FakePort):
    def startService(self):
        self.called("start")


class FakeVitals(Service):
    def __init__(self, history):
        self.history = history

    def startService(self):
        super().startService()
        self.history.append("vitals.start")

    def stopService(self):
        super().stopService()
        self.history.append("vitals.stop")


class FakeNotices(Fake):
    def ready(self, status):
        self.called("ready")

    def reloading(self):
        self.called("reloading")

    def stopping(self):
        self.called("stopping")

    def stopped(self):
        self.called("stopped")


class LifeTestCase(SynchronousTestCase):
    """A daemon of fakes, whose process only pretends to change."""

    def setUp(self):
        self.history = []
        self.said = io.StringIO()
        self.patch(sys, "__stderr__", self.said)
        self.patch(atexit, "register", lambda *given: self.history.append(("atexit", *given)))
        self.patch(life, "keep_secrets", lambda: self.history.append("keep_secrets"))
        self.patch(life, "raise_descriptor_limit", lambda: 20_000)
        self.patch(life, "tame", lambda: self.history.append("tame"))
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(life, "prepare_state", self.prepare_state)
        self.patch(life, "drop_privileges", self.drop_privileges)
        self.patch(life, "identity_of", lambda user, group: Identity(user, 800, 900))
        self.patch(life, "on_hangup", self.on_hangup)
        self.patch(life, "on_another_end", lambda reactor, work: None)
        self.path = Path(self.mktemp()) / "mailsecure.ini"
        self.path.parent.mkdir(parents=True)
        self.write()

    def prepare_state(self, directory, identity):
        self.history.append(f"prepare_state({directory.name}, {identity and identity.user})")

    def drop_privileges(self, identity, keep):
        self.history.append(f"drop_privileges({identity.user})")
        self.kept = keep

    def on_hangup(self, reactor, work):
        self.history.append("on_hangup")
        self.hangup = work

    def write(self, user="", sessions=100, networks="192.0.2.0/24"):
        """Write the ini."""
        self.path.write_text(INI.format(user=user, sessions=sessions, networks=networks))

    def daemon(self, **answers):
        """Return a daemon whose parts give ``answers``, each a dict by the part's name."""
        history = self.history
        reactor = Reactor(history)

        def fake(kind, name):
            return kind(name, history, **answers.get(name, {}))

        self.wall = 0.0
        self.reconfigured = []
        self.reconfigure_fault = None
        parts = Parts(
            config=read_config(self.path),
            path=self.path,
            world=InstantWorld(reactor, reactor, lambda: self.wall, random.Random(1), None),
            log=fake(FakeLog, "log"),
            spool=fake(FakeSpool, "spool"),
            scheduler=fake(FakeScheduler, "scheduler"),
            gateway=fake(FakeGateway, "gateway"),
            vitals=FakeVitals(history),
            before=[fake(FakePort, "metrics")],
            after=[fake(FakePort, "control"), fake(FakePort, "manhole")],
            reconfigure=self.reconfigure,
        )
        parts.notices = fake(FakeNotices, "notices")
        return Daemon(parts)

    def reconfigure(self, config):
        if self.reconfigure_fault is not None:
            raise self.reconfigure_fault
        self.reconfigured.append(config)

    def started(self, **answers):
        """Return a daemon that has started, and forget how."""
        daemon = self.daemon(**answers)
        daemon.privilegedStartService()
        daemon.startService()
        self.history.clear()
        return daemon


class StartTests(LifeTestCase):
    """The order of the start."""

    def test_order(self):
        """Ports first, then the spool, then work, then the first client; at last: ready."""
        daemon = self.daemon()
        daemon.privilegedStartService()
        self.assertEqual(
            self.history,
            ["keep_secrets", "prepare_state(state, None)", "gateway.bind", "metrics.bind"],
        )
        self.history.clear()
        daemon.startService()
        self.assertEqual(
            " ".join(self.history),
            "log.start on_hangup spool.open vitals.start scheduler.start control.bind "
            "manhole.bind gateway.start tame notices.ready",
        )
        self.assertEqual(self.said.getvalue(), "")

    def test_as_root(self):
        """Privileges are dropped once everything is bound, and before anything works."""
        self.patch(os, "geteuid", lambda: 0)
        self.write(user="nobody")
        self.daemon().privilegedStartService()
        self.assertEqual(
            self.history,
            [
                "keep_secrets",
                "prepare_state(state, nobody)",
                "gateway.bind",
                "metrics.bind",
                "log.give_to(800, 900)",
                "drop_privileges(nobody)",
            ],
        )

    def test_capabilities(self):
        """Whoever may have to move addresses keeps what that takes, and nobody else."""
        self.patch(os, "geteuid", lambda: 0)
        self.write(user="nobody")
        self.daemon().privilegedStartService()
        self.assertEqual(self.kept, ())
        key_file = self.path.with_name("cluster.key")
        key_file.touch(0o600)
        with self.path.open("a") as ini:
            ini.write("[cluster]\nkey_file = cluster.key\ninterface = eth0\n")
            ini.write("[virtual:mail]\naddresses = 192.0.2.25\n")
        self.daemon().privilegedStartService()
        self.assertEqual(self.kept, (CAP_NET_ADMIN, CAP_NET_RAW))

    def test_the_user_himself(self):
        """Who is not root drops nothing."""
        self.write(user="nobody")
        self.daemon().privilegedStartService()
        self.assertNotIn("drop_privileges(nobody)", self.history)

    def test_root_without_a_user(self):
        """Root remains root where the ini wants it; the log warns."""
        self.patch(os, "geteuid", lambda: 0)
        with capturedLogs() as events:
            self.daemon().privilegedStartService()
        self.assertNotIn("drop", "".join(self.history))
        said = [formatEvent(event) for event in events]
        self.assertEqual(said, ["running as root: set [node] user"])

    def test_few_descriptors(self):
        """Fewer descriptors than sessions allowed is worth a warning, no more."""
        self.patch(life, "raise_descriptor_limit", lambda: 256)
        with capturedLogs() as events:
            self.daemon().privilegedStartService()
        said = [formatEvent(event) for event in events]
        self.assertEqual(
            said,
            ["only 256 descriptors are granted, 400 wanted for [smtp] max_sessions"],
        )

    def test_clients_wait_for_the_spool(self):
        """Until the spool is open nobody is served and systemd is told nothing."""
        opened = Deferred()
        daemon = self.daemon(spool={"open": opened})
        daemon.privilegedStartService()
        daemon.startService()
        self.assertEqual(self.history[-1], "spool.open")
        opened.callback(None)
        self.assertIn("gateway.start", self.history)
        self.assertEqual(self.history[-1], "notices.ready")

    def test_reload_while_starting(self):
        """A SIGHUP meanwhile does not make systemd believe that we are ready."""
        daemon = self.daemon(spool={"open": Deferred()})
        daemon.privilegedStartService()
        daemon.startService()
        self.hangup()
        self.assertEqual(len(self.reconfigured), 1)
        self.assertNotIn("notices.ready", self.history)

    def test_summary(self):
        """It says where it listens, where mail goes, who may relay."""
        daemon = self.daemon()
        state = daemon.parts.config.node.state
        self.assertEqual(
            daemon.summary(),
            [
                "listening for SMTP on tcp:25:interface=192.0.2.25",
                "mail for example.com goes to smtp://192.0.2.1:25",
                "clients in 192.0.2.0/24 may send anywhere",
                "all other mail is refused",
                f"ready as mx.test, state in {state}",
            ],
        )

    def test_summary_without_relaying(self):
        """Nobody is named who may relay where nobody may."""
        self.write(networks="")
        self.assertNotIn("anywhere", "".join(self.daemon().summary()))

    def test_log_of_twistd(self):
        """Our log becomes twistd's."""
        application = Application("mailsecure")
        daemon = self.daemon()
        daemon.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), daemon.parts.log)
        self.assertEqual(self.history, ["log.open"])


class ClusterTests(LifeTestCase):
    """Only who can take mail may hold an address."""

    def daemon(self, **answers):
        daemon = super().daemon(**answers)
        cluster = FakeCluster("cluster", self.history, **answers.get("cluster", {}))
        daemon.parts.cluster = cluster
        return daemon

    def test_start(self):
        """It is bound with the other ports, and takes part when everything else works."""
        daemon = self.daemon()
        daemon.privilegedStartService()
        self.assertEqual(self.history[-3:], ["gateway.bind", "metrics.bind", "cluster.bind"])
        daemon.startService()
        self.assertEqual(
            self.history[-4:], ["gateway.start", "tame", "cluster.start", "notices.ready"]
        )

    def test_stop(self):
        """The address goes to another node before this one takes no more sessions."""
        left = Deferred()
        daemon = self.started(cluster={"stop": left})
        ended = daemon.stopService()
        self.assertEqual(self.history, ["notices.stopping", "cluster.stop"])
        left.callback(None)
        self.successResultOf(ended)
        self.assertEqual(self.history[2], "gateway.stop")

    def test_cannot_bind(self):
        """Fatal, in one line."""
        fault = LocalFault("[cluster] interface: there is no interface eth9")
        daemon = self.daemon(cluster={"bind": fault})
        self.assertRaises(SystemExit, daemon.privilegedStartService)
        self.assertEqual(self.said.getvalue(), f"mailsecure cannot start: {fault}\n")


class BalancerTests(LifeTestCase):
    """The load balancer goes with the gateway."""

    def daemon(self, **answers):
        daemon = super().daemon(**answers)
        balancer = FakeCluster("balancer", self.history, **answers.get("balancer", {}))
        daemon.parts.balancer = balancer
        return daemon

    def test_start(self):
        """It reads the gateway's sockets, so it starts after it."""
        daemon = self.daemon()
        daemon.privilegedStartService()
        daemon.startService()
        self.assertEqual(
            self.history[-4:], ["gateway.start", "balancer.start", "tame", "notices.ready"]
        )

    def test_stop(self):
        """Both close at once; all that need both stays until both have ended."""
        ours, theirs = Deferred(), Deferred()
        daemon = self.started(gateway={"stop": ours}, balancer={"stop": theirs})
        ended = daemon.stopService()
        expected = ["notices.stopping", "balancer.stop", "gateway.stop"]
        self.assertEqual(self.history, expected)
        ours.callback(None)
        self.assertEqual(self.history, expected)
        theirs.callback(None)
        self.successResultOf(ended)
        self.assertEqual(self.history[3], "scheduler.stop")


class NoStartTests(LifeTestCase):
    """What stops the start: one line, and an exit code."""

    def refused(self, **answers):
        """Start in vain; return what was said."""
        daemon = self.daemon(**answers)
        end = self.assertRaises(SystemExit, daemon.privilegedStartService)
        self.assertEqual(end.code, os.EX_UNAVAILABLE)
        self.assertEqual(daemon.running, 0)
        return self.said.getvalue()

    def test_port(self):
        """A port of the gateway, or of the metrics, that cannot be bound."""
        for part in ("gateway", "metrics"):
            self.said.truncate(self.said.seek(0))
            said = self.refused(**{part: {"bind": LocalFault("cannot listen on tcp:25: taken")}})
            self.assertEqual(said, "mailsecure cannot start: cannot listen on tcp:25: taken\n")

    def test_port_that_is_not_bound_at_once(self):
        """An endpoint that needs the reactor cannot be bound before privileges are dropped."""
        said = self.refused(gateway={"bind": Deferred()})
        self.assertEqual(said, "mailsecure cannot start: a port could not be bound at once\n")

    def test_state(self):
        """A state directory that is not ours."""

        def refuse(directory, identity):
            raise LocalFault("[node] state is open to others")

        self.patch(life, "prepare_state", refuse)
        self.assertIn("open to others\n", self.refused())
        self.assertNotIn("gateway.bind", self.history)

    def test_without_a_terminal(self):
        """Where there is no standard error, the exit code has to do."""
        self.patch(sys, "__stderr__", None)
        self.refused(gateway={"bind": LocalFault("taken")})

    def test_spool(self):
        """A spool that cannot be opened ends the process with a code, after a whole stop."""
        daemon = self.daemon(spool={"open": LocalFault("the spool is in use")})
        daemon.privilegedStartService()
        daemon.startService()
        self.assertEqual(
            self.history[-2:], [("atexit", os._exit, os.EX_UNAVAILABLE), "reactor.stop"]
        )
        self.assertNotIn("notices.ready", self.history)
        self.assertEqual(self.said.getvalue(), "mailsecure cannot start: the spool is in use\n")
        self.history.clear()
        self.successResultOf(daemon.stopService())
        self.assertNotIn("spool.close", self.history)
        self.assertEqual(self.history[-2:], ["notices.stopped", "log.stop"])

    def test_surprise(self):
        """What nobody foresaw at the start ends it likewise."""
        daemon = self.daemon(scheduler={"start": ValueError("what?")})
        daemon.privilegedStartService()
        daemon.startService()
        self.assertIn("reactor.stop", self.history)
        self.assertIn("what?", self.said.getvalue())
        self.successResultOf(daemon.stopService())
        self.assertIn("spool.close", self.history)


class ClockTests(LifeTestCase):
    """The wall clock is set while we run."""

    def test_back(self):
        """What waits is tried at once, because its due time moved away."""
        daemon = self.started()
        self.wall -= 3600
        daemon.parts.world.clock.advance(5)
        self.assertEqual(self.history, [f"scheduler.flush({Filter()})"])

    def test_after_the_end(self):
        """Nobody looks at the clock any more."""
        daemon = self.started()
        self.successResultOf(daemon.stopService())
        self.assertEqual(daemon.parts.world.clock.getDelayedCalls(), [])


class StopTests(LifeTestCase):
    """The order of the end."""

    def test_order(self):
        """Sessions, deliveries, everything that looks on, and the spool last."""
        daemon = self.started()
        self.successResultOf(daemon.stopService())
        self.assertEqual(
            " ".join(self.history),
            "notices.stopping gateway.stop scheduler.stop control.stop manhole.stop "
            "metrics.stop vitals.stop spool.close notices.stopped log.stop",
        )

    def test_waits(self):
        """Deliveries go on until the last session is over; the spool closes after both."""
        sessions, deliveries = Deferred(), Deferred()
        daemon = self.started(gateway={"stop": sessions}, scheduler={"stop": deliveries})
        ended = daemon.stopService()
        self.assertEqual(self.history[-1], "gateway.stop")
        sessions.callback(None)
        self.assertEqual(self.history[-1], "scheduler.stop")
        self.assertNoResult(ended)
        deliveries.callback(None)
        self.successResultOf(ended)

    def test_while_starting(self):
        """A stop during the start waits for the spool, and then opens nothing."""
        opened = Deferred()
        daemon = self.daemon(spool={"open": opened})
        daemon.privilegedStartService()
        daemon.startService()
        self.history.clear()
        ended = daemon.stopService()
        self.assertEqual(self.history, ["notices.stopping"])
        opened.callback(None)
        self.successResultOf(ended)
        self.assertNotIn("gateway.start", self.history)
        self.assertNotIn("notices.ready", self.history)
        self.assertIn("spool.close", self.history)

    def test_never_started(self):
        """A service that only bound its ports can be stopped."""
        daemon = self.daemon()
        daemon.privilegedStartService()
        self.successResultOf(daemon.stopService())
        self.assertNotIn("spool.close", self.history)


class ReloadTests(LifeTestCase):
    """SIGHUP, and the command."""

    def test_good(self):
        """The new settings go to every part, and what changed is told."""
        daemon = self.started()
        self.write(sessions=200, user="nobody")
        said = self.successResultOf(Deferred.fromCoroutine(daemon.reload()))
        self.assertEqual(
            said,
            [
                "[node] user: (empty) → nobody (needs a restart)",
                "[smtp] max_sessions: 100 → 200",
            ],
        )
        (config,) = self.reconfigured
        self.assertEqual(config.smtp.max_sessions, 200)
        self.assertIs(daemon.parts.config, config)
        self.assertEqual(self.history, ["notices.reloading", "notices.ready"])

    def test_waiting_for_a_restart(self):
        """What an earlier reload could not apply is told again, until it is undone."""
        daemon = self.started()
        self.write(sessions=100, user="nobody")
        self.successResultOf(Deferred.fromCoroutine(daemon.reload()))
        said = self.successResultOf(Deferred.fromCoroutine(daemon.reload()))
        self.assertEqual(
            said,
            [
                "nothing has changed",
                "still waits: [node] user: (empty) → nobody (needs a restart)",
            ],
        )

    def test_nothing_new(self):
        """The same ini is applied, because certificates are read again."""
        daemon = self.started()
        said = self.successResultOf(Deferred.fromCoroutine(daemon.reload()))
        self.assertEqual(said, ["nothing has changed"])
        self.assertEqual(len(self.reconfigured), 1)

    def test_bad_ini(self):
        """A single mistake, and nothing changes; the caller gets all of them."""
        daemon = self.started()
        before = daemon.parts.config
        self.path.write_text("[smtp]\nmax_sessions = 5\nfoo = 1\nbar = 2\n")
        failure = self.failureResultOf(Deferred.fromCoroutine(daemon.reload()), ConfigProblems)
        self.assertGreaterEqual(len(failure.value.problems), 2)
        self.assertIs(daemon.parts.config, before)
        self.assertEqual(self.reconfigured, [])
        self.assertEqual(self.history, ["notices.reloading", "notices.ready"])

    def test_two_at_once(self):
        """The ini that was read last counts, however long it took to read the one before."""
        daemon = self.started()
        read = read_config(self.path)
        slow = Deferred()
        self.patch(InstantWorld, "in_thread", lambda *_: slow)
        first = Deferred.fromCoroutine(daemon.reload())
        self.patch(InstantWorld, "in_thread", lambda _, call, path: succeed(call(path)))
        self.write(sessions=200)
        second = Deferred.fromCoroutine(daemon.reload())
        slow.callback(read)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual([each.smtp.max_sessions for each in self.reconfigured], [100, 200])
        self.assertEqual(daemon.parts.config.smtp.max_sessions, 200)

    def test_a_part_that_refuses(self):
        """Settings that a part cannot take leave the old ones in place."""
        daemon = self.started()
        before = daemon.parts.config
        self.reconfigure_fault = LocalFault("the key does not fit the certificate")
        self.write(sessions=200)
        self.failureResultOf(Deferred.fromCoroutine(daemon.reload()), LocalFault)
        self.assertIs(daemon.parts.config, before)

    def test_hangup(self):
        """SIGHUP opens the log file anew and reloads; a refusal is only logged."""
        self.started()
        self.hangup()
        self.assertEqual(self.history, ["log.reopen", "notices.reloading", "notices.ready"])
        self.path.write_text("nonsense")
        self.hangup()
        self.reconfigure_fault = LocalFault("no")
        self.write()
        self.hangup()
        self.assertEqual(len(self.reconfigured), 1)

    def test_after_the_end(self):
        """A reload that ends after the stop has begun does not report readiness."""
        daemon = self.started()
        self.successResultOf(daemon.stopService())
        self.history.clear()
        self.hangup()
        self.assertNotIn("notices.ready", self.history)
