"""What is shown of one message, queued or held: its facts and its octets.

:mod:`.requests` and :mod:`.quarantine_requests` answer ``queue show`` and ``quarantine show``
with these.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ..errors import RemoteFault
from ..spool.api import Body, QueuedMessage
from ..spool.ids import MessageId, parse_id
from ..world import World
from .wire import Kind, Refusal

__all__ = ["Asker", "Send", "facts_of", "message_id", "next_piece", "send_content"]

#: Sends one item and waits until the client has room for more.
Send = Callable[[dict[str, Any]], Awaitable[None]]
#: Who asks: a uid of this machine, or the name of somebody whom another node vouches for.
Asker = int | str

PIECE = 48 * 1024
_MAX_HEADER = 256 * 1024


def message_id(name: object) -> MessageId:
    """Return the id that ``name`` stands for; :class:`Refusal` where it is none."""
    try:
        return parse_id(name if isinstance(name, str) else "")
    except RemoteFault:
        text = f"{name!r} is no message id: it has 13 letters and digits"
        raise Refusal(Kind.USAGE, text) from None


def facts_of(message: QueuedMessage) -> dict[str, Any]:
    """Return what is said of a message beyond a listing."""
    envelope, arrival = message.envelope, message.arrival
    return {
        "helo": arrival.helo,
        "protocol": arrival.protocol,
        "session": arrival.session,
        "facts": arrival.facts,
        "eight_bit": envelope.eight_bit,
        "smtputf8": envelope.smtputf8,
        "ret": envelope.ret,
        "envid": envelope.envid,
    }


async def send_content(world: World, body: Body, full: bool, send: Send) -> None:
    """Send the header section, or all, in pieces that are read outside the reactor."""
    pieces = body.pieces(PIECE)
    header = b""
    while (piece := await next_piece(world, body, pieces)) is not None:
        if full:
            await send(_encoded(piece))
            continue
        header += piece
        if b"\r\n\r\n" in header or len(header) > _MAX_HEADER:
            break
    if header:
        section, end, _ = header.partition(b"\r\n\r\n")
        await send(_encoded(section + end[:2]))


async def next_piece(world: World, body: Body, pieces: Iterator[bytes]) -> bytes | None:
    """Return the next of ``body``'s ``pieces``, read where it may take its time."""
    if body.in_memory:
        return next(pieces, None)
    return await world.in_thread(next, pieces, None)


def _encoded(content: bytes) -> dict[str, Any]:
    return {"content": base64.b64encode(content).decode("ascii")}
