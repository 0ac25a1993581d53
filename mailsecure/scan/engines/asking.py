"""One question, one answer with a head: what the clients of Rspamd and spamd have in common."""

from __future__ import annotations

from ...errors import RemoteFault
from .fields import line
from .heads import Answer, AnswerReader
from .wire import BodyReader, Gone, Wire

__all__ = ["ask"]


async def ask(
    wire: Wire, head: bytes, body: BodyReader | None, protocol: str, limit: int, last: bool = False
) -> Answer:
    """Send ``head`` and ``body``; return the answer, its body at most ``limit`` octets.

    ``last`` tells the scanner that no other question comes over this connection.  An answer
    that comes before all is sent is a fault.  Raises ScannerFault, RemoteFault.
    """
    whole = await _send(wire, head, body)
    if last:
        wire.finish()
    answer = await _receive(wire, AnswerReader(protocol, limit))
    if not whole:
        # Whatever it says, it is not about this message.
        words = line(f"{answer.head.code} {answer.head.reason}", 80)
        raise RemoteFault(f"answered before it had all: {words}")
    return answer


async def _send(wire: Wire, head: bytes, body: BodyReader | None) -> bool:
    """Send all; False where something came before that."""
    if body is None:
        await wire.send(head)
        return True
    batch = head + await body.read()
    while batch:
        if wire.waiting:
            return False
        await wire.send(batch)
        batch = await body.read()
    return True


async def _receive(wire: Wire, reader: AnswerReader) -> Answer:
    while data := await wire.receive():
        answer = reader.feed(data)
        if answer is not None:
            return answer
    if not wire.answered:
        raise Gone("closed before it answered")
    return reader.end()
