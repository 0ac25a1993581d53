"""Proves that the service starts, reloads, looks after itself and reports as it promises.

Nodes of a :class:`~tests.cluster.simulation.Simulation`, without links.
"""

import re
from ipaddress import ip_address

from twisted.logger import capturedLogs, formatEvent

from mailsecure.cluster.keys import KeyRing, format_keys, new_key
from mailsecure.cluster.links import LinkState
from mailsecure.cluster.values import Fitness, Role
from mailsecure.config.load import parse_config
from mailsecure.control.api import Cluster
from mailsecure.errors import LocalFault, RemoteFault
from tests.cluster.simulation import ADDRESS
from tests.cluster.test_simulation import SimulationTestCase

OTHER = "192.0.2.101"


class ServiceTestCase(SimulationTestCase):
    """Nodes whose ini can be written anew."""

    def ini(self, node, cluster="interface = eth0", **groups):
        """Return the configuration of ``node`` with these groups, each its options."""
        text = f"[node]\nname = {node.name}\n[cluster]\nkey_file = {self.simulation.key_file}\n"
        text += f"{cluster}\n"
        for name, options in groups.items():
            text += f"[virtual:{name}]\n{options}\n"
        return parse_config(text, "simulated")

    def reload(self, node, **groups):
        """Have ``node`` take a new configuration, as ``assemble`` does."""
        node.service.prepared(self.ini(node, **groups))()

    def advance(self, seconds):
        self.simulation.advance(seconds)


class StartTests(ServiceTestCase):
    """What must be right before anything begins."""

    def refused(self, node, **ini):
        """Return why ``node`` cannot start with this ini."""
        config = self.ini(node, **ini)
        self.patch(node, "config", lambda: config)
        said = self.assertRaises(AssertionError, node.start)
        return said.args[0][0].getErrorMessage()

    def test_no_interface(self):
        """The interface must be there, or nobody would know where to join."""
        node = self.simulation.add()
        said = self.refused(node, cluster="interface = eth9")
        self.assertEqual(said, "[cluster] interface: there is no interface eth9")
        said = self.refused(node, cluster=f"interface = eth9\naddress = {node.address}")
        self.assertEqual(said, "[cluster] interface: there is no interface eth9")

    def test_no_address(self):
        """It must have an address of the family of the group."""
        node = self.simulation.add()
        node.kernel.add_interface("eth1")
        said = self.refused(node, cluster="interface = eth1")
        self.assertEqual(said, "[cluster] interface: eth1 has no IPv4 address")
        said = self.refused(node, cluster="interface = eth0\ngroup = [ff02::2525]:5025")
        self.assertEqual(said, "[cluster] interface: eth0 has no IPv6 address")

    def test_address_elsewhere(self):
        """An address that was named must be this machine's."""
        said = self.refused(self.simulation.add(), cluster="address = 192.0.2.77")
        self.assertEqual(said, "[cluster] address: 192.0.2.77 is on no interface of this machine")

    def test_address_instead_of_interface(self):
        """The interface is found by the address."""
        node = self.simulation.add()
        config = self.ini(node, cluster=f"address = {node.address}")
        self.patch(node, "config", lambda: config)
        self.assertEqual(str(node.start().service.address), node.address)

    def test_own_address_is_not_a_virtual_one(self):
        """What an earlier life left behind is not taken for our own address."""
        node = self.simulation.add()
        node.kernel.add_interface("eth1")
        interface = node.kernel.interface("eth1")
        virtual = node.config().virtual["mail"].addresses[0]
        node.kernel.lease(interface.index, virtual, 30)
        said = self.refused(node, cluster="interface = eth1", mail=f"addresses = {ADDRESS}")
        self.assertEqual(said, "[cluster] interface: eth1 has no IPv4 address")

    def test_virtual_address_of_a_machine(self):
        """A virtual address that stands for ever is named, with its group."""
        node = self.simulation.add()
        node.kernel.add_interface("eth0", f"{node.address}/24", f"{ADDRESS}/24")
        said = self.refused(node, mail=f"addresses = {ADDRESS}")
        self.assertTrue(said.startswith(f"[virtual:mail]: {ADDRESS}/24 already stands on"), said)

    def test_left_behind(self):
        """What a dead process left is removed before the election."""
        (node,) = self.nodes(100)
        node.kill()
        self.assertTrue(node.holds)
        node.start()
        self.assertFalse(node.holds)
        self.advance(4)
        self.assertMaster(node)

    def test_not_allowed(self):
        """Without capabilities it takes no part, and says why; they may come later."""
        node = self.simulation.add()
        node.kernel.missing = "CAP_NET_ADMIN is missing: no address can be added"
        node.start()
        self.advance(10)
        self.assertIs(node.role, Role.INIT)
        self.assertIn("CAP_NET_ADMIN", node.service.report()["groups"][0]["fault"])
        node.kernel.missing = ""
        self.advance(10)
        self.assertMaster(node)

    def test_scanner(self):
        """A scanner has no groups and says hello."""
        node, (other,) = self.simulation.add(), self.nodes(100)
        config = self.ini(node, cluster="interface = eth0\nrole = scanner")
        self.patch(node, "config", lambda: config)
        node.start()
        self.assertEqual(node.service._trouble(), "[cluster] role is scanner")
        self.advance(5)
        self.assertEqual([each["role"] for each in other.service.report()["nodes"]][1], "scanner")

    def test_stopped_before_it_ran(self):
        """A start that failed elsewhere leaves nothing open."""
        node = self.simulation.add().start()
        node.service.running = 0
        done = []
        node.service.stopService().addCallback(done.append)
        self.assertEqual(done, [None])
        self.assertIsNone(node.port)


