"""What each request about the cluster does.

====================  ===================================  ===============================
request               arguments                            answer
====================  ===================================  ===============================
``cluster.status``    none                                 see :class:`.api.Cluster`,
                                                           and ``balance``, null or as
                                                           :mod:`mailsecure.balancer.report`
``cluster.resign``    ``group`` ("" is all), ``seconds``   ``lines`` to show
``cluster.takeover``  likewise                             likewise
``cluster.weight``    ``node``, ``weight`` (null: its      ``lines`` to show
                      own counts again)
====================  ===================================  ===============================

Who moves a role or sets a weight is logged with the uid that asked, before it is done.
:mod:`.requests` calls this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from .api import Cluster
from .wire import Kind, Refusal, only

__all__ = ["LONGEST_MOVE", "ClusterRequests"]

_log = Logger(namespace="control")

#: The longest time for which a postmaster may move a role, in seconds.
LONGEST_MOVE = 7 * 86400
#: The largest weight; the ini's bound is no narrower.
MOST_WEIGHT = 1_000_000
_SHOWN_NAME = 40


class ClusterRequests:
    """Asks ``cluster``; None where this node is in no cluster.

    ``balance`` returns what the load balancer reports; None where there is none.
    """

    def __init__(
        self, cluster: Cluster | None, balance: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        self._cluster = cluster
        self._balance = balance

    def answer(self, request: str, arguments: dict[str, Any], uid: int) -> dict[str, Any]:
        """Do ``request`` for ``uid`` and return the result; raises :class:`Refusal`."""
        verb = request.removeprefix("cluster.")
        if verb not in ("status", "resign", "takeover", "weight"):
            raise Refusal(Kind.USAGE, f"no such request: {request[:64]!r}")
        if self._cluster is None:
            raise Refusal(
                Kind.UNAVAILABLE, "this node is in no cluster: [cluster] key_file is not set"
            )
        if verb == "status":
            only(arguments, frozenset())
            return self._cluster.report() | {"balance": self._balance and self._balance()}
        if verb == "weight":
            return self._weigh(self._cluster, arguments, uid)
        return self._move(self._cluster, verb, arguments, uid)

    @staticmethod
    def _weigh(cluster: Cluster, arguments: dict[str, Any], uid: int) -> dict[str, Any]:
        """Set a node's weight, or take that back."""
        only(arguments, frozenset({"node", "weight"}))
        node: Any = arguments.get("node")
        weight: Any = arguments.get("weight")
        if not isinstance(node, str):
            raise Refusal(Kind.USAGE, "node is text")
        whole = isinstance(weight, int) and not isinstance(weight, bool)
        if weight is not None and not (whole and 0 <= weight <= MOST_WEIGHT):
            raise Refusal(Kind.USAGE, f"a weight is a whole number from 0 to {MOST_WEIGHT}")
        known = {each["node"]: each for each in cluster.report()["nodes"]}
        if node not in known:
            text = f"there is no node {node[:_SHOWN_NAME]!r}"
            raise Refusal(Kind.ABSENT, text, (f"there are: {', '.join(sorted(known))}",))
        _log.info(
            "cluster weight of {node} set to {weight} by uid {uid}",
            node=node,
            weight="its own" if weight is None else weight,
            uid=uid,
        )
        cluster.set_weight(node, weight)
        own = known[node]["own_weight"]
        if weight is None:
            return {"lines": [f"{node}: its own weight, {own}, counts again"]}
        return {"lines": [f"{node}: weight {weight} on all nodes, instead of its own {own}"]}

    @staticmethod
    def _move(cluster: Cluster, verb: str, arguments: dict[str, Any], uid: int) -> dict[str, Any]:
        """Resign from groups, or take them over."""
        only(arguments, frozenset({"group", "seconds"}))
        group: Any = arguments.get("group", "")
        seconds: Any = arguments.get("seconds")
        if not isinstance(group, str):
            raise Refusal(Kind.USAGE, "group is text")
        timed = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not timed or not 0 < seconds <= LONGEST_MOVE:
            raise Refusal(Kind.USAGE, "the time is more than nothing, and 7 days at most")
        known = [each["name"] for each in cluster.report()["groups"]]
        there = f"there are: {', '.join(known)}" if known else "there are none on this node"
        if group and group not in known:
            text = f"there is no virtual group {group[:_SHOWN_NAME]!r}"
            raise Refusal(Kind.ABSENT, text, (there,))
        if not known:
            raise Refusal(Kind.ABSENT, f"there is nothing to {_WORDS[verb]}: no virtual groups")
        _log.info(
            "cluster {action} of {group} for {seconds} s by uid {uid}",
            action=verb,
            group=group or "all groups",
            seconds=seconds,
            uid=uid,
        )
        move = cluster.resign if verb == "resign" else cluster.takeover
        return {"lines": move(group or None, float(seconds))}


_WORDS = {"resign": "resign from", "takeover": "take over"}
