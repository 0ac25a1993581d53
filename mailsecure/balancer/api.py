"""What the load balancer needs of others.

The gateway's side is :class:`mailsecure.entrance.Front`; this is the cluster's, which
:class:`mailsecure.cluster.service.ClusterService` has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..cluster.values import Backend
from ..proxyproto.sealing import Sealer

__all__ = ["Nodes"]


class Nodes(Protocol):
    """The nodes of the cluster, as those that could have sessions."""

    @property
    def sealer(self) -> Sealer:
        """What makes our headers."""

    def backends(self) -> Sequence[Backend]:
        """Return all nodes as they are now, ourselves first."""

    def watch_backends(self, callback: Callable[[], None]) -> None:
        """Call when anything in :meth:`backends` changed but load and ``heard``."""

    def holds(self, address: str) -> bool:
        """Say whether ``address`` is a virtual one that is ours now."""