class ReloadTests(ServiceTestCase):
    """New settings while it runs."""

    def setUp(self):
        super().setUp()
        self.one, self.two = self.nodes(200, 100)

    def both(self, **groups):
        """Reload both nodes."""
        for node in (self.one, self.two):
            self.reload(node, **groups)

    def test_group_added(self):
        """It takes part as any other."""
        self.both(mail=f"addresses = {ADDRESS}\npriority = 200", web=f"addresses = {OTHER}")
        self.advance(5)
        owners = [node for node in (self.one, self.two) if node.kernel.holds(OTHER)]
        self.assertEqual(len(owners), 1)
        self.assertTrue(self.one.holds)

    def test_group_removed(self):
        """Its addresses go, and are not taken again."""
        self.both()
        self.advance(5)
        self.assertEqual(self.simulation.owners, [])
        self.assertEqual(self.one.service.groups, {})

    def test_group_removed_on_the_master(self):
        """The other takes over."""
        self.reload(self.one)
        self.assertTrue(self.one.holds)
        self.advance(0.01)
        self.assertTrue(self.two.holds)
        self.assertFalse(self.one.holds)
        self.assertEqual(self.one.service._leaving, [])

    def test_group_removed_before_the_end(self):
        """The end waits for a group that is just being left."""
        self.simulation.cut = {(1, 2), (2, 1)}
        self.reload(self.one)
        done = []
        self.one.service.stopService().addCallback(done.append)
        self.assertEqual(done, [])
        self.advance(0.6)
        self.assertEqual((done, self.one.holds), ([None], False))

    def test_addresses_changed(self):
        """One comes, one stays and is never absent."""
        released = []
        release = self.one.kernel.release
        self.patch(
            self.one.kernel, "release", lambda *given: (released.append(given), release(*given))
        )
        self.both(mail=f"addresses = {ADDRESS} {OTHER}\npriority = 200")
        self.assertTrue(self.one.holds and self.one.kernel.holds(OTHER))
        self.assertEqual(released, [])
        self.both(mail=f"addresses = {OTHER}\npriority = 200")
        self.assertEqual([str(address.ip) for _, address in released], [ADDRESS])
        self.advance(10)
        self.assertTrue(self.one.kernel.holds(OTHER))

    def test_addresses_refused(self):
        """Where the kernel does not take the new one, the other node may have both."""
        self.one.kernel.refuses = "No buffer space available"
        self.both(mail=f"addresses = {ADDRESS} {OTHER}")
        self.assertIs(self.one.role, Role.INIT)
        self.advance(5)
        self.assertTrue(self.two.holds and self.two.kernel.holds(OTHER))

    def test_addresses_of_a_machine(self):
        """A new address that belongs to a machine: nothing changes at all."""
        self.one.kernel.add_interface("eth1", f"{OTHER}/24")
        for options in (f"addresses = {OTHER}", f"addresses = {ADDRESS} {OTHER}"):
            config = self.ini(self.one, mail=f"{options}\ninterface = eth1")
            said = str(self.assertRaises(LocalFault, self.one.service.prepared, config))
            self.assertIn(f"[virtual:mail]: {OTHER}/24 already stands on eth1", said)
        self.advance(5)
        self.assertMaster(self.one)

    def test_address_added_that_is_a_machines(self):
        """So it is where the group keeps its interface."""
        self.one.kernel.add_interface("eth0", f"{self.one.address}/24", f"{OTHER}/24")
        config = self.ini(self.one, mail=f"addresses = {ADDRESS} {OTHER}")
        said = str(self.assertRaises(LocalFault, self.one.service.prepared, config))
        self.assertIn("[virtual:mail]", said)

    def test_another_interface(self):
        """A group that moves to another interface leaves the old one."""
        for node in (self.one, self.two):
            node.kernel.add_interface("eth1")
        self.both(mail=f"addresses = {ADDRESS}\ninterface = eth1")
        self.advance(10)
        (owner,) = self.simulation.owners
        eth0, eth1 = (owner.kernel.interface(each).index for each in ("eth0", "eth1"))
        standing = {
            index: [str(each.address.ip) for each in owner.kernel.addresses(index)]
            for index in (eth0, eth1)
        }
        self.assertEqual(standing, {eth0: [owner.address], eth1: [ADDRESS]})

    def test_interval(self):
        """The interval of hellos follows the shortest of the groups."""
        self.both(mail=f"addresses = {ADDRESS}\nadvertisement_interval = 100ms")
        self.assertEqual(self.one.service.interval, 0.1)
        self.assertEqual(self.one.service.membership.interval, 0.1)
        before = self.one.service.hellos_sent
        self.advance(2)
        self.assertGreater(self.one.service.hellos_sent - before, 15)

    def test_key_file_unreadable(self):
        """Keys that cannot be read, or none: nothing changes."""
        self.simulation.key_file.chmod(0o644)
        for spoil in (lambda: None, self.simulation.key_file.unlink):
            spoil()
            with self.assertRaises(LocalFault):
                self.one.service.prepared(self.ini(self.one))
        self.advance(5)
        self.assertMaster(self.one)
        self.assertTrue(self.two.service.report()["nodes"][1]["alive"])

    def test_switched_off(self):
        """A cluster is not switched off by a reload."""
        config = parse_config("[node]\nname = mx1\n", "simulated")
        said = str(self.assertRaises(LocalFault, self.one.service.prepared, config))
        self.assertIn("needs a restart", said)

    def test_new_key(self):
        """Two keys, the new one first: it signs, and who has not got it drops our hellos."""
        new = new_key(bytes(range(7, 39)))
        old = self.one.service._ring.keys[0]
        self.simulation.key_file.write_text(format_keys(KeyRing((new, old))))
        mail = f"addresses = {ADDRESS}\npriority = 200"
        self.reload(self.one, mail=mail)
        self.advance(2)
        self.assertEqual(set(self.two.service.report()["drops"]), {"other cluster"})
        self.reload(self.two, mail=mail.replace("200", "100"))
        self.advance(10)
        self.assertMaster(self.one)


