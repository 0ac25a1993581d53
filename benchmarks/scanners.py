"""The nodes behind our director: ``python -m benchmarks.scanners KEY_FILE PORT ADDRESS...``.

For each address a node that says hello, keeps links, and names PORT as the place where it
takes sessions: the cluster's own service, as in the daemon, and nothing else.  What
listens there is a sink (:mod:`.sinks`), so that as little as can be is behind the
balancer that is measured.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any, cast

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner, textFileLogObserver

from mailsecure.cluster.service import ClusterParts, ClusterService
from mailsecure.cluster.values import Fitness
from mailsecure.config.load import parse_config
from mailsecure.daemon.clock import use_monotonic_time
from mailsecure.testing.kernel import MemoryKernel
from mailsecure.testing.resolver import FakeResolver
from mailsecure.world import World

from .balancers import CLUSTER, DIRECTOR

reactor = cast(Any, the_reactor)


def node(number: int, address: str, port: str, key_file: str) -> ClusterService:
    """Make one node."""
    ini = (
        f"[node]\nname = scanner{number}\n"
        f"[cluster]\nkey_file = {key_file}\naddress = {address}\nrole = scanner\n"
        f"unicast_peers = {DIRECTOR}\npeer_listen = {port}\n{CLUSTER}"
    )
    kernel = MemoryKernel(reactor)
    kernel.add_interface("eth0", f"{address}/24")
    world = World(reactor, reactor, time.time, random.SystemRandom(), FakeResolver())
    parts = ClusterParts(world, kernel, lambda: Fitness.FIT, lambda: 0, lambda: int(port))
    return ClusterService(parts, parse_config(ini, "scanner.ini"))


async def start(services: list[ClusterService]) -> None:
    """Say hello."""
    for service in services:
        await service.bind()
        service.startService()


def main() -> None:
    """Run them."""
    key_file, port, *addresses = sys.argv[1:]
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    use_monotonic_time(reactor)
    services = [node(number, each, port, key_file) for number, each in enumerate(addresses, 1)]
    Deferred.fromCoroutine(start(services)).addErrback(lambda failure: print(failure, flush=True))
    reactor.run()


if __name__ == "__main__":
    main()
