"""Linux keeps the kernel's contract, and neighbours believe what they are told."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from ipaddress import ip_interface
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault
from mailsecure.vip.frames import announcements
from mailsecure.vip.lease import Lease
from mailsecure.vip.netlink import LinuxKernel
from tests.live import needs
from tests.vip.contract import FOUR, OWN, SIX, KernelContract

from .harness import ROOT, until
from .namespaces import Namespace, Switch, cable

#: How soon a change is to be known.
SOON = 0.1
#: What one renewal of an address may cost, in seconds; it is twenty microseconds.
QUICK = 0.0005

WITHOUT = """
from mailsecure.vip.netlink import LinuxKernel
class Reactor:
    def addReader(self, reader): pass
    def removeReader(self, reader): pass
kernel = LinuxKernel(Reactor())
print(kernel.may_hold())
kernel.interfaces()
try:
    kernel.send(1, bytes(14))
except Exception as fault:
    print(type(fault).__name__, fault)
"""


class Reactor(Clock):
    """A reactor of one reader, whose turns the test makes."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """Twisted's call."""
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Twisted's call."""
        self.readers.remove(reader)

    def turn(self, seconds: float) -> None:
        """Read what comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while ready := select.select(self.readers, [], [], max(0, deadline - time.monotonic()))[0]:
            for reader in ready:
                reader.doRead()


class LinuxMachine:
    """The hands on a namespace; the far ends of all cables are in another."""

    def __init__(self, network: Namespace, far: Namespace, reactor: Reactor) -> None:
        self._network, self._far, self._reactor = network, far, reactor
        self.pass_time = time.sleep

    def add_interface(self, name: str, *addresses: str) -> None:
        """Make a cable, plugged in."""
        cable(self._network, name, self._far, f"far-{name}")
        self._far.ip("link", "set", f"far-{name}", "up")
        self._network.ip("link", "set", name, "up")
        for each in addresses:
            self._network.ip("addr", "add", each, "dev", name)

    def remove_interface(self, name: str) -> None:
        """Delete it."""
        self._network.ip("link", "del", name)

    def set_up(self, name: str, up: bool) -> None:
        """Switch it on or off."""
        self._network.ip("link", "set", name, "up" if up else "down")

    def plug(self, name: str, plugged: bool) -> None:
        """Switch the far end, so that this one has a carrier or none."""
        self._far.ip("link", "set", f"far-{name}", "up" if plugged else "down")

    def settle(self) -> None:
        """Let the kernel tell."""
        self._reactor.turn(SOON)


class KernelTestCase(SynchronousTestCase):
    """A :class:`LinuxKernel` in a network of its own."""

    def setUp(self) -> None:
        """Make the networks; the kernel opens its sockets there."""
        self.network, self.far = self.namespace(), self.namespace()
        self.reactor = Reactor()
        self.kernel = LinuxKernel(self.reactor)
        self.addCleanup(self.kernel.close)
        with self.network.entered():
            self.kernel.interfaces()
        self.machine = LinuxMachine(self.network, self.far, self.reactor)

    def namespace(self, kind: type[Namespace] = Namespace) -> Any:
        """Return a network that ends with the test."""
        made = kind()
        self.addCleanup(made.close)
        return made


@needs(root=True, programs=("ip",))
class LinuxKernelTests(KernelContract, KernelTestCase):  # type: ignore[misc]
    """The contract, and what only Linux has."""

    def test_six_at_once(self) -> None:
        """An IPv6 address is bound to without a wait, and is never a source."""
        self.machine.add_interface("eth0", OWN, "2001:db8::11/64")
        self.machine.settle()
        self.kernel.lease(self.kernel.interface("eth0").index, SIX, 5)
        said = self.network.addresses("eth0")["2001:db8::25"]
        self.assertFalse(said.get("tentative", False))
        self.assertTrue(said["deprecated"])
        self.assertEqual((said["prefixlen"], said["preferred_life_time"]), (128, 0))
        with self.network.entered(), socket.socket(socket.AF_INET6) as listener:
            listener.bind(("2001:db8::25", 0))

    def test_never_a_source(self) -> None:
        """What this machine sends has its own address, in either family."""
        self.machine.add_interface("eth0", OWN, "2001:db8::11/64")
        self.machine.settle()
        index = self.kernel.interface("eth0").index
        for address in (FOUR, SIX):
            self.kernel.lease(index, address, 5)
        # Only while its own is not yet known to be unique is there nothing better.
        until(lambda: "tentative" not in self.network.addresses("eth0")["2001:db8::11"], "DAD")
        for to in ("192.0.2.99", "2001:db8::99"):
            source = self.network.asked("route", "get", to)[0]["prefsrc"]
            self.assertIn(source, ("192.0.2.11", "2001:db8::11"))

    def test_forgets_neighbours(self) -> None:
        """Whom it asked for in vain is forgotten, in both families; who is known stays."""
        self.machine.add_interface("eth0", OWN, "2001:db8::11/64")
        self.machine.settle()
        until(lambda: "tentative" not in self.network.addresses("eth0")["2001:db8::11"], "DAD")
        known = ("ip", "neighbour", "add", "192.0.2.7", "lladdr", "02:00:00:00:00:07")
        self.network.run(*known, "dev", "eth0")
        families = ((socket.AF_INET, "192.0.2.99"), (socket.AF_INET6, "2001:db8::99"))
        for family, absent in families:
            with self.network.entered(), socket.socket(family, socket.SOCK_DGRAM) as wire:
                wire.sendto(b"x", (absent, 9))
        listed = self.network.run("ip", "neighbour", "show", "dev", "eth0")
        self.assertRegex(listed, r"192\.0\.2\.99 +(INCOMPLETE|FAILED)")
        self.assertRegex(listed, r"2001:db8::99 +(INCOMPLETE|FAILED)")
        self.kernel.forget_neighbours("eth0")
        listed = self.network.run("ip", "neighbour", "show", "dev", "eth0")
        self.assertNotIn("99", listed)
        self.assertIn("192.0.2.7", listed)
        self.kernel.forget_neighbours("eth9")

    def test_no_routes(self) -> None:
        """A virtual address brings no route to its network."""
        interface = self.made()
        before = self.network.asked("route")
        self.kernel.lease(interface.index, ip_interface("198.51.100.25/24"), 5)
        self.assertEqual(self.network.asked("route"), before)

    def test_cost(self) -> None:
        """Renewing costs next to nothing: it goes on for as long as we are Master."""
        interface = self.made()
        began, rounds = time.process_time(), 200
        for _ in range(rounds):
            self.kernel.lease(interface.index, FOUR, 5)
        self.assertLess((time.process_time() - began) / rounds, QUICK)

    def test_too_much_told(self) -> None:
        """Where so much changed that the kernel could not tell it all, nothing is missed."""
        self.made()
        changed = self.watched()
        (reader,) = self.reactor.readers
        with socket.socket(fileno=socket.dup(reader.fileno())) as told:
            told.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        for _ in range(20):
            for up in (True, False):
                self.machine.set_up("eth0", up)
        self.machine.settle()
        self.assertIn("eth0", changed)
        self.assertFalse(self.kernel.interface("eth0").up)
        self.machine.set_up("eth0", True)
        self.machine.settle()
        self.assertTrue(self.kernel.interface("eth0").up)

    def test_list_that_fails(self) -> None:
        """A list that cannot be had is asked for again, for as long as it takes."""
        self.made()
        changed = self.watched()
        asked, fails = self.kernel._asked, [True, True]  # type: ignore[has-type]

        def ask() -> Any:
            if fails:
                fails.pop()
                raise LocalFault("cannot list the interfaces: they change all the time")
            return asked()

        self.kernel._asked = ask
        for up in (False, True, False):
            # One attempt is under way, however often something changes meanwhile.
            fails.append(True)
            self.machine.set_up("eth0", up)
            self.machine.settle()
            self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.assertEqual(changed, [])
        for _ in range(10):
            self.reactor.advance(SOON)
        self.assertEqual(changed, ["eth0"])

    def test_without_capabilities(self) -> None:
        """Who may not is told what is missing, before anything is tried."""
        for dropped, said in (
            ("-net_admin", "CAP_NET_ADMIN is missing: no address can be added\n"),
            ("-net_raw", "CAP_NET_RAW is missing: no neighbour could be told of an address\n"),
        ):
            without = ("setpriv", "--bounding-set", dropped, "--inh-caps", dropped)
            done = subprocess.run(
                [*self.network.prefix, *without, sys.executable, "-c", WITHOUT],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            self.assertTrue(done.stdout.startswith(said), done.stdout + done.stderr)
            if dropped == "-net_raw":
                self.assertIn("LocalFault CAP_NET_RAW is missing", done.stdout)


@needs(root=True, programs=("ip",))
class LeaseTests(KernelTestCase):
    """:class:`Lease` on Linux."""

    def setUp(self) -> None:
        """One interface, with an address of the machine's own."""
        super().setUp()
        self.machine.add_interface("eth0", OWN)
        self.machine.settle()
        self.lease = Lease(self.kernel, self.reactor, "eth0", [FOUR, SIX], 1)

    def held(self) -> set[str]:
        """Return which of the two stand."""
        return {str(FOUR.ip), str(SIX.ip)} & set(self.network.addresses("eth0"))

    def test_for_ever(self) -> None:
        """An address that the machine has for itself is refused at the start."""
        self.network.ip("addr", "add", "192.0.2.25/24", "dev", "eth0")
        with self.assertRaises(LocalFault) as refused:
            self.lease.check()
        self.assertIn("192.0.2.25/24 already stands on eth0", str(refused.exception))
        self.assertIn("192.0.2.25", self.held())

    def test_left_behind(self) -> None:
        """What a dead process left is removed at the next start."""
        Lease(self.kernel, self.reactor, "eth0", [FOUR, SIX], 30).take()
        self.assertEqual(len(self.held()), 2)
        self.lease.check()
        self.assertEqual(self.held(), set())

    def test_deserted(self) -> None:
        """Without us the addresses end, a second after they were given."""
        self.lease.take()
        self.assertEqual(len(self.held()), 2)
        time.sleep(2.1)
        self.assertEqual(self.held(), set())

    def test_interface_made_anew(self) -> None:
        """The fault comes up at the next refresh; then it can be taken again."""
        self.lease.take()
        self.machine.remove_interface("eth0")
        self.machine.settle()
        self.reactor.advance(1)
        self.assertRaises(LocalFault, self.lease.refresh)
        self.lease.drop()
        self.machine.add_interface("eth0", OWN)
        self.machine.settle()
        self.lease.take()
        self.assertEqual(len(self.held()), 2)


