"""How much of the reactor's thread one message costs on its way out.

Run a sink first, then this::

    smtp-sink -u nobody 127.0.0.1:2626 1000 &
    python -m benchmarks.sending 2626 20000 1024

The arguments are the sink's port, the number of messages and their octets.  Twenty messages
are under way at a time, as the scheduler would have it: one Deferred a message.  A fourth
argument, any, adds a profile.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery.transports import make_transport
from tests.delivery.support import message, settings, world

CONCURRENCY = 20


async def measure(port: int, total: int, octets: int) -> None:
    """Send, and say what it cost."""
    transport = make_transport(
        world(reactor),
        settings(concurrency=CONCURRENCY),
        "bench.test",
        Route(RouteKind.SMTP, "127.0.0.1", port),
        lambda name: False,
    )
    mail = message(
        "a@example.com", content=b"A: b\r\n\r\n" + (b"x" * 70 + b"\r\n") * (octets // 72)
    )
    left = iter(range(total))

    async def worker() -> None:
        for _ in left:
            (outcome,) = await Deferred.fromCoroutine(transport.deliver(mail))
            assert outcome.reply.positive, outcome

    cpu, wall = time.process_time(), time.perf_counter()
    work = [Deferred.fromCoroutine(worker()) for _ in range(CONCURRENCY)]
    await DeferredList(work, fireOnOneErrback=True)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(
        f"{total} messages of {octets} octets: {cpu / total * 1e6:.0f} us CPU each, "
        f"{total / wall:.0f} a second"
    )
    await transport.close()


def main() -> None:
    """Measure as the command line says."""
    port, total, octets = map(int, sys.argv[1:4])

    def begin() -> None:
        work = Deferred.fromCoroutine(measure(port, total, octets))
        work.addErrback(lambda failure: failure.printTraceback())
        work.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    if sys.argv[4:]:
        profile = cProfile.Profile()
        profile.runcall(reactor.run)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    else:
        reactor.run()


if __name__ == "__main__":
    main()
