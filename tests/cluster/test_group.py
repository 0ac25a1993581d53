"""Proves that a group carries out what its election decides, and what befalls it meanwhile.

One or two nodes of a :class:`~tests.cluster.simulation.Simulation`: kernel, clock and
network are simulated, all else is real.
"""

from dataclasses import replace

from twisted.logger import capturedLogs, formatEvent

from mailsecure.cluster.group import TRY_AGAIN, lease_seconds
from mailsecure.cluster.values import RESIGNED, Role
from mailsecure.errors import LocalFault
from tests.cluster.simulation import ADDRESS
from tests.cluster.test_simulation import SimulationTestCase

M = 1.0


class GroupTestCase(SimulationTestCase):
    """Two nodes: the first is Master."""

    def setUp(self):
        super().setUp()
        self.one, self.two = self.nodes(200, 100)
        self.assertMaster(self.one)

    def advance(self, seconds):
        self.simulation.advance(seconds)


class KernelTests(GroupTestCase):
    """The kernel does not do what it is told."""

    def test_refuses_at_takeover(self):
        """Who does not get the address is not Master; the next one is, and it tries again."""
        self.two.kernel.refuses = "Permission denied"
        third = self.simulation.add(priority="50")
        third.start()
        self.advance(5)
        self.one.kill()
        self.advance(5)
        self.assertMasters(third)
        self.assertIs(self.two.role, Role.INIT)
        self.assertIn("Permission denied", self.two.group.trouble)
        self.two.kernel.refuses = ""
        self.advance(TRY_AGAIN + 5)
        self.assertEqual(self.two.group.trouble, "")
        self.assertMaster(self.two)

    def test_refuses_a_refresh(self):
        """A Master that cannot renew its lease lets another be it, before the lease ends."""
        self.one.kernel.refuses = "Operation not permitted"
        self.advance(2.5)
        self.assertIs(self.one.role, Role.INIT)
        self.advance(3)
        self.assertMaster(self.two)

    def test_left_alone(self):
        """A kernel that refuses is not asked at each second."""
        calls = []

        def refuse(index, address, seconds):
            calls.append(self.simulation.clock.seconds())
            raise LocalFault("no")

        self.patch(self.one.kernel, "lease", refuse)
        self.advance(3 * TRY_AGAIN)
        self.assertLessEqual(len(calls), 4)
        self.assertMasters(self.two)

    def assertMasters(self, *nodes):
        told = self.simulation.told()
        self.assertEqual(self.simulation.masters, list(nodes), told)


class InterfaceTests(GroupTestCase):
    """What becomes of the interface."""

    def test_down_and_up(self):
        """Down: the address is dropped at once; up: it listens first."""
        self.one.kernel.set_up("eth0", False)
        self.assertFalse(self.one.holds)
        self.assertIs(self.one.role, Role.INIT)
        self.assertEqual(self.one.group.trouble, "interface eth0 is down")
        self.assertEqual(self.one.group.reason, "interface eth0 is down")
        self.advance(4)
        self.assertMaster(self.two)
        self.one.kernel.forgotten.clear()
        self.one.kernel.set_up("eth0", True)
        self.assertIs(self.one.role, Role.BACKUP)
        self.assertEqual(self.one.group.trouble, "")
        # What was asked while the cable was out would be asked again after a second only.
        self.assertEqual(self.one.kernel.forgotten, ["eth0"])
        self.advance(4)
        self.assertMaster(self.one)

    def test_gone(self):
        """An interface that goes takes the address with it; another may come in its place."""
        self.one.kernel.remove_interface("eth0")
        self.assertEqual(self.one.group.trouble, "there is no interface eth0")
        self.advance(4)
        self.assertMaster(self.two)
        self.one.kernel.add_interface("eth0", f"{self.one.address}/24")
        self.advance(4)
        self.assertMaster(self.one)

    def test_another_interface(self):
        """What happens to others is not its business."""
        self.one.kernel.add_interface("eth1")
        self.one.kernel.set_up("eth1", False)
        self.assertMaster(self.one)

    def test_down_at_the_start(self):
        """It takes part as soon as the interface is up."""
        self.one.kill()
        self.advance(4)
        self.one.kernel.set_up("eth0", False)
        self.one.start()
        self.advance(4)
        self.assertIs(self.one.role, Role.INIT)
        self.assertMaster(self.two)
        self.one.kernel.set_up("eth0", True)
        self.advance(4)
        self.assertMaster(self.one)

    def test_told(self):
        """The log has both the trouble and its end, once each."""
        with capturedLogs() as events:
            self.one.kernel.set_up("eth0", False)
            self.advance(5)
            self.one.kernel.set_up("eth0", True)
        said = [formatEvent(event) for event in events]
        self.assertEqual(
            [line for line in said if "the election" in line],
            [
                "mail: no part in the election: interface eth0 is down",
                "mail: takes part in the election again",
            ],
        )


