"""What each request about the history does.

===============  ===========================================  =================================
request          arguments                                    answer
===============  ===========================================  =================================
``trace``        any of ``text``, ``sender``, ``recipient``,  an item for each message, refusal
                 ``subject``, ``client``, ``helo``,           or session, the newest last;
                 ``reply``, ``symbol``, ``id`` (or its        ``found``, and ``unfinished``:
                 beginning), ``since`` and ``until`` (Unix    null, or Unix seconds before
                 seconds), ``action``, ``stage``; ``limit``   which nothing was looked at
``count``        the same, without ``limit``                  ``messages`` by action,
                                                              ``refusals`` by stage,
                                                              ``sessions``, ``unfinished``
``why``          ``id``: of a message or a session            the item
===============  ===========================================  =================================

Items are those of :mod:`mailsecure.records.loading`, with ids as people know them.  What was
found is sent while the client reads, so a long answer takes no more memory than its search.
:mod:`.requests` calls this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ..config.scanning import ScanAction
from ..errors import RemoteFault
from ..records.api import History, RecordsAway, Search, TooWide
from ..records.networks import network_of
from ..spool.ids import MessageId, id_name, parse_id
from .lines import bare
from .wire import Kind, Refusal, only

__all__ = ["ACTIONS", "RECORDS", "STAGES", "RecordsRequests"]

RECORDS = frozenset({"trace", "count", "why"})
#: Where a command may have been refused.
STAGES = ("connect", "command", "mail", "rcpt", "data")
#: What may be asked for as ``action``.
ACTIONS = (*(action.value for action in ScanAction), "refused")
MOST = 10_000
#: What is counted at most: a search of this size takes some seconds.
MOST_COUNTED = 200_000
_LONGEST = 200
_LETTERS = 13
_TEXTS = ("text", "sender", "recipient", "subject", "client", "helo", "reply", "symbol")
#: Of which the brackets around an address in the log, or in a header field, are no part.
_ADDRESSES = frozenset({"text", "sender", "recipient"})
_Arguments = dict[str, Any]


class RecordsRequests:
    """Asks ``history``; None where none is kept."""

    def __init__(self, history: History | None) -> None:
        self._history = history

    async def answer(
        self,
        request: str,
        arguments: _Arguments,
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> dict[str, Any]:
        """Do ``request``; items go to ``send``, the result is returned.  Raises Refusal."""
        if self._history is None:
            raise Refusal(Kind.UNAVAILABLE, "no history is kept: [records] enabled is no")
        try:
            if request == "why":
                return await self._why(self._history, arguments)
            if request == "count":
                return await self._count(self._history, arguments)
            return await self._trace(self._history, arguments, send)
        except RecordsAway as away:
            raise Refusal(Kind.UNAVAILABLE, str(away)) from None
        except TooWide as wide:
            raise Refusal(Kind.USAGE, str(wide)) from None

    @staticmethod
    async def _trace(
        history: History,
        arguments: _Arguments,
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> dict[str, Any]:
        found = list(await history.trace(_search(arguments)))
        unfinished = None
        if found and found[-1]["kind"] == "unfinished":
            unfinished = found.pop()["time"]
        for item in reversed(found):
            await send(named(item))
        return {"found": len(found), "unfinished": unfinished}

    @staticmethod
    async def _count(history: History, arguments: _Arguments) -> dict[str, Any]:
        if "limit" in arguments:
            raise Refusal(Kind.USAGE, "what is counted has no limit")
        found = await history.count(replace(_search(arguments), limit=MOST_COUNTED))
        return found | {"unfinished": found["unfinished"] or None}

    @staticmethod
    async def _why(history: History, arguments: _Arguments) -> dict[str, Any]:
        only(arguments, frozenset({"id"}))
        wanted = _id(arguments.get("id"))
        item = await history.message(wanted)
        if item is None:
            raise Refusal(Kind.ABSENT, f"nothing is known of {id_name(wanted)}")
        return named(item)


def _search(arguments: _Arguments) -> Search:
    only(arguments, frozenset({*_TEXTS, "id", "since", "until", "action", "stage", "limit"}))
    values: dict[str, Any] = {}
    for name in _TEXTS:
        value = arguments.get(name, "")
        if not isinstance(value, str) or len(value) > _LONGEST:
            raise Refusal(Kind.USAGE, f"{name} is text of up to {_LONGEST} characters")
        values[name] = bare(value) if name in _ADDRESSES else value.strip()
    for name in ("since", "until"):
        value = arguments.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
            raise Refusal(Kind.USAGE, f"{name} is Unix seconds")
        values[name] = float(value)
    if "/" in values["client"] and network_of(values["client"]) is None:
        raise Refusal(Kind.USAGE, f"{values['client']!r} is no network: write 192.0.2.0/24")
    limit = arguments.get("limit", 50)
    if type(limit) is not int or not 0 < limit <= MOST:
        raise Refusal(Kind.USAGE, f"limit is a whole number up to {MOST}")
    for name, known in (("action", ACTIONS), ("stage", STAGES)):
        values[name] = arguments.get(name, "")
        if values[name] and values[name] not in known:
            raise Refusal(Kind.USAGE, f"the {name} is one of {', '.join(known)}")
    first, last = _range(arguments["id"]) if arguments.get("id") else (0, 0)
    return Search(**values, id=first, last_id=last, limit=limit)


def _id(name: object) -> MessageId:
    try:
        return parse_id(name if isinstance(name, str) else "")
    except RemoteFault as fault:
        raise Refusal(Kind.USAGE, str(fault)) from None


def _range(name: object) -> tuple[int, int]:
    """Return the first and the last id that begin so; 0 for the last if it is a whole one."""
    if not isinstance(name, str) or len(name) == _LETTERS:
        return _id(name), 0
    # A beginning is whole with the least and the greatest letters behind it.
    return _id(name.ljust(_LETTERS, "0")), _id(name.ljust(_LETTERS, "Z"))


# -- ids as people know them


def named(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item with ids of 13 characters; "" for what has none."""
    kind = item["kind"]
    if kind == "message":
        return item | {
            "id": _name(item["id"]),
            "session_id": _name(item["session_id"]),
            "session": named(item["session"]) if item["session"] else None,
            "deeds": [each | {"copy": _name(each["copy"])} for each in item["deeds"]],
        }
    if kind == "refusal":
        return item | {"id": _name(item["id"]), "session": _name(item["session"])}
    if "refusals" not in item:
        return item | {"id": _name(item["id"])}
    return item | {
        "id": _name(item["id"]),
        "session": named(item["session"]) if item["session"] else None,
        "refusals": [named(each) for each in item["refusals"]],
        "messages": [named(each) for each in item["messages"]],
    }


def _name(number: int) -> str:
    return id_name(MessageId(number)) if number else ""
