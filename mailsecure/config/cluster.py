"""What ``[cluster]`` and ``[virtual:NAME]`` say together (pure).

Each option is right or wrong by itself in :mod:`.kinds`.  Here is what one leaves to
another (:func:`completed`), and what cannot be meant (:func:`cluster_contradictions`).
The rules of virtual groups are those of VRRP, RFC 9568.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain

from .contradictions import Contradiction
from .model import Config, NodeRole, StartAs, Topology, Virtual
from .places import parse_place

__all__ = ["cluster_contradictions", "completed"]

#: As many as fit into a hello datagram.
_MOST_GROUPS = 16
_OWNER = 255


def completed(config: Config, written: Container[tuple[str, str]]) -> Config:
    """Return ``config`` with what its virtual groups leave to the rest of it.

    ``written`` holds the (title, option) pairs that stand in the file.  The interface is
    that of ``[cluster]`` if a group names none.  The group of priority 255 starts as Master
    (RFC 9568 §6.4.1) unless the file says otherwise, which is told as a contradiction.  A
    director takes no sessions unless the file gives it a weight.
    """
    cluster = config.cluster
    if cluster.role is NodeRole.DIRECTOR and ("cluster", "weight") not in written:
        cluster = replace(cluster, weight=0)
    return replace(
        config,
        cluster=cluster,
        virtual={
            name: replace(
                group,
                interface=group.interface or config.cluster.interface,
                start_as=StartAs.MASTER
                if group.priority == _OWNER and (_title(name), "start_as") not in written
                else group.start_as,
            )
            for name, group in config.virtual.items()
        },
    )


def cluster_contradictions(config: Config) -> Iterator[Contradiction]:
    """Yield everything in the two sections that cannot be meant."""
    return chain(_node(config), _families(config), _groups(config), _shared(config))


def _title(name: str) -> str:
    return f"virtual:{name}"


def _node(config: Config) -> Iterator[Contradiction]:
    cluster = config.cluster
    if cluster.key_file is not None and not cluster.interface and not cluster.address:
        yield Contradiction(
            (("cluster", "key_file"), ("cluster", "interface"), ("cluster", "address")),
            "needs an interface or an address: where are the other nodes?",
            "set interface",
        )
    if cluster.role is NodeRole.SCANNER and config.virtual:
        title = _title(next(iter(config.virtual)))
        yield Contradiction(
            (("cluster", "role"),),
            f"is scanner, which never is Master, but there is [{title}]",
            "take that section out on this node, or set role to both",
        )
    if cluster.topology is Topology.ACTIVE_ACTIVE and cluster.key_file is None:
        yield Contradiction(
            (("cluster", "topology"), ("cluster", "key_file")),
            "is active-active, which needs a key_file: without it no other node is known",
            "mailsecure cluster keygen writes one",
        )
    if cluster.peer_listen == cluster.link_listen and cluster.peer_listen != "0":
        yield Contradiction(
            (("cluster", "peer_listen"), ("cluster", "link_listen")),
            f"is {cluster.peer_listen}, which is link_listen's port already",
        )
    if len(config.virtual) > _MOST_GROUPS:
        title = _title(list(config.virtual)[_MOST_GROUPS])
        yield Contradiction(
            ((title, ""),),
            f"is one virtual group too many: {_MOST_GROUPS} at most",
            "one group may have several addresses",
        )


def _families(config: Config) -> Iterator[Contradiction]:
    """IPv4 and IPv6 in one conversation: hello is said by one of them."""
    cluster = config.cluster
    group = ip_address(parse_place(cluster.group, 0)[0])
    if cluster.address and ip_address(cluster.address).version != group.version:
        yield Contradiction(
            (("cluster", "address"), ("cluster", "group")),
            f"is IPv{ip_address(cluster.address).version}, but group is IPv{group.version}",
            _group_for(cluster.address),
        )
    for peer in cluster.unicast_peers:
        address = parse_place(peer, 0)[0]
        if ip_address(address).version != group.version:
            yield Contradiction(
                (("cluster", "unicast_peers"), ("cluster", "group")),
                f"{peer} is IPv{ip_address(address).version}, but group is IPv{group.version}",
                _group_for(address),
            )
            break


def _group_for(address: str) -> str:
    example = "[ff02::2525]:5025" if ":" in address else "239.255.25.25:5025"
    return f"set group to {example}, for example"


def _groups(config: Config) -> Iterator[Contradiction]:
    for name, group in config.virtual.items():
        title = _title(name)
        if config.cluster.key_file is None:
            yield Contradiction(
                ((title, ""), ("cluster", "key_file")),
                "needs a key_file in [cluster]: without it no other node is known",
                "mailsecure cluster keygen writes one",
            )
        if not group.interface:
            yield Contradiction(
                ((title, "interface"), ("cluster", "interface")),
                "is set neither here nor in [cluster]",
                "for example eth0",
            )
        if not group.addresses:
            yield Contradiction(((title, "addresses"),), "is empty: what is the Master to hold?")
        yield from _rules(title, group)


def _rules(title: str, group: Virtual) -> Iterator[Contradiction]:
    if group.preempt_delay and not group.preempt:
        yield Contradiction(
            ((title, "preempt_delay"), (title, "preempt")), "is of no use with preempt = no"
        )
    if group.priority == _OWNER and group.start_as is StartAs.BACKUP:
        yield Contradiction(
            ((title, "start_as"), (title, "priority")),
            "is backup, but priority 255 starts as Master (RFC 9568 §6.4.1)",
            "take 254, or leave start_as out",
        )


def _shared(config: Config) -> Iterator[Contradiction]:
    """An address has one owner: one group, and no node for itself."""
    owner: dict[IPv4Address | IPv6Address, str] = {}
    for name, group in config.virtual.items():
        title = _title(name)
        for each in group.addresses:
            first = owner.setdefault(each.ip, title)
            if first != title:
                yield Contradiction(
                    ((title, "addresses"), (first, "addresses")),
                    f"{each.ip} is in [{first}] already",
                )
            if str(each.ip) == config.cluster.address:
                yield Contradiction(
                    ((title, "addresses"), ("cluster", "address")),
                    f"{each.ip} is this node's own address in [cluster]",
                    "clients get an address of their own, which no node has for itself",
                )