class CommandTests(ServiceTestCase):
    """The postmaster's words."""

    def setUp(self):
        super().setUp()
        self.one, self.two = self.nodes(200, 100)

    def test_resign(self):
        """For so long, then it takes over again; the report says until when."""
        said = self.one.service.resign("mail", 20.0)
        (line,) = said
        self.assertTrue(line.startswith("mail: resigned as Master, stands back until 1970-"), line)
        until = self.simulation.clock.seconds() + 20
        self.assertEqual(self.one.service.words.until("mail"), (until, None))
        self.advance(10)
        self.assertMaster(self.two)
        self.advance(15)
        self.assertMaster(self.one)
        self.assertEqual(self.one.service.words.until("mail"), (None, None))

    def test_takeover(self):
        """For so long, whatever the priorities; the last word counts."""
        said = self.two.service.takeover(None, 20.0)
        (line,) = said
        self.assertTrue(line.startswith("mail: Master until 1970-"), line)
        self.advance(10)
        self.assertMaster(self.two)
        self.assertEqual(self.two.service.words.until("mail")[0], None)
        self.two.service.resign(None, 20.0)
        self.assertEqual(self.two.service.words.until("mail")[1], None)
        self.advance(5)
        self.assertMaster(self.one)

    def test_nobody_else(self):
        """A Master that nobody could follow stays it, and says so."""
        self.two.stop()
        self.advance(10)
        said = self.one.service.resign(None, 20.0)
        self.assertEqual(said, ["mail: stays Master, because nobody else could be"])
        self.assertMaster(self.one)

    def test_in_trouble(self):
        """Who may not be Master cannot be told to."""
        self.two.kernel.set_up("eth0", False)
        said = self.two.service.takeover(None, 20.0)
        self.assertEqual(said, ["mail: takes no part now: interface eth0 is down"])

    def test_no_such_group(self):
        """A name that is none is a KeyError."""
        self.assertRaises(KeyError, self.one.service.resign, "web", 1.0)
        self.assertRaises(KeyError, self.one.service.takeover, "web", 1.0)


