"""What the load balancer shows of itself, for status, metrics and programs (pure).

The shape, part of ``mailsecure cluster status --json`` as ``balance``::

    balance    round-robin or least-sessions
    draining   whether this node gets no sessions
    spliced    sessions that peers have through us now
    waiting    connections of which it is not decided yet who gets them
    nodes      {node: {state, why, until, weight, factor, share_wanted, share_had,
                       sessions, sessions_total, octets_in, octets_out,
                       failures: {why: times}, ejections}}

``state`` is ``in``, ``out`` or ``being probed``; ``why`` says why it is not in; ``until``
is the Unix time before which one that failed is not probed, else null.  ``weight`` is what
counts now, ``factor`` the part that its load leaves of it.  Shares are parts of 1,
``share_had`` of the sessions of the last minute.  Sessions are those at virtual addresses;
octets are those of sessions that are over, in: from clients.
"""

from __future__ import annotations

from typing import Any

from .choosing import Member, Pool
from .health import State

__all__ = ["report"]


def report(pool: Pool, now: float, wall: float, here: int) -> dict[str, Any]:
    """Return the pool's part; ``here`` is how many sessions this node itself has."""
    wanted, had = pool.shares_wanted(now), pool.shares_had()
    nodes = {}
    for name, member in pool.members.items():
        there = name in pool.picker.nodes
        nodes[name] = {
            "state": State.IN.value if there else _state(member),
            "why": member.why or "",
            "until": _until(member, now, wall),
            "weight": pool.picker.weight(name, now) if there else 0.0,
            "factor": member.moderation.factor if pool.rules.adaptive else 1.0,
            "share_wanted": wanted[name],
            "share_had": had[name],
            "sessions": here if member.own else member.open,
            "sessions_total": member.sessions,
            "octets_in": member.octets_in,
            "octets_out": member.octets_out,
            "failures": {why.value: count for why, count in member.failures.items()},
            "ejections": member.health.ejections,
        }
    return {
        "balance": pool.rules.balance.value,
        "draining": pool.draining,
        "nodes": nodes,
    }


def _state(member: Member) -> str:
    probed = member.health.state is State.PROBED
    return State.PROBED.value if probed else State.OUT.value


def _until(member: Member, now: float, wall: float) -> float | None:
    out = member.health.state is State.OUT
    return wall + max(0.0, member.health.until - now) if out else None
