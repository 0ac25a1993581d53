"""Events, and what a history is made of, for the tests of records."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from mailsecure.records.database import Database
from mailsecure.records.reading import Reader
from mailsecure.records.rows import Numbered
from mailsecure.records.store import Store
from mailsecure.records.values import (
    AttemptEvent,
    DeedEvent,
    Event,
    FoundSymbol,
    MessageEvent,
    RefusalEvent,
    SessionEvent,
)
from mailsecure.spool.ids import IdSource, MessageId, id_name

#: Unix time at which the tests' mail begins.
NOON = 1_795_348_800.0
SPF = FoundSymbol("SPF_FAIL", 4.0, "192.0.2.1 may not send for a.example", "spf")
EICAR = FoundSymbol("CLAMAV", 0.0, "Eicar-Test", "clamav", "reject")
THRESHOLDS = (("tag", 5.0), ("quarantine", 10.0), ("reject", 15.0))


def id_at(seconds: float, low: int = 7) -> int:
    """Return an id drawn so many seconds after NOON."""
    return int((NOON + seconds) * 1_000_000) << 12 | low


def session_at(seconds: float) -> str:
    """Return the id of a session begun then."""
    return id_name(MessageId(id_at(seconds, 1)))


def message(seconds: float = 0.0, **more: Any) -> MessageEvent:
    """Return a message that came so many seconds after NOON."""
    given: dict[str, Any] = {
        "id": id_at(seconds),
        "session": session_at(seconds - 1),
        "time": NOON + seconds,
        "client": "192.0.2.1",
        "client_name": "mail.sender.example",
        "helo": "mail",
        "reverse_path": "alice@sender.example",
        "header_from": "alice@sender.example",
        "subject": "The annual report",
        "message_id": "<One.2@sender.example>",
        "octets": 2048,
        "score": 4.0,
        "action": "accept",
        "reply": "250 2.0.0 Accepted",
        "seconds": 0.25,
        "recipients": (("bob@example.com", "accept"),),
        "symbols": (SPF,),
        "timings": (("spf", 0.01),),
        "thresholds": THRESHOLDS,
    }
    return MessageEvent(**given | more)


def session(seconds: float = 0.0, **more: Any) -> SessionEvent:
    """Return the session of :func:`message`."""
    given: dict[str, Any] = {
        "session": session_at(seconds - 1),
        "started": NOON + seconds - 1,
        "seconds": 2.5,
        "client": "192.0.2.1",
        "port": 2525,
        "client_name": "mail.sender.example",
        "helo": "mail",
        "tls": "TLSv1.3",
        "via": "",
        "messages": 1,
        "refused": 0,
        "errors": 0,
        "end": "quit",
    }
    return SessionEvent(**given | more)


def refusal(seconds: float = 0.0, **more: Any) -> RefusalEvent:
    """Return a refused recipient."""
    given: dict[str, Any] = {
        "session": session_at(seconds - 1),
        "time": NOON + seconds,
        "client": "198.51.100.9",
        "stage": "rcpt",
        "reverse_path": "spam@evil.example",
        "recipient": "carol@example.com",
        "reply": "550 5.7.1 No",
        "reason": "listed",
        "symbols": (SPF,),
    }
    return RefusalEvent(**given | more)


def attempt(seconds: float = 0.0, after: float = 1.0, **more: Any) -> AttemptEvent:
    """Return an attempt to deliver the message that came then."""
    given: dict[str, Any] = {
        "id": id_at(seconds),
        "time": NOON + seconds + after,
        "recipient": "bob@example.com",
        "next_hop": "10.0.0.5:25",
        "status": "sent",
        "dsn": "2.0.0",
        "reply": "250 2.0.0 Ok: queued as 4711",
        "delay": after,
    }
    return AttemptEvent(**given | more)


def deed(seconds: float = 0.0, **more: Any) -> DeedEvent:
    """Return what somebody did to the message that came then."""
    given: dict[str, Any] = {
        "id": id_at(seconds),
        "time": NOON + seconds + 100,
        "deed": "released",
        "who": "uid 0",
        "reason": "it is well",
        "recipients": ("bob@example.com",),
    }
    return DeedEvent(**given | more)


class Book:
    """A history without threads: its store, and a reader."""

    def __init__(self, database: Database, node: str = "mx1", subjects: bool = True) -> None:
        self.database = database
        self.store = Store(database, database.engine(), node, subjects)
        self.store.open()
        self.reader = Reader(database, database.engine())
        self._ids = IdSource(lambda: NOON, random.Random(1))

    def close(self) -> None:
        """Close both."""
        self.store.close()
        self.reader.close()

    def numbered(self, *events: Event, at: float = 0.0) -> list[Numbered]:
        """Give events ids, those of messages and refusals by their times."""
        made = []
        for event in events:
            low = self._ids.draw() & 4095
            when = getattr(event, "time", NOON) - NOON
            made.append((id_at(when, low), event))
        return made

    def write(self, *events: Event, now: float = NOON) -> None:
        """Write events in one batch."""
        self.store.write(self.numbered(*events), now)


def ids(items: Sequence[dict[str, Any]]) -> list[int]:
    """Return what was found, by ids."""
    return [item["id"] for item in items]