class DrainTests(ServiceTestCase):
    """A node that drains."""

    def setUp(self):
        super().setUp()
        self.one, self.two = self.nodes(200, 100)

    def because(self, node):
        return node.service.report()["groups"][0]["standing_back_because"]

    def test_stands_back(self):
        """Without end, whatever a postmaster says besides; then it is Master again."""
        self.assertTrue(self.one.service.leads and self.one.service.holding)
        self.assertEqual(self.because(self.one), "")
        self.one.service.drain(True)
        self.advance(5)
        self.assertMaster(self.two)
        self.assertFalse(self.one.service.leads or self.one.service.holding)
        self.assertEqual(self.because(self.one), "this node drains")
        (line,) = self.one.service.takeover(None, 20.0)
        self.assertEqual(line, "mail: stands back, because this node drains: undrain it first")
        (line,) = self.one.service.resign(None, 5.0)
        self.assertEqual(line, "mail: stands back anyway: this node drains")
        self.advance(100)
        self.assertMaster(self.two)
        self.one.service.drain(False)
        self.assertEqual(self.because(self.one), "")
        self.advance(5)
        self.assertMaster(self.one)

    def test_other_words_outlast_it(self):
        """Who was told to resign still does when it drains no more."""
        self.one.service.drain(True)
        self.one.service.resign(None, 60.0)
        self.advance(5)
        self.one.service.drain(False)
        self.assertEqual(self.because(self.one), "resigned by the postmaster")
        self.advance(5)
        self.assertMaster(self.two)
        self.advance(60)
        self.assertMaster(self.one)

    def test_bad_health_outlasts_it(self):
        """Who could not take mail meanwhile waits until it has been well for a while."""
        self.one.fitness = Fitness.SPOOL
        self.advance(5)
        self.one.service.drain(True)
        self.one.service.drain(False)
        self.assertEqual(self.because(self.one), "this node cannot take mail")
        self.advance(5)
        self.assertMaster(self.two)
        self.one.fitness = Fitness.FIT
        self.advance(20)
        self.assertMaster(self.one)

    def test_a_new_group(self):
        """One that a reload adds stands back, too."""
        self.one.service.drain(True)
        self.advance(5)
        for node in (self.one, self.two):
            self.reload(node, mail=f"addresses = {ADDRESS}", web=f"addresses = {OTHER}")
        self.advance(5)
        self.assertTrue(self.two.kernel.holds(OTHER))

    def test_nobody_else(self):
        """Who drains, cannot take mail, or is gone could not be Master instead of us."""
        service = self.one.service
        self.assertEqual(service.nobody_else(), [])
        self.assertEqual(self.two.service.nobody_else(), [])
        for fitness in (Fitness.DRAINING, Fitness.SPOOL):
            self.two.fitness = fitness
            self.advance(2)
            self.assertEqual(service.nobody_else(), ["mail"])
        self.two.fitness = Fitness.OVERLOADED
        self.advance(2)
        self.assertEqual(service.nobody_else(), [])
        self.two.stop()
        self.advance(1)
        self.assertEqual(service.nobody_else(), ["mail"])

    def test_speak(self):
        """A hello is said at once, though one was said just now."""
        said = self.one.service.hellos_sent
        self.one.service.speak()
        self.one.service.speak()
        self.assertEqual(self.one.service.hellos_sent, said + 2)


class FitnessTests(ServiceTestCase):
    """A node that cannot take mail."""

    def test_resigned_besides(self):
        """One that is well again still keeps to a postmaster's word."""
        one, two = self.nodes(200, 100)
        one.fitness = Fitness.SPOOL
        self.advance(5)
        self.assertMaster(two)
        one.service.resign(None, 60.0)
        one.fitness = Fitness.FIT
        self.advance(20)
        self.assertMaster(two)
        self.advance(45)
        self.assertMaster(one)

    def test_alone(self):
        """It keeps the address where nobody else could have it."""
        (one,) = self.nodes(200)
        one.fitness = Fitness.SPOOL
        self.advance(20)
        self.assertMaster(one)


