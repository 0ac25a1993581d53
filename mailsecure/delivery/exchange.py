"""From a queued message to an SMTP transaction, and from replies to outcomes (pure).

What a next hop cannot take as it is, is found out before MAIL: a message larger than its
SIZE (RFC 1870 §6.1) and, without SMTPUTF8, addresses and header fields that are not ASCII
(RFC 6531 §3.2: there is no downgrading).  A body declared 8BITMIME goes to a server that
does not offer it all the same: every server of the last twenty years passes eight bits, and
recoding would break signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..smtp.replies import Reply
from ..smtp.transaction import Capabilities, Result, Transaction
from ..spool.values import QueuedMessage, QueuedRecipient
from .api import Fate, Outcome

__all__ = [
    "fate_of",
    "header_is_ascii",
    "outcomes_of",
    "plain_ascii",
    "refusal_of_message",
    "transaction_for",
]

TOO_LARGE = Reply(552, "5.3.4", "The message is larger than the next hop takes")
SENDER_UTF8 = Reply(553, "5.6.7", "The sender is not ASCII, and the next hop lacks SMTPUTF8")
RECIPIENT_UTF8 = Reply(553, "5.6.7", "The recipient is not ASCII, and the next hop lacks SMTPUTF8")
HEADER_UTF8 = Reply(554, "5.6.9", "Header fields are not ASCII, and the next hop lacks SMTPUTF8")
#: How much of a message is searched for the end of its header section.
MAX_HEADER = 1 << 20


def transaction_for(message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Transaction:
    """Return the transaction that offers ``message`` to ``recipients``."""
    envelope = message.envelope
    return Transaction(
        envelope.reverse_path,
        [one.recipient for one in recipients],
        message.body.octets,
        envelope.eight_bit,
        envelope.smtputf8 or not plain_ascii(message, recipients),
        envelope.ret,
        envelope.envid,
    )


def plain_ascii(message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> bool:
    """Say whether every address is ASCII."""
    if not message.envelope.reverse_path.isascii():
        return False
    return all(one.recipient.mailbox.isascii() for one in recipients)


def refusal_of_message(message: QueuedMessage, offered: Capabilities) -> Reply | None:
    """Return why the next hop cannot take ``message`` for anybody, if that is so.

    What only the header section shows is left to :func:`header_is_ascii`.
    """
    if 0 < offered.size < message.body.octets:
        return TOO_LARGE
    if not offered.smtputf8 and not message.envelope.reverse_path.isascii():
        return SENDER_UTF8
    return None


def header_is_ascii(pieces: Iterable[bytes]) -> bool:
    """Say whether the header section of a message is ASCII; reads no more than that."""
    header = b""
    for piece in pieces:
        header += piece
        end = header.find(b"\r\n\r\n")
        if end >= 0:
            return header[:end].isascii()
        if len(header) > MAX_HEADER:
            break
    return header.isascii()


def fate_of(reply: Reply, dsn: bool) -> Fate:
    """Return what ``reply``, the last word about a recipient, means for it."""
    if reply.positive:
        return Fate.DELIVERED if dsn else Fate.RELAYED
    return Fate.FAILED if reply.permanent else Fate.DEFERRED


def outcomes_of(
    recipients: Sequence[QueuedRecipient], result: Result, next_hop: str, tls: str, final: bool
) -> list[Outcome]:
    """Return the outcome of each recipient of a transaction."""
    dsn = result.dsn
    return [
        Outcome(one.index, fate_of(reply, dsn), reply, next_hop, tls, final)
        for one, reply in zip(recipients, result.replies, strict=True)
    ]
