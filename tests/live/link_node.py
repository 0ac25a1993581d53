"""A process that does nothing but keep links: what ``test_links`` kills and stops.

``python link_node.py NAME ADDRESS PORT PEER=ADDRESS:PORT…`` says on standard output, a line
each, with the monotonic time at which it happened: ``up NODE``, ``down NODE REASON``, ``gone
NODE``, ``left NODE``.  SIGUSR1 resets all its links (SO_LINGER 0); SIGTERM stops it in good
order.  With HEIR set in the environment a child of it keeps the listening socket for a few
seconds, and nothing else, whatever becomes of it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from typing import Any, cast

from twisted.internet import reactor as the_reactor

from mailsecure.background import Periodic
from mailsecure.cluster.keys import Key, KeyRing
from mailsecure.cluster.links import Links
from mailsecure.daemon.clock import use_monotonic_time
from mailsecure.world import Resolver, World

reactor = cast(Any, the_reactor)
RING = KeyRing((Key(b"a key for tests, and no secret  "),))
LOOK = 0.005
HEIR_LIVES = 5


def say(*words: str) -> None:
    """Write a line."""
    print(f"{time.monotonic():.6f}", *words, flush=True)


class Node:
    """One node and what it saw last."""

    def __init__(self, name: str, address: str, port: int) -> None:
        world = World(reactor, reactor, time.time, random.SystemRandom(), cast(Resolver, None))
        self.links = Links(
            world,
            name,
            RING,
            address,
            port,
            lambda node: say("gone", node),
            lambda node: say("left", node),
        )
        self._up: set[str] = set()

    def look(self) -> None:
        """Say which links came and went."""
        states = self.links.snapshot()
        up = {node for node, state in states.items() if state.up}
        for node in up - self._up:
            say("up", node)
        for node in self._up - up:
            say("down", node, states[node].reason if node in states else "")
        self._up = up

    def reset(self) -> None:
        """Reset all links, as a forger would."""
        for peer in self.links._peers.values():
            if peer.link is not None:
                # Not Link.drop: neither end shall know whose doing it was.
                cast(Any, peer.link.transport).abortConnection()


def leave_heir(listening: int) -> None:
    """Fork a child that has only the socket ``listening``."""
    if os.fork() == 0:
        signal.alarm(HEIR_LIVES)
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor != listening:
                with suppress(OSError):
                    os.close(descriptor)
        signal.pause()


def main(name: str, address: str, port: str, *peers: str) -> None:
    """Run until SIGTERM."""
    use_monotonic_time(reactor)
    node = Node(name, address, int(port))
    places = {}
    for each in peers:
        peer, _, place = each.partition("=")
        host, _, number = place.rpartition(":")
        places[peer] = (host, int(number))

    def bound(_: None) -> None:
        Periodic(reactor, LOOK, "the look", node.look).start()
        if os.environ.get("HEIR"):
            leave_heir(node.links._port.fileno())
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(node.reset))
        node.links.wanted(places)
        say("bound")

    reactor.callWhenRunning(
        lambda: node.links.bind().addCallbacks(bound, lambda failure: say(str(failure.value)))
    )
    reactor.addSystemEventTrigger("before", "shutdown", node.links.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