@needs(root=True, programs=("ip", "ping"))
class NeighbourTests(KernelTestCase):
    """Two nodes and a client on one switch: whom does the client believe?"""

    def test_caches_change(self) -> None:
        """Once the second node announces the addresses, the client sends to it."""
        switch = self.namespace(Switch)
        client, nodes = self.namespace(), (self.namespace(), self.namespace())
        switch.plug(client, "eth0", "192.0.2.1/24", "2001:db8::1/64")
        kernels = []
        for number, node in enumerate(nodes):
            switch.plug(node, "eth0", f"192.0.2.1{number}/24", f"2001:db8::1{number}/64")
            with node.entered():
                kernel = LinuxKernel(Reactor())
                kernel.interfaces()
            self.addCleanup(kernel.close)
            kernels.append(kernel)
        macs = [node.mac("eth0") for node in nodes]
        for number, kernel in enumerate(kernels):
            interface = kernel.interface("eth0")
            for address in (FOUR, SIX):
                kernel.lease(interface.index, address, 30)
            if number:
                for address in (FOUR, SIX):
                    kernels[0].release(kernels[0].interface("eth0").index, address)
                    for frame in announcements(address.ip, interface.mac):
                        kernel.send(interface.index, frame)
                time.sleep(0.1)
            else:
                for each in (FOUR, SIX):
                    client.run("ping", "-c", "1", "-W", "5", str(each.ip))
            known = client.neighbours()
            self.assertEqual((known[str(FOUR.ip)], known[str(SIX.ip)]), (macs[number],) * 2)
