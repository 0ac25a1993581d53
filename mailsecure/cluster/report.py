"""What ``mailsecure cluster status`` shows, gathered in one object for JSON.

The shape is told in :class:`mailsecure.control.api.Cluster`, for whom :mod:`.service` calls
:func:`report`.  Unix times where something happened, seconds where something lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import __version__
from .values import CLAIMED, RESIGNED, STANDING_BACK, Fitness, GroupHello, Hello, Role

if TYPE_CHECKING:
    from .group import VirtualGroup
    from .links import LinkState
    from .membership import Peer
    from .service import ClusterService

__all__ = ["report"]

_FITNESS = {
    Fitness.DRAINING: "draining",
    Fitness.SPOOL: "cannot take mail",
    Fitness.OVERLOADED: "overloaded",
    Fitness.SCANNERS: "without scanners",
}


def report(service: ClusterService) -> dict[str, Any]:
    """Return everything about the cluster as this node sees it."""
    peers = service.membership.peers(service.now)
    links = service.links.snapshot()
    return {
        "node": service.node,
        "address": str(service.address),
        "version": __version__,
        "interval": service.interval,
        "hellos_sent": service.hellos_sent,
        "hellos_received": service.hellos_received,
        "send_failures": service.send_failures,
        "groups": [_group(service, each) for each in service.groups.values()],
        "nodes": [
            _self(service, peers),
            *(_peer(service, each, peers, links) for each in peers),
        ],
        "drops": {reason.value: count for reason, count in service.watch.drops.items() if count},
        "alarms": service.watch.alarms(),
    }


def _group(service: ClusterService, group: VirtualGroup) -> dict[str, Any]:
    standing_back, claimed = service.words.until(group.name)
    return {
        "name": group.name,
        "role": group.role.value,
        "priority": group.settings.priority,
        "effective_priority": group.priority,
        "master": service.node if group.role is Role.MASTER else group.master,
        "since": group.since,
        "reason": group.reason,
        "addresses": [
            {"address": str(each.ip), "held": group.held} for each in group.settings.addresses
        ],
        "interface": group.settings.interface,
        "interval": group.interval,
        "standing_back_until": standing_back,
        "standing_back_because": service.words.why(group.name),
        "claimed_until": claimed,
        "fault": group.trouble,
        "two_masters": group.name in service.watch.two_masters,
        "changes": group.changes,
    }


def _self(service: ClusterService, peers: tuple[Peer, ...]) -> dict[str, Any]:
    hello = service.hello_now()
    return {
        "node": service.node,
        "self": True,
        "address": str(service.address),
        "source": str(service.address),
        "role": hello.role.value,
        **_weight(service, hello),
        "load": hello.load / 1000,
        "version": __version__,
        "uptime": hello.uptime,
        "last_hello": 0.0,
        "round_trip": 0.0,
        "clock_offset": 0.0,
        "alive": True,
        "starts": 1,
        "groups": _roles(hello.groups),
        "hears": [each.node for each in peers if each.alive],
        "heard_by": [each.node for each in peers if each.alive and not each.deaf],
        "link": None,
        "fitness": _words(hello.fitness),
    }


def _weight(service: ClusterService, said: Hello | Peer) -> dict[str, Any]:
    """Return the weight that counts, and the node's own where that is another."""
    weight = service.weight_set(said.node)
    return {
        "weight": said.weight if weight is None else weight,
        "own_weight": said.weight,
        "overridden": weight is not None,
    }


def _peer(
    service: ClusterService, peer: Peer, peers: tuple[Peer, ...], links: dict[str, LinkState]
) -> dict[str, Any]:
    heard_by = [each.node for each in peers if each.alive and peer.node in each.hears]
    if peer.alive:
        heard_by.insert(0, service.node)
    link = links.get(peer.node)
    return {
        "node": peer.node,
        "self": False,
        "address": str(peer.address),
        "source": peer.source,
        "role": peer.role.value,
        **_weight(service, peer),
        "load": peer.load / 1000,
        "version": peer.version,
        "uptime": peer.uptime,
        "last_hello": peer.last_heard,
        "round_trip": peer.round_trip,
        "clock_offset": peer.clock_offset,
        "alive": peer.alive,
        "starts": peer.incarnations,
        "groups": _roles(peer.groups),
        "hears": list(peer.hears),
        "heard_by": heard_by,
        "link": link and _link(link),
        "fitness": _words(peer.fitness),
    }


def _roles(groups: tuple[GroupHello, ...]) -> dict[str, str]:
    return {each.name: f"{each.role.value}/{_priority(each.priority)}" for each in groups}


def _priority(priority: int) -> str:
    words = {RESIGNED: "resigns", STANDING_BACK: "stands back", CLAIMED: "takes over"}
    return words.get(priority, str(priority))


def _words(fitness: Fitness) -> list[str]:
    return [word for flag, word in _FITNESS.items() if fitness & flag]


def _link(link: LinkState) -> dict[str, Any]:
    return {
        "up": link.up,
        "since": link.since,
        "round_trip": link.round_trip,
        "connects": link.connects,
        "failures": link.failures,
        "last_reason": link.reason,
    }