class InterfaceTests(ServiceTestCase):
    """The interface of hellos."""

    def test_made_anew(self):
        """The group is joined again on the new one; what fails is told."""
        (node,) = self.nodes(100)
        joined = []
        self.patch(node.service._casting, "join", joined.append)
        node.kernel.remove_interface("eth0")
        self.assertEqual(joined, [])
        made = node.kernel.add_interface("eth0", f"{node.address}/24")
        self.assertEqual(joined, [made.index])

        def fail(index):
            raise OSError(19, "No such device")

        self.patch(node.service._casting, "join", fail)
        with capturedLogs() as events:
            node.kernel.set_up("eth0", True)
        self.assertIn(
            "cannot join the group again: No such device", [formatEvent(each) for each in events]
        )


def promised():
    """Return name → keys of each shape that :class:`Cluster` promises."""
    text = " ".join((Cluster.report.__doc__ or "").split())
    groups = re.search(r"groups \[\{(.*?)\}\] nodes", text)[1]
    nodes = re.search(r"nodes \[\{(.*?)\}\] \(link", text)[1]
    link = re.search(r"link: \{(.*?)\}", nodes)[1]
    top = re.search(r":: (.*?) groups \[", text)[1]

    def keys(part):
        plain = re.sub(r"\{.*?\}|\[.*?\]", "", part)
        return {each.split(":")[0].strip() for each in plain.split(",")}

    return {
        "top": keys(top) | {"groups", "nodes", "drops", "alarms"},
        "groups": keys(groups),
        "nodes": keys(nodes),
        "link": keys(link),
    }


class ReportTests(ServiceTestCase):
    """What ``cluster status`` gets."""

    def test_shape(self):
        """Every key that is promised, and no other."""
        one, two = self.nodes(200, 100)
        state = LinkState(True, 3.0, 0.001, 1, 0, "", "1.0")
        self.patch(one.service.links, "snapshot", lambda: {two.name: state})
        said, shapes = one.service.report(), promised()
        self.assertEqual(set(said), shapes["top"])
        (group,) = said["groups"]
        self.assertEqual(set(group), shapes["groups"])
        self.assertEqual(group["addresses"], [{"address": ADDRESS, "held": True}])
        for node in said["nodes"]:
            self.assertEqual(set(node), shapes["nodes"])
        this, other = said["nodes"]
        self.assertIsNone(this["link"])
        self.assertEqual(set(other["link"]), shapes["link"])

    def test_what_it_says(self):
        """Who is who, who hears whom, who is Master."""
        one, two, three = self.nodes(200, 100, 50)
        self.simulation.cut = {(1, 3)}
        three.fitness = Fitness.SPOOL | Fitness.OVERLOADED
        self.advance(10)
        said = two.service.report()
        (group,) = said["groups"]
        # mx3 does not hear mx1 and became Master too: mx1 left it to whom all hear.
        self.assertEqual((group["role"], group["master"]), ("master", "mx2"))
        rows = {each["node"]: each for each in said["nodes"]}
        self.assertEqual([name for name, row in rows.items() if row["self"]], ["mx2"])
        self.assertEqual(rows["mx1"]["groups"], {"mail": "backup/200"})
        self.assertEqual(set(rows["mx3"]["fitness"]), {"cannot take mail", "overloaded"})
        self.assertEqual(set(rows["mx1"]["hears"]), {"mx2", "mx3"})
        self.assertEqual(set(rows["mx1"]["heard_by"]), {"mx2"})
        self.assertEqual(one.service.report()["alarms"], ["mx3 does not hear us"])

    def test_priorities_in_words(self):
        """What is no number of the ini has a word."""
        one, two = self.nodes(200, 100)
        two.service.takeover(None, 60.0)
        one.service.resign(None, 60.0)
        self.advance(2)
        rows = {each["node"]: each["groups"]["mail"] for each in one.service.report()["nodes"]}
        self.assertEqual(rows, {"mx1": "backup/stands back", "mx2": "master/takes over"})

    def test_drops(self):
        """Ignored datagrams are counted by reason; failures to send are counted."""
        (one,) = self.nodes(100)
        one.port.arrive(b"rubbish", "192.0.2.66")
        said = one.service.report()
        self.assertEqual(said["drops"], {"malformed": 1})
        self.assertEqual((said["send_failures"], said["alarms"]), (0, []))


