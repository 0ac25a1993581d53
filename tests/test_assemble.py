"""Proves that every configuration makes a whole daemon, and that a reload reaches its parts."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

from twisted.application.service import Application
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase

from mailsecure import assemble
from mailsecure.assemble import Condition, Outward, build
from mailsecure.balancer.service import LoadBalancer
from mailsecure.cluster.service import ClusterService
from mailsecure.cluster.values import Fitness
from mailsecure.config.files import read_config
from mailsecure.config.load import parse_config
from mailsecure.config.model import LogLevel, RouteKind
from mailsecure.control.api import Desk
from mailsecure.control.metrics import MetricsService
from mailsecure.errors import LocalFault
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.replies import Reply
from mailsecure.world import World

ROOT = Path(__file__).parent.parent

EVERYTHING = """\
[node]
name = mx1
hostname = mx1.test
state = state
user = root
[smtp]
listen =
    tcp:2525:interface=127.0.0.1
    tcp:2526:interface=127.0.0.1
[relay]
networks = 127.0.0.0/8
verify_recipients = yes
[domains]
smtp.test = smtp://192.0.2.1:2525
lmtp.test = lmtp://192.0.2.1
unix.test = lmtp+unix:/run/lmtp
box.test = maildir:mail
.below.test = mx
* = mx
[delivery]
tls = none
source_address = 127.0.0.1
[manhole]
listen = tcp:2222:interface=127.0.0.1
authorized_keys = keys
[metrics]
listen = tcp:9125:interface=127.0.0.1
[log]
file = mail.log
format = json
"""


CLUSTER = """
[cluster]
key_file = cluster.key
interface = eth0
[virtual:mail]
addresses = 192.0.2.25
"""


ACTIVE = CLUSTER.replace("[cluster]\n", "[cluster]\ntopology = active-active\n")


class QuietReactor(Clock):
    """A reactor that nobody calls from another thread."""

    def callFromThread(self, *_):
        raise AssertionError("a thread was started")


class FakeTransport:
    """A next hop that takes everybody, and notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.closed = False

    async def deliver(self, message, recipients):
        raise AssertionError("nothing is delivered here")

    async def probe(self, domain, mailbox):
        self.asked.append((domain, mailbox))
        return Reply(250, "2.1.5", "Ok")

    async def close(self):
        self.closed = True


class AssembleTestCase(SynchronousTestCase):
    """A directory for inis, and a world without a network."""

    def setUp(self):
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        (self.directory / "keys").write_text("")
        reactor = QuietReactor()
        self.world = World(reactor, reactor, lambda: 1795348800.0, random.Random(1), None)

    def read(self, text):
        """Return the path and the configuration of an ini."""
        path = self.directory / "mailsecure.ini"
        path.write_text(text)
        return path, read_config(path)

    def built(self, text):
        path, config = self.read(text)
        return build(config, self.world, path)


