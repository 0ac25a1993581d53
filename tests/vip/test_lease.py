"""Proves that addresses are taken whole, kept alive, told to the neighbours, and dropped."""

from ipaddress import ip_address, ip_interface

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault
from mailsecure.testing.kernel import MemoryKernel
from mailsecure.vip.frames import announcements
from mailsecure.vip.lease import OURS, REFRESHED, Lease

FOUR, SIX = ip_interface("192.0.2.25/32"), ip_interface("2001:db8::25/128")
OTHER = ip_interface("192.0.2.26/32")
SECONDS = 3


class LeaseTestCase(SynchronousTestCase):
    """A lease of two addresses for three seconds, on an interface in memory."""

    def setUp(self):
        self.clock = Clock()
        self.clock.rightNow = 1000.0
        self.kernel = MemoryKernel(self.clock)
        self.eth0 = self.kernel.add_interface("eth0", "192.0.2.11/24")
        self.lease = self.made(FOUR, SIX)

    def made(self, *addresses):
        return Lease(self.kernel, self.clock, "eth0", addresses, SECONDS)

    def standing(self):
        """Return address → seconds left, of what does not stand for ever."""
        found = self.kernel.addresses(self.eth0.index)
        return {str(each.address.ip): each.valid for each in found if each.valid is not None}

    def told(self):
        """Return when the neighbours were told, since the start."""
        return sorted({round(when - 1000.0, 6) for when, _, _ in self.kernel.frames})


class CheckTests(LeaseTestCase):
    """What stands on the interface before the start."""

    def test_nothing(self):
        """The machine's own address is none of our business."""
        self.lease.check()
        self.assertTrue(self.kernel.holds("192.0.2.11"))

    def test_no_interface(self):
        """Where there is no interface yet, nothing stands on it."""
        self.kernel.remove_interface("eth0")
        self.assertIsNone(self.lease.check())

    def test_for_ever(self):
        """An address that belongs to a machine is refused, by name."""
        self.kernel.add_interface("eth0", "192.0.2.25/24")
        said = str(self.assertRaises(LocalFault, self.lease.check))
        self.assertEqual(
            said,
            "192.0.2.25/24 already stands on eth0 for another reason: "
            "a virtual address must belong to no machine",
        )
        self.assertTrue(self.kernel.holds("192.0.2.25"))

    def test_for_long(self):
        """So is one that somebody else has a lease of, as by DHCP."""
        self.kernel.lease(self.eth0.index, FOUR, int(OURS) + 1)
        self.assertRaises(LocalFault, self.lease.check)

    def test_long_interval(self):
        """At long intervals what we left behind may itself stand for longer."""
        self.lease.seconds = 2 * int(OURS)
        self.kernel.lease(self.eth0.index, FOUR, 2 * int(OURS))
        self.lease.check()
        self.assertEqual(self.standing(), {})
        self.kernel.lease(self.eth0.index, FOUR, 2 * int(OURS) + 1)
        self.assertRaises(LocalFault, self.lease.check)

    def test_left_behind(self):
        """What an earlier life left is removed, and told."""
        self.kernel.lease(self.eth0.index, FOUR, int(OURS))
        with capturedLogs() as events:
            self.lease.check()
        self.assertEqual(self.standing(), {})
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["removed 192.0.2.25/32 from eth0: left behind by an earlier start"],
        )


