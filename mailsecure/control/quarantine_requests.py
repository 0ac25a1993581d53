"""What each request about the quarantine does.

========================  ====================================  ==========================
request                   arguments                             answer
========================  ====================================  ==========================
``quarantine.list``       a filter, ``limit``, ``oldest_first``  an item a message;
                                                                ``messages``,
                                                                ``recipients``
``quarantine.show``       ``id``, ``full``                      items of ``content``
                                                                (base64); the message
``quarantine.release``    a filter, ``all``, ``reason``         ``messages``,
                                                                ``recipients``
``quarantine.delete``     likewise                              likewise
``quarantine.forward``    ``id``, ``address``, ``reason``,      ``copy``: the id of what
                          ``delete``                            was sent, ``deleted``
========================  ====================================  ==========================

A filter is any of ``id``, ``recipients`` (a list), ``sender``, ``held_for`` (any part of the
reason, or of a symbol), ``subject``, ``since`` and ``older`` (ages in seconds); see
:class:`mailsecure.spool.api.QuarantineFilter`.  ``reason`` is why the postmaster does it.
What acts is refused without a filter unless ``all`` is true.  Every deed is logged, a line a
message, and told to the history, with the name and the uid of who asked.

What is released goes the way of all queued mail, without another scan: that is done before
the queue.  :mod:`.requests` calls this.
"""

from __future__ import annotations

import pwd
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..spool.api import (
    Freed,
    Quarantine,
    QuarantinedMessage,
    QuarantineFilter,
    QuarantineListing,
)
from ..spool.ids import id_name
from ..world import World
from .api import Desk
from .deeds import Deeds
from .enclosing import subject_of
from .forwarding import address_of, forward
from .showing import Asker, Send, facts_of, message_id, send_content
from .wire import Kind, Refusal, only

__all__ = ["QuarantineRequests", "name_of"]

_log = Logger(namespace="control")

_Arguments = dict[str, Any]
#: Messages in one transaction, or one page of a listing, at most.
_PAGE = 100
_FILTER = frozenset({"id", "recipients", "sender", "held_for", "subject", "since", "older"})
_MOST_RECIPIENTS = 100
#: The longest age that can be asked for, in seconds: a century.
_LONGEST = 100 * 365 * 86400.0
_PAST = {"release": "released", "delete": "deleted"}


class QuarantineRequests:
    """Does what is asked, with what ``desk`` offers."""

    def __init__(self, world: World, desk: Desk) -> None:
        self._world = world
        self._desk = desk
        self._deeds = Deeds(world.wall, desk.recorder)
        self._known: dict[str, Callable[[_Arguments, Asker, Send], Awaitable[_Arguments]]] = {
            "quarantine.list": self._list,
            "quarantine.show": self._show,
            "quarantine.release": self._release,
            "quarantine.delete": self._delete,
            "quarantine.forward": self._forward,
        }

    async def answer(
        self, request: str, arguments: _Arguments, asker: Asker, send: Send
    ) -> dict[str, Any]:
        """Do ``request`` for ``asker``; items go to ``send``, the result is returned.

        Raises :class:`Refusal`; LocalFault comes through.
        """
        answer = self._known.get(request)
        if answer is None:
            raise Refusal(Kind.USAGE, f"no such request: {request[:64]!r}")
        return await answer(arguments, asker, send)

    # -- looking

    async def _list(self, arguments: _Arguments, asker: Asker, send: Send) -> dict[str, Any]:
        wanted = self._filter(arguments, frozenset({"limit", "oldest_first"}))
        left = arguments.get("limit", 0) or 1 << 62
        if type(left) is not int or left < 0:
            raise Refusal(Kind.USAGE, "limit is a whole number")
        newest_first = arguments.get("oldest_first") is not True
        messages = recipients = 0
        after: QuarantineListing | None = None
        while left:
            size = min(_PAGE, left)
            page = await self._desk.spool.quarantined(wanted, size, after, newest_first)
            for listing in page:
                await send(_item(listing))
                messages += 1
                recipients += len(listing.recipients)
            left -= len(page)
            if len(page) < size:
                break
            after = page[-1]
            await deferLater(self._world.clock, 0)
        return {"messages": messages, "recipients": recipients}

    async def _show(self, arguments: _Arguments, asker: Asker, send: Send) -> dict[str, Any]:
        only(arguments, frozenset({"id", "full"}))
        held = await self._held(arguments)
        full = bool(arguments.get("full"))
        name = id_name(held.message.id)
        if full:
            who = await self._who(asker)
            _log.info("content of {message} shown to {who}", message=name, who=who)
        await send_content(self._world, held.message.body, full, send)
        return _whole(held)

    async def _held(self, arguments: _Arguments) -> QuarantinedMessage:
        wanted = message_id(arguments.get("id"))
        held = await self._desk.spool.quarantine_content(wanted)
        if held is None:
            raise Refusal(Kind.ABSENT, f"no message {id_name(wanted)} in the quarantine")
        return held

    # -- acting

    async def _release(self, arguments: _Arguments, asker: Asker, send: Send) -> dict[str, Any]:
        return await self._act("release", arguments, asker)

    async def _delete(self, arguments: _Arguments, asker: Asker, send: Send) -> dict[str, Any]:
        return await self._act("delete", arguments, asker)

    async def _act(self, verb: str, arguments: _Arguments, asker: Asker) -> dict[str, Any]:
        wanted = self._filter(arguments, frozenset({"all", "reason"}))
        if wanted == QuarantineFilter() and arguments.get("all") is not True:
            raise Refusal(Kind.USAGE, f"{verb} without an id or a filter needs --all")
        reason = _reason(arguments)
        who = await self._who(asker)
        spool = self._desk.spool
        messages = recipients = 0
        after: QuarantineListing | None = None
        while page := await spool.quarantined(wanted, _PAGE, after):
            ids = [each.id for each in page]
            if verb == "release":
                freed = await spool.release_quarantined(ids, self._world.wall(), wanted.recipients)
            else:
                freed = await spool.delete_quarantined(ids, wanted.recipients)
            for each in freed:
                self._tell(each, _PAST[verb], who, reason)
                messages += 1
                recipients += len(each.recipients)
            after = page[-1]
            await deferLater(self._world.clock, 0)
        if verb == "release" and messages:
            self._desk.scheduler.wake()
        return {"messages": messages, "recipients": recipients}

    def _tell(self, freed: Freed, deed: str, who: str, reason: str, copy: int = 0) -> None:
        _log.info(
            "{message}: {deed} from quarantine by {who} to=<{recipient}> nrcpt={recipients}"
            " reason={reason}",
            message=id_name(freed.id),
            deed=deed,
            who=who,
            recipient=freed.recipients[0] if freed.recipients else "",
            recipients=len(freed.recipients),
            reason=reason or "-",
        )
        self._deeds.tell(freed, deed, who, reason, copy)

    async def _who(self, asker: Asker) -> str:
        """Return who asks, by name where there is one; names may come from a network."""
        return asker if isinstance(asker, str) else await self._world.in_thread(name_of, asker)

    # -- forwarding

    async def _forward(self, arguments: _Arguments, asker: Asker, send: Send) -> dict[str, Any]:
        only(arguments, frozenset({"id", "address", "reason", "delete"}))
        forwarding = self._desk.forwarding
        if forwarding is None:
            raise Refusal(Kind.UNAVAILABLE, "this node cannot forward")
        to = address_of(arguments.get("address"), forwarding.routable)
        reason = _reason(arguments)
        held = await self._held(arguments)
        who = await self._who(asker)
        copy = await forward(self._world, self._desk.spool, forwarding, held, to, (who, reason))
        self._desk.scheduler.wake()
        original, hostname = held.message.id, forwarding.hostname
        self._tell(Freed(original, (to.mailbox,)), "forwarded", who, reason, copy.id)
        self._deeds.copied(copy, hostname, subject_of(id_name(original), hostname))
        deleted = 0
        if arguments.get("delete") is True:
            for each in await self._desk.spool.delete_quarantined([original]):
                self._tell(each, "deleted", who, reason)
                deleted += len(each.recipients)
        return {"copy": id_name(copy.id), "deleted": deleted}

    # -- arguments

    def _filter(self, arguments: _Arguments, others: frozenset[str]) -> QuarantineFilter:
        """Return the filter that ``arguments`` hold besides ``others``."""
        only(arguments, _FILTER | others)
        now = self._world.wall()
        since, older = _age(arguments, "since"), _age(arguments, "older")
        return QuarantineFilter(
            id=message_id(arguments["id"]) if arguments.get("id") else None,
            recipients=_recipients(arguments),
            sender=_text(arguments, "sender"),
            reason=_text(arguments, "held_for"),
            subject=_text(arguments, "subject"),
            since=now - since if since else 0.0,
            until=now - older if older else 0.0,
        )


