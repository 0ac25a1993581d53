"""Nodes that gossip without links: what one says the other hears, as long as it reads."""

from __future__ import annotations

import json
from typing import Any

from mailsecure.cluster.sharing import Sharing


class Talker:
    """One node's end of the lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.peers: dict[str, Talker] = {}
        self.reads = True
        self.said: list[dict[str, Any]] = []
        self.sharing = Sharing(self._send)

    def _send(self, node: str, message: dict[str, Any]) -> bool:
        peer = self.peers.get(node)
        if peer is None or not peer.reads:
            return False
        # As over a link, which takes so much in one frame.
        text = json.dumps(message, separators=(",", ":"), allow_nan=False)
        assert len(text) < 65_000, f"a frame of {len(text)} octets"
        self.said.append(message["body"])
        peer.sharing.heard(self.name, json.loads(text))
        return True

    def link(self, other: Talker) -> None:
        """Join two nodes."""
        for one, two in ((self, other), (other, self)):
            one.peers[two.name] = two
            one.sharing.linked(two.name)

    def part(self, other: Talker) -> None:
        """Part them."""
        for one, two in ((self, other), (other, self)):
            del one.peers[two.name]
            one.sharing.unlinked(two.name)
