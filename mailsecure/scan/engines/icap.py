"""An ICAP server: a message is shown to it as if it were an HTTP answer, and it objects or not.

OPTIONS is asked first, and again when its Options-TTL is over: the server says how large a
preview it wants.  204 is a clean message.  200 is another content than ours: with a field
that names what was found it is malware, and without one it is too, unless it is our message
again, octet for octet, as servers have it that do not know 204.  The octets are in
:mod:`.respmod`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...config.scanning import Icap
from ...errors import RemoteFault
from ..api import ScannerFault, Site
from ..values import NOTHING, Content, Facts, Finding, Special, Symbol
from .fields import line
from .respmod import (
    END,
    WHOLE_END,
    Answers,
    Reply,
    Service,
    chunk,
    options,
    respmod,
    service,
    virus,
)
from .wire import BodyReader, Gone, Wire
from .wires import Place, Wires

__all__ = ["IcapEngine"]

PORT = 1344
#: Where servers listen for ``icaps``, which has no port of its own with IANA.
TLS_PORT = 11344


class IcapEngine:
    """A service, as ``[icap]`` says."""

    def __init__(self, site: Site, settings: Icap) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in ("icap", "icaps"):
            raise ValueError(f"{settings.url}: write icap://HOST:PORT/SERVICE, or icaps://")
        self._world = site.world
        self._host = parts.netloc
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        place = Place.of_url(settings.url, TLS_PORT if parts.scheme == "icaps" else PORT)
        self._wires = Wires(site.world, place, min(settings.connections, 100))
        #: What OPTIONS told, and until when it holds.
        self._service = Service(None, 0.0)
        self._until = 0.0

    def start(self) -> None:
        """Begin."""
        self._wires.start()

    def close(self) -> None:
        """End."""
        self._wires.close()

    async def probe(self) -> None:
        """Ask what the service offers; raises ScannerFault or RemoteFault."""
        await self._wires.use(self._options)

    async def scan(self, facts: Facts, content: Content) -> Finding:
        """Show it the body."""
        if self._world.clock.seconds() >= self._until:
            await self.probe()

        async def talk(wire: Wire) -> tuple[Reply, bytes]:
            return await self._respmod(wire, content)

        reply, digest = await self._wires.use(talk)
        return _finding(reply, content.octets, digest)

    async def _options(self, wire: Wire) -> None:
        await wire.send(options(self._host, self._path))
        reply = self._done(wire, await _next(wire, Answers()))
        self._service = service(reply)
        self._until = self._world.clock.seconds() + self._service.seconds

    async def _respmod(self, wire: Wire, content: Content) -> tuple[Reply, bytes]:
        """Return the server's answer and the digest of what it has seen."""
        answers = Answers()
        digest = sha256()
        body = BodyReader(self._world, content.body)
        octets, preview = content.octets, self._service.preview
        head = respmod(self._host, self._path, content.name, octets, preview)
        batch = await body.read()
        if preview is not None:
            shown, batch = batch[:preview], batch[preview:]
            digest.update(shown)
            whole = octets <= preview
            piece = chunk(shown) if shown else b""
            await wire.send(head + piece + (WHOLE_END if whole else END))
            reply = await _next(wire, answers)
            if whole or reply.head.code != 100:
                return self._done(wire, reply), digest.digest()
            head = b""
        sending = _send(wire, head, batch, body, digest)
        reply, whole = await _hear(wire, answers, sending)
        return self._done(wire, reply) if whole else reply, digest.digest()

    def _done(self, wire: Wire, reply: Reply) -> Reply:
        """Keep the connection, if the server does."""
        if reply.lasting and wire.usable:
            self._wires.release(wire)
        return reply


async def _send(wire: Wire, head: bytes, batch: bytes, body: BodyReader, digest: Any) -> None:
    """Send ``batch`` and the rest of the body, in chunks."""
    while batch:
        digest.update(batch)
        await wire.send(head + chunk(batch))
        head = b""
        batch = await body.read()
    await wire.send(head + END)


async def _hear(
    wire: Wire, answers: Answers, sending: Coroutine[Any, Any, None]
) -> tuple[Reply, bool]:
    """Do ``sending`` and hear the answer at once; returns it, and whether all was sent.

    A server may give back the beginning of a message before it has read the end: who only
    sends, or only hears, waits for ever then.  A whole answer before the end counts.
    """
    sent = Deferred.fromCoroutine(sending)
    trouble: list[Failure] = []

    def unsent(failure: Failure) -> None:
        trouble.append(failure)
        wire.abort()

    sent.addErrback(unsent)
    try:
        reply = await _next(wire, answers)
    except Gone:
        if trouble:
            # Why it was cut short: the message could not be read.
            trouble[0].raiseException()
        raise
    finally:
        whole = sent.called and not trouble
        sent.cancel()
    return reply, whole


async def _next(wire: Wire, answers: Answers) -> Reply:
    """Return the one answer that must come now."""
    while data := await wire.receive():
        replies = answers.feed(data)
        if len(replies) > 1:
            raise RemoteFault("two answers to one question")
        if replies:
            return replies[0]
    raise Gone("the server closed the connection before it answered")


def _finding(reply: Reply, octets: int, digest: bytes) -> Finding:
    code = reply.head.code
    if code == 204:
        return NOTHING
    if code not in (200, 201):
        raise ScannerFault(f"the ICAP server says {code} {line(reply.head.reason, 80)}")
    found = virus(reply)
    if not found:
        if reply.status == 200 and (reply.octets, reply.digest) == (octets, digest):
            return NOTHING
        found = f"changed to an answer {reply.status}" if reply.status else "changed"
    symbol = Symbol("ICAP", reason=found, special=Special.MALWARE, reply="Malware found")
    return Finding((symbol,))
