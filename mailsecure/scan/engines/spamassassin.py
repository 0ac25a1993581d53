"""SpamAssassin: spamd gives a message a score, which is added to that of the message.

What spamd itself calls spam (``required_score``) does not count: our thresholds do.  spamd
answers one question a connection.  The octets are in :mod:`.spamc`.
"""

from __future__ import annotations

from ...config.scanning import Spamassassin
from ..api import Site
from ..values import Content, Facts, Finding, Symbol
from .asking import ask
from .heads import Answer
from .spamc import MAX_ANSWER, PING, PROTOCOL, opinion, pong, question
from .wire import BodyReader, Wire
from .wires import Place, Wires

__all__ = ["SpamassassinEngine"]

#: Rules named in a reason.
NAMED = 12


class SpamassassinEngine:
    """spamd, as ``[spamassassin]`` says."""

    def __init__(self, site: Site, settings: Spamassassin) -> None:
        self._world = site.world
        self._settings = settings
        self._wires = Wires(site.world, Place.of_client(settings.address))

    def start(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: no connection outlives its question."""

    async def probe(self) -> None:
        """Ask whether spamd is there; raises ScannerFault or RemoteFault."""

        async def talk(wire: Wire) -> Answer:
            return await ask(wire, PING, None, PROTOCOL, MAX_ANSWER, last=True)

        pong(await self._wires.use(talk))

    async def scan(self, facts: Facts, content: Content) -> Finding:
        """Have the message judged, our Received field on top of it."""
        octets = len(content.received) + content.octets

        async def talk(wire: Wire) -> Answer:
            body = BodyReader(self._world, content.body, content.received)
            head = question(octets, self._settings.user)
            # spamd reads lines, whatever Content-length says: where the last one has no end it
            # waits for more, unless it hears that there is none.
            return await ask(wire, head, body, PROTOCOL, MAX_ANSWER, last=True)

        found = opinion(await self._wires.use(talk))
        rules = " ".join(found.rules[:NAMED]) + " …" * (len(found.rules) > NAMED)
        score = round(found.score * self._settings.weight, 3)
        return Finding((Symbol("SPAMASSASSIN", score, rules),))