class TakeTests(LeaseTestCase):
    """The addresses come together or not at all."""

    def test_taken(self):
        """Each stands for the seconds of the lease."""
        self.assertFalse(self.lease.held)
        self.lease.take()
        self.assertTrue(self.lease.held)
        self.assertEqual(self.standing(), {"192.0.2.25": SECONDS, "2001:db8::25": SECONDS})

    def test_refused(self):
        """Where the kernel refuses, its reason comes up and nothing is held."""
        self.kernel.refuses = "Permission denied"
        said = str(self.assertRaises(LocalFault, self.lease.take))
        self.assertEqual(said, "the kernel does not take 192.0.2.25/32: Permission denied")
        self.assertFalse(self.lease.held)

    def test_second_refused(self):
        """The first does not stay where the second is refused."""
        lease = self.kernel.lease

        def refuse_six(index, address, seconds):
            if address.version == 6:
                raise LocalFault("IPv6 is off")
            lease(index, address, seconds)

        self.patch(self.kernel, "lease", refuse_six)
        self.assertRaises(LocalFault, self.lease.take)
        self.assertEqual((self.standing(), self.lease.held), ({}, False))

    def test_no_interface(self):
        """The interface is looked for anew each time."""
        self.kernel.remove_interface("eth0")
        said = str(self.assertRaises(LocalFault, self.lease.take))
        self.assertEqual(said, "there is no interface eth0")
        made = self.kernel.add_interface("eth0")
        self.lease.take()
        self.assertEqual(len(self.kernel.addresses(made.index)), 2)


class RefreshTests(LeaseTestCase):
    """A lease lasts for as long as we do."""

    def test_kept(self):
        """Refreshed often, it never ends."""
        self.lease.take()
        for _ in range(100):
            self.clock.advance(0.1)
            self.lease.refresh()
        self.assertEqual(sorted(self.standing()), ["192.0.2.25", "2001:db8::25"])

    def test_not_kept(self):
        """Who does not refresh loses it, without a word."""
        self.lease.take()
        self.clock.advance(SECONDS - 0.1)
        self.assertTrue(self.kernel.holds("192.0.2.25"))
        self.clock.advance(0.1)
        self.assertEqual(self.standing(), {})

    def test_not_too_often(self):
        """The kernel is asked once a part of the lease is over, not at each hello."""
        self.lease.take()
        self.clock.advance(SECONDS * REFRESHED - 0.01)
        self.lease.refresh()
        self.assertLess(self.standing()["192.0.2.25"], SECONDS)
        self.clock.advance(0.02)
        self.lease.refresh()
        self.assertEqual(self.standing(), {"192.0.2.25": SECONDS, "2001:db8::25": SECONDS})

    def test_every_hello(self):
        """Each hello of a Master refreshes, though the one before came a little late."""
        self.lease.take()
        for due, late in ((1, 0.005), (2, 0.0), (3, 0.003), (4, 0.0)):
            self.clock.advance(1000.0 + due + late - self.clock.seconds())
            self.lease.refresh()
            for left in self.standing().values():
                self.assertAlmostEqual(left, SECONDS)

    def test_not_held(self):
        """What is not held is not brought to life by a refresh."""
        self.lease.refresh()
        self.assertEqual(self.standing(), {})

    def test_interface_gone(self):
        """The fault comes up, for the election to know."""
        self.lease.take()
        self.kernel.remove_interface("eth0")
        self.clock.advance(SECONDS)
        self.assertRaises(LocalFault, self.lease.refresh)


class DropTests(LeaseTestCase):
    """Addresses leave at once, or by themselves."""

    def test_dropped(self):
        """They are gone; a second time is nothing."""
        self.lease.take()
        self.lease.drop()
        self.assertEqual((self.standing(), self.lease.held), ({}, False))
        with capturedLogs() as events:
            self.lease.drop()
        self.assertEqual(events, [])

    def test_refused(self):
        """What cannot be removed is told, and runs out."""
        self.lease.take()
        self.kernel.refuses = "Permission denied"
        with capturedLogs() as events:
            self.lease.drop()
        self.assertFalse(self.lease.held)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "cannot remove 192.0.2.25/32: the kernel keeps 192.0.2.25/32: Permission denied",
                "cannot remove 2001:db8::25/128: "
                "the kernel keeps 2001:db8::25/128: Permission denied",
            ],
        )
        self.clock.advance(SECONDS)
        self.assertEqual(self.standing(), {})

    def test_interface_gone(self):
        """There is nothing to drop, and nothing to say."""
        self.lease.take()
        self.kernel.remove_interface("eth0")
        with capturedLogs() as events:
            self.lease.drop()
        self.assertEqual(events, [])


