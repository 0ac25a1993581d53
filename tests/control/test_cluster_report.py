"""Proves that a real cluster's report has the shape that the control room reads."""

import json
from ipaddress import ip_address
from types import SimpleNamespace
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.group import GroupParts, VirtualGroup
from mailsecure.cluster.linkpeer import LinkState
from mailsecure.cluster.membership import Membership
from mailsecure.cluster.report import report
from mailsecure.cluster.values import Fitness, Heard, Hello, View
from mailsecure.cluster.watch import Watch
from mailsecure.config.load import parse_config
from mailsecure.config.model import NodeRole
from mailsecure.control.cluster_tables import cluster_page, unwell
from mailsecure.testing.kernel import MemoryKernel

from . import fakes
from .test_cluster_tables import printed

CONFIG = parse_config(
    "[cluster]\nkey_file = /k\ninterface = eth0\n"
    "[virtual:mail]\naddresses = 192.0.2.25\npriority = 255\nadvertisement_interval = 100ms\n",
    "x.ini",
)


class ReportTests(SynchronousTestCase):
    """:func:`report` of a group in memory and a peer that was heard."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(100)
        kernel = MemoryKernel(self.clock)
        kernel.add_interface("eth0", "192.0.2.11/24")
        parts = GroupParts(
            fakes.world(self.clock),
            kernel,
            mock.Mock(),
            ip_address("192.0.2.11"),
            lambda asks=False: None,
            lambda group, priority, master: View(True, True, False),
            mock.Mock(),
        )
        self.group = VirtualGroup("mail", CONFIG.virtual["mail"], parts)
        self.group.start()
        self.membership = Membership("mx1", 0.1, 1)
        self.membership.next_sequence(100.0)
        heard = (Heard(1, 1, 0.0),)
        self.membership.receive(100.0, fakes.NOON, self.hello("mx2", 2, (), heard), "192.0.2.12")

    def hello(self, node, incarnation, groups, heard):
        return Hello(
            node=node,
            address=ip_address("192.0.2.12"),
            link_port=5025,
            incarnation=incarnation,
            sequence=1,
            wall=fakes.NOON,
            uptime=5.0,
            interval=0.1,
            version="0.1.0",
            role=NodeRole.BOTH,
            weight=100,
            load=250,
            fitness=Fitness.FIT,
            policy_revision=0,
            asks=False,
            groups=groups,
            heard=heard,
        )

    def report(self):
        state = LinkState(True, 7200.0, 0.0003, 1, 0, "", "0.1.0")
        service = SimpleNamespace(
            node="mx1",
            address=ip_address("192.0.2.11"),
            now=self.clock.seconds(),
            interval=0.1,
            membership=self.membership,
            links=SimpleNamespace(snapshot=lambda: {"mx2": state}),
            groups={"mail": self.group},
            watch=Watch(self.clock, "mx1"),
            hellos_sent=1,
            hellos_received=1,
            send_failures=0,
            hello_now=lambda: self.hello("mx1", 1, (self.group.hello(),), ()),
            weight_set={"mx2": 5}.get,
            words=SimpleNamespace(until=lambda group: (None, None), why=lambda group: ""),
        )
        return report(service)

    def test_the_fakes_have_its_shape(self):
        real, fake = self.report(), fakes.report()
        self.assertEqual(real.keys(), fake.keys())
        (group,) = real["groups"]
        self.assertEqual(group.keys(), fake["groups"][0].keys())
        self.assertEqual(group["addresses"][0].keys(), fake["groups"][0]["addresses"][0].keys())
        for mine, theirs in zip(real["nodes"], fake["nodes"], strict=True):
            self.assertEqual(mine.keys(), theirs.keys())
        self.assertEqual(real["nodes"][1]["link"].keys(), fake["nodes"][1]["link"].keys())
        self.assertEqual(real, json.loads(json.dumps(real)))

    def test_it_can_be_shown(self):
        page = printed(cluster_page(self.report()))
        self.assertIn("mail: master since ", page)
        self.assertIn("\n  192.0.2.25 on eth0, held here\n", page)
        self.assertIn("mail: master/255 ", page)
        self.assertIn("\nevery node hears every other\n", page)
        self.assertFalse(unwell(self.report()))
