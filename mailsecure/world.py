"""World: everything that mailsecure takes from outside, in one frozen value.

``tap.py`` makes the real one around the reactor; tests make one of fakes (see
:mod:`mailsecure.testing`).  No module below ``tap.py`` imports the reactor,
reads a clock, or draws a random number in any other way.

Two clocks, because they answer different questions: ``clock.seconds()`` is
monotonic and measures every timeout and interval (design decision 2); ``wall()``
is Unix time, for what people and other machines read (Received and Date fields,
log lines, the queue's retry times, which must survive a reboot).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool

__all__ = ["DnsAbsent", "DnsFault", "MxHost", "Resolver", "World"]

T = TypeVar("T")


class DnsAbsent(Exception):
    """The name, or the record asked for, does not exist: a final answer."""


class DnsFault(Exception):
    """No usable answer (timeout, SERVFAIL, refused): ask again later."""


@dataclass(frozen=True, slots=True)
class MxHost:
    """One MX record (RFC 5321 §5.1); ``host`` is lower-case, no final dot.

    The null MX of RFC 7505 is the host ``""``.
    """

    preference: int
    host: str


class Resolver(Protocol):
    """The DNS as mailsecure asks it: deadlines and cache are the resolver's.

    Names are ASCII (A-labels); those of ``mx``, ``ipv4``, ``ipv6`` and ``txt`` may hold what
    no host's name does (the macros of SPF make such).  Each method raises :class:`DnsAbsent` or
    :class:`DnsFault`, and nothing else.
    """

    async def mx(self, domain: str) -> Sequence[MxHost]:
        """Return the MX records of ``domain``, in no particular order."""

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the AAAA and A addresses of ``host`` as text; CNAMEs are followed."""

    async def ipv4(self, name: str) -> Sequence[str]:
        """Return the A addresses of ``name`` as the DNS has them, /etc/hosts aside."""

    async def ipv6(self, name: str) -> Sequence[str]:
        """Return the AAAA addresses likewise, in their shortest form."""

    async def txt(self, name: str) -> Sequence[bytes]:
        """Return the TXT records of ``name``, the strings of each joined."""

    async def ptr(self, address: str) -> Sequence[str]:
        """Return the names that the reverse tree holds for an IP address."""


@dataclass(frozen=True)
class World:
    """What is outside: time, chance, the network, the DNS, threads."""

    #: The reactor's network and process faces (IReactorTCP, IReactorUNIX, …);
    #: ``Any`` because Twisted has no one interface for them.
    reactor: Any
    #: Monotonic time and delayed calls.
    clock: IReactorTime
    #: Unix time, in seconds.
    wall: Callable[[], float]
    #: The only source of randomness; ``SystemRandom`` in the daemon.
    rng: random.Random
    resolver: Resolver
    #: The kernel's network interfaces, a :class:`mailsecure.vip.api.Kernel`; None where
    #: there is no cluster.
    kernel: Any = None

    def in_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Run a blocking ``call`` in the reactor's pool; for file and disk work."""
        from_pool: Deferred[T] = deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), call, *arguments
        )
        return from_pool
