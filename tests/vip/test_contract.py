"""Proves that the kernel in memory keeps the contract that Linux keeps (tests/live)."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault
from mailsecure.testing.kernel import MemoryKernel
from tests.vip.contract import KernelContract


class MemoryMachine:
    """The hands on a kernel in memory, which has them itself."""

    def __init__(self, clock, kernel):
        self.pass_time = clock.advance
        self.add_interface = kernel.add_interface
        self.remove_interface = kernel.remove_interface
        self.set_up = self.plug = kernel.set_up

    def settle(self):
        """It tells at once."""


class MemoryKernelTests(KernelContract, SynchronousTestCase):
    """:class:`MemoryKernel`."""

    def setUp(self):
        clock = Clock()
        self.kernel = MemoryKernel(clock)
        self.machine = MemoryMachine(clock, self.kernel)

    def test_missing(self):
        """A capability may be missing."""
        self.kernel.missing = "CAP_NET_ADMIN is missing"
        self.assertEqual(self.kernel.may_hold(), "CAP_NET_ADMIN is missing")

    def test_holds(self):
        """A test may ask for an address without its interface."""
        self.made()
        self.assertTrue(self.kernel.holds("192.0.2.11"))
        self.assertFalse(self.kernel.holds("192.0.2.25"))

    def test_dead(self):
        """Who has died is not told."""
        changed = self.watched()
        self.kernel.forget_watchers()
        self.made()
        self.unwatch()
        self.assertEqual(changed, [])

    def test_refuses(self):
        """It refuses as Linux does, for the reason that it is given."""
        interface = self.made()
        self.kernel.refuses = "Permission denied"
        address = self.kernel.addresses(interface.index)[0].address
        for call in (self.kernel.lease, lambda *given: self.kernel.release(*given[:2])):
            with self.assertRaisesRegex(LocalFault, "192.0.2.11/24: Permission denied"):
                call(interface.index, address, 1)
