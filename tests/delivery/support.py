"""Queued messages and worlds for the tests of delivery."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import fields, replace

from mailsecure.config.model import Delivery, TlsLevel
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import QueuedMessage, QueuedRecipient
from mailsecure.spool.ids import MessageId
from mailsecure.world import World

CONTENT = b"Subject: test\r\n\r\nHello\r\n.dot\r\nbye\r\n"

_SETTINGS = Delivery(
    **{field.name: None for field in fields(Delivery)},  # type: ignore[arg-type]
)


def settings(**changes: object) -> Delivery:
    """Return delivery settings fit for tests."""
    values: dict[str, object] = {
        "retry": (300.0,),
        "expire": 86400.0,
        "warn_after": 0.0,
        "concurrency": 20,
        "max_connections": 200,
        "tls": TlsLevel.NONE,
        "tls_ca": None,
        "source_address": "",
        "dns_servers": (),
        "dns_timeout": 5.0,
        "connect_timeout": 5.0,
        "command_timeout": 20.0,
        "data_timeout": 30.0,
        "reuse": 2.0,
        "reuse_count": 1000,
        "bounce_size": 51200,
    }
    values.update(changes)
    return replace(_SETTINGS, **values)  # type: ignore[arg-type]


class MemoryBody:
    """A body in memory; ``in_memory`` may be denied, to be read in a thread."""

    def __init__(self, content: bytes, in_memory: bool = True) -> None:
        self._content = content
        self.in_memory = in_memory

    @property
    def octets(self) -> int:
        return len(self._content)

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        for start in range(0, len(self._content), size):
            yield self._content[start : start + size]


def message(
    *mailboxes: str,
    content: bytes = CONTENT,
    sender: str = "sender@client.test",
    in_memory: bool = True,
    notify: str = "",
    orcpt: str = "",
    **flags: object,
) -> QueuedMessage:
    """Return a queued message for ``mailboxes``, all of one domain."""
    recipients = tuple(
        Recipient(mailbox, mailbox.rpartition("@")[2], notify, orcpt) for mailbox in mailboxes
    )
    envelope = Envelope(sender, recipients, **flags)  # type: ignore[arg-type]
    return QueuedMessage(
        MessageId(1234567890123456789),
        envelope,
        Arrival(),
        1.0,
        MemoryBody(content, in_memory),
        recipients[0].domain,
        [QueuedRecipient(index, one) for index, one in enumerate(recipients)],
    )


def world(reactor: object, resolver: object = None, seed: int = 1) -> World:
    """Return a world around ``reactor``."""
    return World(reactor, reactor, time.time, random.Random(seed), resolver)  # type: ignore[arg-type]