class BackendTests(ServiceTestCase):
    """What a load balancer is told."""

    def setUp(self):
        super().setUp()
        self.first, self.second = self.nodes(100, 50)
        self.changes = 0
        self.advance(5)
        self.first.service.watch_backends(self.changed)

    def changed(self):
        self.changes += 1

    def seen(self, node=None):
        """Return the backends as ``node`` (the first) sees them, by name."""
        service = (node or self.first).service
        return {each.node: each for each in service.backends()}

    def test_all(self):
        """They are all nodes, ourselves first; nothing changes by itself."""
        found = self.first.service.backends()
        self.assertEqual([each.node for each in found], [self.first.name, self.second.name])
        for each, node in zip(found, (self.first, self.second), strict=True):
            service = node.service
            self.assertEqual(each.incarnation, service.membership.incarnation)
            self.assertEqual(each.address, service.address)
            self.assertEqual((each.weight, each.own_weight, each.overridden), (100, 100, False))
            self.assertTrue(each.alive)
            self.assertLess(self.simulation.clock.seconds() - each.heard, 1.5)
        self.advance(60)
        self.assertEqual(self.changes, 0)

    def test_holds(self):
        """A virtual address is ours while it stands on our interface."""
        self.assertTrue(self.first.service.holds(ADDRESS))
        self.assertFalse(self.second.service.holds(ADDRESS))
        self.assertFalse(self.first.service.holds(self.first.address))
        self.first.service.resign(None, 60)
        self.advance(2)
        self.assertFalse(self.first.service.holds(ADDRESS))
        self.assertTrue(self.second.service.holds(ADDRESS))

    def test_weight(self):
        """A weight that is set anywhere counts everywhere, and outlives its node's restart."""
        self.second.service.set_weight(self.first.name, 7)
        self.advance(2)
        for node in (self.first, self.second):
            backend = self.seen(node)[self.first.name]
            self.assertEqual((backend.weight, backend.own_weight), (7, 100))
            self.assertTrue(backend.overridden)
        self.assertEqual(self.changes, 1)
        shown = {each["node"]: each for each in self.first.service.report()["nodes"]}
        self.assertEqual(shown[self.first.name]["weight"], 7)
        self.first.kill()
        self.advance(5)
        self.first.start()
        self.advance(5)
        self.assertEqual(self.seen()[self.first.name].weight, 7)
        self.first.service.set_weight(self.first.name, None)
        self.advance(2)
        self.assertEqual(self.seen(self.second)[self.first.name].weight, 100)
        self.assertFalse(self.seen(self.second)[self.first.name].overridden)

    def test_own_weight(self):
        """A reload is told at once, here and there."""
        self.second.service.prepared(
            self.ini(self.second, "interface = eth0\nweight = 3", mail=f"addresses = {ADDRESS}")
        )()
        self.advance(1.5)
        self.assertEqual(self.seen()[self.second.name].weight, 3)
        self.assertEqual(self.changes, 1)

    def test_silence(self):
        """Who is not heard any more is not alive, until it is heard again."""
        self.second.kill()
        self.advance(10)
        self.assertFalse(self.seen()[self.second.name].alive)
        self.assertEqual(self.changes, 1)
        self.second.start()
        self.advance(3)
        self.assertTrue(self.seen()[self.second.name].alive)
        self.assertEqual(self.changes, 2)

    def test_gone(self):
        """A verified death is told in the same moment, and so is a stop in good order."""
        for word in ("_gone", "_left"):
            changes = self.changes
            getattr(self.first.service, word)(self.second.name)
            self.assertFalse(self.seen()[self.second.name].alive)
            self.assertEqual(self.changes, changes + 1)
            self.advance(3)
            self.assertTrue(self.seen()[self.second.name].alive)

    def test_seal(self):
        """A header that one node makes counts at the other, once, and with any key of the ring."""
        here, there = (ip_address(each) for each in ("192.0.2.99", ADDRESS))

        def sealed():
            to = self.seen()[self.second.name].incarnation
            return self.first.service.sealer.proxy(to, here, 99, there, 25)

        old = self.first.service._ring.keys[0]
        for key in (old, new_key(bytes([9]) * 32)):
            ring = KeyRing((key, *{old} - {key}))
            with open(self.simulation.key_file, "w") as stream:
                stream.write(format_keys(ring))
            for node in (self.second, self.first):
                self.reload(node, mail=f"addresses = {ADDRESS}")
            header = sealed()
            seen = self.second.service.verify_seal(header)
            self.assertEqual(seen.node, self.first.name)
            with self.assertRaises(RemoteFault):
                self.second.service.verify_seal(header)
            with self.assertRaises(RemoteFault):
                self.first.service.verify_seal(sealed())
