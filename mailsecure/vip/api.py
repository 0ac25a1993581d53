"""What the cluster asks of the kernel, as one Protocol.

:class:`Kernel` is the network of this machine as far as a virtual address needs it.  The
real one is :class:`.netlink.LinuxKernel`; tests have one in memory
(:mod:`mailsecure.testing.kernel`) that keeps the same contract.  Every method is quick and
raises :class:`~mailsecure.errors.LocalFault` with a reason in plain words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..config.model import Interface as Address

__all__ = ["Address", "Interface", "Kernel", "Standing"]


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface; ``up``: switched on, and with a carrier."""

    index: int
    name: str
    mac: bytes
    up: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """An address that stands on an interface; ``valid`` for so many seconds, None for ever."""

    address: Address
    valid: float | None


class Kernel(Protocol):
    """See the module's text."""

    def may_hold(self) -> str:
        """Return why this process may not hold virtual addresses, or ""."""

    def interfaces(self) -> Sequence[Interface]:
        """Return all interfaces that are there now."""

    def interface(self, name: str) -> Interface | None:
        """Return the interface ``name``, None if there is none now."""

    def addresses(self, index: int) -> Sequence[Standing]:
        """Return what stands on the interface ``index``."""

    def lease(self, index: int, address: Address, seconds: int) -> None:
        """Add ``address`` for ``seconds``, or keep it for so long from now."""

    def release(self, index: int, address: Address) -> None:
        """Remove ``address``; that it is absent is fine."""

    def forget_neighbours(self, name: str) -> None:
        """Forget whom the interface ``name`` asked for in vain; it asks again when needed.

        Linux asks once a second, so what it asked on a cable that was out, or for an address
        that has moved away, costs up to a second after the cable or the address is back.
        """

    def send(self, index: int, frame: bytes) -> None:
        """Send an Ethernet frame as it is."""

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call ``changed`` with the name of each interface whose state changes.

        Returns what ends that.
        """
