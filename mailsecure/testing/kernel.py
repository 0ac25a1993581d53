"""A kernel in memory: interfaces, addresses with lifetimes, frames that were sent.

:class:`MemoryKernel` keeps the contract of :class:`mailsecure.vip.api.Kernel`; one suite
(tests/vip/test_contract.py) is run against it and against Linux.  A test makes the
interfaces, looks at what stands on them and at :attr:`MemoryKernel.frames`, and makes
trouble: an interface goes down or away, the kernel refuses, a capability is missing.

The lifetimes of addresses follow the clock that it is given, which may go on while the
process' own stands still, as for a process that is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from twisted.internet.interfaces import IReactorTime

from ..errors import LocalFault
from ..vip.api import Address, Interface, Standing

__all__ = ["MemoryKernel"]


class MemoryKernel:
    """See the module's text."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._known: dict[str, Interface] = {}
        #: (index, address) → when it runs out, None for never.
        self._standing: dict[tuple[int, Address], float | None] = {}
        self._watchers: list[Callable[[str], None]] = []
        self._made = 0
        #: What was sent: (time, index, frame).
        self.frames: list[tuple[float, int, bytes]] = []
        #: Interfaces whose vain questions were to be forgotten.
        self.forgotten: list[str] = []
        #: What :meth:`may_hold` says; and why addresses are refused, "" if they are not.
        self.missing = ""
        self.refuses = ""

    # -- for tests

    def add_interface(self, name: str, *addresses: str) -> Interface:
        """Make an interface, up, with ``addresses`` (CIDR) that stand for ever."""
        self._made += 1
        mac = bytes((2, 0, 0, 0, 0, self._made))
        made = self._known[name] = Interface(self._made, name, mac, True)
        for each in addresses:
            self._standing[made.index, ip_interface(each)] = None
        self._tell(name)
        return made

    def remove_interface(self, name: str) -> None:
        """Take an interface away, and what stands on it."""
        gone = self._known.pop(name)
        self._standing = {key: end for key, end in self._standing.items() if key[0] != gone.index}
        self._tell(name)

    def set_up(self, name: str, up: bool) -> None:
        """Switch an interface on or off."""
        self._known[name] = replace(self._known[name], up=up)
        self._tell(name)

    def holds(self, address: str) -> bool:
        """Say whether ``address`` (without a prefix) stands on an interface now."""
        return any(
            str(standing.address.ip) == address
            for interface in self._known.values()
            for standing in self.addresses(interface.index)
        )

    def forget_watchers(self) -> None:
        """Tell nobody any more: the process that watched has died."""
        self._watchers.clear()

    def _tell(self, name: str) -> None:
        for each in list(self._watchers):
            each(name)

    # -- the contract

    def may_hold(self) -> str:
        """Return why addresses may not be held, or ""."""
        return self.missing

    def interfaces(self) -> Sequence[Interface]:
        """Return all interfaces."""
        return tuple(self._known.values())

    def interface(self, name: str) -> Interface | None:
        """Return the interface ``name``."""
        return self._known.get(name)

    def addresses(self, index: int) -> Sequence[Standing]:
        """Return what stands on the interface ``index``."""
        now = self._clock.seconds()
        self._standing = {
            key: end for key, end in self._standing.items() if end is None or end > now
        }
        return [
            Standing(address, None if end is None else end - now)
            for (at, address), end in self._standing.items()
            if at == index
        ]

    def lease(self, index: int, address: Address, seconds: int) -> None:
        """Add ``address`` for ``seconds``, or keep it for so long from now."""
        if self.refuses:
            raise LocalFault(f"the kernel does not take {address}: {self.refuses}")
        if index not in [each.index for each in self._known.values()]:
            raise LocalFault(f"the kernel does not take {address}: No such device")
        self._standing[index, address] = self._clock.seconds() + seconds

    def release(self, index: int, address: Address) -> None:
        """Remove ``address``; that it is absent is fine."""
        if self.refuses:
            raise LocalFault(f"the kernel keeps {address}: {self.refuses}")
        self._standing.pop((index, address), None)

    def forget_neighbours(self, name: str) -> None:
        """Note that it was asked."""
        self.forgotten.append(name)

    def send(self, index: int, frame: bytes) -> None:
        """Note a frame."""
        if not any(each.index == index and each.up for each in self._known.values()):
            raise LocalFault("a frame could not be sent: Network is down")
        self.frames.append((self._clock.seconds(), index, frame))

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call ``changed`` with the name of each interface that changes."""
        self._watchers.append(changed)

        def unwatch() -> None:
            if changed in self._watchers:
                self._watchers.remove(changed)

        return unwatch
