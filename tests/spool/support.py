"""Messages and a world for tests of the spool."""

from __future__ import annotations

import random
import time
from typing import Any

from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import NewMessage
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import IdSource
from mailsecure.world import World

IDS = IdSource(time.time, random.SystemRandom())


def real_world() -> World:
    """The reactor's world, without a DNS."""
    from twisted.internet import reactor

    anything: Any = reactor
    return World(anything, anything, time.time, random.SystemRandom(), None)  # type: ignore[arg-type]


def new_message(
    *mailboxes: str, sender: str = "s@sender.example", due: float = 100.0, body: bytes = b"body\r\n"
) -> NewMessage:
    """A message for ``mailboxes`` (one if none is named)."""
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
    )
