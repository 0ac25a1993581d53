"""Our balancer alone, to be measured: ``python -m benchmarks.spliced HOST PORT SINK_PORT SINK...``.

The door, the picker and the splicer on the reactor that the daemon runs on, with the
collector tamed as there.  No header goes to the backends: they are sinks that know none,
and the balancers beside which it is measured send none either.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet import reactor

from mailsecure.balancer.accepting import Door
from mailsecure.balancer.picker import Picker
from mailsecure.balancer.session import Session
from mailsecure.balancer.splice import Address, Patience, Splicer
from mailsecure.balancer.values import Ending, Failing
from mailsecure.daemon.clock import use_monotonic_time
from mailsecure.daemon.collector import tame
from mailsecure.daemon.privileges import raise_descriptor_limit


class Director:
    """Sends each client to the next backend."""

    def __init__(self, splicer: Splicer, backends: list[Address]) -> None:
        self.splicer = splicer
        self.backends = {str(number): each for number, each in enumerate(backends)}
        self.picker = Picker()
        for name in self.backends:
            self.picker.join(name, 100, splicer.now)

    def arrived(self, client: int, address: tuple[Any, ...], here: tuple[Any, ...]) -> None:
        name = self.picker.pick(self.splicer.now)
        assert name is not None
        self.splicer.splice(client, self.backends[name], b"", self, name)

    def opened(self, session: Session) -> None:
        pass

    def failed(self, session: Session, client: int, why: Failing) -> None:
        socket.close(client)
        print("failed:", why.value, flush=True)

    def ended(self, session: Session, why: Ending) -> None:
        self.picker.closed(str(session.tag))


def main() -> None:
    host, port, sink_port, *sinks = sys.argv[1:]
    use_monotonic_time(reactor)
    raise_descriptor_limit()
    wire = socket.create_server((host, int(port)), backlog=4096)
    wire.setblocking(False)
    splicer = Splicer(reactor, reactor, Patience())
    splicer.start()
    director = Director(splicer, [(socket.AF_INET, (sink, int(sink_port))) for sink in sinks])
    Door(wire, splicer, reactor, director.arrived).open()
    tame()
    reactor.run()


if __name__ == "__main__":
    main()