def name_of(uid: int) -> str:
    """Return the name of somebody on this machine, and the uid."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _text(arguments: _Arguments, name: str) -> str:
    text = arguments.get(name, "")
    if not isinstance(text, str):
        raise Refusal(Kind.USAGE, f"{name} is text")
    return text


def _recipients(arguments: _Arguments) -> tuple[str, ...]:
    """Return whom a filter names; an empty text must not be as good as everybody."""
    found = arguments.get("recipients") or []
    texts = isinstance(found, list) and all(isinstance(each, str) and each for each in found)
    if not texts or len(found) > _MOST_RECIPIENTS:
        raise Refusal(Kind.USAGE, f"recipients are a list of up to {_MOST_RECIPIENTS} texts")
    return tuple(found)


def _age(arguments: _Arguments, name: str) -> float:
    age: Any = arguments.get(name) or 0
    timed = isinstance(age, int | float) and not isinstance(age, bool)
    if not timed or not 0 <= age <= _LONGEST:
        raise Refusal(Kind.USAGE, f"{name} is an age in seconds, a century at most")
    return float(age)


def _reason(arguments: _Arguments) -> str:
    reason = _text(arguments, "reason")
    if not reason.isprintable() or len(reason) > 200:
        raise Refusal(Kind.USAGE, "the reason is one line of up to 200 characters")
    return reason


# -- what is shown


def _item(listing: QuarantineListing) -> dict[str, Any]:
    return {
        "id": id_name(listing.id),
        "sender": listing.reverse_path,
        "arrived": listing.arrived,
        "octets": listing.octets,
        "stored": listing.stored,
        "client": listing.client,
        "recipients": list(listing.recipients),
        **_why(listing.quarantine),
    }


def _whole(held: QuarantinedMessage) -> dict[str, Any]:
    message = held.message
    return {
        "id": id_name(message.id),
        "sender": message.envelope.reverse_path,
        "arrived": message.arrived,
        "octets": message.body.octets,
        "stored": held.stored,
        "client": message.arrival.client,
        "recipients": [each.recipient.mailbox for each in message.recipients],
        **_why(held.quarantine),
        **facts_of(message),
    }


def _why(quarantine: Quarantine) -> dict[str, Any]:
    return {
        "reason": quarantine.reason,
        "score": quarantine.score,
        "symbols": [list(each) for each in quarantine.symbols],
        "subject": quarantine.subject,
        "from": quarantine.header_from,
    }
