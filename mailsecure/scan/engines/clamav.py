"""ClamAV: a message is streamed to clamd, which says what malware is in it.

Connections are kept in sessions (``zIDSESSION``): clamd numbers the replies, so that one can
never be taken for another message's, and a connection on which anything unexpected happened
is closed.  clamd closes sessions that are idle for its IdleTimeout (30 s); ours are closed
before.  The octets of the codec are in :mod:`.clamd`.
"""

from __future__ import annotations

from ...config.scanning import Clamav
from ...errors import RemoteFault
from ..api import Site
from ..values import NOTHING, Content, Facts, Finding, Special, Symbol
from .clamd import END, INSTREAM, PING, SESSION, Outcome, Replies, Sort, chunk, outcome
from .guard import Refused
from .wire import BodyReader, Gone, Wire
from .wires import Place, Wires

__all__ = ["ClamavEngine"]

#: The score of what is only suspicious.
SUSPICIOUS = 5.0


class ClamavEngine:
    """clamd, as ``[clamav]`` says."""

    def __init__(self, site: Site, settings: Clamav) -> None:
        self._world = site.world
        self._suspicious = settings.suspicious
        place = Place.of_client(settings.address)
        self._wires = Wires(site.world, place, settings.connections)

    def start(self) -> None:
        """Begin."""
        self._wires.start()

    def close(self) -> None:
        """End; what is under way is the caller's."""
        self._wires.close()

    async def probe(self) -> None:
        """Ask whether clamd is there; raises ScannerFault or RemoteFault."""
        await self._wires.use(self._ping, fresh=True)

    async def scan(self, facts: Facts, content: Content) -> Finding:
        """Have the body looked at."""

        async def talk(wire: Wire) -> str:
            return await self._stream(wire, BodyReader(self._world, content.body))

        return _finding(outcome(await self._wires.use(talk), self._suspicious))

    async def _ping(self, wire: Wire) -> None:
        await wire.send(PING)
        if await _reply(wire, 0) != "PONG":
            raise RemoteFault("no answer to PING")

    async def _stream(self, wire: Wire, body: BodyReader) -> str:
        await wire.send((SESSION if wire.uses == 1 else b"") + INSTREAM)
        while not wire.waiting and (batch := await body.read()):
            await wire.send(chunk(batch))
        if not wire.waiting:
            await wire.send(END)
            text = await _reply(wire, wire.uses)
            self._wires.release(wire)
            return text
        # An answer before the end: too large, or another error.  clamd is about to hang up.
        text = await _reply(wire, wire.uses)
        if not text.endswith("ERROR"):
            raise RemoteFault(f"answered before it had all: {text[:80]!r}")
        return text


async def _reply(wire: Wire, number: int) -> str:
    """Return the text of the one reply that must come now."""
    replies = Replies()
    while True:
        data = await _more(wire, number)
        found = replies.feed(data)
        if found:
            reply = found[0]
            # A fault of the stream ends the session; clamd may leave out the number then.
            if len(found) > 1 or reply.number not in (number, 0):
                raise RemoteFault(f"a reply to something else: {reply.number}, not {number}")
            if not reply.number and number and not reply.text.endswith("ERROR"):
                raise RemoteFault(f"a reply without its number: {reply.text[:80]!r}")
            return reply.text


async def _more(wire: Wire, number: int) -> bytes:
    """Return what came; where the connection ended, :class:`Gone`."""
    try:
        data = await wire.receive()
        if not data:
            raise Gone("clamd closed the connection before it answered")
    except Gone:
        if number > 1:
            # clamd ends an idle session with a line that no NUL ends, perhaps just when it is
            # taken up again.  Nothing was said of this message, so another session may have it.
            wire.answered = False
        raise
    return data


def _finding(found: Outcome) -> Finding:
    name = found.name
    if found.sort is Sort.ERROR:
        raise Refused(f"clamd says {name}")
    if found.sort is Sort.CLEAN:
        return NOTHING
    symbols = {
        Sort.MALWARE: Symbol(
            "CLAMAV", reason=name, special=Special.MALWARE, reply=f"Malware found: {name}"
        ),
        Sort.SUSPICIOUS: Symbol("CLAMAV_SUSPICIOUS", SUSPICIOUS, name),
        Sort.ENCRYPTED: Symbol("CLAMAV_ENCRYPTED", reason=name, special=Special.ENCRYPTED),
        Sort.LIMITS: Symbol("CLAMAV_LIMITS", reason=name, special=Special.UNSCANNABLE),
    }
    return Finding((symbols[found.sort],))
