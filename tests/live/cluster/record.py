"""What the judge saw: who answered on an address and when, and who said to own it.

:class:`Watch` runs :mod:`.judge` on a network; :meth:`Watch.since` returns a
:class:`Record`, which is told in full by ``str`` where a test fails.
"""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from .network import Network

__all__ = ["Attempt", "Record", "Reign", "Sighting", "Watch"]

_PATIENCE = 10.0
#: Answers to one question come within this time (seconds), which is half of judge.ASKED.
_TOGETHER = 0.025


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection to an address: who answered, or in parentheses how it failed."""

    began: float
    ended: float
    address: str
    outcome: str

    @property
    def answered(self) -> bool:
        """Whether a banner came."""
        return not self.outcome.startswith("(")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A host said that an address is its own: asked for (an answer), or not."""

    when: float
    address: str
    host: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Reign:
    """One host gave all the answers from ``first`` to ``last``."""

    host: str
    first: float
    last: float
    answers: int


class Record:
    """What was seen from ``began`` to ``ended`` (CLOCK_MONOTONIC)."""

    def __init__(self, began: float, seen: dict[str, Any], names: dict[str, str]) -> None:
        self.began = began
        self.ended: float = seen["now"]
        #: The most by which the judge was late: shorter gaps mean nothing.
        self.late: float = seen["late"]
        self.attempts = [Attempt(*each) for each in seen["attempts"]]
        self.sightings = [
            Sighting(when, address, names.get(mac, mac), kind == "answer")
            for when, address, mac, kind in seen["sightings"]
        ]

    # -- who answers

    def answers(self, address: str) -> list[Attempt]:
        """Return the attempts that were answered, in the order of the answers."""
        found = [each for each in self.attempts if each.address == address and each.answered]
        return sorted(found, key=lambda each: each.ended)

    def gap(self, address: str) -> float:
        """Return the longest time without an answer, in seconds; both ends count."""
        moments = [self.began, *(each.ended for each in self.answers(address)), self.ended]
        return max(later - earlier for earlier, later in pairwise(moments))

    def reigns(self, address: str) -> list[Reign]:
        """Return who answered, one after another, in the order in which they were asked.

        A slow host may still answer those who came before the address went to another.
        """
        found: list[Reign] = []
        for each in sorted(self.answers(address), key=lambda each: each.began):
            if found and found[-1].host == each.outcome:
                last = found.pop()
                found.append(Reign(last.host, last.first, each.ended, last.answers + 1))
            else:
                found.append(Reign(each.outcome, each.ended, each.ended, 1))
        return found

    def owners(self, address: str) -> list[str]:
        """Return the names of who answered, one after another."""
        return [each.host for each in self.reigns(address)]

    # -- who says to be the owner

    def claims(self, address: str, asked: bool = True) -> Iterator[Sighting]:
        """Yield the answers to the question who owns the address, or the announcements."""
        for each in self.sightings:
            if each.address == address and each.asked is asked:
                yield each

    def claimants(self, address: str) -> set[str]:
        """Return who answered to that question."""
        return {each.host for each in self.claims(address)}

    def doubles(self, address: str) -> list[float]:
        """Return the moments at which one question had answers of two hosts."""
        return [
            later.when
            for earlier, later in pairwise(self.claims(address))
            if later.host != earlier.host and later.when - earlier.when < _TOGETHER
        ]

    def doubled(self, address: str) -> float:
        """Return from the first to the last of :meth:`doubles`, in seconds; 0 if none."""
        moments = self.doubles(address)
        return moments[-1] - moments[0] + 2 * _TOGETHER if moments else 0.0

    # -- for people

    def summary(self, address: str) -> str:
        """Return one line: the longest gap, owners over time, and doubles."""
        reigns = " ".join(
            f"{each.host}[{each.first - self.began:.2f}-{each.last - self.began:.2f}]"
            for each in self.reigns(address)
        )
        return (
            f"{address}: at most {self.gap(address) * 1000:.0f} ms without an answer; {reigns}; "
            f"two owners by ARP for {self.doubled(address):.2f} s"
        )

    def __str__(self) -> str:
        """Tell all, as far as it fits a screen."""
        lines = [f"--- the judge, {self.ended - self.began:.2f} s, {self.late * 1000:.0f} ms late"]
        seen: Sequence[Attempt | Sighting] = [*self.attempts, *self.sightings]
        for address in sorted({each.address for each in seen}):
            lines.append(self.summary(address))
            lines += self._failures(address)
            claims = sorted({(each.host, each.asked) for each in self.sightings})
            for host, asked in claims:
                moments = [
                    each.when - self.began
                    for each in self.claims(address, asked)
                    if each.host == host
                ]
                if moments:
                    verb = "answers" if asked else "announces itself"
                    lines.append(
                        f"  {host} {verb}: {len(moments)} in {moments[0]:.2f}-{moments[-1]:.2f}"
                    )
        return "\n".join([*lines, "---"])

    def _failures(self, address: str) -> list[str]:
        found: dict[str, list[float]] = {}
        for each in self.attempts:
            if each.address == address and not each.answered:
                found.setdefault(each.outcome, []).append(each.began - self.began)
        return [
            f"  {outcome}: {len(moments)} attempts in {moments[0]:.2f}-{moments[-1]:.2f}"
            for outcome, moments in found.items()
        ]


class Watch:
    """The judge at work: on ``client``, with its witness on ``witness``."""

    def __init__(
        self,
        network: Network,
        addresses: Sequence[str],
        *,
        client: str = "client",
        witness: str = "witness",
        period: float = 0.005,
    ) -> None:
        self._names = {network.mac(host): host for host in network.hosts}
        program = str(Path(__file__).parent / "judge.py")
        words = [sys.executable, "-S", program, network.space(witness), str(period), *addresses]
        self._process = subprocess.Popen(
            [*network.command(client), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._hear()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(_PATIENCE):
                raise AssertionError("the judge does not answer")
        return self._process.stdout.readline()

    def since(self, began: float) -> Record:
        """Return what was seen since ``began`` (CLOCK_MONOTONIC)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{began!r}\n".encode())
        self._process.stdin.flush()
        return Record(began, json.loads(self._hear()), self._names)

    def lately(self, seconds: float = 0.3) -> Record:
        """Return what was seen in the last ``seconds``."""
        return self.since(time.monotonic() - seconds)

    def until(
        self, true: Callable[[Record], object], what: str, timeout: float = 10.0, last: float = 0.3
    ) -> Record:
        """Wait until ``true`` of what was seen in the ``last`` seconds; return that."""
        began = time.monotonic()
        while not true(record := self.lately(last)):
            if time.monotonic() - began > timeout:
                whole = self.since(began)
                raise AssertionError(f"the judge did not see within {timeout:g} s: {what}\n{whole}")
            time.sleep(0.02)
        return record

    def close(self) -> None:
        """End the judge."""
        self._process.kill()
        self._process.communicate()
