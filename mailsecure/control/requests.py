"""What each request over the control socket does.

===============  ==========================================  ==============================
request          arguments                                   answer
===============  ==========================================  ==============================
``ping``         none                                        version, pid
``status``       none                                        see :mod:`.status`
``reload``       none                                        ``lines`` to show
``drain``        ``seconds``                                 see :class:`.api.Drain`
``undrain``      none                                        likewise, and ``drained``: whether
                                                             it was
``draining``     none                                        likewise: how far it is
``queue.list``   a filter, ``limit``                         an item a message; ``messages``
``queue.show``   ``id``, ``full``                            items of ``content`` (base64);
                                                             the message
``queue.flush``  a filter, ``all``                           ``recipients``: how many
``queue.hold``   likewise                                    likewise
``queue.release``  likewise                                  likewise
``queue.delete``  likewise                                   likewise
``queue.bounce``  likewise, and ``reason``                   likewise
``scan``         see :mod:`.scan_requests`; the file comes beside the request
``cluster.…``    see :mod:`.cluster_requests`
``quarantine.…``  see :mod:`.quarantine_requests`; the other nodes are asked too, see
                 :mod:`.everywhere`
``trace``        see :mod:`.records_requests`; the other nodes are asked too
``why``          likewise
===============  ==========================================  ==============================

A filter is any of ``id``, ``sender``, ``recipient``, ``destination``, ``state``.  What
acts on the queue is refused without a filter unless ``all`` is true, and is logged with
the uid that asked.  Arguments that are not known are refused: a misspelt filter must not
delete everything.

A listing is paged through the spool and waits for its reader, so memory stays flat and
the reactor free, however long the queue.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from .. import __version__
from ..errors import LocalFault
from ..spool.api import Filter, Listing, RecipientState
from ..spool.ids import MessageId, id_name
from ..world import World
from .api import Desk, Drain
from .cluster_requests import ClusterRequests
from .everywhere import Everywhere
from .quarantine_requests import QuarantineRequests, name_of
from .records_requests import RECORDS, RecordsRequests
from .scan_requests import ScanRequests
from .showing import Asker, Send, facts_of, message_id, send_content
from .wire import Kind, Refusal, only

__all__ = ["Requests", "Send"]

_log = Logger(namespace="control")

_Arguments = dict[str, Any]

#: The longest time that a drain may leave to sessions, in seconds.
LONGEST_DRAIN = 86400

_PAGE = 100
#: After so many recipients a listing lets the reactor turn.
_BREATH = 200
_FILTER = frozenset({"id", "sender", "recipient", "destination", "state"})
_STATES = {state.value: state for state in RecipientState}


class Requests:
    """Does what is asked, with what ``desk`` offers."""

    def __init__(self, world: World, desk: Desk) -> None:
        self._world = world
        self._desk = desk
        self._cluster = ClusterRequests(desk.cluster, desk.balance)
        self._scan = ScanRequests(desk.rehearse, desk.trusted)
        self._quarantine = QuarantineRequests(world, desk)
        self._records = RecordsRequests(desk.history)
        self._everywhere = Everywhere(
            world,
            self._here,
            partial(world.in_thread, name_of),
            desk.node,
            self._nodes,
            desk.shared_history,
        )
        self._known: dict[str, Callable[[_Arguments, int, Send], Awaitable[_Arguments]]] = {
            "ping": self._ping,
            "status": self._status,
            "reload": self._reload,
            "drain": self._drain,
            "undrain": self._undrain,
            "draining": self._draining,
            "queue.list": self._list,
            "queue.show": self._show,
        }

    async def answer(
        self, request: str, arguments: _Arguments, uid: int, send: Send
    ) -> dict[str, Any]:
        """Do ``request`` for ``uid``; items go to ``send``, the result is returned.

        Raises :class:`Refusal`; LocalFault and ConfigProblems come through.
        """
        if answer := self._known.get(request):
            return await answer(arguments, uid, send)
        if request.startswith("cluster."):
            return self._cluster.answer(request, arguments, uid)
        if request.startswith("quarantine.") or request in RECORDS:
            return await self._everywhere.answer(request, arguments, uid, send)
        verb = request.removeprefix("queue.")
        if verb in ("flush", "hold", "release", "delete", "bounce") and verb != request:
            return await self._act(verb, arguments, uid)
        raise Refusal(Kind.USAGE, f"no such request: {request[:64]!r}")

    async def _here(
        self, request: str, arguments: _Arguments, asker: Asker, send: Send
    ) -> dict[str, Any]:
        """Answer for this node, what may be asked of all (:mod:`.everywhere`)."""
        if request in RECORDS:
            return await self._records.answer(request, arguments, send)
        return await self._quarantine.answer(request, arguments, asker, send)

    def start(self) -> None:
        """Ask other nodes, and answer them, from now on."""
        if self._desk.line is not None:
            self._everywhere.start(self._desk.line())

    async def scan(self, arguments: _Arguments, uid: int, descriptor: int | None) -> dict[str, Any]:
        """Judge the file behind ``descriptor``, which is closed afterwards."""
        _log.info("scan of a file asked for by uid {uid}", uid=uid)
        return await self._scan.answer(arguments, descriptor)

    def _nodes(self) -> list[str]:
        """Return the names of all nodes that the cluster knows."""
        cluster = self._desk.cluster
        return [] if cluster is None else [each["node"] for each in cluster.report()["nodes"]]

    async def _ping(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset())
        return {"version": __version__, "pid": os.getpid()}

    async def _status(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset())
        return await self._desk.status()

    async def _reload(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset())
        _log.info("reload asked for by uid {uid}", uid=uid)
        return {"lines": list(await self._desk.reload())}

    async def _drain(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset({"seconds"}))
        seconds: Any = arguments.get("seconds")
        timed = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not timed or not 0 <= seconds <= LONGEST_DRAIN:
            raise Refusal(Kind.USAGE, "the time for a drain is 1 day at most")
        drain = self._drainable()
        _log.info("drain asked for by uid {uid}, within {seconds} s", uid=uid, seconds=seconds)
        try:
            drain.begin(float(seconds))
        except LocalFault as fault:
            raise Refusal(Kind.UNAVAILABLE, str(fault)) from None
        return drain.report()

    async def _undrain(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset())
        drain = self._drainable()
        _log.info("undrain asked for by uid {uid}", uid=uid)
        drained = drain.end()
        return drain.report() | {"drained": drained}

    async def _draining(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset())
        return self._drainable().report()

    def _drainable(self) -> Drain:
        if self._desk.drain is None:
            raise Refusal(Kind.UNAVAILABLE, "this node cannot be drained")
        return self._desk.drain

    async def _list(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        wanted = _filter(arguments, frozenset({"limit"}))
        left = arguments.get("limit", 0) or 1 << 62
        if type(left) is not int or left < 0:
            raise Refusal(Kind.USAGE, "limit is a whole number")
        messages = recipients = breath = 0
        after: MessageId | None = None
        while left:
            page = await self._desk.spool.find(wanted, min(_PAGE, left), after)
            for listing in page:
                await send(_item(listing))
                messages += 1
                recipients += len(listing.recipients)
                if recipients - breath >= _BREATH:
                    breath = recipients
                    await deferLater(self._world.clock, 0)
            left -= len(page)
            if len(page) < _PAGE:
                break
            after = page[-1].id
        return {"messages": messages, "recipients": recipients}

    async def _show(self, arguments: _Arguments, uid: int, send: Send) -> dict[str, Any]:
        only(arguments, frozenset({"id", "full"}))
        wanted = message_id(arguments.get("id"))
        name = id_name(wanted)
        message = await self._desk.spool.content(wanted)
        listings = await self._desk.spool.find(Filter(id=wanted), 1)
        if message is None or not listings:
            held = await self._desk.spool.quarantine_content(wanted)
            hint = (f"It is held: see mailsecure quarantine show {name}.",) if held else ()
            raise Refusal(Kind.ABSENT, f"no message {name} in the queue", hint)
        if arguments.get("full"):
            _log.info("content of {message} shown to uid {uid}", message=name, uid=uid)
        await send_content(self._world, message.body, bool(arguments.get("full")), send)
        return _item(listings[0]) | facts_of(message)

    async def _act(self, verb: str, arguments: _Arguments, uid: int) -> dict[str, Any]:
        wanted = _filter(arguments, frozenset({"all", "reason"}))
        if wanted == Filter() and arguments.get("all") is not True:
            raise Refusal(Kind.USAGE, f"{verb} without an id or a filter needs --all")
        reason = arguments.get("reason", "") or "returned by the postmaster"
        if not isinstance(reason, str) or not reason.isprintable() or len(reason) > 200:
            raise Refusal(Kind.USAGE, "the reason is one line of up to 200 characters")
        spool, scheduler, now = self._desk.spool, self._desk.scheduler, self._world.wall()
        if verb == "flush":
            recipients = await scheduler.flush(wanted)
        elif verb == "bounce":
            recipients = await scheduler.bounce(wanted, reason)
        elif verb == "hold":
            recipients = await spool.hold(wanted)
        elif verb == "delete":
            recipients = await spool.delete(wanted)
        else:
            recipients = await spool.release(wanted, now)
        if verb in ("hold", "delete", "release"):
            # What delivery has read before is read again: held mail must not go out.
            scheduler.wake()
        _log.info(
            "queue {action} by uid {uid}: {recipients} recipients ({filter})",
            action=verb,
            uid=uid,
            recipients=recipients,
            filter=_description(arguments),
        )
        return {"recipients": recipients}


def _filter(arguments: _Arguments, others: frozenset[str]) -> Filter:
    """Return the filter that ``arguments`` hold besides ``others``."""
    only(arguments, _FILTER | others)
    texts = {}
    for name in ("sender", "recipient", "destination"):
        text = arguments.get(name, "")
        if not isinstance(text, str):
            raise Refusal(Kind.USAGE, f"{name} is text")
        texts[name] = text
    state = arguments.get("state") or None
    if state is not None and (not isinstance(state, str) or state not in _STATES):
        raise Refusal(Kind.USAGE, f"a state is one of {', '.join(_STATES)}")
    message = message_id(arguments["id"]) if arguments.get("id") else None
    return Filter(id=message, state=_STATES[state] if state else None, **texts)


def _description(arguments: _Arguments) -> str:
    given = (f"{name}={arguments[name]}" for name in sorted(_FILTER) if arguments.get(name))
    return " ".join(given) or "all"


def _item(listing: Listing) -> dict[str, Any]:
    return {
        "id": id_name(listing.id),
        "sender": listing.reverse_path,
        "arrived": listing.arrived,
        "octets": listing.octets,
        "client": listing.client,
        "recipients": [
            {
                "recipient": mailbox,
                "state": state.value,
                "attempts": attempts,
                "due": due,
                "reply": reply,
            }
            for mailbox, state, attempts, due, reply in listing.recipients
        ],
    }