class ChangeTests(LeaseTestCase):
    """Other addresses while the group runs."""

    def test_those_that_stay(self):
        """They are never removed; the others go and come."""
        self.lease.take()
        removed = []
        release = self.kernel.release
        self.patch(self.kernel, "release", lambda *given: (removed.append(given), release(*given)))
        self.lease.change([SIX, OTHER])
        self.assertEqual(removed, [(self.eth0.index, FOUR)])
        self.assertEqual(sorted(self.standing()), ["192.0.2.26", "2001:db8::25"])
        self.assertEqual(self.lease.addresses, (SIX, OTHER))

    def test_told(self):
        """The neighbours learn the new ones."""
        self.lease.take()
        self.lease.change([OTHER])
        frames = [frame for _, _, frame in self.kernel.frames]
        self.assertEqual(frames, list(announcements(OTHER.ip, self.eth0.mac)))

    def test_not_held(self):
        """A Backup only remembers them."""
        self.lease.change([OTHER])
        self.assertEqual(self.standing(), {})
        self.lease.take()
        self.assertEqual(list(self.standing()), ["192.0.2.26"])


class AnnounceTests(LeaseTestCase):
    """Neighbours are told again, because frames get lost."""

    def test_frames(self):
        """At once: each address in each form, from the interface's own MAC."""
        self.lease.take()
        self.lease.announce()
        frames = [frame for _, _, frame in self.kernel.frames]
        mac = self.eth0.mac
        self.assertEqual(
            frames,
            [
                *announcements(ip_address("192.0.2.25"), mac),
                *announcements(ip_address("2001:db8::25"), mac),
            ],
        )

    def test_burst(self):
        """Then after 0.1, 1 and 5 s, and when the lease of a dead Master is over."""
        self.lease.take()
        self.lease.announce()
        self.clock.pump([0.1, 0.9, SECONDS + 0.2 - 1.0, 5.0 - SECONDS - 0.2, 100.0])
        self.assertEqual(self.told(), [0.0, 0.1, 1.0, SECONDS + 0.2, 5.0])

    def test_again(self):
        """A new burst takes the place of the old one."""
        self.lease.take()
        self.lease.announce()
        self.clock.advance(0.05)
        self.lease.announce()
        self.assertEqual(len(self.clock.getDelayedCalls()), 4)

    def test_dropped(self):
        """Nobody is told of an address that was dropped."""
        self.lease.take()
        self.lease.announce()
        self.lease.drop()
        self.clock.advance(10.0)
        self.assertEqual(self.told(), [0.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dropped_later(self):
        """However much of the burst is over."""
        self.lease.take()
        self.lease.announce()
        self.clock.advance(0.5)
        self.lease.drop()
        self.clock.advance(10.0)
        self.assertEqual(self.told(), [0.0, 0.5])

    def test_not_held(self):
        """Nor of one that was never taken."""
        self.lease.announce()
        self.assertEqual(self.kernel.frames, [])

    def test_interface_down(self):
        """What cannot be told is told later, and meanwhile the log has it."""
        self.lease.take()
        self.kernel.set_up("eth0", False)
        with capturedLogs() as events:
            self.lease.announce()
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["cannot tell the neighbours: a frame could not be sent: Network is down"],
        )
        self.kernel.set_up("eth0", True)
        self.clock.advance(0.1)
        self.assertEqual(self.told(), [0.1])

    def test_another_mac(self):
        """The interface's MAC may change; the next frame has the new one."""
        self.lease.take()
        self.lease.announce()
        self.kernel.remove_interface("eth0")
        made = self.kernel.add_interface("eth0")
        self.clock.advance(0.1)
        self.assertEqual(self.kernel.frames[-1][2][6:12], made.mac)
