"""What every :class:`mailsecure.vip.api.Kernel` must keep, whoever it is.

:class:`KernelContract` is a mixin for a test case.  :meth:`~KernelContract.setUp` of the
case sets ``self.kernel`` and ``self.machine``, which does to the machine what the kernel is
to notice; both are of the same network, which has nothing but a loopback interface.
"""

from ipaddress import ip_interface
from typing import Protocol

from mailsecure.errors import LocalFault
from mailsecure.vip.frames import announcements

FOUR, SIX = ip_interface("192.0.2.25/32"), ip_interface("2001:db8::25/128")
OWN = "192.0.2.11/24"


class Machine(Protocol):
    """The hands of a test."""

    def add_interface(self, name, *addresses):
        """Make an interface, up, with these addresses, which stand for ever."""

    def remove_interface(self, name):
        """Take it away."""

    def set_up(self, name, up):
        """Switch it on or off."""

    def plug(self, name, plugged):
        """Give it a carrier or cut its cable."""

    def pass_time(self, seconds):
        """Let time pass for the kernel."""

    def settle(self):
        """Let the kernel tell what it has to tell, within 0.1 s."""


class KernelContract:
    """The tests; see the module's text."""

    kernel = machine = None

    def made(self, name="eth0"):
        """Make an interface and return what the kernel knows of it."""
        self.machine.add_interface(name, OWN)
        self.machine.settle()
        return self.kernel.interface(name)

    def standing(self, interface):
        """Return address → seconds left, None for ever."""
        found = self.kernel.addresses(interface.index)
        return {each.address: each.valid for each in found if not each.address.is_link_local}

    def watched(self):
        """Return a list that gets the names of what changes from now on."""
        changed = []
        self.unwatch = self.kernel.watch(changed.append)
        return changed

    # -- interfaces

    def test_may_hold(self):
        """Here it may."""
        self.assertEqual(self.kernel.may_hold(), "")

    def test_no_interface(self):
        """What is not there is None."""
        self.assertIsNone(self.kernel.interface("eth0"))

    def test_interface(self):
        """What is there has an index, its name, a MAC, and is up."""
        interface = self.made()
        self.assertEqual((interface.name, interface.up, len(interface.mac)), ("eth0", True, 6))
        self.assertGreater(interface.index, 0)
        self.assertIn(interface, self.kernel.interfaces())

    def test_own_address(self):
        """An address of the machine's own stands for ever."""
        self.assertEqual(self.standing(self.made()), {ip_interface(OWN): None})

    # -- addresses

    def test_lease(self):
        """It stands at once, with its prefix, for so many seconds."""
        interface = self.made()
        for address in (FOUR, SIX):
            self.kernel.lease(interface.index, address, 5)
            self.assertTrue(4 <= self.standing(interface)[address] <= 5)

    def test_lease_ends(self):
        """After its seconds it is gone by itself, a second later at most."""
        interface = self.made()
        for address in (FOUR, SIX):
            self.kernel.lease(interface.index, address, 1)
        self.machine.pass_time(0.5)
        self.assertEqual(set(self.standing(interface)), {ip_interface(OWN), FOUR, SIX})
        self.machine.pass_time(1.5)
        self.assertEqual(set(self.standing(interface)), {ip_interface(OWN)})

    def test_lease_again(self):
        """A second lease counts from its own moment, and may be shorter."""
        interface = self.made()
        for address in (FOUR, SIX):
            self.kernel.lease(interface.index, address, 30)
        for _ in range(4):
            for address in (FOUR, SIX):
                self.kernel.lease(interface.index, address, 1)
            self.machine.pass_time(0.6)
        standing = self.standing(interface)
        self.assertEqual(set(standing), {ip_interface(OWN), FOUR, SIX})
        self.assertLessEqual(max(standing[FOUR], standing[SIX]), 1)

    def test_lease_nowhere(self):
        """Without its interface, no address."""
        interface = self.made()
        self.machine.remove_interface("eth0")
        said = str(self.assertRaises(LocalFault, self.kernel.lease, interface.index, FOUR, 1))
        self.assertEqual(said, "the kernel does not take 192.0.2.25/32: No such device")

    def test_release(self):
        """It is gone at once; the others stay."""
        interface = self.made()
        for address in (FOUR, SIX):
            self.kernel.lease(interface.index, address, 5)
        self.kernel.release(interface.index, FOUR)
        self.assertEqual(set(self.standing(interface)), {ip_interface(OWN), SIX})
        self.kernel.release(interface.index, SIX)
        self.assertEqual(set(self.standing(interface)), {ip_interface(OWN)})

    def test_release_absent(self):
        """What is not there, or has no interface any more, is released already."""
        interface = self.made()
        for address in (FOUR, SIX):
            self.assertIsNone(self.kernel.release(interface.index, address))
        self.machine.remove_interface("eth0")
        for address in (FOUR, SIX):
            self.assertIsNone(self.kernel.release(interface.index, address))

    # -- frames

    def test_send(self):
        """A frame leaves, without a word."""
        interface = self.made()
        for frame in (*announcements(FOUR.ip, interface.mac), *announcements(SIX.ip, bytes(6))):
            self.assertIsNone(self.kernel.send(interface.index, frame))

    def test_send_down(self):
        """From an interface that is down, or gone, it cannot."""
        interface = self.made()
        frame = announcements(FOUR.ip, interface.mac)[0]
        self.machine.set_up("eth0", False)
        said = str(self.assertRaises(LocalFault, self.kernel.send, interface.index, frame))
        self.assertEqual(said, "a frame could not be sent: Network is down")
        self.machine.remove_interface("eth0")
        self.assertRaises(LocalFault, self.kernel.send, interface.index, frame)

    # -- changes

    def test_switched(self):
        """Off and on again is told, and known."""
        self.made()
        changed = self.watched()
        for up in (False, True):
            self.machine.set_up("eth0", up)
            self.machine.settle()
            self.assertIn("eth0", changed)
            self.assertIs(self.kernel.interface("eth0").up, up)
            changed.clear()

    def test_cable(self):
        """So is a carrier that is lost, and comes back."""
        self.made()
        changed = self.watched()
        for plugged in (False, True):
            self.machine.plug("eth0", plugged)
            self.machine.settle()
            self.assertIn("eth0", changed)
            self.assertIs(self.kernel.interface("eth0").up, plugged)
            changed.clear()

    def test_made_anew(self):
        """An interface that goes and comes has another index."""
        before = self.made()
        changed = self.watched()
        self.machine.remove_interface("eth0")
        self.machine.settle()
        self.assertIn("eth0", changed)
        self.assertIsNone(self.kernel.interface("eth0"))
        changed.clear()
        after = self.made()
        self.assertIn("eth0", changed)
        self.assertNotEqual(before.index, after.index)

    def test_unwatched(self):
        """Who does not watch any more is not told."""
        self.made()
        changed, unwatch = self.watched(), self.unwatch
        others = self.watched()
        unwatch()
        unwatch()  # once more changes nothing
        self.machine.set_up("eth0", False)
        self.machine.settle()
        self.assertEqual((changed, others), ([], ["eth0"]))
