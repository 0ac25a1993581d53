"""Reads what was found, whole: the dictionaries that the control room shows.

All have ``kind`` and ``time`` (Unix seconds); ids are numbers, texts as peers sent them::

    message   id, session (as below, or null), node, client, client_name, helo, sender,
              header_from, subject, message_id, octets, score, action, reply, seconds,
              recipients [{recipient, action}], symbols [{name, score, reason, check, action}],
              timings [[check, seconds]], thresholds [[action, score]],
              attempts [{time, recipient, next_hop, status, dsn, reply, delay}],
              deeds [{time, deed, who, reason, recipients, copy}]
    refusal   id, session (its id, or 0), node, client, client_name, stage (connect, mail,
              rcpt …), helo ("" before the session is over), sender, recipient, reply,
              reason, symbols
    session   id, node, client, client_name, port, helo, tls, via, started, seconds,
              messages, refused, errors, ending

``time`` of a session is its start.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from .database import Database
from .rows import details_from, symbols_from
from .schema import attempt, deed, message, name, recipient, refusal, session

__all__ = ["Loader"]

_Item = dict[str, Any]


class Loader:
    """Reads rows by their ids on one connection."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    def messages(self, ids: Sequence[int]) -> dict[int, _Item]:
        """Return messages by id, with all that is theirs."""
        if not ids:
            return {}
        rows = self._rows(message, message.c.id, ids)
        names = self._names(
            number for row in rows for number in (row.node, row.client, row.sender, row.author)
        )
        found = {row.id: _message(row, names) for row in rows}
        sessions = self.sessions([row.session for row in rows if row.session])
        for row in rows:
            found[row.id]["session"] = sessions.get(row.session)
            found[row.id]["session_id"] = row.session
        self._add_recipients(found)
        self._add_attempts(found)
        for row in self._rows(deed, deed.c.message, list(found)):
            found[row.message]["deeds"].append(
                {"time": row.time, "deed": row.deed, "who": row.who, "reason": row.reason}
                | {"recipients": json.loads(row.recipients), "copy": row.copy}
            )
        return found

    def _add_recipients(self, found: Mapping[int, _Item]) -> None:
        rows = self._rows(recipient, recipient.c.message, list(found))
        names = self._names(row.name for row in rows)
        for row in rows:
            one = {"recipient": names.get(row.name, ""), "action": row.action}
            found[row.message]["recipients"].append(one)

    def _add_attempts(self, found: Mapping[int, _Item]) -> None:
        rows = self._rows(attempt, attempt.c.message, list(found))
        names = self._names(number for row in rows for number in (row.recipient, row.next_hop))
        for row in rows:
            found[row.message]["attempts"].append(
                {
                    "time": row.time,
                    "recipient": names.get(row.recipient, ""),
                    "next_hop": names.get(row.next_hop, ""),
                    "status": row.status,
                    "dsn": row.dsn,
                    "reply": row.reply,
                    "delay": row.delay,
                }
            )

    def refusals(self, ids: Sequence[int]) -> dict[int, _Item]:
        """Return refusals by id."""
        return {row["id"]: row for row in self._refusals(refusal.c.id, ids)}

    def refusals_of(self, number: int) -> list[_Item]:
        """Return the refusals of a session, the oldest first."""
        return self._refusals(refusal.c.session, [number])

    def _refusals(self, column: ColumnElement[int], ids: Sequence[int]) -> list[_Item]:
        rows = self._rows(refusal, column, ids)
        names = self._names(
            number for row in rows for number in (row.node, row.client, row.sender, row.recipient)
        )
        helos = self._helos([row.session for row in rows if row.session])
        return [
            {
                "kind": "refusal",
                "id": row.id,
                "time": row.time,
                "session": row.session,
                "node": names.get(row.node, ""),
                **_client(names.get(row.client, "")),
                "stage": row.stage,
                "helo": helos.get(row.session, ""),
                "sender": names.get(row.sender, ""),
                "recipient": names.get(row.recipient, ""),
                "reply": row.reply,
                "reason": row.reason,
                "symbols": symbols_from(row.symbols),
            }
            for row in rows
        ]

    def _helos(self, ids: Sequence[int]) -> dict[int, str]:
        if not ids:
            return {}
        wanted = select(session.c.id, session.c.helo, session.c.greeting)
        wanted = wanted.where(self._database.among(session.c.id, ids))
        rows = self._connection.execute(wanted).all()
        names = self._names(row.greeting for row in rows)
        return {row.id: names.get(row.greeting, row.helo) for row in rows}

    def sessions(self, ids: Sequence[int]) -> dict[int, _Item]:
        """Return sessions by id."""
        rows = self._rows(session, session.c.id, ids)
        names = self._names(
            number for row in rows for number in (row.node, row.client, row.greeting)
        )
        plain = ("port", "tls", "via", "started", "seconds")
        counts = ("messages", "refused", "errors", "ending")
        return {
            row.id: {
                "kind": "session",
                "id": row.id,
                "time": row.started,
                "node": names.get(row.node, ""),
                **_client(names.get(row.client, "")),
                "helo": names.get(row.greeting, row.helo),
                **{key: getattr(row, key) for key in plain + counts},
            }
            for row in rows
        }

    def messages_of(self, number: int, limit: int) -> list[int]:
        """Return the ids of a session's messages, the oldest first."""
        wanted = select(message.c.id).where(message.c.session == number)
        return list(self._connection.execute(wanted.order_by(message.c.id).limit(limit)).scalars())

    def _rows(
        self, table: Table, column: ColumnElement[int], ids: Sequence[int]
    ) -> Sequence[Row[Any]]:
        """Return rows in the order of their keys."""
        if not ids:
            return []
        wanted = select(table).where(self._database.among(column, ids))
        return self._connection.execute(wanted.order_by(*table.primary_key.columns)).all()

    def _names(self, numbers: Iterable[int]) -> dict[int, str]:
        ids = list(set(numbers) - {0})
        if not ids:
            return {}
        wanted = select(name.c.id, name.c.text).where(self._database.among(name.c.id, ids))
        return {row.id: row.text for row in self._connection.execute(wanted)}


def _message(row: Row[Any], names: Mapping[int, str]) -> _Item:
    sender = names.get(row.sender, "")
    return {
        "kind": "message",
        "id": row.id,
        "time": row.time,
        "node": names.get(row.node, ""),
        **_client(names.get(row.client, "")),
        "helo": row.helo,
        "sender": sender,
        "header_from": names.get(row.author, "") if row.author else sender,
        "subject": row.subject,
        "message_id": row.message_id,
        "octets": row.octets,
        "score": row.score,
        "action": row.action,
        "reply": row.reply,
        "seconds": row.seconds,
        **details_from(row.details),
        "recipients": [],
        "attempts": [],
        "deeds": [],
    }


def _client(text: str) -> _Item:
    address, _, host = text.partition(" ")
    return {"client": address, "client_name": host}
