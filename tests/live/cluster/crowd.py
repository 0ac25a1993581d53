"""Many clients of a cluster, and what became of their sessions.

:class:`Crowd` runs :mod:`.clients` on a host; :meth:`Crowd.wait` or :meth:`Crowd.stop`
return a :class:`Tally`: who greeted each session, how it ended, which messages had their
250 of which node.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .network import Network

__all__ = ["Crowd", "Session", "Tally"]


@dataclass(frozen=True, slots=True)
class Session:
    """One session; times are of CLOCK_MONOTONIC, ``fault`` is "" where all went well."""

    began: float
    greeted: float
    ended: float
    node: str
    fault: str


class Tally:
    """What became of the sessions, in the order of their ends."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.sessions = [Session(*each) for each in told["sessions"]]
        #: Message id → the node that said 250.
        self.acknowledged: dict[str, str] = dict(told["acknowledged"])

    @property
    def shares(self) -> Counter[str]:
        """How many sessions each node greeted."""
        return Counter(each.node for each in self.sessions if each.greeted)

    def since(self, moment: float, until: float = float("inf")) -> Counter[str]:
        """Return the same for those that were greeted from then on."""
        return Counter(each.node for each in self.sessions if moment <= each.greeted < until)

    @property
    def failed(self) -> list[Session]:
        """The sessions in which anything went wrong."""
        return [each for each in self.sessions if each.fault]

    @property
    def slowest_greeting(self) -> float:
        """The longest anybody waited for a greeting, in seconds."""
        return max((each.greeted - each.began for each in self.sessions if each.greeted), default=0)

    def __str__(self) -> str:
        faults = Counter((each.node, each.fault) for each in self.failed)
        return (
            f"{len(self.sessions)} sessions {dict(self.shares)}, "
            f"{len(self.acknowledged)} messages acknowledged, greeted within "
            f"{self.slowest_greeting:.3f} s; faults: {dict(faults)}"
        )


class Crowd:
    """So many clients at once on a host, with ``sessions`` sessions in all, or until :meth:`stop`.

    Each session brings ``messages`` messages of one of the ``sizes`` (octets) to
    ``recipient``, with ``hold`` seconds after each; ``again``: what had no 250 is sent again
    until it has.  ``patience`` bounds every wait for a reply.
    """

    def __init__(
        self,
        network: Network,
        host: str,
        address: tuple[str, int],
        recipient: str,
        *,
        sessions: int = 0,
        at_once: int = 20,
        messages: int = 1,
        sizes: Sequence[int] = (300,),
        hold: float = 0.0,
        again: bool = False,
        patience: float = 15.0,
    ) -> None:
        plan = {
            "address": address,
            "recipient": recipient,
            "run": f"{random.getrandbits(32):08x}",
            "sessions": sessions,
            "at_once": at_once,
            "messages": messages,
            "sizes": sizes,
            "hold": hold,
            "again": again,
            "patience": patience,
        }
        program = str(Path(__file__).parent / "clients.py")
        self._process = subprocess.Popen(
            [*network.command(host), sys.executable, "-S", program, json.dumps(plan)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise AssertionError("the clients did not start")

    def wait(self, timeout: float = 60.0) -> Tally:
        """Wait for the last session's end."""
        # The end of its standard input would tell it to stop.
        told, self._process.stdin = self._process.stdin, None
        try:
            return self._end(timeout)
        finally:
            assert told is not None
            told.close()

    def stop(self, timeout: float = 60.0) -> Tally:
        """Have no new sessions, and wait for the end of those that are open."""
        return self._end(timeout)

    def _end(self, timeout: float) -> Tally:
        try:
            out, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.close()
            raise AssertionError(f"the clients did not end within {timeout:g} s") from None
        return Tally(json.loads(out))

    def close(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.communicate()