class BuildTests(AssembleTestCase):
    """:func:`build` makes, and starts nothing."""

    def test_demo(self):
        """The demo's ini is a daemon with metrics and a control socket."""
        path = ROOT / "etc" / "demo.ini"
        box = f"maildir:{ROOT / 'demo-state' / 'mail'}"
        parts = build(read_config(path), self.world, path).parts
        self.assertEqual([str(route) for route in parts.config.domains.values()], [box])
        self.assertEqual([type(each) for each in parts.before], [MetricsService])
        self.assertEqual([type(each).__name__ for each in parts.after], ["ControlService"])

    def test_everything(self):
        """So is one with everything switched on."""
        parts = self.built(EVERYTHING).parts
        self.assertEqual(parts.config.node.name, "mx1")
        self.assertEqual([type(each) for each in parts.before], [MetricsService])
        self.assertEqual(
            [type(each).__name__ for each in parts.after], ["ControlService", "ManholeService"]
        )

    def test_what_is_off_costs_nothing(self):
        """A start imports no library of what the ini did not ask for: time and memory."""
        code = (
            "import sys; import mailsecure.tap;"
            " print(*sorted({'pyroute2', 'sqlalchemy', 'prometheus_client', 'twisted.conch',"
            " 'twisted.web'} & set(sys.modules)))"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        self.assertEqual(said.stdout.strip(), b"", said)

    def test_the_least(self):
        """Without metrics nothing but SMTP listens before privileges are dropped."""
        parts = self.built("[domains]\nexample.com = mx\n").parts
        self.assertEqual(list(parts.before), [])

    def test_cluster(self):
        """With a key it is a node of a cluster, which command, metrics and status know."""
        (self.directory / "cluster.key").touch(0o600)
        desks = []

        def desk(*parts, **more):
            desks.append(Desk(*parts, **more))
            return desks[-1]

        self.patch(assemble, "Desk", desk)
        parts = self.built(EVERYTHING + CLUSTER).parts
        self.assertIsInstance(parts.cluster, ClusterService)
        self.assertIs(desks[-1].cluster, parts.cluster)
        self.assertIs(desks[-1].status.cluster, parts.cluster)
        self.assertIs(parts.before[0]._figures._cluster, parts.cluster)
        self.assertIsNone(self.built(EVERYTHING).parts.cluster)

    def test_balancer(self):
        """Who shares sessions has a load balancer; who only stands by has none."""
        (self.directory / "cluster.key").touch(0o600)
        parts = self.built(EVERYTHING + CLUSTER).parts
        self.assertIsNone(parts.balancer)
        self.assertIsNone(parts.before[0]._figures._balance)
        desks = []

        def desk(*parts, **more):
            desks.append(Desk(*parts, **more))
            return desks[-1]

        self.patch(assemble, "Desk", desk)
        parts = self.built(EVERYTHING + ACTIVE).parts
        self.assertIsInstance(parts.balancer, LoadBalancer)
        self.assertEqual(desks[-1].balance, parts.balancer.report)
        self.assertEqual(parts.before[0]._figures._balance, parts.balancer.report)
        self.assertEqual(parts.cluster._parts.peer_port(), 0)
        self.assertEqual(parts.cluster._parts.load(), 0)

    def test_nothing_begins(self):
        """No file, no delayed call, no socket: the world was not touched."""
        before = sorted(self.directory.iterdir())
        self.built(EVERYTHING)
        self.assertEqual(
            sorted(self.directory.iterdir()),
            sorted([*before, self.directory / "mailsecure.ini"]),
        )
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_joins_twistd(self):
        """It can be twistd's service, and its log is twistd's log from then on."""
        application = Application("mailsecure")
        daemon = self.built(EVERYTHING)
        daemon.setServiceParent(application)
        self.addCleanup(daemon.parts.log.close)
        self.assertIs(application.getComponent(ILogObserver), daemon.parts.log)
        self.assertTrue((self.directory / "mail.log").exists())


class ReconfigureTests(AssembleTestCase):
    """New settings reach the objects that were made of the old ones."""

    def test_each_part(self):
        """Gateway, delivery and log take theirs."""
        daemon = self.built(EVERYTHING)
        parts = daemon.parts
        taken = []
        self.patch(parts.gateway, "reconfigure", lambda *given: taken.append(given))
        self.patch(parts.scheduler, "reconfigure", lambda *given: taken.append(given))
        self.patch(parts.log, "reconfigure", lambda *given: taken.append(given))
        _, new = self.read(
            EVERYTHING.replace("tls = none", "expire = 1d") + "level = warn\n[spool]\n"
        )
        parts.reconfigure(new)
        (config, routes), (same_routes, delivery), (log,) = taken
        self.assertIs(config, new)
        self.assertIs(routes, same_routes)
        self.assertEqual(delivery.expire, 86400)
        self.assertIs(log.level, LogLevel.WARN)

    def test_cluster(self):
        """A key file that is no good changes nothing at all; one that is, all of it."""
        key_file = self.directory / "cluster.key"
        key_file.touch(0o600)
        parts = self.built(EVERYTHING + CLUSTER).parts
        taken = []
        self.patch(parts.gateway, "reconfigure", lambda *given: taken.append(given))
        _, new = self.read(EVERYTHING + CLUSTER + "priority = 50\n")
        fault = self.assertRaises(LocalFault, parts.reconfigure, new)
        self.assertIn("[cluster] key_file", str(fault))
        self.assertEqual(taken, [])
        self.patch(parts.cluster, "prepared", lambda config: lambda: taken.append(config))
        parts.reconfigure(new)
        self.assertEqual(taken[-1], new)

    def test_balancer(self):
        """And the balancer its settings."""
        (self.directory / "cluster.key").touch(0o600)
        parts = self.built(EVERYTHING + ACTIVE).parts
        self.patch(parts.cluster, "prepared", lambda config: lambda: None)
        _, new = self.read(EVERYTHING + ACTIVE.replace("active\n", "active\nslow_start = 3s\n"))
        parts.reconfigure(new)
        self.assertEqual(parts.balancer.pool.rules.slow_start, 3)

    def test_for_real(self):
        """A domain that a reload brings is known to gateway and delivery."""
        parts = self.built(EVERYTHING).parts
        _, new = self.read(EVERYTHING.replace("smtp.test =", "new.test ="))
        parts.reconfigure(new)
        self.addCleanup(parts.log.close)


class ConditionTests(SynchronousTestCase):
    """:class:`Condition`: why this node should get no sessions."""

    def test_full(self):
        """Full is full until there is a little room; a spool that is not well is another thing."""
        spool = mock.Mock()
        load = mock.Mock()
        condition = Condition(spool, load, lambda: False)
        for well, taken, fitness in (
            (True, 999, Fitness.FIT),
            (True, 1000, Fitness.OVERLOADED),
            (True, 950, Fitness.OVERLOADED),
            (False, 950, Fitness.OVERLOADED | Fitness.SPOOL),
            (True, 949, Fitness.FIT),
            (True, 999, Fitness.FIT),
            (False, 0, Fitness.SPOOL),
        ):
            spool.health.return_value = mock.Mock(well=well)
            load.return_value = taken
            self.assertEqual(condition(), fitness)

    def test_scanners(self):
        """Who cannot judge mail puts it off: others should get it."""
        spool = mock.Mock()
        spool.health.return_value = mock.Mock(well=True)
        judging = mock.Mock(return_value=False)
        condition = Condition(spool, lambda: 0, lambda: False, judging)
        self.assertEqual(condition(), Fitness.SCANNERS)
        judging.return_value = True
        self.assertEqual(condition(), Fitness.FIT)


class OutwardTests(AssembleTestCase):
    """:class:`Outward`: the transports, made when first needed."""

    def setUp(self):
        super().setUp()
        self.made = []
        self.patch_transport()
        self.config = parse_config(
            "[node]\nhostname = mx1.test\n[domains]\n"
            "smtp.test = smtp://192.0.2.1\nbox.test = maildir:/mail\n",
            "test.ini",
        )
        self.outward = Outward(self.world, self.config)

    def patch_transport(self):
        """Have fakes made, one a call; a Maildir cannot be asked about recipients."""

        def make(world, settings, hostname, route, is_self):
            made = object() if route.kind is RouteKind.MAILDIR else FakeTransport()
            self.made.append((settings, route, made))
            return made

        self.patch(assemble, "make_transport", make)

    def probe(self, mailbox):
        recipient = Recipient(mailbox, mailbox.partition("@")[2])
        return self.outward.probe(recipient)

    def test_one_a_route(self):
        """A route has one transport, however often it is asked for."""
        route = self.config.domains["smtp.test"]
        self.assertIs(self.outward.transport(route), self.outward.transport(route))
        self.assertEqual(len(self.made), 1)

    def test_probe(self):
        """A question about a recipient goes to the transport of the domain."""
        reply = self.successResultOf(self.probe("a@smtp.test"))
        self.assertEqual(reply.code, 250)
        self.assertEqual(self.made[0][2].asked, [("smtp.test", "a@smtp.test")])

    def test_nobody_to_ask(self):
        """Where nobody can be asked it is our fault, so that the recipient is not refused."""
        for mailbox in ("a@box.test", "a@elsewhere.test"):
            self.failureResultOf(self.probe(mailbox), LocalFault)

    def test_new_settings(self):
        """Changed settings of delivery close the old transports; others leave them alone."""
        route = self.config.domains["smtp.test"]
        first = self.outward.transport(route)
        self.outward.reconfigure(replace(self.config, domains={}))
        self.assertIs(self.outward.transport(route), first)
        self.assertFalse(first.closed)
        delivery = replace(self.config.delivery, concurrency=7)
        self.outward.reconfigure(replace(self.config, delivery=delivery))
        self.assertTrue(first.closed)
        self.assertIsNot(self.outward.transport(route), first)
        self.assertEqual(self.made[-1][0].concurrency, 7)

    def test_new_domains(self):
        """Questions follow the routes of the new ini."""
        route = self.config.domains["smtp.test"]
        self.outward.reconfigure(replace(self.config, domains={"new.test": route}))
        self.assertEqual(self.successResultOf(self.probe("a@new.test")).code, 250)
        self.failureResultOf(self.probe("a@smtp.test"), LocalFault)

    def test_ourselves(self):
        """Our name and the addresses of this machine are ours, others are not."""
        for name in ("mx1.test", "127.0.0.1"):
            self.assertTrue(self.outward.is_self(name), name)
        for name in ("mx2.test", "192.0.2.1"):
            self.assertFalse(self.outward.is_self(name), name)

    def test_probe_gives_a_deferred(self):
        """The gateway waits for a Deferred, not for a coroutine."""
        self.assertIsInstance(self.probe("a@smtp.test"), Deferred)