class ContestTests(GroupTestCase):
    """Somebody else announces the addresses."""

    def test_a_lower_one_starts_as_master(self):
        """It steps down when it hears us; its announcement is put right at once."""
        self.two.kill()
        self.advance(5)
        self.two.options["start_as"] = "master"
        frames = len(self.one.kernel.frames)
        self.two.start()
        self.advance(0.01)
        self.assertMaster(self.one)
        claims = [when for when, _, _ in self.two.kernel.frames]
        answers = [when for when, _, _ in self.one.kernel.frames[frames:]]
        self.assertGreater(min(answers), max(claims))

    def test_neighbours_asked_in_vain(self):
        """Who gave the address away asks its neighbours anew, should it be Master again soon."""
        self.two.kill()
        self.advance(5)
        self.two.options["start_as"] = "master"
        self.two.start()
        self.two.kernel.forgotten.clear()
        self.advance(0.01)
        self.assertIs(self.two.role, Role.BACKUP)
        self.assertEqual(self.two.kernel.forgotten, ["eth0"])
        self.assertEqual(self.one.kernel.forgotten, [])

    def test_bounded(self):
        """Old hellos sent again make us announce once an interval and no more."""
        recorded = self.two.service.hello_now()
        claim = replace(
            recorded, groups=(replace(recorded.groups[0], role=Role.MASTER, priority=1),)
        )
        self.advance(10)
        frames = len(self.one.kernel.frames)
        for _ in range(50):
            self.one.group.contested(claim)
        once = len(self.one.kernel.frames) - frames
        self.assertGreater(once, 0)
        self.advance(M)
        self.one.group.contested(claim)
        self.assertGreater(len(self.one.kernel.frames), frames + once)
        self.two.group.contested(claim)
        self.assertEqual(self.two.kernel.frames, [])


class StopTests(GroupTestCase):
    """A Master leaves."""

    def test_waits_for_the_heir(self):
        """It holds the address until the heir speaks, and no longer."""
        done = []
        self.one.group.stop().addCallback(done.append)
        self.assertTrue(self.one.holds)
        self.assertEqual(done, [])
        self.assertIs(self.one.role, Role.INIT)
        self.advance(0.01)
        self.assertEqual(done, [None])
        self.assertFalse(self.one.holds)
        self.assertTrue(self.two.holds)

    def test_no_heir_speaks(self):
        """It does not wait for ever for one that has died in the meantime."""
        self.simulation.cut = {(1, 2), (2, 1)}
        done = []
        self.one.group.stop().addCallback(done.append)
        self.advance(0.4)
        self.assertEqual((done, self.one.holds), ([], True))
        self.advance(0.2)
        self.assertEqual((done, self.one.holds), ([None], False))

    def test_alone(self):
        """Without others it just ends."""
        self.two.stop()
        self.advance(10)
        done = []
        self.one.group.stop().addCallback(done.append)
        self.assertEqual((done, self.one.holds), ([None], False))

    def test_backup(self):
        """So does a Backup."""
        done = []
        self.two.group.stop().addCallback(done.append)
        self.assertEqual(done, [None])
        self.assertMaster(self.one)

    def test_stopped_twice(self):
        """Whoever asks is answered."""
        done = []
        for _ in range(2):
            self.one.group.stop().addCallback(done.append)
        self.advance(0.01)
        self.assertEqual(done, [None, None])

    def test_back_in_time(self):
        """Who is Master again before the address was dropped keeps it without a gap."""
        self.simulation.cut = {(1, 2), (2, 1)}
        self.one.group.stand_back(self.simulation.clock.seconds() + 5, "told to")
        self.assertIs(self.one.role, Role.BACKUP)
        self.advance(0.2)
        self.one.group.claim(self.simulation.clock.seconds() + 60)
        self.assertTrue(self.one.holds)
        self.advance(1)
        self.assertTrue(self.one.holds)


class WordsTests(GroupTestCase):
    """What it says of itself."""

    def test_hello(self):
        """Name, role, priority and interval; 0 while it resigns."""
        said = self.one.group.hello()
        self.assertEqual(
            (said.name, said.role, said.priority, said.interval), ("mail", Role.MASTER, 200, M)
        )
        heard = []
        carry = self.simulation.carry
        self.patch(
            self.simulation,
            "carry",
            lambda node, octets: (heard.append(node.group.hello()), carry(node, octets)),
        )
        self.one.group.stop()
        self.assertIn(RESIGNED, [each.priority for each in heard])
        self.assertEqual(self.one.group.hello().role, Role.INIT)

    def test_count(self):
        """Changes are counted, and the last one dated."""
        self.assertEqual(self.one.group.changes, 2)
        before = self.one.group.since
        self.advance(5)
        self.assertEqual(self.one.group.since, before)
        self.one.kernel.set_up("eth0", False)
        self.assertEqual(self.one.group.changes, 3)
        self.assertEqual(self.one.group.since, self.simulation.clock.seconds())

    def test_notify(self):
        """A change runs the command with group, roles and reason."""
        put = []
        self.patch(
            self.one.service._notices, "put", lambda command, words: put.append((command, words))
        )
        self.one.kernel.set_up("eth0", False)
        self.assertEqual(put, [("", ("mail", "master", "init", "interface eth0 is down"))])


class LeaseSecondsTests(SimulationTestCase):
    """For how long the kernel keeps an address without us."""

    def test_whole_seconds(self):
        """Three intervals, as far as whole seconds allow, and one at least."""
        for interval, seconds in (("10ms", 1), ("300ms", 1), ("1s", 3), ("1500ms", 4)):
            node = self.simulation.add(advertisement_interval=interval)
            self.assertEqual(lease_seconds(node.config().virtual["mail"]), seconds)

    def test_over_before_a_takeover(self):
        """A stopped Master has lost the address when another takes it."""
        one, two = self.nodes(200, 100)
        one.freeze()
        while two.role is not Role.MASTER:
            self.simulation.advance(0.01)
        self.assertFalse(one.kernel.holds(ADDRESS))
