"""Messages and a world for tests of the spool."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
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


#: What the books say, and what is there.
_SUMS = (
    (
        "messages in the queue",
        "SELECT t.messages - q.alone FROM total t, quarantine_total q",
        "SELECT count(DISTINCT message) FROM recipient",
    ),
    (
        "octets in the queue",
        "SELECT t.octets - q.alone_octets FROM total t, quarantine_total q",
        "SELECT coalesce(sum(octets), 0) FROM message WHERE id IN (SELECT message FROM recipient)",
    ),
    (
        "messages held",
        "SELECT messages FROM quarantine_total",
        "SELECT count(DISTINCT message) FROM quarantined",
    ),
    (
        "recipients held",
        "SELECT recipients FROM quarantine_total",
        "SELECT count(*) FROM quarantined",
    ),
    (
        "octets of the held on disk",
        "SELECT stored FROM quarantine_total",
        "SELECT coalesce(sum(coalesce(packed, octets)), 0) FROM message"
        " WHERE id IN (SELECT message FROM quarantined)",
    ),
    (
        "messages with a row in the quarantine",
        "SELECT count(*) FROM quarantine",
        "SELECT count(*) FROM message WHERE quarantined = 1",
    ),
    (
        "messages that only the quarantine has",
        "SELECT count(*) FROM quarantine WHERE alone",
        "SELECT count(*) FROM message WHERE id NOT IN (SELECT message FROM recipient)",
    ),
    (
        "messages that nobody waits for",
        "SELECT 0",
        "SELECT count(*) FROM message WHERE id NOT IN (SELECT message FROM recipient)"
        " AND id NOT IN (SELECT message FROM quarantined)",
    ),
    (
        "bodies in segments",
        "SELECT coalesce(sum(live), 0) FROM segment",
        "SELECT count(*) FROM message WHERE segment IS NOT NULL",
    ),
)


def sums_that_are_wrong(state: Path) -> list[str]:
    """Return which sums of the spool's triggers are not what a recount gives."""
    with closing(sqlite3.connect(state / "spool.db")) as database:
        wrong = []
        for what, kept, counted in _SUMS:
            (books,), (there,) = (database.execute(each).fetchone() for each in (kept, counted))
            if books != there:
                wrong.append(f"{what}: {books} by the books, {there} there")
        return wrong
