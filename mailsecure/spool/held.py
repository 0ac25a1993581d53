"""The quarantine's rows: who is chosen, listed, released and deleted.  Blocking.

The statements of :mod:`.storage` (within a transaction of its) and :mod:`.reading` that
concern only what is held; the tables are in :mod:`.schema`.  Order is that of arrival, by
an index that pages go along; whole mailboxes have an index too.  Any other part of a text is
looked for row by row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from ..smtp.envelope import Recipient
from .api import Freed, QuarantineFilter, QuarantineListing, QueuedRecipient
from .ids import MessageId
from .values import folded

__all__ = ["delete_held", "held_recipients", "release_held", "search", "whom"]

#: Executes one statement with its values.
Query = Callable[..., sqlite3.Cursor]

_MESSAGES = "message IN (SELECT value FROM json_each(?))"
_COLUMNS = (
    "SELECT q.message, q.sender, q.arrived, q.octets, q.stored, m.facts,"
    " q.reason, q.score, q.symbols, q.subject, q.header_from"
)


def whom(recipients: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the condition on rows of ``quarantined`` that ``recipients`` make."""
    terms, values = [], []
    for wanted in recipients:
        if wanted.startswith("@"):
            terms.append("domain = ?")
            values.append(folded(wanted[1:]))
        elif _is_whole(wanted):
            terms.append("mailbox = ?")
            values.append(wanted)
        else:
            terms.append("instr(lower(mailbox), ?)")
            values.append(folded(wanted))
    return f"({' OR '.join(terms)})" if terms else "1", values


def search(
    filter: QuarantineFilter, limit: int, after: QuarantineListing | None, newest_first: bool
) -> tuple[str, list[Any]]:
    """Return the statement for a page: :meth:`.api.Spool.quarantined`'s arguments."""
    terms, values = _terms(filter)
    if after is not None:
        terms.append(f"(q.arrived, q.message) {'<' if newest_first else '>'} (?, ?)")
        values += [after.arrived, after.id]
    way = "DESC" if newest_first else "ASC"
    return (
        f"{_COLUMNS} FROM quarantine q CROSS JOIN message m ON m.id = q.message"
        f" WHERE {' AND '.join(terms)} ORDER BY q.arrived {way}, q.message {way} LIMIT ?",
        [*values, limit],
    )


def _terms(filter: QuarantineFilter) -> tuple[list[str], list[Any]]:
    terms: list[str] = ["1"]
    values: list[Any] = []

    def add(term: str, *more: Any) -> None:
        terms.append(term)
        values.extend(more)

    if filter.id is not None:
        add("q.message = ?", filter.id)
    if filter.recipients:
        condition, wanted = whom(filter.recipients)
        if all(_is_whole(each[1:]) for each in filter.recipients):
            add(f"q.message IN (SELECT message FROM quarantined WHERE {condition})", *wanted)
        else:
            # Along the way, or each page would gather all of a large domain anew.
            one = "SELECT 1 FROM quarantined r WHERE r.message = q.message"
            add(f"EXISTS ({one} AND {condition})", *wanted)
    if filter.sender:
        add(*_sent_by(filter.sender))
    if filter.reason:
        part = folded(filter.reason)
        escaped = folded(json.dumps(part, ensure_ascii=False)[1:-1])
        symbol = (
            # The first half is quick, the second exact.
            "instr(lower(q.symbols), ?) AND EXISTS (SELECT 1 FROM json_each(q.symbols) WHERE"
            " instr(lower(json_extract(value, '$[0]')), ?)"
            " OR instr(lower(json_extract(value, '$[2]')), ?))"
        )
        add(f"(instr(lower(q.reason), ?) OR {symbol})", part, escaped, part, part)
    if filter.subject:
        add(*_holding("q.subject", filter.subject))
    if filter.since:
        add("q.arrived >= ?", filter.since)
    if filter.until:
        add("q.arrived < ?", filter.until)
    return terms, values


def _sent_by(sender: str) -> tuple[str, ...]:
    """Return a condition and its values."""
    if sender == "<>":
        return "q.sender = ''", *()
    if sender.startswith("@"):
        return "substr(q.sender, -length(?)) = ? COLLATE NOCASE", sender, sender
    if _is_whole(sender):
        return "q.sender = ?", sender
    (reverse, part), (author, name) = (
        _holding("q.sender", sender),
        _holding("q.header_from", sender),
    )
    return f"({reverse} OR {author})", part, name


def _is_whole(address: str) -> bool:
    """Say whether it is a mailbox; ``alice@`` is a part of some."""
    return "@" in address and not address.endswith("@")


def _holding(column: str, part: str) -> tuple[str, str]:
    """Return the condition that ``part`` is in ``column``, whatever the case, and its value."""
    if part.isascii():
        return f"instr(lower({column}), ?)", folded(part)
    return f"holds({column}, ?)", part.casefold()


def held_recipients(query: Query, id: MessageId) -> list[QueuedRecipient]:
    """Return who of a message is held."""
    return [
        QueuedRecipient(row[0], Recipient(*row[1:]))
        for row in query(
            "SELECT idx, mailbox, domain, notify, orcpt FROM quarantined"
            " WHERE message = ? ORDER BY idx",
            id,
        )
    ]


def release_held(
    database: sqlite3.Connection, ids: Sequence[MessageId], now: float, recipients: tuple[str, ...]
) -> list[Freed]:
    """Move the chosen to the queue; return who they are."""
    where, values = _chosen(ids, recipients)
    freed = _found(database, where, values)
    if freed:
        messages = json.dumps([each.id for each in freed])
        database.execute(
            "INSERT INTO recipient (message, idx, mailbox, domain, notify, orcpt, due)"
            " SELECT message, idx, mailbox, domain, notify, orcpt, ?"
            f" FROM quarantined WHERE {where}",
            [now, *values],
        )
        database.execute(
            "UPDATE message SET arrived = ? WHERE id IN (SELECT value FROM json_each(?))",
            [now, messages],
        )
        database.execute(
            f"UPDATE quarantine SET alone = 0 WHERE {_MESSAGES} AND alone = 1", [messages]
        )
        database.execute(f"DELETE FROM quarantined WHERE {where}", values)
    return freed


def delete_held(
    database: sqlite3.Connection, ids: Sequence[MessageId], recipients: tuple[str, ...]
) -> list[Freed]:
    """Remove the chosen; return who they were."""
    where, values = _chosen(ids, recipients)
    freed = _found(database, where, values)
    if freed:
        database.execute(f"DELETE FROM quarantined WHERE {where}", values)
    return freed


def _chosen(ids: Sequence[MessageId], recipients: tuple[str, ...]) -> tuple[str, list[Any]]:
    condition, values = whom(recipients)
    return f"{_MESSAGES} AND {condition}", [json.dumps(list(ids)), *values]


def _found(database: sqlite3.Connection, where: str, values: list[Any]) -> list[Freed]:
    found: dict[int, list[str]] = {}
    for message, mailbox in database.execute(
        f"SELECT message, mailbox FROM quarantined WHERE {where} ORDER BY message, idx", values
    ):
        found.setdefault(message, []).append(mailbox)
    return [Freed(MessageId(id), tuple(mailboxes)) for id, mailboxes in found.items()]
