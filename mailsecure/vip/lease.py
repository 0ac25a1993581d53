"""Virtual addresses, leased from the kernel while this node is Master.

:class:`Lease` adds the addresses of one virtual group with a lifetime of a few seconds and
keeps them alive; a process that was killed, stopped or hung loses them by itself, because
the kernel counts on (design decision 7).  :mod:`mailsecure.cluster.group` has one and
calls it when its election wants something.

Neighbours are told where an address is now by a burst of frames (:mod:`.frames`), sent at
once and again a little later, for those that missed it, and once more when the lease of a
dead Master has run out, whose kernel may have answered in the meantime.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..errors import LocalFault
from .api import Address, Interface, Kernel
from .frames import announcements

__all__ = ["Lease"]

_log = Logger(namespace="vip")

#: An address with no longer a lifetime than this (seconds), or than a lease of ours if that
#: is longer, is one that we left behind.
OURS = 60.0
#: When neighbours are told again, in seconds; and so long after the lease.
AGAIN = (0.1, 1.0, 5.0)
AFTER_LEASE = 0.2
#: A lease is refreshed after this part of it.  Hellos come at every third of it, a little
#: early or late: at exactly a third, every other one would be too early.
REFRESHED = 1 / 4


class Lease:
    """The addresses of one virtual group on one interface.

    ``seconds`` is for how long the kernel keeps them without us; it may be set anew.
    """

    def __init__(
        self,
        kernel: Kernel,
        clock: IReactorTime,
        interface: str,
        addresses: Sequence[Address],
        seconds: int,
    ) -> None:
        self._kernel = kernel
        self._clock = clock
        self._name = interface
        self.addresses = tuple(addresses)
        self.seconds = seconds
        self._index = 0
        self._refreshed = 0.0
        self._again: list[IDelayedCall] = []
        #: Whether we have taken the addresses and not dropped them.
        self.held = False

    def check(self) -> None:
        """Remove what an earlier life left behind; LocalFault if an address is not ours."""
        interface = self._kernel.interface(self._name)
        if interface is None:
            return
        wanted = {each.ip for each in self.addresses}
        for standing in self._kernel.addresses(interface.index):
            if standing.address.ip not in wanted:
                continue
            if standing.valid is None or standing.valid > max(OURS, self.seconds):
                raise LocalFault(
                    f"{standing.address} already stands on {self._name} for another reason: "
                    "a virtual address must belong to no machine"
                )
            self._kernel.release(interface.index, standing.address)
            _log.info(
                "removed {address} from {interface}: left behind by an earlier start",
                address=str(standing.address),
                interface=self._name,
            )

    def take(self) -> None:
        """Add the addresses; LocalFault, and none of them, if the kernel refuses."""
        interface = self._interface()
        self._index = interface.index
        self.held = True
        try:
            self._lease()
        except LocalFault:
            self.drop()
            raise

    def refresh(self) -> None:
        """Keep the addresses for another lease, if a quarter of it is over."""
        if self.held and self._clock.seconds() - self._refreshed >= self.seconds * REFRESHED:
            self._lease()

    def _lease(self) -> None:
        for address in self.addresses:
            self._kernel.lease(self._index, address, self.seconds)
        self._refreshed = self._clock.seconds()

    def drop(self) -> None:
        """Remove the addresses; what cannot be removed runs out by itself."""
        self._quiet()
        if not self.held:
            return
        self.held = False
        for address in self.addresses:
            try:
                self._kernel.release(self._index, address)
            except LocalFault as fault:
                _log.warn(
                    "cannot remove {address}: {reason}", address=str(address), reason=str(fault)
                )

    def change(self, addresses: Sequence[Address]) -> None:
        """Hold these addresses from now on, those that stay without an interruption."""
        old, self.addresses = self.addresses, tuple(addresses)
        if not self.held:
            return
        for address in old:
            if address not in self.addresses:
                self._kernel.release(self._index, address)
        self._lease()
        self.announce()

    def announce(self) -> None:
        """Tell the neighbours, now and a few times more."""
        self._quiet()
        self._tell()
        when = sorted({*AGAIN, self.seconds + AFTER_LEASE})
        self._again = [self._clock.callLater(each, self._tell) for each in when]

    def _quiet(self) -> None:
        again, self._again = self._again, []
        for each in again:
            if each.active():
                each.cancel()

    def _tell(self) -> None:
        if not self.held:
            return
        try:
            interface = self._interface()
            for address in self.addresses:
                for frame in announcements(address.ip, interface.mac):
                    self._kernel.send(interface.index, frame)
        except LocalFault as fault:
            _log.warn("cannot tell the neighbours: {reason}", reason=str(fault))

    def _interface(self) -> Interface:
        interface = self._kernel.interface(self._name)
        if interface is None:
            raise LocalFault(f"there is no interface {self._name}")
        return interface
