"""Sends a copy of a held message to somebody who shall look at it: ``quarantine forward``.

The copy is a new message (:mod:`.enclosing`) from the null reverse-path: were it the
original's, whoever sent that would be told of a copy that cannot be delivered, and SPF
would fail where it goes.  If it cannot be delivered the log and the history say so, and the
original is still held.  It is read in pieces outside the reactor and written as mail that
arrives is, so its size does not matter.

:mod:`.quarantine_requests` calls this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import RemoteFault
from ..gateway.trace import rfc5322_date
from ..smtp.envelope import Arrival, Envelope, Recipient
from ..smtp.grammar import parse_path
from ..spool.api import Body, NewMessage, QuarantinedMessage, Spool
from ..spool.body import BodyBuilder, FileBody, MemoryBody
from ..spool.ids import id_name
from ..world import World
from .api import Forwarding
from .enclosing import Cover, boundary_of, head, tail
from .showing import PIECE, next_piece
from .wire import Kind, Refusal

__all__ = ["address_of", "forward"]


def address_of(text: object, routable: Callable[[str], bool]) -> Recipient:
    """Return whom ``text`` means, if mail for him has a way."""
    try:
        octets = f"TO:<{text}>".encode() if isinstance(text, str) else b""
        (mailbox, _, domain), rest = parse_path(octets, b"TO:", True)
    except (RemoteFault, UnicodeEncodeError):
        mailbox, domain, rest = "", "", b""
    if not domain or rest:
        raise Refusal(Kind.USAGE, f"{str(text)[:320]!r} is no mail address")
    if not routable(domain):
        raise Refusal(
            Kind.USAGE,
            f"there is no way for mail to {domain}",
            ("Give it one in [domains], or a * for all domains.",),
        )
    return Recipient(mailbox, domain, "NEVER")


async def forward(
    world: World,
    spool: Spool,
    forwarding: Forwarding,
    held: QuarantinedMessage,
    to: Recipient,
    why: tuple[str, str],
) -> NewMessage:
    """Have a copy for ``to`` in the queue; return it.  ``why`` is who asks, and why.

    Raises LocalFault where there is no room or no disk; then there is no copy.
    """
    copy, now = forwarding.ids.draw(), world.wall()
    original = held.message
    boundary = boundary_of(id_name(copy), world.rng.getrandbits(64))
    cover = Cover(
        id_name(copy),
        id_name(original.id),
        rfc5322_date(now),
        forwarding.hostname,
        to.mailbox,
        _told(held, *why),
        eight_bit=False,
        utf8=original.envelope.smtputf8,
    )
    builder = forwarding.bodies.begin()
    body: MemoryBody | FileBody | None = None
    try:
        cover = replace(cover, eight_bit=await _copy(world, original.body, builder))
        builder.write(tail(boundary))
        start = head(cover, boundary)
        body = builder.finish(start)
        utf8 = not to.mailbox.isascii() or (cover.utf8 and cover.eight_bit)
        envelope = Envelope("", (to,), cover.eight_bit or not start.isascii(), utf8)
        arrival = Arrival(facts={"forwarded": id_name(original.id), "by": why[0]})
        message = NewMessage(copy, envelope, arrival, now, body, now)
        await spool.accept(message)
    finally:
        if body is None:
            builder.discard()
        else:
            body.release()
    return message


async def _copy(world: World, body: Body, builder: BodyBuilder) -> bool:
    """Write ``body``; return whether it has octets above 127."""
    eight_bit = False
    pieces = body.pieces(PIECE)
    while (piece := await next_piece(world, body, pieces)) is not None:
        builder.write(piece)
        eight_bit = eight_bit or not piece.isascii()
    return eight_bit


def _told(held: QuarantinedMessage, who: str, reason: str) -> list[tuple[str, str]]:
    """Return what the copy says of the original."""
    message, why = held.message, held.quarantine
    whom = message.recipients[0].recipient.mailbox
    more = len(message.recipients) - 1
    facts = [
        ("held because", why.reason),
        ("score", f"{why.score:g}"),
        ("from client", message.arrival.client),
        ("sender", f"<{message.envelope.reverse_path}>"),
        ("for", f"<{whom}>" + (f" and {more} more" if more else "")),
        ("From", why.header_from),
        ("Subject", why.subject),
        ("arrived", rfc5322_date(message.arrived)),
        ("forwarded by", who),
        ("because", reason),
    ]
    return [(name, text) for name, text in facts if text]
