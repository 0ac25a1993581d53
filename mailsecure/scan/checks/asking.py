"""Asks lists in the DNS, all side by side, and is patient with those that do not answer.

:class:`ListAsker` is what :mod:`.dnsbl` asks with; any check that looks up domains may.  Deadline,
cache and the sharing of identical questions are the resolver's; the deadline here is that of
``[dnsbl] timeout``, after which a list says nothing.  One that fails again and again is left
alone for a while (:class:`.dnslists.Patience`), so that a dead list costs no session its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from ...config.scanning import DnsList
from ...world import DnsAbsent, DnsFault, World
from .dnslists import Patience, Says, address_question, name_question, public_zone, read_answers
from .matching import Address

__all__ = ["ListAsker", "Listing"]

_log = Logger(namespace="scan")

#: Seconds between two lines in the log about one list's failures.
_QUIET = 60.0
#: Characters of a list's own words that are passed on.
_LONGEST_REASON = 150


@dataclass(frozen=True, slots=True)
class Listing:
    """One list that knows what it was asked ``about``; ``score`` is what that counts."""

    zone: str
    about: str
    score: float
    answers: tuple[str, ...]
    question: str


class _Zone:
    """One list: the lines of the ini about it, and how it has been."""

    __slots__ = ("entries", "patience", "quiet_until", "refused")

    def __init__(self) -> None:
        self.entries: list[DnsList] = []
        self.patience = Patience()
        self.quiet_until = float("-inf")
        self.refused = False


class ListAsker:
    """Some lists; ``timeout`` is how long all of them are waited for, in seconds."""

    def __init__(self, world: World, lists: Iterable[DnsList], timeout: float) -> None:
        self._resolver = world.resolver
        self._clock = world.clock
        self._timeout = timeout
        self._zones: dict[str, _Zone] = {}
        for each in lists:
            self._zones.setdefault(each.zone, _Zone()).entries.append(each)

    def __bool__(self) -> bool:
        return bool(self._zones)

    @property
    def failures(self) -> dict[str, int]:
        """How often each list failed, by its public name."""
        return {public_zone(name): zone.patience.failures for name, zone in self._zones.items()}

    async def about_address(self, address: Address) -> list[Listing]:
        """Return the lists that know a client.  Nothing is raised."""
        about = str(address)
        return await self._ask(
            (zone, about, address_question(address, zone)) for zone in self._zones
        )

    async def about_names(self, names: Iterable[str]) -> list[Listing]:
        """Return the lists that know one of ``names``: domains or hosts, as A-labels."""
        return await self._ask(
            (zone, name, name_question(name, zone)) for name in names for zone in self._zones
        )

    async def _ask(self, questions: Iterable[tuple[str, str, str]]) -> list[Listing]:
        asked = [Deferred.fromCoroutine(self._ask_one(*each)) for each in questions]
        found: list[Listing | None] = await gatherResults(asked, consumeErrors=True)
        return [each for each in found if each is not None]

    async def _ask_one(self, name: str, about: str, question: str) -> Listing | None:
        zone = self._zones[name]
        if not question or not zone.patience.may_ask(self._clock.seconds()):
            return None
        try:
            asked = Deferred.fromCoroutine(self._resolver.ipv4(question))
            answers = await asked.addTimeout(self._timeout, self._clock)
        except DnsAbsent:
            answers = []
        except DnsFault as fault:
            self._failed(name, zone, str(fault))
            return None
        except DeferredTimeout:
            self._failed(name, zone, "no answer in time")
            return None
        says, score = read_answers(zone.entries, answers)
        if says is Says.REFUSES:
            self._refused(name, zone, answers)
            return None
        zone.refused = False
        if zone.patience.answered():
            _log.info("list {list} answers again", list=public_zone(name))
        if says is Says.NOT_LISTED:
            return None
        return Listing(name, about, score, tuple(answers), question)

    def _refused(self, name: str, zone: _Zone, answers: Sequence[str]) -> None:
        """The list answers, but not us: said once, until it answers again."""
        if not zone.refused:
            zone.refused = True
            _log.warn(
                "list {list} does not answer us: it says {answers}; it counts for nothing"
                " (a public resolver in [delivery] dns_servers, or too many questions?)",
                list=public_zone(name),
                answers=" ".join(answers[:5]),
            )
        zone.patience.failed(self._clock.seconds())

    def _failed(self, name: str, zone: _Zone, reason: str) -> None:
        now = self._clock.seconds()
        rest = zone.patience.failed(now)
        if rest or now >= zone.quiet_until:
            zone.quiet_until = now + _QUIET
            _log.info(
                "list {list} does not answer: {reason}; failures={failures} left_alone={seconds}s",
                list=public_zone(name),
                reason=reason,
                failures=zone.patience.failures,
                seconds=rest,
            )

    async def reason(self, listing: Listing, seconds: float) -> str:
        """Return what a list says of a listing (RFC 5782 §2.1: a TXT record), "" if it is late."""
        try:
            asked = Deferred.fromCoroutine(self._resolver.txt(listing.question))
            texts = await asked.addTimeout(seconds, self._clock)
        except (DnsAbsent, DnsFault, DeferredTimeout):
            return ""
        text = " ".join(texts[0].decode("ascii", "replace").split())
        return "".join(c if " " <= c <= "~" else "?" for c in text)[:_LONGEST_REASON]
