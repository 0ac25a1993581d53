"""What is asked of the quarantine and the history, asked of all nodes of the cluster.

Each node has a quarantine of its own and mostly its own history, but a postmaster asks where a
message is, and not which node had it.  So the node that was asked asks the others as well, over
the links (:mod:`.questions`), and makes one answer of theirs and its own:

* ``quarantine.list``: one listing, in the order that was wanted.
* ``trace``: the newest of all.  What several know, because they write to one database, is there
  once; a node that writes to the same as we do is not asked for it again.
* ``count``: all of theirs together.
* ``why``, ``quarantine.show``, ``.forward``, and ``.release`` or ``.delete`` with an id: it is done
  where the message is.
* ``.release`` and ``.delete`` with a filter: done everywhere.

Results have ``away``, node → why it did not answer, and items of the quarantine their ``node``.
With the argument ``node`` only that one is asked.  Without a cluster it all is just ours.

:mod:`.requests` calls this; ``here`` answers for this node.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from ..scan.api import Line
from ..world import World
from .answers import Question
from .merging import Asked
from .questions import Questions
from .showing import Asker, Send
from .wire import Kind, Refusal

__all__ = ["Everywhere", "Here"]

#: Answers for this node alone: request, arguments, who asks, where items go.
Here = Callable[[str, dict[str, Any], Asker, Send], Coroutine[Deferred[Any], Any, dict[str, Any]]]
_Arguments = dict[str, Any]

_HISTORY = frozenset({"trace", "count", "why"})
_BY_ID = frozenset({"why", "quarantine.show", "quarantine.forward"})
_ACTING = frozenset({"quarantine.release", "quarantine.delete"})
_KNOWN = _HISTORY | _BY_ID | _ACTING | {"quarantine.list"}
_NOTHING: dict[str, dict[str, Any]] = {
    "trace": {"found": 0, "unfinished": None},
    "count": {"messages": {}, "refusals": {}, "sessions": 0, "unfinished": None},
}
_BITS = 32


class Everywhere:
    """See the module's text.

    ``node`` is our name, "" where there is no cluster; ``known`` returns the names of all its
    nodes, those that are away too.  ``common`` is the same at nodes that write to one history,
    "" where it is the node's own.  ``who`` returns the name of a uid.
    """

    def __init__(
        self,
        world: World,
        here: Here,
        who: Callable[[int], Deferred[str]],
        node: str = "",
        known: Callable[[], Iterable[str]] = tuple,
        common: str = "",
    ) -> None:
        self._here = here
        self._who = who
        self._node = node
        self._known = known
        self._common = common
        self._questions = Questions(world.clock, self._answer_peer, world.rng.getrandbits(_BITS))

    def start(self, line: Line) -> None:
        """Ask and answer over ``line`` from now on."""
        self._questions.start(line)

    async def answer(
        self, request: str, arguments: _Arguments, uid: int, send: Send
    ) -> dict[str, Any]:
        """Do ``request`` for ``uid``; items go to ``send``, the result is returned.

        Raises :class:`Refusal`; LocalFault comes through.
        """
        arguments = dict(arguments)
        name = arguments.pop("node", "")
        if not self._node:
            if name:
                raise Refusal(Kind.USAGE, "there is no cluster, so there are no other nodes")
            return await self._here(request, arguments, uid, send)
        asked = self._asked(request, arguments, uid, await self._who(uid), name)
        if request == "trace":
            return await asked.trace(send)
        if request == "count":
            return await asked.count()
        if request == "quarantine.list":
            return await asked.list(send)
        if request in _ACTING:
            return await asked.act(send)
        return await asked.find(send)

    def _asked(
        self, request: str, arguments: _Arguments, uid: int, who: str, name: object
    ) -> Asked:
        """Choose whom to ask: all nodes, or only the one of that name."""
        linked = self._questions.nodes
        others = sorted({*self._known(), *linked} - {self._node})
        if name and name not in (self._node, *others):
            known = ", ".join((self._node, *others))
            raise Refusal(Kind.ABSENT, f"no node {str(name)[:64]!r}: there are {known}")
        wanted = [each for each in others if name in ("", each)]
        ours = name in ("", self._node)
        return Asked(
            arguments,
            self._node,
            partial(self._here, request, arguments, uid) if ours else None,
            partial(self._ask, request, arguments, who),
            [each for each in wanted if each in linked],
            {each: "is not linked" for each in wanted if each not in linked},
        )

    def _ask(self, request: str, arguments: _Arguments, who: str, node: str) -> Question:
        if request in _HISTORY:
            arguments = arguments | {"besides": self._common}
        return self._questions.ask(node, request, arguments, f"{who} on {self._node}")

    async def _answer_peer(
        self, request: str, arguments: _Arguments, who: str, send: Send
    ) -> dict[str, Any]:
        """Answer another node for ourselves."""
        if request not in _KNOWN:
            raise Refusal(Kind.USAGE, f"no such request of a node: {request!r}")
        besides = arguments.pop("besides", "") if request in _HISTORY else ""
        if besides and besides == self._common:
            # All that we know it has found.
            if request in _NOTHING:
                return _NOTHING[request]
            raise Refusal(Kind.ABSENT, "nothing else is known here")
        return await self._here(request, arguments, who, send)
