"""Messages and a world for tests of the spool."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from mailsecure.config.load import parse_config
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import NewMessage, Quarantine, QueuedMessage, Spool
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import IdSource, MessageId
from mailsecure.world import World

SETTINGS = replace(
    parse_config("", "test.ini").spool, inline_size=1000, segment_size=4000, min_free=0
)
IDS = IdSource(time.time, random.SystemRandom())


def real_world() -> World:
    """The reactor's world, without a DNS."""
    from twisted.internet import reactor

    anything: Any = reactor
    return World(anything, anything, time.time, random.SystemRandom(), None)  # type: ignore[arg-type]


def new_message(
    *mailboxes: str,
    sender: str = "s@sender.example",
    due: float = 100.0,
    body: bytes = b"body\r\n",
    held: tuple[int, ...] = (),
    **why: Any,
) -> NewMessage:
    """A message for ``mailboxes`` (one if none is named), ``held`` for some, if any."""
    recipients = tuple(
        Recipient(mailbox, mailbox.rpartition("@")[2], "FAILURE", "rfc822;x")
        for mailbox in mailboxes or ("a@one.example",)
    )
    return NewMessage(
        IDS.draw(),
        Envelope(sender, recipients, True, False, "HDRS", "envid"),
        Arrival("192.0.2.1", "helo", "ESMTP", "session", {"k": "v"}),
        due,
        MemoryBody([body]),
        due,
        Quarantine(frozenset(held), **{"reason": "looks bad"} | why) if held else None,
    )


class Ground:
    """A spool that is open, for a suite that more than one has to pass."""

    spool: Spool
    assertEqual: Callable[..., None]
    assertIsNone: Callable[..., None]
    assertTrue: Callable[..., None]
    assertFalse: Callable[..., None]
    assertFailure: Callable[..., Awaitable[Any]]

    def make(self) -> Spool:
        """Return a spool that is not open yet."""
        raise NotImplementedError

    async def setUp(self) -> None:
        """Open a spool."""
        self.spool = self.make()
        await self.spool.open()

    async def tearDown(self) -> None:
        """Close it."""
        await self.spool.close()

    async def accepted(self, *mailboxes: str, **more: Any) -> NewMessage:
        """Accept a message."""
        message = new_message(*mailboxes, **more)
        await self.spool.accept(message)
        return message

    async def due(
        self, domain: str = "one.example", now: float = 1e9, limit: int = 99, *skip: MessageId
    ) -> list[QueuedMessage]:
        """Ask what is due."""
        return await self.spool.due(domain, now, limit, frozenset(skip))

    async def ids_due(self, *args: Any) -> list[MessageId]:
        """Ask for the ids of what is due."""
        return [each.id for each in await self.due(*args)]
